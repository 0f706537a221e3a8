"""What the operating system's allocator does with memory between steps."""

import ctypes
import os

__all__ = ["keep_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_MOST = 2**31 - 1


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
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    wanted = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, 1 << 28))
    return all(mallopt(name, value) == 1 for name, value in wanted)
