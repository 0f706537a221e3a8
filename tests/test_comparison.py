"""The study of `quickstudy compare`, from Python."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from quickstudy.cli import main
from quickstudy.comparison import (
    Study,
    compare_learners,
    compare_runs,
    compare_saved,
    draw_study,
    example_task,
)
from quickstudy.evaluation import Evaluation, FrozenTasks, compare, evaluate
from quickstudy.experiments.run import Machine, run_experiment
from quickstudy.experiments.spec import Experiment
from quickstudy.experiments.targets import tasks_to_test

SMALL = {"data": "alphabets", "classes": 20, "way": 3, "backbone": "mlp"}


def quiet(line: str) -> None:
    assert line


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs ``maml`` and ``protonet``."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in (("maml", {"inner_lr": 0.1}), ("protonet", {})):
        experiment = Experiment(name, options=options, steps=2, **SMALL)  # type: ignore[arg-type]
        machine = Machine(accelerator="cpu", validation=None)
        run_experiment(experiment, folder / name, machine, quiet=True)
    return folder


def test_one_call_gives_the_study_of_the_command_line(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    targets = [runs / "maml", runs / "protonet", "nearest"]
    result = compare_runs(
        targets, shots=(1, 2), query=4, steps=(0, 2), n_tasks=4, seed=5, say=said.append
    )
    assert list(result.by_shot) == ["scratch", "maml", "protonet", "nearest"]
    assert said == [f"{name} ..." for name in result.by_shot]
    monkeypatch.chdir(tmp_path)
    options = "--shots 2,1 --query 4 --inner-steps 2,0 --tasks 4 --seed 5 --json"
    monkeypatch.setattr(
        sys, "argv", ["quickstudy", "compare", *map(str, targets), *options.split()]
    )
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(result.rows()))
    drawn = draw_study(result, tmp_path / "drawn")
    assert [path.name for path in drawn] == ["examples.png", "steps.png", "two-classes.png"]
    for path in drawn:
        assert path.read_bytes() == (tmp_path / "comparison" / path.name).read_bytes()


def study_of_sinusoids() -> Study:
    experiment = Experiment("maml", options={"inner_lr": 0.01}, data="sinusoid")
    learners = {"maml": experiment.build_learner()}
    return compare_learners(learners, experiment, steps=(0,), n_tasks=2, say=quiet)


def test_sinusoids(tmp_path: Path) -> None:
    result = study_of_sinusoids()
    assert result.what == "sinusoids"
    assert list(result.by_shot["maml"]) == [5, 10]
    assert result.names is None
    assert list(result.stages["maml"]) == ["before", "after 1 step", "after 10 steps"]
    assert draw_study(result, tmp_path)[-1].name == "adaptation.png"
    experiment = Experiment("maml", data="sinusoid")
    with pytest.raises(ValueError, match="nearest cannot learn sinusoids"):
        compare_learners({}, experiment, nearest=True, n_tasks=2, say=quiet)


def test_frozen_tasks_decide_way_and_shot() -> None:
    experiment = Experiment("protonet", **SMALL)  # type: ignore[arg-type]
    tasks, about = tasks_to_test(experiment, way=2, shot=3, query=2)
    frozen = FrozenTasks.freeze(tasks, 4, about)
    learner = experiment.build_learner()
    result = compare_learners(
        {"mine": learner}, experiment, frozen=frozen, steps=(), n_tasks=4, say=quiet
    )
    assert result.what == "2-way"
    assert result.by_shot["mine"][3].scores == evaluate(learner, frozen, n_tasks=4).scores
    assert result.by_shot["scratch"][3].about["tasks"] == frozen.fingerprint
    expected = compare(result.by_shot["mine"][3], result.by_shot["scratch"][3])
    assert result.against_baseline("mine", 3) == expected
    assert result.by_step == {}


def test_runs_of_one_name_keep_apart(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "maml").symlink_to(runs / "maml")
    targets = [runs / "maml", tmp_path / "maml"]
    result = compare_runs(targets, shots=(1,), query=2, steps=(), n_tasks=2, say=quiet)
    assert list(result.by_shot) == ["scratch", *map(str, targets)]
    scores = [result.by_shot[str(target)][1].scores for target in targets]
    assert scores[0] == scores[1]


def test_there_is_something_to_compare(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one run"):
        compare_runs(["nearest", "scratch"])
    Evaluation((0.5, 1.0)).save(tmp_path / "a.json")
    Evaluation((0.5, 0.5)).save(tmp_path / "b.json")
    with pytest.raises(ValueError, match="at least two evaluations"):
        compare_saved([tmp_path / "a.json"])
    first, second = compare_saved([tmp_path / "a.json", tmp_path / "b.json"])
    assert first[1].difference == 0
    assert second[0] == Evaluation((0.5, 0.5))
    assert second[1] == compare(second[0], first[0])


def test_the_example_is_of_two_classes() -> None:
    experiment = Experiment("nearest", **SMALL)  # type: ignore[arg-type]
    task, names = example_task(experiment, seed=3)
    again, _ = example_task(experiment, seed=3)
    assert (task.n_way, task.support_x.shape[1]) == (2, 2)
    assert names is not None
    assert len(set(names)) == 2
    assert (task.support_x == again.support_x).all()


def test_the_example_takes_no_more_than_small_classes_have(tmp_path: Path) -> None:
    for name in "abcdefghijklmnopqrst":
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("L", (8, 8), 40 * i).save(tmp_path / name / f"{i}.png")
    small = {"data": "folder", "root": str(tmp_path), "split": "random", "size": 8}
    task, _ = example_task(Experiment("nearest", query=1, **small))  # type: ignore[arg-type]
    assert task.query_y.shape[1] == 4
