"""Plain files and words: bytes that come to an end, JSON that other programs read, safe lines."""

import json
import math
import os
import stat
from typing import Any

__all__ = ["MOST_BYTES", "printable", "read_file", "to_json"]

MOST_BYTES = 1 << 28
"""Of a file."""


def to_json(value: Any, **how: Any) -> str:
    """JSON that every program reads: a number that is infinite or none becomes ``null``.

    Args:
        value: plain values.
        how: keywords of `json.dumps`.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    try:
        return json.dumps(value, allow_nan=False, **how)
    except ValueError:
        return json.dumps(plain(value), allow_nan=False, **how)


def printable(text: str) -> str:
    r"""A text that a terminal shows and does not obey: control characters are escaped.

    Example:
        >>> print(printable("café\x1b[2J"))
        café\x1b[2J
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: it is not there or cannot be read.
        ValueError: it is larger than 256 MiB, or no ordinary file: a pipe would never end.
    """
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"{os.fspath(path)} is no ordinary file")
        if about.st_size > MOST_BYTES:
            raise ValueError(f"{os.fspath(path)} is larger than {MOST_BYTES >> 20} MiB")
        return file.read()
