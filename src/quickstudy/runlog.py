"""What a training run tells: a CSV file, TensorBoard if asked, and a progress bar."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from quickstudy.checkpoint import write_atomically

__all__ = ["RunLog"]

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


class RunLog:
    """Rows of figures by step, kept in ``folder/metrics.csv``.

    Args:
        folder: where to write; ``None`` writes nothing.
        total: steps of the whole run.
        start: steps already done; rows after it (of a run that was killed) are dropped.
        progress: show a bar on a terminal, or a line now and then elsewhere.
        tensorboard: also write TensorBoard events (needs the ``tensorboard`` extra).

    Raises:
        ModuleNotFoundError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        total: int,
        start: int = 0,
        progress: bool = True,
        tensorboard: bool = False,
        console: Console | None = None,
    ) -> None:
        self.console = console or Console(stderr=True)
        self.total = total
        self._path = None if folder is None else folder / "metrics.csv"
        if self._path is not None:
            write_atomically(self._path, _old_rows(self._path, start))
        self._show = progress
        self._spoke = time.monotonic()
        self._writer: Any = None
        if tensorboard and folder is not None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    "TensorBoard is not installed: pip install 'quickstudy[tensorboard]'"
                ) from error
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start)
        self._bar = Progress(
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (progress and self.console.is_terminal),
        )
        self._task = self._bar.add_task("train", total=total, completed=start, figures="")

    def __enter__(self) -> "RunLog":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def row(self, step: int, figures: Mapping[str, float], tasks_per_second: float) -> None:
        """Add the figures of one step."""
        if self._path is not None:
            with open(self._path, "a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerow(
                    {"step": step, **{k: f"{v:.6g}" for k, v in figures.items()}}
                )
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)
        words = [f"loss {figures['loss']:.3f}"]
        if "accuracy" in figures:
            words.append(f"acc {figures['accuracy']:.3f}")
        if "validation" in figures:
            words.append(f"val {figures['validation']:.3f}")
        words.append(f"{tasks_per_second:.1f} tasks/s")
        self._bar.update(self._task, completed=step, figures="  ".join(words))
        quiet = time.monotonic() - self._spoke < 15 and step < self.total
        if self._show and not self.console.is_terminal and not quiet:
            self._spoke = time.monotonic()
            self.console.print(f"step {step}/{self.total}  {'  '.join(words)}", highlight=False)


def _old_rows(path: Path, start: int) -> str:
    """The header and the whole rows up to step ``start``."""
    rows = path.read_text().split("\n")[1:-1] if path.exists() else []
    keep = [row.rstrip("\r") for row in rows if int(row.split(",")[0]) <= start]
    return "".join(f"{row}\r\n" for row in [",".join(COLUMNS), *keep])
