"""The outer loop: plain PyTorch, with what a long run needs around it.

Without its trimmings, `train` is::

    for step in range(steps):
        loss = learner.loss(tasks[step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

and a test proves that both give the same weights, bit for bit.
"""

import json
import math
import os
import platform
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from quickstudy.checkpoint import (
    load_state,
    restore_rng,
    rng_state,
    save_state,
    save_weights,
    write_atomically,
)
from quickstudy.data.sampler import TaskSource, prefetch
from quickstudy.evaluation import Evaluation, evaluate
from quickstudy.learner import MetaLearner
from quickstudy.memory import check_memory
from quickstudy.processes import noticing_loss
from quickstudy.runlog import RunLog

__all__ = ["TrainResult", "save_untrained", "train"]

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
FINAL = "final.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """How a training ended.

    Attributes:
        steps: outer steps taken in all, over every sitting.
        seconds: time spent training, over every sitting (validation included).
        best_step: the step of the best validation, ``None`` without validation.
        best: its evaluation.
    """

    steps: int
    seconds: float
    best_step: int | None = None
    best: Evaluation | None = None


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
    checkpoint_every: int = 200,
    log_every: int = 20,
    fabric: Any = None,
    progress: bool = True,
    tensorboard: bool = False,
    about: dict[str, Any] | None = None,
    minutes: float | None = None,
    average: float = 0.0,
) -> TrainResult:
    """Train any learner on a source of tasks.

    With a ``run_dir``, it receives ``run.json`` (``about``, versions, machine), ``metrics.csv``,
    ``checkpoint.safetensors`` (everything needed to go on exactly), ``best.safetensors`` (the
    weights at the best validation) and, at the end, ``final.safetensors``. Every file is written
    whole or not at all. A run that is killed and resumed ends with the same weights, bit for bit
    on the same machine, as one that is not. Ctrl-C or SIGTERM finishes the step, saves a
    checkpoint and raises ``KeyboardInterrupt``.

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
        checkpoint_every: outer steps between checkpoints.
        log_every: outer steps between rows of the log.
        fabric: a `lightning_fabric.Fabric` (device, precision, number of processes), launched.
            Default: one device, the best there is, in float32.
        progress: show progress on standard error.
        tensorboard: also log to TensorBoard.
        about: kept in ``run.json``: whatever is needed to build this run again.
        minutes: stop after so many, with a checkpoint to go on from; the result has the steps.
        average: decay of a moving average of the weights and batch norm statistics, begun at the
            first step; 0 for none. It is the average that is validated and saved, and that the
            learner holds at the end.

    Raises:
        ValueError: the learner has nothing to train, its tasks do not fit it, or an argument
            makes no sense.
        FileExistsError: ``run_dir`` holds a run and ``resume`` is not set.
        MemoryError: a step would not fit into memory; says what would.
        FloatingPointError: the loss is no longer finite.
        KeyboardInterrupt: the run was asked to stop, after saving.
        LostProcessError: another process of this training is gone.
    """
    for name, value in (
        ("steps", steps),
        ("validate_every", validate_every),
        ("checkpoint_every", checkpoint_every),
        ("log_every", log_every),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    if not any(p.requires_grad for p in learner.parameters()):
        raise ValueError(f"this {type(learner).__name__} has no parameters: nothing to train")
    _rehearse(learner, tasks)
    check_memory(learner, tasks[0], next(learner.parameters()).device)
    folder = None if run_dir is None else Path(run_dir)
    saved = _saved_state(folder, resume)
    if fabric is None:
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator="auto", devices=1)
    if optimizer is None:
        optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
    module, fabric_optimizer = fabric.setup(learner, optimizer)
    module.mark_forward_method("loss")

    averaged = _average(learner, average) if average else None
    kept: MetaLearner = learner if averaged is None else averaged.module
    start, seconds = 0, 0.0
    best: tuple[int, Evaluation] | None = None
    if saved is not None:
        start, seconds = saved["step"], saved["seconds"]
        best = None if saved["best"] is None else (saved["best"][0], Evaluation(*saved["best"][1]))
        if start > steps:
            raise ValueError(f"the checkpoint is at step {start}, past steps={steps}")
        if len(saved["rng"]) != fabric.world_size:
            raise ValueError(
                f"the checkpoint is of a training on {len(saved['rng'])} processes, and this is "
                f"one on {fabric.world_size}; start as many as before"
            )
        learner.load_state_dict(saved["learner"])
        if averaged is not None:
            averaged.load_state_dict(saved["averaged"])
        optimizer.load_state_dict(saved["optimizer"])
        if scheduler is not None:
            scheduler.load_state_dict(saved["scheduler"])
        restore_rng(saved["rng"][fabric.global_rank])
    chief = fabric.is_global_zero
    began = time.monotonic() - seconds
    until = math.inf if minutes is None else time.monotonic() + 60 * minutes

    def save(step: int) -> None:
        everyone = _gather_rng(fabric)
        if folder is None or not chief:
            return
        state = {
            "step": step,
            "seconds": time.monotonic() - began,
            "best": None if best is None else [best[0], astuple(best[1])],
            "learner": dict(learner.state_dict()),
            "averaged": None if averaged is None else dict(averaged.state_dict()),
            "optimizer": optimizer.state_dict(),
            "scheduler": None if scheduler is None else _plain(scheduler.state_dict()),
            "rng": everyone,
        }
        save_state(folder / CHECKPOINT, state)

    if folder is not None and chief and saved is None:
        _write_run(folder, steps, fabric, about)
    log = RunLog(
        folder if chief else None,
        total=steps,
        start=start,
        progress=progress and chief,
        tensorboard=tensorboard and chief,
    )
    batches = prefetch(
        tasks, start * fabric.world_size + fabric.global_rank, step=fabric.world_size
    )
    total = torch.zeros((), device=fabric.device)
    since, since_time, done = start, time.monotonic(), start
    learner.train()
    with log, _stop_signals() as stop, noticing_loss():
        try:
            for step in range(start + 1, steps + 1):
                task = next(batches).to(fabric.device)
                loss = module.loss(task)
                fabric_optimizer.zero_grad()
                fabric.backward(loss)
                fabric_optimizer.step()
                if averaged is not None:
                    averaged.update_parameters(learner)
                if scheduler is not None:
                    scheduler.step()
                total += loss.detach()
                done = step
                log.advance(step)

                validate = validation is not None and (step % validate_every == 0 or step == steps)
                if step % log_every == 0 or step == steps or validate:
                    mean = _finite(total / (step - since), step)
                    now = time.monotonic()
                    rate = (step - since) * len(task) * fabric.world_size / (now - since_time)
                    figures = {
                        "seconds": now - began,
                        "tasks": step * len(task) * fabric.world_size,
                        "loss": mean,
                        "lr": optimizer.param_groups[0]["lr"],
                    }
                    if task.n_way is not None:
                        figures["accuracy"] = evaluate(learner, [task], n_tasks=len(task)).mean
                    if validate and validation is not None:
                        result = evaluate(kept, validation, n_tasks=validation_tasks)
                        figures |= {"validation": result.mean, "validation_ci95": result.ci95}
                        if best is None or _better(result, best[1]):
                            best = (step, result)
                            if folder is not None and chief:
                                save_weights(folder / BEST, kept)
                    log.row(step, figures, rate)
                    total.zero_()
                    since, since_time = step, time.monotonic()
                stopping = _agree(fabric, stop.is_set())
                spent = _agree(fabric, time.monotonic() >= until)
                if step % checkpoint_every == 0 or step == steps or stopping or spent:
                    save(step)
                if stopping and step < steps:
                    raise KeyboardInterrupt(f"stopped at step {step} of {steps}")
                if spent:
                    break
        finally:
            batches.close()
    if kept is not learner:
        learner.load_state_dict(kept.state_dict())
    if folder is not None and chief and done == steps:
        save_weights(folder / FINAL, learner)
    return TrainResult(done, time.monotonic() - began, *(best or (None, None)))


def _average(learner: MetaLearner, decay: float) -> Any:
    """A moving average of the learner's state, integers such as counters copied."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    if not 0 < decay < 1:
        raise ValueError(f"average is {decay}; expected a decay below 1, such as 0.999, or 0")
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(learner, multi_avg_fn=average, use_buffers=True)


def _rehearse(learner: MetaLearner, tasks: TaskSource) -> None:
    """One task through the learner: what does not fit shows before anything is written."""
    device = next(learner.parameters()).device
    training = learner.training
    try:
        with torch.no_grad(), torch.random.fork_rng():
            learner.eval()(tasks[0][:1].to(device))
    finally:
        learner.train(training)


def save_untrained(
    learner: MetaLearner, run_dir: str | os.PathLike[str], about: dict[str, Any] | None = None
) -> None:
    """The run folder of a learner that has nothing to train: its weights as they are.

    Raises:
        FileExistsError: ``run_dir`` holds a run.
    """
    folder = Path(run_dir)
    _saved_state(folder, resume=False)
    _write_run(folder, 0, None, about)
    save_weights(folder / FINAL, learner)


def _saved_state(folder: Path | None, resume: bool) -> dict[str, Any] | None:
    if folder is None:
        if resume:
            raise ValueError("resume=True needs a run_dir")
        return None
    path = folder / CHECKPOINT
    if not resume:
        if path.exists() or (folder / "run.json").exists():
            raise FileExistsError(
                f"{folder} already holds a run; resume it, or choose another folder"
            )
        return None
    return load_state(path) if path.exists() else None


def _write_run(folder: Path, steps: int, fabric: Any, about: dict[str, Any] | None) -> None:
    run = {
        **(about or {}),
        "steps": steps,
        "processes": 1 if fabric is None else fabric.world_size,
        "device": "cpu" if fabric is None else str(fabric.device),
        "torch_threads": torch.get_num_threads(),
        "seed": torch.initial_seed(),
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name) for name in ("quickstudy", "torch", "numpy", "lightning-fabric")
            },
        },
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
    }
    write_atomically(folder / "run.json", json.dumps(run, indent=2) + "\n")


def _better(new: Evaluation, old: Evaluation) -> bool:
    return new.mean > old.mean if new.metric == "accuracy" else new.mean < old.mean


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without functions, which belong to the code and not to the state."""
    return {k: v for k, v in state.items() if not callable(v) and k != "lr_lambdas"}


def _finite(mean: Tensor, step: int) -> float:
    value = float(mean)
    if value != value or value in (float("inf"), float("-inf")):
        raise FloatingPointError(
            f"the loss is {value} at step {step}: lower the learning rate (or, for MAML, inner_lr)"
        )
    return value


def _gather_rng(fabric: Any) -> list[dict[str, Any]]:
    """The generators' states of every process, in order of rank."""
    own = rng_state()
    if fabric.world_size == 1:
        return [own]
    states: list[Any] = [None] * fabric.world_size
    torch.distributed.all_gather_object(states, own)
    return states


def _agree(fabric: Any, stop: bool) -> bool:
    """Whether any process was asked to stop: all must stop at the same step."""
    if fabric.world_size == 1:
        return stop
    asked = torch.tensor(float(stop), device=fabric.device)
    return bool(fabric.all_reduce(asked, reduce_op="sum") > 0)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets; another, a second later, interrupts at once.

    One Ctrl-C under torchrun is several signals: the terminal's, and those torchrun passes on.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    asked = math.inf

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if time.monotonic() > asked + 1:
            raise KeyboardInterrupt
        asked = min(asked, time.monotonic())
        stop.set()

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
