"""Examples on all cores: each for itself, and the operations that it needs on one thread."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["on_all_cores", "one_thread"]

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def one_thread() -> Iterator[int]:
    """A block in which each of torch's operations takes one thread; how many it took before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def on_all_cores(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """What a function makes of each item, in order; on as many threads as torch may take.

    Threads that share one small operation wait for each other at its end, and where cores are
    shared with other processes they wait long: one item a thread is faster on both accounts. It
    pays where the function lets go of Python's lock, as decoding and torch's operations do.
    """
    with one_thread() as threads:
        if min(threads, len(items)) < 2:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, items))
