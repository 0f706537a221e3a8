"""The figures of a training: gathered at every step, reported to loggers and the user at times."""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import Tensor

from quickstudy.training.progress import Display

__all__ = ["Log", "RunLogger"]


class RunLogger(Protocol):
    """What training asks of a logger: three methods of Lightning Fabric's `Logger`."""

    def log_metrics(self, metrics: dict[str, float], step: int, /) -> object:
        """The figures of one step."""

    def log_hyperparams(self, params: dict[str, Any], /) -> object:
        """What ``run.json`` says of the run; reported at the start of every sitting."""

    def finalize(self, status: str, /) -> object:
        """The end of a sitting: ``"success"``, ``"aborted"`` (Ctrl-C) or ``"failed"``."""


class Log:
    """Mean losses and other figures.

    Args:
        loggers: receive each row.
        display: shows them.
        run: reported to the loggers at the start.
        device: where losses are.
        step: steps already done.
        began: when the training would have begun, had it never stopped, in monotonic time.
    """

    def __init__(
        self,
        loggers: Sequence[RunLogger],
        display: Display,
        *,
        run: dict[str, Any],
        device: torch.device,
        step: int,
        began: float,
    ) -> None:
        self.loggers, self.display, self.run, self.began = loggers, display, run, began
        self._total = torch.zeros((), device=device)
        self._since, self._rate = step, math.nan
        self._tasks: int | None = None if step else 0
        self._timed_since, self._time = self._tasks or 0, time.monotonic()

    def __enter__(self) -> "Log":
        self.display.start()
        for logger in self.loggers:
            with suppress(NotImplementedError):  # Fabric's CSVLogger
                logger.log_hyperparams(self.run)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.display.stop()
        status = "success" if kind is None else "failed"
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            status = "aborted"
        with ExitStack() as every:  # one that fails keeps none of the others from its end
            for logger in self.loggers:
                every.callback(logger.finalize, status)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the row that has been begun."""
        return {"total": self._total, "since": self._since, "tasks": self._tasks}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on with the row that `state` returned."""
        self._total.copy_(saved["total"])
        self._since = saved["since"]
        self._tasks = saved.get("tasks")
        self._timed_since = self._tasks or 0

    def add(self, step: int, loss: Tensor, tasks: int) -> None:
        """Count the loss of one step and its tasks."""
        self._total += loss.detach()
        if self._tasks is None:  # a run that was begun before they were counted
            self._tasks = self._timed_since = (step - 1) * tasks
        self._tasks += tasks
        self.display.advance(step)

    def figures(self, step: int) -> dict[str, float]:
        """The figures since the last row; ``tasks`` are all so far.

        Raises:
            FloatingPointError: the mean loss is not finite.
        """
        mean = float(self._total / (step - self._since))
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"the loss is {mean} at step {step}: lower the learning rate (or, for MAML, "
                "inner_lr)"
            )
        now = time.monotonic()
        tasks = self._tasks or 0
        self._rate = (tasks - self._timed_since) / (now - self._time)
        return {"seconds": now - self.began, "tasks": tasks, "loss": mean}

    def row(self, step: int, figures: dict[str, float]) -> None:
        """Report the figures of one step, and begin to gather those of the next row."""
        for logger in self.loggers:
            logger.log_metrics(dict(figures), step)
        self.display.row(step, figures, self._rate)
        self._total.zero_()
        self._since, self._timed_since = step, self._tasks or 0
        self._time = time.monotonic()
