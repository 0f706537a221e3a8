"""What a person sees of a training while it trains, and while it validates."""

import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

from quickstudy.learners import ProtoNet
from quickstudy.task import Task
from quickstudy.testing import make_task
from quickstudy.training import TrainResult, progress, train
from quickstudy.training.progress import Display


class Tasks:
    def __getitem__(self, index: int) -> Task:
        return make_task((16,), 3, 2, 1, 3, index).to(torch.float32)


def quick(**settings: Any) -> TrainResult:
    torch.manual_seed(0)
    defaults = {"validation": Tasks(), "validation_tasks": 6, "validate_every": 2}
    return train(ProtoNet(nn.Linear(16, 4)), Tasks(), **{**defaults, **settings})


def test_the_bar_says_how_far_a_validation_is() -> None:
    seen = io.StringIO()
    display = Display(10, console=Console(file=seen, force_terminal=True, width=90))
    display.start()
    display.row(2, {"loss": 1.5}, 3.0)
    display.validating(4, 120, 200)
    display.stop()
    assert "validating 120/200" in seen.getvalue()


def test_a_long_validation_shows_where_there_is_no_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", -1)
    quick(steps=2, progress=True)
    shown = capsys.readouterr().err
    assert "step 2/2  validating 0/6" in shown
    assert shown.index("validating 0/6") < shown.index("val 0.")


def test_what_a_validation_found_is_shown_where_it_was_announced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten seconds of training and ten of validation by turns, and a line every 15 at most."""
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    seen = io.StringIO()
    display = Display(1000, console=Console(file=seen, width=90))
    for step in range(100, 500, 100):
        now += 10
        display.validating(step, 0, 200)
        now += 5
        display.validating(step, 100, 200)
        now += 5
        display.row(step, {"loss": 1.5, "validation": step / 1000}, 3.0)
    shown = seen.getvalue()
    assert [f"val 0.{n}00" in shown for n in (1, 2, 3, 4)] == [True] * 4


def test_a_short_one_is_not_worth_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    quick(steps=4, progress=True)
    assert "validating" not in capsys.readouterr().err


def test_stopped_while_the_last_step_is_validated_it_says_what_is_left(tmp_path: Path) -> None:
    class Interrupted(Tasks):
        def __getitem__(self, index: int) -> Task:
            if index:
                os.kill(os.getpid(), signal.SIGINT)
            sizes = (16,), 3, 2 + index, 1, 3  # of another shape, so of another batch
            return make_task(*sizes, index).to(torch.float32)

    with pytest.raises(KeyboardInterrupt, match="step 1 of 1, before its validation"):
        quick(steps=1, validation=Interrupted(), run_dir=tmp_path, progress=False)
    result = quick(steps=1, run_dir=tmp_path, resume=True, progress=False)
    assert (result.steps, result.best_step) == (1, 1)
