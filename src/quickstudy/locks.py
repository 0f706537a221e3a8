"""Locks that end with the process that holds them, however it ends."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["BusyError", "alone"]


class BusyError(OSError):
    """Another process is at work there."""


@contextmanager
def alone(path: str | os.PathLike[str], *, wait: bool = True) -> Iterator[None]:
    """Let one process at a time into the block, where the system has file locks.

    Args:
        path: a folder, or a file that is made if there is none.
        wait: until it is free; or raise.

    Raises:
        BusyError: another process is in the block, and ``wait`` is not set.
    """
    if sys.platform == "win32":
        yield
        return
    folder = Path(path).is_dir()
    held = os.open(path, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        os.close(held)
        raise BusyError(f"another process is at work in {os.fspath(path)}") from error
    except OSError:  # some network disks have no locks
        pass
    try:
        yield
    finally:
        os.close(held)
