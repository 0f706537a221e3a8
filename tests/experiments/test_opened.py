"""Run folders, weights and model files open from themselves, wherever they have been moved."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

import quickstudy
from quickstudy.checkpoint import load_state, map_tensors, save_state, save_weights, weights_about
from quickstudy.data import alphabets
from quickstudy.estimator import FewShotClassifier, FewShotRegressor
from quickstudy.experiments.recipe import load_recipe
from quickstudy.experiments.run import Machine, load_run, run_experiment
from quickstudy.experiments.spec import Experiment, LearnerName, LearnerSpec
from quickstudy.learner import MetaLearner
from quickstudy.nn import MLP

OPEN = """
import json
import sys
import numpy as np
import torch
import quickstudy

x = torch.from_numpy(np.load("x.npy"))
found = {}
for name in sys.argv[1:]:
    if name.endswith(".qs"):
        model = quickstudy.FewShotClassifier.load(name)
        found[name] = model.predict_proba(x.flatten(1).numpy()).tolist()
    else:
        learner = quickstudy.load(name)
        assert not learner.training
        with torch.no_grad():
            phi = learner.adapt(x[None, ::3], torch.arange(4)[None], 4)
            found[name] = learner.predict(phi, x[None])[0].tolist()
try:
    quickstudy.load("protonet-omniglot")
except FileNotFoundError:
    print(json.dumps(found))
"""


def images() -> tuple[Any, list[str]]:
    drawn = alphabets(4, 3)
    c, e = torch.meshgrid(torch.arange(4), torch.arange(3), indexing="ij")
    x = drawn.read(c.flatten(), e.flatten()).float().numpy() / 255
    return x, [f"symbol {int(i)}" for i in c.flatten()]


def trained(folder: Path, learner: Any, **more: Any) -> Path:
    own = Experiment(learner, **{"data": "alphabets", "classes": 30, "query": 2, "steps": 2} | more)
    machine = Machine(accelerator="cpu", validation_tasks=2)
    run_experiment(own, folder, machine, quiet=True)
    return folder


def answers(learner: MetaLearner, x: Any) -> list[Any]:
    x = torch.from_numpy(x)
    with torch.no_grad():
        phi = learner.eval().adapt(x[None, ::3], torch.arange(4)[None], 4)
        found: list[Any] = learner.predict(phi, x[None])[0].tolist()
    return found


def test_files_need_neither_the_packages_weights_nor_the_run_folder(tmp_path: Path) -> None:
    """In an empty folder, by a package without weights and cards, after the run was deleted."""
    x, y = images()
    moved = tmp_path / "moved"
    moved.mkdir()
    np.save(moved / "x.npy", x)
    run = trained(tmp_path / "run", "maml", options={"inner_lr": 0.1})
    expected = {}
    for name, head in {
        "shipped.qs": "protonet-omniglot",
        "run.qs": str(run),
        "weights.qs": str(run / "final.safetensors"),
        "ridge.qs": "ridge",
    }.items():
        model = FewShotClassifier(head).fit(x.reshape(12, -1), y)
        model.save(moved / name)
        expected[name] = model.predict_proba(x.reshape(12, -1)).tolist()
        again = FewShotClassifier.load(moved / name)
        again.partial_fit(x.reshape(12, -1), y).save(tmp_path / "again.qs")
        assert load_state(tmp_path / "again.qs")["described"] == again.described_
    here = Path(quickstudy.__file__).parent
    shutil.copy(here / "experiments/recipes/weights/matching-omniglot.safetensors", moved)
    expected["matching-omniglot.safetensors"] = answers(quickstudy.load("matching-omniglot"), x)
    for file in ("best", "final"):
        shutil.copy(run / f"{file}.safetensors", moved)
        expected[f"{file}.safetensors"] = answers(load_run(run, file)[1], x)  # type: ignore[arg-type]
    run.rename(moved / "elsewhere")
    expected["elsewhere"] = answers(load_run(moved / "elsewhere")[1], x)
    bare = shutil.ignore_patterns("weights", "cards", "__pycache__")
    shutil.copytree(here, tmp_path / "package" / "quickstudy", ignore=bare)
    found = subprocess.run(
        [sys.executable, "-c", OPEN, *expected],
        cwd=moved,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "package")},
        capture_output=True,
        text=True,
    )
    assert not found.returncode, found.stderr
    assert json.loads(found.stdout) == expected


def test_a_regressor_too(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "maml", data="sinusoid", options={"inner_lr": 0.01})
    line = np.linspace(-1, 1, 9)[:, None]
    model = FewShotRegressor(run).fit(line, line[:, 0] ** 2)
    model.save(tmp_path / "line.qs")
    shutil.rmtree(run)
    again = FewShotRegressor.load(tmp_path / "line.qs")
    assert np.array_equal(again.predict(line), model.predict(line))


def test_a_learner_that_counts_classes_needs_no_data(tmp_path: Path) -> None:
    """Not even to be built: their number is in the run folder and in its weights."""
    own = trained(tmp_path / "run", "baseline", way=5)
    run = json.loads((own / "run.json").read_text())
    assert run["experiment"]["options"] == run["learner"]["options"] == {"classes": 120}
    run["experiment"].update(data="folder", root=str(tmp_path / "gone"))
    (own / "run.json").write_text(json.dumps(run))
    by_folder, by_file = (quickstudy.load(own), quickstudy.load(own / "final.safetensors"))
    other = by_file.state_dict()
    assert all(torch.equal(v, other[k]) for k, v in by_folder.state_dict().items())


def test_files_of_before_are_read_as_before(tmp_path: Path) -> None:
    """Without a description, by the name in them; a folder in them is not followed."""
    x, y = images()
    flat = x.reshape(12, -1)
    run = trained(tmp_path / "run", "protonet")
    for head in ("protonet-omniglot", str(run), "centroid", None):
        model = FewShotClassifier(head).fit(flat, y)
        model.save(tmp_path / "m.qs")
        state = load_state(tmp_path / "m.qs")
        del state["described"]
        save_state(tmp_path / "m.qs", state)
        if head == str(run):
            with pytest.raises(ValueError, match="run', which it does not describe: give it as"):
                FewShotClassifier.load(tmp_path / "m.qs")
            again = FewShotClassifier.load(tmp_path / "m.qs", learner=quickstudy.load(run))
        else:
            again = FewShotClassifier.load(tmp_path / "m.qs")
        assert np.array_equal(again.predict_proba(flat), model.predict_proba(flat))
        if head == str(run):
            continue
        again.save(tmp_path / "m.qs")
        assert load_state(tmp_path / "m.qs")["described"] == model.described_


GREEDY = [
    {"learner": "protonet", "filters": 8192},
    {"learner": "protonet", "backbone": "mlp", "size": 2048, "channels": 3},
    {"learner": "lstm", "options": {"hidden": 100_000}},
    {"learner": "mann", "options": {"slots": 100_000, "width": 100_000}},
    {"learner": "maml", "way": 10_000, "filters": 4096},
    {"learner": "transformer", "options": {"width": 100_000, "layers": 100}},
    {"learner": "transformer", "options": {"layers": 10**9}},
    {"learner": "protonet", "size": 10**9},
    {"learner": "maml", "options": {"inner_steps": 10**12}},
]


@pytest.mark.parametrize("about", GREEDY, ids=str)
def test_a_description_takes_no_memory_that_the_file_does_not_fill(
    tmp_path: Path, about: dict[str, Any]
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, MLP(3, [4], 2), about=about)
    with pytest.raises(ValueError, match=r"has weights for 26|expected at most"):
        quickstudy.load(path)
    x, y = images()
    FewShotClassifier("centroid").fit(x.reshape(12, -1), y).save(tmp_path / "m.qs")
    state = load_state(tmp_path / "m.qs")
    state["described"] = about
    save_state(tmp_path / "m.qs", state)
    with pytest.raises(ValueError, match=r"has weights for 0|expected at most"):
        FewShotClassifier.load(tmp_path / "m.qs")


def test_every_learner_may_be_counted_before_it_is_built() -> None:
    for name in get_args(LearnerName):
        options = {"classes": 7} if name in ("baseline", "simpleshot") else {}
        spec = LearnerSpec(learner=name, options=options)
        count = sum(value.numel() for value in spec.build().state_dict().values())
        assert spec.build(at_most=count).described == spec
        if count:
            with pytest.raises(ValueError, match="and it has weights for"):
                spec.build(at_most=count - 1)


@pytest.mark.parametrize("part", ["weights", "support_x", "phi"])
def test_numbers_that_are_none_are_refused(tmp_path: Path, part: str) -> None:
    x, y = images()
    FewShotClassifier("protonet-omniglot").fit(x, y).save(tmp_path / "m.qs")
    state = load_state(tmp_path / "m.qs")

    def spoil(z: torch.Tensor) -> torch.Tensor:
        return z * float("nan") if z.is_floating_point() else z

    state[part] = map_tensors(state[part], spoil)
    save_state(tmp_path / "m.qs", state)
    with pytest.raises(ValueError, match=rf"m\.qs is not .*{part} has numbers that are infinite"):
        FewShotClassifier.load(tmp_path / "m.qs")


def test_a_learner_given_as_a_module_is_not_described(tmp_path: Path) -> None:
    x, y = images()
    model = FewShotClassifier("protonet-omniglot").fit(x, y)
    own = Experiment("protonet", data="alphabets", backbone="mlp").build_learner()
    model.set_params(learner=own).fit(x, y).save(tmp_path / "m.qs")
    with pytest.raises(ValueError, match="give it as learner="):
        FewShotClassifier.load(tmp_path / "m.qs")
    again = FewShotClassifier.load(tmp_path / "m.qs", learner=own)
    assert np.array_equal(again.predict_proba(x), model.predict_proba(x))


@pytest.mark.parametrize(
    ("about", "message"),
    [
        (None, r"does not say what learner.*load the run folder.*load_weights"),
        ({"learner": "protonets"}, "learner is 'protonets'; expected one of scratch"),
        ({"learner": "protonet", "code": "1"}, "there is no field 'code'"),
        ({"learner": "protonet", "options": {"encoder": "x"}}, "has no option 'encoder'"),
        ({"learner": "protonet", "backbone": "os.system"}, "backbone is 'os.system'"),
        ({"learner": "baseline"}, "describes no learner that can be built: .*classes"),
        ({"learner": "protonet"}, "a protonet with 112,448 numbers, and it has weights for 26"),
    ],
)
def test_weights_without_a_usable_description_say_so(
    tmp_path: Path, about: dict[str, Any] | None, message: str
) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, MLP(3, [4], 2), about=about)
    assert weights_about(path) == about
    with pytest.raises(ValueError, match=message) as error:
        quickstudy.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_reproduced_weights_open(tmp_path: Path) -> None:
    from quickstudy.experiments.reproduce import reproduce

    (tmp_path / "tiny.toml").write_text(
        'title = "Tiny"\nkind = "ours"\npaper = "nobody"\n'
        "cells = [{ way = 3, shot = 1, query = 2, tasks = 2 }]\n"
        '[protocol]\nlearner = "protonet"\ndata = "alphabets"\nbackbone = "mlp"\nclasses = 30\n'
        "way = 3\nshot = 1\nquery = 2\ntasks = 1\nsteps = 1\n"
    )
    own = load_recipe(str(tmp_path / "tiny.toml"))
    reproduce(own, tmp_path / "r", quiet=True, say=lambda line: None)
    learner, (x, _) = quickstudy.load(tmp_path / "r" / "weights.safetensors"), images()
    assert answers(learner, x) == answers(load_run(tmp_path / "r")[1], x)


@pytest.mark.parametrize("data", ["omniglot", "folder", "alphabets"])
def test_a_run_is_opened_without_its_data(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ``run.json`` says they are: neither a download nor another folder."""
    run = trained(tmp_path / "run", "protonet")
    about = json.loads((run / "run.json").read_text())
    about["experiment"] = {"learner": "baseline", "data": data, "root": "elsewhere"}
    (run / "run.json").write_text(json.dumps(about))

    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("data were looked for")

    for name in ("omniglot", "image_folder", "alphabets"):
        monkeypatch.setattr(f"quickstudy.data.{name}", reached)
    with pytest.raises(ValueError, match=r"options has no classes|needs a|root"):
        quickstudy.load(run)
