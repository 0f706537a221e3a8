"""How the tasks of a batch are worked through: how many at once, on how many threads."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

__all__ = ["Execution", "executing", "execution", "in_parallel"]

Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Execution:
    """The one switch between ways to do the same: they differ in speed and memory, and in results
    by no more than rounding.

    Attributes:
        tasks_at_once: tasks that go through the network in one pass; 1 is a plain loop. ``None``:
            as many small ones as stay in the processor's cache.
        threads: parts of a batch worked on side by side, each by one core. ``None``: as many as
            torch may use (`torch.set_num_threads`). Intra-operation threads have nothing to do in
            tasks of five images; one on each core has.
        stacked: use the layers of `quickstudy.nn.stacked` where a network has no others;
            otherwise `torch.func.vmap`, which knows all layers and runs on one thread.
        graphs: second-order learners keep the graphs of so many last inner steps; earlier steps
            are taken again in the backward pass, so that memory stays flat in their number and
            time grows by less than a third. ``None``: the graphs of all.
    """

    tasks_at_once: int | None = None
    threads: int | None = None
    stacked: bool = True
    graphs: int | None = 5

    def __post_init__(self) -> None:
        for name in ("tasks_at_once", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1, or None")
        if self.graphs is not None and self.graphs < 0:
            raise ValueError(f"graphs is {self.graphs}; expected 0 or more, or None")


_chosen = Execution()


def execution() -> Execution:
    """What is in force."""
    return _chosen


@contextmanager
def executing(**changes: object) -> Iterator[Execution]:
    """Change what is in force within a block, for instance ``threads=1``."""
    global _chosen
    before = _chosen
    _chosen = replace(before, **changes)  # type: ignore[arg-type]
    try:
        yield _chosen
    finally:
        _chosen = before


def in_parallel(
    function: Callable[[Part], Result], parts: Sequence[Part], threads: int
) -> list[Result]:
    """``function`` of each part, in order; side by side on ``threads`` threads of one core each."""
    if threads == 1 or len(parts) == 1:
        return [function(part) for part in parts]
    grad, mixed = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu")

    def run(part: Part) -> Result:
        with torch.set_grad_enabled(grad), torch.autocast("cpu", dtype, enabled=mixed):
            return function(part)

    return list(_pool(threads).map(run, parts))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that stay. Setting their number of threads also sets that of MKL for all."""
    own = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "tasks", initializer=torch.set_num_threads, initargs=(1,))
    everyone = Barrier(threads)
    for waiting in [pool.submit(everyone.wait) for _ in range(threads)]:
        waiting.result()
    torch.set_num_threads(own)
    return pool


os.register_at_fork(after_in_child=_pool.cache_clear)
