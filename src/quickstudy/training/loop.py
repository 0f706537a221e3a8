"""The outer loop: plain PyTorch.

Without its trimmings, `train` is::

    for step in range(steps):
        loss = learner.loss(tasks[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

and a test proves that both give the same weights, bit for bit.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from quickstudy.data.sampler import TaskSource, batch_of
from quickstudy.learner import MetaLearner, temporarily
from quickstudy.memory import check_memory
from quickstudy.task import Task
from quickstudy.training.folder import saved_state
from quickstudy.training.identity import check_same, identity
from quickstudy.training.log import RunLogger
from quickstudy.training.session import Session, TrainResult
from quickstudy.training.validation import OnValidation, Validation

__all__ = ["check_counts", "train"]


def train(
    learner: MetaLearner,
    tasks: TaskSource,
    *,
    steps: int,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: LRScheduler | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    validation: TaskSource | None = None,
    validation_tasks: int = 200,
    validate_every: int = 1000,
    patience: int | None = None,
    on_validation: OnValidation | None = None,
    checkpoint_every: int = 200,
    log_every: int = 20,
    fabric: Any = None,
    progress: bool = True,
    tensorboard: bool = False,
    loggers: Sequence[RunLogger] = (),
    about: dict[str, Any] | None = None,
    minutes: float | None = None,
    average: float = 0.0,
) -> TrainResult:
    """Train any learner on a source of tasks.

    With a ``run_dir``, it receives ``run.json`` (``about``, versions, machine), ``metrics.csv``,
    ``checkpoint.safetensors`` (everything needed to go on exactly), ``best.safetensors`` (the
    weights at the best validation) and, at the end, ``final.safetensors``. Every file is written
    whole or not at all. A run that is killed and resumed ends with the same weights, bit for bit
    on the same machine, as one that is not. Ctrl-C, SIGTERM or SIGHUP finishes the step, saves a
    checkpoint and raises ``KeyboardInterrupt``. A run that is over, by ``steps``, ``patience`` or
    ``on_validation``, stays so: resuming it does nothing more.

    With several processes (a Fabric with ``devices`` above 1), process ``r`` of ``W`` takes batch
    ``step*W + r`` and gradients are averaged: a step then learns from ``W`` batches. It is resumed
    with as many processes. If one is lost, the others end at their next step.

    Args:
        learner: trained in place; left on the device it was trained on.
        tasks: ``tasks[i]`` is the ``i``-th batch of tasks.
        steps: outer steps in all, counted from the very first.
        optimizer: over the learner's parameters. Default: Adam, rate 1e-3.
        scheduler: stepped after every outer step.
        run_dir: a folder for this run.
        resume: go on from the checkpoint in ``run_dir``; start anew if there is none yet.
        validation: held-out tasks for choosing the best weights.
        validation_tasks: how many of them.
        validate_every: outer steps between validations; the last step is validated too.
        patience: end the training when this many validations in a row have brought no new best.
        on_validation: called as ``on_validation(step, evaluation)`` on every process after each
            validation. A true value ends the training, as ``patience`` does. If it raises, a
            checkpoint is saved first; resuming goes on from there without calling it again.
        checkpoint_every: outer steps between checkpoints.
        log_every: outer steps between rows of the log.
        fabric: a `lightning_fabric.Fabric` (device, precision, number of processes), launched.
            Default: one device, the best there is, in float32.
        progress: show progress on standard error.
        tensorboard: also log to TensorBoard, in ``run_dir``.
        loggers: Lightning Fabric's, or others with the methods of `RunLogger`; told, in the first
            process only, of what goes into ``metrics.csv``. So are those of ``fabric``.
        about: kept in ``run.json``: whatever is needed to build this run again. What it has under
            ``"learner"`` describes the learner, and goes into the files of weights, too.
        minutes: stop after this many, with a checkpoint to go on from; the result has the steps.
        average: decay of a moving average of the weights and batch norm statistics, begun at the
            first step; 0 for none. It is the average that is validated and saved, and that the
            learner holds at the end.

    Raises:
        ValueError: the learner has nothing to train, its tasks do not fit it, an argument makes no
            sense, the optimizer is of another learner, or the run to resume is of another kind of
            learner or of other tasks.
        TypeError: ``tasks`` gives no `Task`, a logger lacks a method, or the optimizer or scheduler
            needs more than a step.
        FileExistsError: ``run_dir`` holds a run and ``resume`` is not set.
        BusyError: another process trains in ``run_dir``.
        MemoryError: a step would not fit into memory; says what would.
        FloatingPointError: the loss is no longer finite.
        KeyboardInterrupt: the run was asked to stop, after saving.
        LostProcessError: another process of this training is gone.
        ModuleNotFoundError: TensorBoard is asked for and not installed.
    """
    check_counts(
        steps=steps,
        validate_every=validate_every,
        checkpoint_every=checkpoint_every,
        log_every=log_every,
        patience=patience,
        validation_tasks=validation_tasks,
    )
    if isinstance(tasks, list | tuple) and len(tasks) < steps:
        raise ValueError(f"steps is {steps}, and there are {len(tasks)} batches of tasks")
    _check_loggers(loggers)
    best = Validation(
        validation,
        n_tasks=validation_tasks,
        every=validate_every,
        patience=patience,
        on_validation=on_validation,
    )
    if not any(p.requires_grad for p in learner.parameters()):
        raise ValueError(f"this {type(learner).__name__} has no parameters: nothing to train")
    first = batch_of(tasks, 0)
    _rehearse(learner, first)
    grown = getattr(tasks, "grow", 0)  # tasks of more classes or examples are to come
    largest = batch_of(tasks, grown) if grown else first
    check_memory(learner, largest, next(learner.parameters()).device)
    folder = None if run_dir is None else Path(run_dir)
    saved = saved_state(folder, resume)
    if tensorboard and folder is None:
        raise ValueError("tensorboard=True needs a run_dir")
    if fabric is None:
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator="auto", devices=1)
    if optimizer is None:
        optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    _check_optimizer(learner, optimizer, scheduler)
    of = None if folder is None else identity(learner, optimizer, first, tasks[0])
    if saved is not None:
        check_same(saved.get("of"), of, folder)
    module, fabric_optimizer = fabric.setup(learner, optimizer)
    module.mark_forward_method("loss")
    session = Session(
        learner,
        optimizer,
        scheduler,
        best,
        fabric=fabric,
        folder=folder,
        steps=steps,
        checkpoint_every=checkpoint_every,
        log_every=log_every,
        minutes=minutes,
        average=average,
        of=of,
    )
    if saved is not None:
        session.restore(saved)
    sitting = session.sitting(
        tasks, about=about, loggers=loggers, progress=progress, tensorboard=tensorboard
    )
    with session.alone(), sitting, _tasks_as_they_are(fabric):
        for step, task in session.batches():
            with fabric.autocast():
                loss = module.loss(task)
            fabric_optimizer.zero_grad()
            fabric.backward(loss)
            fabric_optimizer.step()
            session.after(step, task, loss)
    return session.result()


@contextmanager
def _tasks_as_they_are(fabric: Any) -> Iterator[None]:
    """A block in which Fabric converts no inputs: it would set the fields of a task anew."""
    precision = fabric.strategy.precision
    own = vars(precision).get("convert_input")
    precision.convert_input = lambda task: task
    try:
        yield
    finally:
        del precision.convert_input
        if own is not None:
            precision.convert_input = own


def check_counts(**numbers: int | None) -> None:
    """Refuse a number that is given and no whole one of at least 1, by its name."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
        if value is not None and value != int(value):
            raise ValueError(f"{name} is {value}; expected a whole number")


def _check_optimizer(
    learner: MetaLearner, optimizer: torch.optim.Optimizer, scheduler: LRScheduler | None
) -> None:
    """That they change this learner, step by step."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer is {optimizer!r:.60}; expected one over learner.parameters()")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError("LBFGS asks for a loss again and again; expected an optimizer of one step")
    own = {id(p) for p in learner.parameters() if p.requires_grad}
    if not any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        raise ValueError(
            f"the optimizer has no parameter of this {type(learner).__name__}: nothing would be "
            "trained; make it of learner.parameters()"
        )
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise TypeError("ReduceLROnPlateau waits for a figure; expected a scheduler of steps alone")
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError("the scheduler is of another optimizer than the one that is given")


def _check_loggers(loggers: Sequence[RunLogger]) -> None:
    """Check them now, and not when a long training ends."""
    for logger in loggers:
        for method in ("log_metrics", "log_hyperparams", "finalize"):
            if not callable(getattr(logger, method, None)):
                raise TypeError(f"a {type(logger).__name__} is no logger: it has no {method}()")


def _rehearse(learner: MetaLearner, first: Task) -> None:
    """One task through the learner: what does not fit shows before anything is written."""
    device = next(learner.parameters()).device
    evaluating = temporarily(learner, training=False)
    with evaluating, torch.no_grad(), torch.random.fork_rng():
        learner(first[:1].to(device))
