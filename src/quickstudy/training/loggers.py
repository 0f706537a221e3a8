"""The loggers of a run folder, both of them Lightning Fabric's `Logger`."""

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from quickstudy._moved import refused_from
from quickstudy.checkpoint import write_atomically
from quickstudy.extras import need

__all__ = ["ResumableCSVLogger", "run_loggers", "tensorboard_logger"]

__getattr__ = refused_from(
    __name__, {"RunLog": "ResumableCSVLogger, or any of Lightning Fabric's loggers"}
)

COLUMNS = (
    "step",
    "seconds",
    "tasks",
    "loss",
    "accuracy",
    "lr",
    "validation",
    "validation_ci95",
)


def run_loggers(folder: Path, start: int = 0, *, tensorboard: bool = False) -> list[Logger]:
    """Those of a run that goes on after step ``start``: CSV, and TensorBoard if asked.

    Raises:
        ModuleNotFoundError: TensorBoard is asked for and not installed.
    """
    events = [tensorboard_logger(folder, start)] if tensorboard else []
    return [*events, ResumableCSVLogger(folder, start)]


class ResumableCSVLogger(Logger):
    """Rows of figures by step, in ``folder/metrics.csv``.

    Fabric's own `CSVLogger` deletes the rows of an earlier sitting, and keeps those of this one
    in memory for a hundred steps, where a kill loses them. This one appends each row at once, and
    on resuming drops those after the checkpoint, so that the file is that of a run never cut.

    Args:
        folder: of the run.
        start: steps already done; rows after it (of a sitting that was killed) are dropped.
    """

    def __init__(self, folder: Path, start: int = 0) -> None:
        super().__init__()
        self._path = folder / "metrics.csv"
        write_atomically(self._path, _old_rows(self._path, start))

    @property
    def name(self) -> None:
        return None

    @property
    def version(self) -> None:
        return None

    @property
    def log_dir(self) -> str:
        return str(self._path.parent)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row.

        Raises:
            ValueError: there is no step, or a figure that has no column.
        """
        if step is None:
            raise ValueError("a row of metrics.csv needs its step")
        with open(self._path, "a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(
                {"step": step, **{k: f"{v:.6g}" for k, v in metrics.items()}}
            )

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Nothing: ``run.json`` has them."""


def tensorboard_logger(folder: Path, start: int = 0) -> TensorBoardLogger:
    """Fabric's, in ``folder/tensorboard``; what it was told after step ``start`` is hidden.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed.
    """
    need("torch.utils.tensorboard", "tensorboard")
    return TensorBoardLogger(
        folder, name="tensorboard", version="", default_hp_metric=False, purge_step=start + 1
    )


def _old_rows(path: Path, start: int) -> str:
    """The header and the whole rows up to step ``start``."""
    rows = path.read_text().split("\n")[1:-1] if path.exists() else []
    keep = [row.rstrip("\r") for row in rows if int(row.split(",")[0]) <= start]
    return "".join(f"{row}\r\n" for row in [",".join(COLUMNS), *keep])
