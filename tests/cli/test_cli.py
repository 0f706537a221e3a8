"""The command line as a user meets it, in this process (and in a fresh one where that matters)."""

import errno
import json
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer
from PIL import Image

from quickstudy.cli import app, main
from quickstudy.evaluation import Evaluation
from quickstudy.experiments.heeded import HEEDED
from quickstudy.experiments.run import Machine
from quickstudy.experiments.spec import Experiment, LearnerName, LearnerSpec
from quickstudy.learners import Ensemble

Run = Callable[..., tuple[int, str, str]]
SMALL = ["--data", "alphabets", "--classes", "30", "--way", "3", "--backbone", "mlp", "--quiet"]
SMALL += ["--validation-tasks", "5"]
SINUSOID = ["--data", "sinusoid", "--inner-lr", "0.01", "--quiet"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the command line in ``tmp_path``: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["quickstudy", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capfd.readouterr()
        return int(exit_.value.code or 0), out, err

    return call


def folder_of_images(root: Path, classes: int = 12, examples: int = 20) -> Path:
    rng = np.random.default_rng(0)
    for c in range(classes):
        (root / f"class{c:02}").mkdir(parents=True)
        mean = rng.integers(0, 255, (28, 28))
        for e in range(examples):
            pixels = np.clip(mean + rng.normal(0, 40, (28, 28)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / f"class{c:02}" / f"{e}.png")
    return root


def test_train_evaluate_compare(run: Run, tmp_path: Path) -> None:
    for seed in ("0", "1"):
        status, _, err = run(
            *("train", "protonet", *SMALL, "--steps", "4", "--seed", seed, "--out", f"r{seed}")
        )
        assert status == 0, err
    assert Experiment.load(tmp_path / "r1").seed == 1

    options = ("--tasks", "20", "--query", "5", "--freeze", "tasks.qs", "--json")
    status, out, _ = run("evaluate", "r0", *options)
    assert status == 0
    first = json.loads(out)
    assert first["tasks"] == len(first["scores"]) == 20
    assert first["mean"] == pytest.approx(sum(first["scores"]) / 20)
    assert json.loads((tmp_path / first["file"]).read_text())["scores"] == first["scores"]

    for target in ("r1", "nearest"):
        options = ("--tasks", "20", "--frozen", "tasks.qs", "--out", f"{target}.json")
        status, out, err = run("evaluate", target, *options)
        assert status == 0, err
        assert "±" in out
    status, out, _ = run("compare", first["file"], "r1.json", "nearest.json", "--json")
    assert status == 0
    rows = json.loads(out)
    assert rows[0]["difference"] == 0
    assert rows[1]["difference"] == pytest.approx(rows[1]["mean"] - rows[0]["mean"])

    status, out, err = run("compare", "r0", "r1", "nearest", "--tasks", "10", "--query", "5")
    assert status == 0, err
    assert out.count("±") >= 5


def test_own_images(run: Run, tmp_path: Path) -> None:
    folder_of_images(tmp_path / "mine")
    where = ("--data", "folder", "--root", "mine")
    options = ("--way", "3", "--query", "5", "--steps", "30", "--downsample", "stride")
    status, _, err = run("train", "protonet", *where, *options, "--out", "r", "--quiet")
    assert status == 0, err
    status, out, _ = run("evaluate", "r", "--way", "2", "--query", "5", "--tasks", "30", "--json")
    assert status == 0
    assert json.loads(out)["mean"] > 0.9
    status, out, _ = run("data", "preview", "folder", "--root", "mine")
    assert status == 0
    assert Image.open(tmp_path / out.strip()).size[0] > 200


def test_few_classes_are_validated_on_as_they_are(run: Run, tmp_path: Path) -> None:
    """Of 8 classes, 1 is for validation, of 12 it is 2: neither is enough for 3-way tasks."""
    how = ("--way", "3", "--query", "2", "--steps", "2", "--size", "16", "--validation-tasks", "2")
    for classes, said in ((8, "no validation"), (12, "validating on 2-way tasks")):
        folder_of_images(tmp_path / str(classes), classes, 5)
        where = ("--data", "folder", "--root", str(classes), "--out", f"r{classes}")
        status, _, err = run("train", "maml", *where, *how)
        assert status == 0, err
        assert said in err
        assert ("best validation" in err) is (classes == 12)
        assert "rotations" not in err
    turned = ("--rotations", "--one-turn", "--out", "turned")
    status, _, err = run("train", "protonet", "--data", "folder", "--root", "12", *how, *turned)
    assert status == 0, err
    assert "validating on 2-way tasks" in err
    status, _, err = run("train", "maml", *where, *how, "--way", "9", "--out", "r")
    assert status == 2
    assert "tasks of the train classes: way=9 classes a task, but the dataset has only 8" in err


def test_data_commands(run: Run, tmp_path: Path) -> None:
    status, out, _ = run("data", "list")
    assert status == 0
    assert "omniglot" in out
    status, out, _ = run("data", "check", "digits", "--split", "random")
    assert status == 0
    assert "split" in out
    folder_of_images(tmp_path / "mine", 10, 3)
    for flag, classes in (((), 6), (("--rotations",), 24)):
        status, out, _ = run("data", "check", "folder", "--root", "mine", *flag)
        assert status == 0
        assert f"train {classes:10} classes" in out
    status, _, err = run("data", "fetch", "digits")
    assert status == 2
    assert "needs no download" in err


def test_both_batch_norm_columns(run: Run) -> None:
    data = ("--data", "alphabets", "--classes", "30", "--way", "3", "--quiet")
    options = (
        "--validation-tasks",
        "2",
        "--downsample",
        "stride",
        "--tasks",
        "2",
        "--query",
        "2",
        "--steps",
        "2",
    )
    assert run("train", "maml", *data, *options, "--out", "m")[0] == 0
    columns = []
    for policy in ("inductive", "transductive"):
        options = ("--batch-norm", policy, "--tasks", "5", "--inner-steps", "2", "--json")
        status, out, err = run("evaluate", "m", *options)
        assert status == 0, err
        columns.append(json.loads(out))
    assert [c["batch_norm"] for c in columns] == ["inductive", "transductive"]
    assert columns[0]["file"] != columns[1]["file"]


@pytest.mark.parametrize("name", get_args(LearnerName))
def test_every_learner_trains_and_evaluates(run: Run, tmp_path: Path, name: str) -> None:
    """By its name alone; the real Omniglot is in docs/experiments.md."""
    tables = name.startswith("table")
    data = ["--data", "tables"] if tables else ["--data", "alphabets", "--classes", "30"]
    small = [*data, "--backbone", "mlp", "--quiet"]
    status, _, err = run("train", name, *small, "--way", "3", "--steps", "2", "--out", "r")
    assert status == 0, err
    assert (tmp_path / "r" / "final.safetensors").exists()
    status, out, err = run("evaluate", "r", "--tasks", "3", "--shot", "2")
    assert status == 0, err
    assert out.startswith(f"{name}: ")
    status, _, err = run("train", "--resume", "r", "--quiet")
    assert status == 0, err


REGRESSION = ("maml", "reptile", "meta-sgd", "lstm", "transformer", "cnp", "anil", "r2d2", "mann")


@pytest.mark.parametrize("name", REGRESSION)
def test_sinusoids(run: Run, name: str) -> None:
    rate = ["--inner-lr", "0.01"] if name in ("maml", "meta-sgd", "reptile") else []
    status, _, err = run(
        *("train", name, "--data", "sinusoid", "--steps", "3", "--quiet", "--out", "r", *rate)
    )
    assert status == 0, err
    status, out, err = run("evaluate", "r", "--tasks", "4", "--shot", "5", "--json")
    assert status == 0, err
    assert json.loads(out)["metric"] == "mean squared error"


def test_learner_options_reach_the_learner(run: Run, tmp_path: Path) -> None:
    options = ("--no-per-step-scales", "--inner-steps=2", "--inner-lr", "0.05")
    status, _, err = run("train", "maml++", *SMALL, "--steps", "1", "--out", "r", *options)
    assert status == 0, err
    given = Experiment.load(tmp_path / "r").options
    assert given == {"per_step_scales": False, "inner_steps": 2, "inner_lr": 0.05}
    learner = Experiment.load(tmp_path / "r").build_learner()
    assert learner.inner_steps == 2
    status, _, err = run("train", "matching", *SMALL, "--steps", "1", "--query-encoder", "-o", "m")
    assert status == 0, err
    assert Experiment.load(tmp_path / "m").build_learner().query_encoder is not None


def test_every_field_of_a_run_is_a_flag() -> None:
    """But for the learner's options, which are flags of their own, and what a backbone decides."""
    train = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    flags = {parameter.name: parameter for parameter in train.params}
    assert {*Experiment.model_fields} - {*flags} == {"options", "backbone_config"}
    for name, field in Experiment.model_fields.items():
        if name not in ("learner", "options", "backbone_config"):
            assert f"--{name.replace('_', '-')}" in flags[name].opts
            assert (flags[name].help, flags[name].default) == (field.description, field.default)


def test_what_is_not_given_is_what_suits(run: Run, tmp_path: Path) -> None:
    """A default that was typed is kept, one that was not gives way."""
    small = ["--data", "digits", "--backbone", "mlp", "--quiet", "--steps", "1"]
    status, _, err = run("train", "reptile", *small, "--shot", "1", "--out", "r")
    assert status == 0, err
    own = Experiment.load(tmp_path / "r")
    assert (own.optimizer, own.lr, own.shot, own.split) == ("sgd", 1.0, 1, "random")


def test_list_of_learners(run: Run) -> None:
    status, out, _ = run("learners")
    assert status == 0
    for name in get_args(LearnerName):
        assert name in out
    assert "--inner-lr 0.4" in out
    assert "--inner-optimizer adam" in out
    assert "--no-per-step-scales" in out


def test_compare_shows_the_claim(run: Run, tmp_path: Path) -> None:
    """By examples and by steps, against learning from scratch, with a two-class example."""
    for name, more in (("maml", ["--inner-lr", "0.1"]), ("protonet", [])):
        status, _, err = run("train", name, *SMALL, "--steps", "3", "--out", f"runs/{name}", *more)
        assert status == 0, err
    options = ("--shots", "1,3", "--query", "4", "--tasks", "6", "--inner-steps", "0,2", "--json")
    status, out, err = run("compare", "runs/maml", "runs/protonet", "nearest", *options)
    assert status == 0, err
    rows = {row["learner"]: row for row in json.loads(out)}
    assert list(rows) == ["scratch", "maml", "protonet", "nearest"]
    for row in rows.values():
        assert sorted(row["by_shot"]) == ["1", "3"]
        assert all(e["tasks"] == 6 and e["ci95"] >= 0 for e in row["by_shot"].values())
        assert 0 <= row["example"] <= 1
        expected = row["by_shot"]["1"]["mean"] - rows["scratch"]["by_shot"]["1"]["mean"]
        assert row["against_scratch"]["1"]["difference"] == pytest.approx(expected)
    assert sorted(rows["maml"]["by_step"]) == ["0", "2"]
    assert rows["protonet"]["by_step"] == {}
    for picture in ("examples", "steps", "two-classes"):
        assert (tmp_path / "comparison" / f"{picture}.png").stat().st_size > 5000
    status, out, err = run("compare", "runs/maml", *options[:-1])
    assert status == 0, err
    assert "two classes never seen" in out
    assert "against scratch" in out


def test_compare_sinusoids(run: Run, tmp_path: Path) -> None:
    for name in ("maml", "cnp"):
        options = ["--inner-lr", "0.01"] if name == "maml" else []
        status, _, err = run(
            *("train", name, "--data", "sinusoid", "--steps", "2", "-o", name, "--quiet"), *options
        )
        assert status == 0, err
    status, out, err = run("compare", "maml", "cnp", "--tasks", "5", "--inner-steps", "0,1")
    assert status == 0, err
    assert "mean squared error" in out
    assert (tmp_path / "comparison" / "adaptation.png").exists()


def test_nearest_in_a_learned_space_and_instances(run: Run) -> None:
    status, _, err = run("train", "soft-nearest", *SMALL, "--steps", "2", "--out", "r")
    assert status == 0, err
    status, out, err = run("evaluate", "r", "--nearest", "3", "--tasks", "3", "--json")
    assert status == 0, err
    result = json.loads(out)
    assert result["about"]["nearest"] == 3
    assert result["file"] == "r/evaluations/test-3-1-nearest3-plain.json"
    status, _, err = run("train", "mann", *SMALL, "--steps", "1", "--protocol", "offset", "-o", "m")
    assert status == 0, err
    status, out, err = run(
        *("evaluate", "m", "--by-instance", "--shot", "19", "--tasks", "5", "--json")
    )
    assert status == 0, err
    instances = json.loads(out)
    assert list(instances) == [str(j) for j in range(1, 20)]
    assert len(instances["2"]["scores"]) == 5
    status, _, err = run("evaluate", "r", "--by-instance", "--tasks", "2")
    assert status == 2
    assert "does not read sequences" in err
    status, _, err = run("evaluate", "r", "--inner-steps", "2")
    assert status == 2
    assert "takes no inner steps" in err
    status, _, err = run("evaluate", "r", "--refine", "2")
    assert status == 2
    assert "SoftNearestNeighbour takes no refine" in err
    status, _, err = run("train", "protonet", *SMALL, "--steps", "2", "--out", "p")
    assert status == 0, err
    plain, refined = (
        json.loads(run("evaluate", "p", "--tasks", "9", "--json", *more)[1])
        for more in ((), ("--refine", "5"))
    )
    assert refined["about"]["refine"] == 5
    assert (plain["batch_norm"], refined["batch_norm"]) == (None, None)
    assert refined["file"].endswith("test-3-1-refine5-plain.json")
    status, out, err = run("evaluate", "p", "--tasks", "9", "--refine", "5")
    assert status == 0, err
    assert "(9 tasks, queries together)" in out
    status, _, err = run("evaluate", "p", "--tasks", "9", "--refine", "-3")
    assert status == 2
    assert "refine is -3; expected a whole number, at least 0" in err
    assert plain["scores"] != refined["scores"]
    both = ("evaluate", "p", "--with", "r", "--tasks", "9")
    asked = json.loads(run(*both, "--refine", "5", "--balanced", "--json")[1])
    assert asked["about"]["with"] == ["r"]
    assert "/test-3-1-refine5-balanced-plain-with-r-" in asked["file"]
    for more in ("--nearest", "2"), ("--by-instance",):
        status, _, err = run(*both, *more)
        assert (status, "are of one learner: leave out --with" in err) == (2, True)
    digits = ("nearest", "--data", "digits", "--way", "2", "--no-rotations")
    for tasks, of, warned in (("same", ("p",), False), ("other", digits, True)):
        status, _, err = run("evaluate", *of, "--tasks", "3", "--freeze", tasks)
        assert status == 0, err
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert run("evaluate", "p", "--with", "r", "--tasks", "3", "--frozen", tasks)[0] == 0
        seen = [w for w in said if "which may have seen their classes" in str(w.message)]
        assert len(seen) == 2 * warned
    status, _, err = run("evaluate", "p", "--by-instance", "--balanced")
    assert (status, "no queries to be --balanced" in err) == (2, True)
    spec = LearnerSpec(learner="protonet", backbone="mlp")
    Ensemble([spec.build(1), spec.build(2)]).save_pretrained("both")
    with pytest.warns(UserWarning, match="nothing says on which classes both was trained"):
        status, out, err = run(
            *("evaluate", "both", "--data", "alphabets", "--way", "3", "--tasks", "3")
        )
    assert status == 0, err
    assert out.startswith("both: ")
    with pytest.warns(UserWarning, match="nothing says on which classes both was trained"):
        assert run("evaluate", "p", "--with", "both", "--tasks", "3")[0] == 0
    status, out, err = run("compare", refined["file"], asked["file"])
    assert status == 0, err
    assert re.search("queries together.*queries together,.*balanced", out, re.S), out
    assert asked["scores"] != refined["scores"]
    status, out, err = run(*both, "--balanced")
    assert status == 0, err
    assert out.startswith("p + r: ")
    assert "(9 tasks, queries together, balanced)" in out
    status, _, err = run("evaluate", "p", "--with", "nobody")
    assert status == 2
    assert "nobody is no run folder" in err
    status, _, err = run("evaluate", "p", "--with", "tables")
    assert status == 2
    assert "tables does not fit: inputs is 'tables', and here 'images'" in err


UNHEEDED = {
    "root": ("--root", ".", "--data", "alphabets"),
    "split": ("--split", "maml", "--data", "alphabets"),
    "way": ("--way", "9", "--data", "sinusoid"),
    "first_way": ("--first-way", "3", "--data", "sinusoid"),
    "most_shot": ("--most-shot", "20", "--data", "sinusoid"),
    "size": ("--size", "32", "--data", "sinusoid"),
    "channels": ("--channels", "3", "--data", "sinusoid"),
    "backbone": ("--backbone", "resnet12", "--data", "sinusoid"),
    "filters": ("--filters", "32", "--data", "digits", "--backbone", "mlp"),
    "downsample": ("--downsample", "stride", "--data", "digits", "--backbone", "resnet12"),
    "norm_scale": ("--no-norm-scale", "--data", "digits", "--backbone", "mlp"),
    "fit_ink": ("--fit-ink", "--data", "sinusoid"),
    "batch_norm": ("--batch-norm", "transductive", "--data", "sinusoid"),
    "validation_groups": ("--validation-groups", "2", "--data", "digits"),
    "one_turn": ("--one-turn", "--data", "digits", "--no-rotations"),
    "augment": ("--augment", "1", "--data", "sinusoid"),
    "pens": ("--pens", "0.5", "--data", "sinusoid"),
    "within_group": ("--within-group", "--data", "sinusoid"),
    "invert": ("--invert", "--data", "digits"),
    "resample": ("--resample", "nearest", "--data", "digits"),
    "invented": ("--invented", "9", "--data", "digits"),
    "classes": ("--classes", "9", "--data", "digits"),
    "skip_corrupt": ("--skip-corrupt", "--data", "digits"),
    "frequency_spread": ("--frequency-spread", "0.1", "--data", "digits"),
    "columns": ("--columns", "9", "--data", "digits"),
    "numbers": ("--numbers", "0.5", "--data", "digits"),
    "halve_every": ("--halve-every", "9", "--data", "digits"),
}


@pytest.mark.parametrize("name", sorted(HEEDED))
def test_an_option_that_would_do_nothing_is_refused(run: Run, name: str) -> None:
    status, _, err = run("train", "maml", *UNHEEDED[name])
    assert status == 2
    assert f"--{name.replace('_', '-')} is for {HEEDED[name][0]}, and would do nothing here" in err


def test_an_option_that_asks_for_what_is_so_anyway_is_not_refused(run: Run) -> None:
    more = ("--validation-groups", "0", "--size", "28", "--no-invert", "--split", "published")
    status, _, err = run("train", "maml", *SINUSOID, "--steps", "1", *more, "--out", "r")
    assert status == 0, err


def test_a_folder_that_is_taken_is_refused_before_data_are_read(run: Run, tmp_path: Path) -> None:
    status, _, err = run("train", "protonet", *SMALL, "--steps", "1", "--out", "r")
    assert status == 0, err
    (tmp_path / "empty").mkdir()
    status, _, err = run("train", "protonet", "--data", "folder", "--root", "empty", "--out", "r")
    assert status == 2
    assert "r already holds a run" in err
    status, out, err = run("evaluate", "r", "--tasks", "1")
    assert status == 0, err
    assert "(1 task" in out
    assert "±" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train",), "name a learner to train"),
        (("train", "protont"), "protont"),
        (
            ("train", "soft-nearest", *SMALL, "--inner-lr", "1"),
            "has no option --inner-lr; it has: none",
        ),
        (("train", "reptile", *SMALL, "--inner-steps"), "--inner-steps needs a value"),
        (("train", "reptile", *SMALL, "--inner-steps", "x"), "'x'; expected an integer"),
        (("train", "mann", *SMALL, "--protocol", "x"), "expected one of support, offset"),
        (("train", "lstm", *SMALL, "--outputs", "3"), "no option --outputs"),
        (("train", "protonet", "--data", "sinusoid"), "cannot learn a regression task"),
        (("train", "baseline", "--data", "sinusoid"), "cannot learn a regression task"),
        (("data", "check", "sinusoid"), "no classes to split"),
        (("train", "protonet", "--way", "1"), "way is 1"),
        (
            ("train", "maml", "--data", "sinusoid", "--patience", "2"),
            "needs two classes or more to validate on",
        ),
        (("train", "protonet", *SMALL, "--patience", "0"), "patience is 0"),
        (("train", "protonet", "--data", "folder"), "needs a root"),
        (("train", "protonet", "--root", "nowhere"), "nowhere"),
        (("train", "maml", *SMALL, "--inner-lr", "-1"), "inner_lr is -1.0"),
        (("train", "protonet", *SMALL, "--schedule", "slow"), "slow"),
        (("train", "nearest", "--data", "digits", "--way", "99"), "way=99 classes a task"),
        (("train", "--resume", "nowhere"), "not a run folder"),
        (("train", "--resume", "r", "--steps", "9", "--out", "b"), "leave out --steps, --out"),
        (("train", "protonet", *SMALL, "--validation-tasks", "0"), "validation_tasks is 0"),
        (("evaluate", "nowhere"), "nowhere is no run folder"),
        (("evaluate", "nearest", "--data", "digits", "--tasks", "0"), "n_tasks is 0"),
        (("evaluate", "nearest", "--frozen", "nowhere.qs"), "there is no file nowhere.qs"),
        (("compare", "nearest"), "at least one run"),
        (("compare", "a.json", "b.json"), "a.json"),
        (("data", "check", "folder", "--root", "nowhere"), "nowhere"),
        (("evaluat",), "evaluat"),
    ],
)
def test_bad_input_is_one_clear_line(run: Run, arguments: tuple[str, ...], words: str) -> None:
    status, out, err = run(*arguments)
    assert status == 2
    assert words in err
    assert "Traceback" not in err + out


def test_patience_is_kept_with_the_run(run: Run, tmp_path: Path) -> None:
    still = ("--optimizer", "sgd", "--lr", "1e-30", "--validate-every", "2", "--patience", "2")
    train = ("train", "protonet", *SMALL, "--steps", "50", *still)
    status, _, err = run(*train, "--out", "r")
    assert status == 0, err
    assert re.match(r"(.*\n)*6 steps in .*; ended early, by patience\n", err)
    final = (tmp_path / "r" / "final.safetensors").read_bytes()
    status, _, err = run("train", "--resume", "r")
    assert status == 0, err
    assert "nothing more to do: this run ended at step 6 of 50" in " ".join(err.split())
    assert (tmp_path / "r" / "final.safetensors").read_bytes() == final

    file = tmp_path / "r" / "run.json"
    about = json.loads(file.read_text())
    assert about["machine_options"].pop("patience") == 2
    file.write_text(json.dumps(about))
    assert Machine.load(tmp_path / "r").patience is None


def test_debug_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["quickstudy", "evaluate", "nowhere", "--debug"])
    with pytest.raises(FileNotFoundError):
        main()


def test_help_is_light() -> None:
    """Neither the package nor its help may import torch (that alone takes seconds)."""
    for code in (
        "import quickstudy",
        *(
            f"import sys; sys.argv = ['quickstudy', *{words}]\n"
            "from quickstudy.cli import main\n"
            "try: main()\nexcept SystemExit: pass"
            for words in (["--help"], ["train", "--help"], ["evaluate", "--help"])
        ),
    ):
        check = f"{code}\nimport sys; heavy = {{'torch', 'numpy', 'sklearn'}} & set(sys.modules)\n"
        check += "assert not heavy, heavy"
        subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, start: Any) -> None:
    words = ("train", "protonet", *SMALL, "--size", "8", "--steps", "100000", "--out", "r")
    process = start("quickstudy", *words, "--checkpoint-every", "10", cwd=tmp_path)
    while not (tmp_path / "r" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert "go on with: quickstudy train --resume r" in process.err
    assert "Traceback" not in process.err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("train", "protonett"), "did you mean protonet?"),
        (("train", "protonet", "--data", "omniglto"), "did you mean omniglot?"),
        (("train", "protonet", "--dataa", "x"), "did you mean --data?"),
        (("train", "maml", "--inner-steeps", "3"), "did you mean --inner-steps?"),
    ],
)
def test_what_was_meant_is_asked(run: Run, words: tuple[str, ...], meant: str) -> None:
    code, _, err = run(*words)
    assert code == 2
    assert meant in err
    assert "Value error" not in err


def test_ctrl_c_in_an_import_is_a_stop(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As numpy reports it, which says that it is badly installed."""

    def interrupted(*_: object, **__: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as stop:
            raise ImportError("the C-extensions failed") from stop

    monkeypatch.setattr("quickstudy.cli.tables.learner_table", interrupted)
    code, _, err = run("learners")
    assert (code, err.strip()) == (130, "stopped")


def test_a_full_disk_says_how_to_go_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("quickstudy.checkpoint.os.fsync", full)
        status, _, err = run("train", "protonet", *SMALL, "--steps", "4", "--out", "r")
    assert status == 2
    assert re.search(r"No space left on device: '.*r/", err)
    assert "make room and go on with: quickstudy train --resume r" in err


def test_names_of_files_are_shown_as_they_are(run: Run) -> None:
    for name in ("a[x].json", "b [bold].json"):
        Evaluation((0.5, 1.0), batch_norm="\x1b]0;owned\x07").save(name)
    status, out, err = run("compare", "a[x].json", "b [bold].json")
    assert status == 0, err
    assert "[bold]" in out
    assert "\x1b]" not in out
