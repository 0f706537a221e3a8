"""How much memory a training step needs, how much there is, and who keeps it between steps."""

import ctypes
import os
from pathlib import Path
from typing import Any

import torch

from quickstudy.inner.graphs import graph_bytes
from quickstudy.learner import temporarily
from quickstudy.task import Task

__all__ = ["available_bytes", "check_memory", "keep_memory", "return_memory", "step_bytes"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_MOST = 2**31 - 1
_LARGE = 4 << 20


def keep_memory() -> bool:
    """Have glibc keep freed memory for the next step instead of giving it back at once.

    By default each large tensor is mapped anew and every page of it faults in again: a 60-way
    ProtoNet step takes 1.8 times as long (one core). The process holds on to its peak instead.

    Returns:
        Whether it was done: false without glibc, or with ``QUICKSTUDY_KEEP_MEMORY=0`` in the
        environment.
    """
    if os.environ.get("QUICKSTUDY_KEEP_MEMORY") == "0":
        return False
    return _mallopt({_MMAP_THRESHOLD: 1 << 30, _TRIM_THRESHOLD: _MOST, _TOP_PAD: 1 << 28})


def return_memory() -> bool:
    """Have glibc give back at once what large images took; `keep_memory` does nothing afterwards.

    For a server: each of its threads would hold on to the most that it ever used.

    Returns:
        Whether it was done: false without glibc.
    """
    os.environ["QUICKSTUDY_KEEP_MEMORY"] = "0"
    return _mallopt({_MMAP_THRESHOLD: _LARGE})


def _mallopt(options: dict[int, int]) -> bool:
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(name, value) == 1 for name, value in options.items())


def step_bytes(learner: Any, task: Task) -> int:
    """An estimate of the memory that a training step on this batch of tasks needs, in bytes.

    What the graph of one task keeps is counted, and that of two; more tasks follow in a straight
    line. Half is added for what the backward pass makes, and the parameters with their gradients
    and two moments. Measured on MAML and ProtoNet steps, it is right to a factor of 2.

    Args:
        learner: a `MetaLearner`; its mode, state and the random generators are left as they are.
        task: a batch as in training; ``len(task)`` and the learner say how many are held at once.
    """
    together: int = learner.tasks_in_memory(task)
    one = _graph_bytes(learner, task[:1])
    each = _graph_bytes(learner, task[:2]) - one if len(task) > 1 else 0
    parameters: int = sum(p.numel() * p.element_size() for p in learner.parameters())
    return int(1.5 * (one + max(0, each) * (together - 1))) + 4 * parameters


def _graph_bytes(learner: Any, task: Task) -> int:
    with temporarily(learner, training=False), torch.random.fork_rng():
        return graph_bytes(lambda: learner.loss(task), task.tensors())[0]


def available_bytes(device: torch.device) -> int | None:
    """Memory still available on a device; ``None`` where that is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    limits = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(1024 * int(line.split()[1]))
        group = Path("/sys/fs/cgroup")
        limit, used = (group / name for name in ("memory.max", "memory.current"))
        if (maximum := limit.read_text().strip()) != "max":
            limits.append(int(maximum) - int(used.read_text()))
    except OSError:
        pass
    return min(limits, default=None)


def check_memory(learner: Any, task: Task, device: torch.device) -> None:
    """Raise ``MemoryError`` if a training step on ``task`` would not fit; says what would.

    ``QUICKSTUDY_CHECK_MEMORY=0`` in the environment trains all the same.
    """
    free = available_bytes(device)
    if free is None or os.environ.get("QUICKSTUDY_CHECK_MEMORY") == "0":
        return
    needed = step_bytes(learner, task)
    if needed <= free:
        return
    fits = next(
        (n for n in range(len(task) - 1, 0, -1) if step_bytes(learner, task[:n]) <= free), 0
    )
    advice = (
        f"{fits} tasks a batch would fit (--tasks {fits})"
        if fits
        else "even one task does not fit: take fewer queries, ways or steps, or smaller images"
    )
    raise MemoryError(
        f"a training step of {len(task)} tasks with {task.support_y.shape[1]} support and "
        f"{task.query_y.shape[1]} query examples needs about {_gib(needed)}, and {_gib(free)} are "
        f"free: {advice}. To try all the same, set QUICKSTUDY_CHECK_MEMORY=0"
    )


def _gib(n: int) -> str:
    return f"{n / 2**30:.1f} GiB"
