"""Early stopping and callbacks: where a training ends, and that a cut one ends there too."""

import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from quickstudy.checkpoint import load_state, save_state
from quickstudy.evaluation import Evaluation
from quickstudy.learner import MetaLearner
from quickstudy.learners import ProtoNet
from quickstudy.task import Task
from quickstudy.testing import make_task
from quickstudy.training import TrainResult, train


class Tasks:
    """An endless source of small tasks."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __getitem__(self, index: int) -> Task:
        return make_task((16,), 3, 2, 1, 3, self.seed * 10_000 + index).to(torch.float32)


def build() -> MetaLearner:
    torch.manual_seed(0)
    return ProtoNet(nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.3), nn.Linear(8, 4)))


def quick(learner: MetaLearner | None = None, lr: float = 0.05, **settings: Any) -> TrainResult:
    learner = learner or build()
    torch.manual_seed(1)
    defaults = {
        "steps": 40,
        "optimizer": torch.optim.SGD(learner.parameters(), lr=lr, momentum=0.9),
        "validation": Tasks(1),
        "validation_tasks": 6,
        "validate_every": 2,
        "checkpoint_every": 1000,
        "progress": False,
    }
    return train(learner, Tasks(), **{**defaults, **settings})


def state(run: Path) -> Any:
    return load_state(run / "checkpoint.safetensors")


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
def test_patience_ends_where_a_count_by_hand_does(patience: int) -> None:
    curve: dict[int, float] = {}
    quick(on_validation=lambda step, scores: curve.update({step: scores.mean}))
    assert list(curve) == list(range(2, 41, 2))
    best, since, end = (0, -1.0), 0, 40
    for step, mean in curve.items():
        best, since = ((step, mean), 0) if mean > best[1] else (best, since + 1)
        if since == patience:
            end = step
            break
    result = quick(patience=patience)
    assert (result.steps, result.best_step) == (end, best[0])
    assert result.stopped == ("steps" if end == 40 else "patience")
    assert patience > 3 or end < 40


def test_patience_counts_validations_and_not_steps(tmp_path: Path) -> None:
    """Weights that stay as they are: the first validation is the best, the next three are not."""
    learner = build()
    result = quick(learner, lr=0.0, patience=3, validate_every=4, run_dir=tmp_path)
    assert (result.steps, result.stopped, result.best_step) == (16, "patience", 4)
    assert (tmp_path / "final.safetensors").exists()
    assert state(tmp_path)["step"] == 16


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_patience_survives_any_number_of_stops(tmp_path: Path, average: float) -> None:
    """A sitting a step, against one sitting."""
    whole = quick(patience=3, run_dir=tmp_path / "whole", average=average)
    assert whole.stopped == "patience"
    for _ in range(whole.steps):
        part = quick(
            patience=3, run_dir=tmp_path / "cut", resume=True, minutes=0.0, average=average
        )
    assert (part.steps, part.stopped, part.best) == (whole.steps, "patience", whole.best)
    for name in ("best.safetensors", "final.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_that_is_over_does_nothing_more_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how: dict[str, Any] = {"lr": 0.0, "run_dir": tmp_path, "resume": True}
    first = quick(patience=3, **how)
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert "nothing more to do" not in capsys.readouterr().err
    again = quick(patience=3, progress=True, **how)
    assert (again.steps, again.stopped) == (first.steps, "patience") == (8, "patience")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == kept
    said = " ".join(capsys.readouterr().err.split())
    assert "this run ended at step 8 of 40, when patience had run out" in said

    assert quick(patience=4, **how).steps == 10
    assert quick(**how).stopped == "steps"
    assert quick(progress=True, **how).steps == 40
    said = " ".join(capsys.readouterr().err.split())
    assert "this run ended at step 40 of 40, when all steps were taken" in said


def test_checkpoints_from_before_early_stopping_go_on(tmp_path: Path) -> None:
    quick(run_dir=tmp_path / "whole")
    quick(run_dir=tmp_path / "cut", minutes=0.0)
    old = state(tmp_path / "cut")
    assert old.pop("unimproved") == 0
    assert old.pop("ended") is False
    save_state(tmp_path / "cut" / "checkpoint.safetensors", old)
    assert quick(run_dir=tmp_path / "cut", resume=True).stopped == "steps"
    final = [tmp_path / run / "final.safetensors" for run in ("whole", "cut")]
    assert final[0].read_bytes() == final[1].read_bytes()


def test_a_callback_sees_what_is_logged_and_may_end_the_training(tmp_path: Path) -> None:
    calls: list[tuple[int, Evaluation]] = []

    def enough(step: int, scores: Evaluation) -> bool:
        last = (tmp_path / "metrics.csv").read_text().splitlines()[-1].split(",")
        assert last[0] == str(step)
        assert last[-2:] == [f"{scores.mean:.6g}", f"{scores.ci95:.6g}"]
        assert (tmp_path / "best.safetensors").exists()
        calls.append((step, scores))
        return step == 6

    result = quick(run_dir=tmp_path, on_validation=enough)
    assert [step for step, _ in calls] == [2, 4, 6]
    assert (result.steps, result.stopped) == (6, "callback")
    assert (tmp_path / "final.safetensors").exists()
    again = quick(run_dir=tmp_path, on_validation=enough, resume=True)
    assert (again.steps, again.stopped, len(calls)) == (6, "callback", 3)
    assert result.best == max((scores for _, scores in calls), key=lambda scores: scores.mean)


def test_a_callback_that_raises_leaves_a_checkpoint(tmp_path: Path) -> None:
    calls = []

    def faulty(step: int, scores: Evaluation) -> None:
        calls.append(step)
        if step == 6:
            raise RuntimeError("a slip")

    quick(run_dir=tmp_path / "whole")
    with pytest.raises(RuntimeError, match="a slip"):
        quick(run_dir=tmp_path / "cut", on_validation=faulty)
    assert state(tmp_path / "cut")["step"] == 6
    assert not (tmp_path / "cut" / "final.safetensors").exists()
    quick(run_dir=tmp_path / "cut", on_validation=faulty, resume=True)
    assert calls == list(range(2, 41, 2))
    for name in ("best.safetensors", "final.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_nothing_to_go_by_and_bad_numbers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="patience needs validation tasks"):
        quick(validation=None, patience=2, run_dir=tmp_path / "r")
    with pytest.raises(ValueError, match="on_validation needs validation tasks"):
        quick(validation=None, on_validation=print, run_dir=tmp_path / "r")
    with pytest.raises(ValueError, match="patience is 0; expected at least 1"):
        quick(patience=0, run_dir=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_training_in_a_thread_leaves_signals_alone() -> None:
    results, handlers = [], []
    before = signal.getsignal(signal.SIGINT)

    def work() -> None:
        watch = lambda *_: handlers.append(signal.getsignal(signal.SIGINT))  # noqa: E731
        results.append(quick(steps=4, on_validation=watch))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results[0].steps == 4
    assert handlers == [before, before]
