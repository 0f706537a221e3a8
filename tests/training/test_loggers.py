"""What loggers are told, and that the files of a resumed run are those of one never cut."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.csv_logs import CSVLogger
from torch import nn

from quickstudy.learners import ProtoNet
from quickstudy.task import Task
from quickstudy.testing import make_task
from quickstudy.training import TrainResult, train
from quickstudy.training.loggers import ResumableCSVLogger


class Tasks:
    """An endless source of small tasks, of which one may be missing."""

    def __init__(self, missing: int = -1) -> None:
        self.missing = missing

    def __getitem__(self, index: int) -> Task:
        if index == self.missing:
            raise OSError("a bad disk")
        return make_task((16,), 3, 2, 1, 3, index).to(torch.float32)


class Kept:
    """A user's own logger."""

    def __init__(self) -> None:
        self.params: list[dict[str, Any]] = []
        self.rows: dict[int, dict[str, float]] = {}
        self.ends: list[str] = []

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self.params.append(params)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.rows[step] = metrics

    def finalize(self, status: str) -> None:
        self.ends.append(status)


def quick(tasks: Any = None, **settings: Any) -> TrainResult:
    torch.manual_seed(0)
    learner = ProtoNet(nn.Linear(16, 4))
    defaults = {"steps": 8, "log_every": 2, "validate_every": 4, "progress": False}
    tasks = tasks or Tasks()
    return train(
        learner, tasks, **{**defaults, "validation": Tasks(), "validation_tasks": 3, **settings}
    )


def test_a_logger_is_told_what_the_run_folder_is(tmp_path: Path) -> None:
    kept = Kept()
    quick(run_dir=tmp_path, loggers=[kept], about={"note": "mine"})
    assert kept.params == [json.loads((tmp_path / "run.json").read_text())]
    assert kept.params[0]["note"] == "mine"
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    told = [
        {"step": str(step), **{k: f"{v:.6g}" for k, v in row.items()}}
        for step, row in kept.rows.items()
    ]
    assert [{k: v for k, v in row.items() if v} for row in rows] == told
    assert [row["step"] for row in told if "validation" in row] == ["4", "8"]
    assert kept.ends == ["success"]


def test_tasks_are_counted_though_batches_differ_and_the_run_was_cut(tmp_path: Path) -> None:
    class Uneven(Tasks):
        def __getitem__(self, index: int) -> Task:
            super().__getitem__(index)
            return make_task((16,), 3, 1 + index % 3, 1, 3, index).to(torch.float32)

    how: dict[str, Any] = {"run_dir": tmp_path, "resume": True, "checkpoint_every": 3}
    with pytest.raises(OSError, match="a bad disk"):
        quick(Uneven(missing=5), **how)
    quick(Uneven(), **how)
    rows = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    sizes = [1 + index % 3 for index in range(8)]
    assert [int(row["tasks"]) for row in rows] == [sum(sizes[:step]) for step in (2, 4, 6, 8)]


def test_a_logger_is_told_how_it_ended() -> None:
    kept = Kept()
    with pytest.raises(OSError, match="a bad disk"):
        quick(Tasks(missing=4), loggers=[kept])
    assert kept.ends == ["failed"]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(loggers=[kept], on_validation=interrupt)
    assert kept.ends == ["failed", "aborted"]


def test_what_is_no_logger_is_named_before_the_run_begins(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"a PosixPath is no logger: it has no log_metrics\(\)"):
        quick(run_dir=tmp_path / "r", loggers=[tmp_path])
    with pytest.raises(ValueError, match="tensorboard=True needs a run_dir"):
        quick(tensorboard=True)
    assert not (tmp_path / "r").exists()


def test_fabrics_own_loggers_work(tmp_path: Path) -> None:
    """Its CSVLogger, which has no hyperparameters; and the loggers that a Fabric was given."""
    kept = Kept()
    fabric = Fabric(accelerator="cpu", devices=1, loggers=kept)  # type: ignore[arg-type]
    quick(loggers=[CSVLogger(tmp_path, name="mine", version="0")], fabric=fabric)
    rows = csv.DictReader((tmp_path / "mine" / "0" / "metrics.csv").read_text().splitlines())
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in kept.rows.values()]
    assert list(kept.rows) == [2, 4, 6, 8]


def test_tensorboard_has_every_step_once_after_a_kill(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    how: dict[str, Any] = {"run_dir": tmp_path, "tensorboard": True, "resume": True}
    with pytest.raises(OSError, match="a bad disk"):
        quick(Tasks(missing=7), checkpoint_every=4, **how)
    quick(checkpoint_every=4, **how)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    losses = [(event.step, f"{event.value:.4g}") for event in events.Scalars("loss")]
    assert losses == [(int(row["step"]), f"{float(row['loss']):.4g}") for row in rows]
    assert [event.step for event in events.Scalars("validation")] == [4, 8]
    assert set(events.Tags()["scalars"]) == set(rows[0]) - {"step"}


def test_tensorboard_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '.\[tensorboard\]'"):
        quick(run_dir=tmp_path, tensorboard=True)
    assert not list(tmp_path.iterdir())


def test_rows_are_on_disk_at_once_and_those_after_the_checkpoint_go(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    log = ResumableCSVLogger(tmp_path)
    header = b"step,seconds,tasks,loss,accuracy,lr,validation,validation_ci95\r\n"
    assert file.read_bytes() == header
    node = file.stat().st_ino
    for step in (2, 4, 6):
        log.log_metrics({"seconds": 1.0, "loss": step / 3}, step)
    rows = header + b"2,1,,0.666667,,,,\r\n4,1,,1.33333,,,,\r\n6,1,,2,,,,\r\n"
    assert file.read_bytes() == rows
    assert file.stat().st_ino == node, "the file was written anew for each row"
    log.finalize("success")
    with open(file, "ab") as half:
        half.write(b"8,1,,")  # killed within a row
    ResumableCSVLogger(tmp_path, start=4)
    assert file.read_bytes() == rows[: rows.index(b"6,")]
    with pytest.raises(ValueError, match="mine"):
        log.log_metrics({"mine": 1.0}, 6)
    with pytest.raises(ValueError, match="needs its step"):
        log.log_metrics({"loss": 1.0})


@pytest.mark.parametrize("log_every", [3, 5])
def test_a_row_that_spans_a_checkpoint_is_that_of_a_run_never_cut(
    tmp_path: Path, log_every: int
) -> None:
    """Its loss is the mean over all of its steps, before the end of a sitting and after."""

    def rows(folder: Path) -> list[dict[str, str]]:
        text = (folder / "metrics.csv").read_text()
        return [{**row, "seconds": ""} for row in csv.DictReader(text.splitlines())]

    quick(run_dir=tmp_path / "whole", steps=9, log_every=log_every)
    sitting = {"run_dir": tmp_path / "cut", "steps": 9, "log_every": log_every}
    result = quick(**sitting, minutes=1e-9)
    while result.stopped == "minutes":
        result = quick(**sitting, minutes=1e-9, resume=True)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_each_logger_is_told_of_the_end_though_another_fails() -> None:
    class Failing(Kept):
        def finalize(self, status: str) -> None:
            raise OSError("no network")

    kept = Kept()
    with pytest.raises(OSError, match="no network"):
        quick(loggers=[kept, Failing(), kept])
    assert kept.ends == ["success", "success"]
