"""The command line as a user meets it, in this process (and in a fresh one where that matters)."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.cli import main
from quickstudy.experiment import Experiment

Run = Callable[..., tuple[int, str, str]]
SMALL = ["--data", "alphabets", "--classes", "30", "--way", "3", "--backbone", "mlp", "--quiet"]
SMALL += ["--validation-tasks", "5"]


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


def test_data_commands(run: Run) -> None:
    status, out, _ = run("data", "list")
    assert status == 0
    assert "omniglot" in out
    status, out, _ = run("data", "check", "digits", "--split", "random")
    assert status == 0
    assert "split" in out
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("train",), "name a learner to train"),
        (("train", "protont"), "protont"),
        (("train", "nearest", *SMALL), "nothing to train"),
        (("train", "protonet", "--way", "1"), "way is 1"),
        (("train", "protonet", "--data", "folder"), "needs a root"),
        (("train", "protonet", "--root", "nowhere"), "nowhere"),
        (("train", "maml", *SMALL, "--inner-lr", "-1"), "inner_lr is -1.0"),
        (("train", "protonet", *SMALL, "--schedule", "slow"), "slow"),
        (("train", "nearest", "--data", "digits", "--way", "99"), "way=99 classes a task"),
        (("train", "--resume", "nowhere"), "not a run folder"),
        (("evaluate", "nowhere"), "not a run folder"),
        (("evaluate", "nearest", "--data", "digits", "--tasks", "0"), "n_tasks is 0"),
        (("evaluate", "nearest", "--frozen", "nowhere.qs"), "there is no file nowhere.qs"),
        (("compare", "nearest"), "at least two"),
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


def test_debug_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["quickstudy", "evaluate", "nowhere", "--debug"])
    with pytest.raises(FileNotFoundError):
        main()


def test_help_is_light() -> None:
    """Neither the package nor its help may import torch (that alone takes seconds)."""
    for code in (
        "import quickstudy",
        "import sys; sys.argv = ['quickstudy', '--help']\n"
        "from quickstudy.cli import main\n"
        "try: main()\nexcept SystemExit: pass",
    ):
        check = f"{code}\nimport sys; heavy = {{'torch', 'numpy', 'sklearn'}} & set(sys.modules)\n"
        check += "assert not heavy, heavy"
        subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "quickstudy", "train", "protonet", *SMALL]
    process = subprocess.Popen(
        [*command, "--steps", "100000", "--checkpoint-every", "10", "--out", "r"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "r" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "go on with: quickstudy train --resume r" in err
    assert "Traceback" not in err
