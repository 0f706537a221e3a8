"""One sitting of a training: where it begins, what follows each step, and how it ends."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from quickstudy.checkpoint import (
    clear_temporaries,
    restore_rng,
    rng_state,
    save_state,
    save_weights,
)
from quickstudy.data.sampler import TaskSource, prefetch
from quickstudy.evaluation import Evaluation, evaluate
from quickstudy.learner import MetaLearner
from quickstudy.locks import alone
from quickstudy.processes import noticing_loss
from quickstudy.task import Task
from quickstudy.training.folder import BEST, CHECKPOINT, FINAL, describe, write_run
from quickstudy.training.log import Log, RunLogger
from quickstudy.training.progress import Display
from quickstudy.training.signals import stop_signals
from quickstudy.training.validation import Validation

__all__ = ["Session", "Stopped", "TrainResult"]

Stopped = Literal["steps", "patience", "callback", "minutes"]

_OVER = {
    "steps": "all steps were taken",
    "patience": "patience had run out",
    "callback": "on_validation had asked for the end",
}


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Attributes:
        steps: outer steps taken in all, over every sitting.
        seconds: time spent training, over every sitting (validation included).
        best_step: the step of the best validation, ``None`` without validation.
        best: its evaluation.
        stopped: what ended it: ``"steps"`` (all are taken), ``"patience"`` or ``"callback"``
            (``on_validation`` asked), with which the run is over; or ``"minutes"``, after which it
            can go on.
    """

    steps: int
    seconds: float
    best_step: int | None = None
    best: Evaluation | None = None
    stopped: Stopped = "steps"


class Session:
    """What stands around the loop of `quickstudy.training.train`, whose arguments it takes.

    It begins at step 0, or where `restore` puts it. `batches` and `after` are for within its
    `sitting`, which is for within `alone`, and `result` for when both have ended.

    Attributes:
        stopped: why there are no more batches; ``None`` while there are.
    """

    def __init__(
        self,
        learner: MetaLearner,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler | None,
        validation: Validation,
        *,
        fabric: Any,
        folder: Path | None,
        steps: int,
        checkpoint_every: int,
        log_every: int,
        minutes: float | None,
        average: float,
        of: dict[str, Any] | None,
    ) -> None:
        self.learner, self.optimizer, self.scheduler = learner, optimizer, scheduler
        self.validation, self.fabric = validation, fabric
        self.folder, self.of = folder if self.chief else None, of
        self.steps, self.checkpoint_every, self.log_every = steps, checkpoint_every, log_every
        self.averaged = _moving_average(learner, average) if average else None
        self.to_keep: MetaLearner = learner if self.averaged is None else self.averaged.module
        self.step = 0
        self.began, self.seconds = time.monotonic(), 0.0
        self.until = math.inf if minutes is None else self.began + 60 * minutes
        self.described: dict[str, Any] | None = None
        self.begun_row: dict[str, Any] | None = None
        self.unvalidated: dict[str, Any] | None = None
        self.stopped: Stopped | None = None

    def restore(self, saved: dict[str, Any]) -> None:
        """Begin where a checkpoint was saved.

        Raises:
            ValueError: it is of more steps, of another number of processes, or of a training with
                or without a scheduler or an average, as this is not.
        """
        if saved["step"] > self.steps:
            raise ValueError(f"the checkpoint is at step {saved['step']}, past steps={self.steps}")
        if len(saved["rng"]) != self.fabric.world_size:
            raise ValueError(
                f"the checkpoint is of a training on {len(saved['rng'])} processes, and this is "
                f"one on {self.fabric.world_size}; start as many as before"
            )
        for name, own in (("averaged", self.averaged), ("scheduler", self.scheduler)):
            if (own is None) != (saved.get(name) is None):
                word = "a scheduler" if name == "scheduler" else "an average of the weights"
                has, lacks = ("without", "with") if own is not None else ("with", "without")
                raise ValueError(
                    f"the checkpoint is of a training {has} {word}, and this is one {lacks}"
                )
        self.step = saved["step"]
        self.seconds = saved["seconds"]
        self.began -= self.seconds
        self.validation.restore(saved)
        self.begun_row = saved.get("log")  # older checkpoints have none
        self.unvalidated = saved.get("unvalidated")
        self.learner.load_state_dict(saved["learner"])
        if self.averaged is not None:
            self.averaged.load_state_dict(saved["averaged"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        restore_rng(saved["rng"][self.fabric.global_rank])
        if self.unvalidated is None:
            self.stopped = self._over(self.validation.impatient, self.validation.ended)

    def save(self) -> None:
        """Write a checkpoint: everything needed to go on exactly."""
        self.seconds = time.monotonic() - self.began
        everyone = self._gather_rng()
        if self.folder is None:
            return
        scheduler, averaged = self.scheduler, self.averaged
        state = {
            "of": self.of,
            "step": self.step,
            "seconds": self.seconds,
            **self.validation.state(),
            "log": self.log.state(),
            "unvalidated": self.unvalidated,
            "learner": dict(self.learner.state_dict()),
            "averaged": None if averaged is None else dict(averaged.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if scheduler is None else _plain(scheduler.state_dict()),
            "rng": everyone,
        }
        save_state(self.folder / CHECKPOINT, state)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process trains in this folder, until the end.

        Raises:
            BusyError: one does.
        """
        if self.folder is None:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with alone(self.folder, wait=False):
            clear_temporaries(self.folder)
            yield

    @contextmanager
    def sitting(
        self,
        tasks: TaskSource,
        *,
        about: dict[str, Any] | None,
        loggers: Sequence[RunLogger],
        progress: bool,
        tensorboard: bool,
    ) -> Iterator[None]:
        """Batches come from ``tasks``, figures are logged, and Ctrl-C is a request, until the end.

        Raises:
            ModuleNotFoundError: TensorBoard is asked for and not installed.
            LostProcessError: another process of this training is gone.
        """
        step, rank, world = self.step, self.fabric.global_rank, self.fabric.world_size
        run = describe(about, self.steps, self.fabric)
        self.described = run.get("learner")
        all_loggers: list[RunLogger] = [*self.fabric.loggers, *loggers] if self.chief else []
        if self.folder is not None:
            from quickstudy.training.loggers import run_loggers  # brings all of Fabric

            all_loggers += run_loggers(self.folder, step, tensorboard=tensorboard)
            if step == 0:
                write_run(self.folder, run)
        display = Display(self.steps, step, show=progress and self.chief)
        if self.stopped is not None:
            ended = f"this run ended at step {step} of {self.steps}, when {_OVER[self.stopped]}"
            display.say(f"nothing more to do: {ended}")
        self.log = Log(
            all_loggers, display, run=run, device=self.fabric.device, step=step, began=self.began
        )
        if self.begun_row is not None:
            self.log.restore(self.begun_row)
        self._batches = prefetch(tasks, step * world + rank, step=world)
        self.learner.train()
        with self.log, stop_signals() as self._stop, noticing_loss(), closing(self._batches):
            yield

    def batches(self) -> Iterator[tuple[int, Task]]:
        """The number of each step from here on, and its batch of tasks."""
        if self.unvalidated is not None:  # the stop came while step was being validated
            self._end_step(self._validate(self.step, self.unvalidated))
        while self.stopped is None:
            yield self.step + 1, next(self._batches).to(self.fabric.device)

    def after(self, step: int, task: Task, loss: Tensor) -> None:
        """What follows a step: schedule, average, figures, validation, checkpoint, the end.

        Raises:
            FloatingPointError: the loss is no longer finite.
            KeyboardInterrupt: the run was asked to stop, after saving.
            Exception: what ``on_validation`` raised, after saving.
        """
        self.step = step
        if self.averaged is not None:
            self.averaged.update_parameters(self.learner)
        if self.scheduler is not None:
            self.scheduler.step()
        self._end_step(self._report(task, loss))

    def _end_step(self, error: Exception | None) -> None:
        """Checkpoint if it is time, and stop if any process is to."""
        step = self.step
        asked, spent, failed, impatient, self.validation.ended = self._agree(
            self._stop.is_set(),
            time.monotonic() >= self.until,
            error is not None,
            self.chief and self.validation.impatient,
            self.validation.ended,
        )
        over = None if self.unvalidated else self._over(impatient, self.validation.ended)
        if step % self.checkpoint_every == 0 or over or asked or spent or failed:
            self._check_finite()
            self.save()
        if error is not None:
            raise error
        if asked and not over:
            before = ", before its validation" if self.unvalidated else ""
            raise KeyboardInterrupt(f"stopped at step {step} of {self.steps}{before}")
        self.stopped = over or ("minutes" if spent else None)

    def result(self) -> TrainResult:
        """End the training: the learner has the weights to keep, and so has its folder."""
        assert self.stopped is not None
        if self.to_keep is not self.learner:
            self.learner.load_state_dict(self.to_keep.state_dict())
        if self.folder is not None and self.stopped != "minutes":
            save_weights(self.folder / FINAL, self.learner, about=self.described)
        best_step, best = self.validation.best or (None, None)
        return TrainResult(self.step, self.seconds, best_step, best, self.stopped)

    @property
    def chief(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.fabric.is_global_zero)

    def _report(self, task: Task, loss: Tensor) -> Exception | None:
        """Log and validate, if it is time; the error of ``on_validation``, if it raised one."""
        step = self.step
        self.log.add(step, loss, len(task) * self.fabric.world_size)
        due = self.validation.due(step, self.steps)
        if not (due or step % self.log_every == 0 or step == self.steps):
            return None
        figures = self.log.figures(step)
        figures["lr"] = self.optimizer.param_groups[0]["lr"]
        if task.n_way is not None:
            figures["accuracy"] = evaluate(self.learner, [task], n_tasks=len(task)).mean
        if not due:
            self.log.row(step, figures)
            return None
        return self._validate(step, figures)

    def _validate(self, step: int, figures: dict[str, Any]) -> Exception | None:
        """Validate and log; the error of ``on_validation``. A stop leaves it to the next start."""
        try:
            evaluation, best = self.validation.run(step, self.to_keep, self._validating)
        except KeyboardInterrupt:
            self.unvalidated = figures
            return None
        self.unvalidated = None
        if best and self.folder is not None:
            save_weights(self.folder / BEST, self.to_keep, about=self.described)
        figures |= {"validation": evaluation.mean, "validation_ci95": evaluation.ci95}
        self.log.row(step, figures)
        return self.validation.tell(step, evaluation)

    def _validating(self, done: int) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        self.log.display.validating(self.step, done, self.validation.n_tasks)

    def _check_finite(self) -> None:
        """What cannot be gone on from is not saved: the checkpoint before stays."""
        if not all(bool(torch.isfinite(p).all()) for p in self.learner.parameters()):
            raise FloatingPointError(
                f"the weights are no longer finite at step {self.step}; the checkpoint before is "
                "kept (lower the learning rate, or look for extreme numbers in the data)"
            )

    def _over(self, impatient: bool, ended: bool) -> Stopped | None:
        """Why the run is over, if it is."""
        if self.step == self.steps:
            return "steps"
        if impatient:
            return "patience"
        return "callback" if ended else None

    def _agree(self, *requests: bool) -> tuple[bool, ...]:
        """Whether any process makes each request: all must do the same at the same step."""
        if self.fabric.world_size == 1:
            return requests
        made = torch.tensor(requests, dtype=torch.float32, device=self.fabric.device)
        return tuple(n > 0 for n in self.fabric.all_reduce(made, reduce_op="sum").tolist())

    def _gather_rng(self) -> list[dict[str, Any]]:
        """The generators' states of every process, in order of rank."""
        state = rng_state()
        if self.fabric.world_size == 1:
            return [state]
        states: list[Any] = [None] * self.fabric.world_size
        torch.distributed.all_gather_object(states, state)
        return states


def _moving_average(learner: MetaLearner, decay: float) -> Any:
    """A moving average of the learner's state, integers such as counters copied."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    if not 0 < decay < 1:
        raise ValueError(f"average is {decay}; expected a decay below 1, such as 0.999, or 0")
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(learner, multi_avg_fn=average, use_buffers=True)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without functions, which belong to the code and not to the state."""
    plain = {key: value for key, value in state.items() if not callable(value)}
    if "lr_lambdas" in plain:
        plain["lr_lambdas"] = [None] * len(plain["lr_lambdas"])
    return plain
