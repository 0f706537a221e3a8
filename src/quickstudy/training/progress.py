"""What a person sees of a training: a bar on a terminal, or a line now and then elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Display"]

_SECONDS_BETWEEN_LINES = 15


class Display:
    """The progress of a training, on standard error.

    Args:
        total: steps of the whole run.
        start: steps already done.
        show: whether to show anything.
        console: where to show it instead.
    """

    def __init__(
        self, total: int, start: int = 0, *, show: bool = True, console: Console | None = None
    ) -> None:
        self.console = console or Console(stderr=True)
        self.total, self.show = total, show
        self._spoke = time.monotonic()
        self._promised = False
        self._bar = Progress(
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (show and self.console.is_terminal),
        )
        self._task = self._bar.add_task("train", total=total, completed=start, figures="")

    def start(self) -> None:
        """Show the bar."""
        self._bar.start()

    def stop(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def say(self, line: str) -> None:
        """Show a line of text."""
        if self.show:
            self.console.print(line, highlight=False)

    def advance(self, step: int) -> None:
        """Another step is done."""
        self._bar.update(self._task, completed=step)

    def validating(self, step: int, done: int, n_tasks: int) -> None:
        """So many of the tasks of a validation are done."""
        words = f"validating {done}/{n_tasks}"
        self._bar.update(self._task, figures=words)
        self._now_and_then(step, words)
        self._promised = True

    def row(self, step: int, figures: Mapping[str, float], tasks_per_second: float) -> None:
        """Show the figures of one step."""
        words = [f"loss {figures['loss']:.3f}"]
        if "accuracy" in figures:
            words.append(f"acc {figures['accuracy']:.3f}")
        if "validation" in figures:
            words.append(f"val {figures['validation']:.3f}")
        words.append(f"{tasks_per_second:.1f} tasks/s")
        self._bar.update(self._task, completed=step, figures="  ".join(words))
        self._now_and_then(step, "  ".join(words), always=self._promised or step == self.total)
        self._promised = False

    def _now_and_then(self, step: int, words: str, *, always: bool = False) -> None:
        """Where there is no bar, a line if it is time for one."""
        quiet = time.monotonic() - self._spoke < _SECONDS_BETWEEN_LINES and not always
        if not self.console.is_terminal and not quiet:
            self._spoke = time.monotonic()
            self.say(f"step {step}/{self.total}  {words}")
