"""Plain files and words: bytes that come to an end, JSON that other programs read, safe lines."""

import contextlib
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, AnyStr

__all__ = [
    "LONGEST_LINE",
    "MOST_BYTES",
    "check_there",
    "clear_temporaries",
    "interval_of",
    "printable",
    "read_file",
    "read_line",
    "reading",
    "to_json",
    "unpack",
    "write_atomically",
]

MOST_BYTES = 1 << 28
"""Of a file."""

LONGEST_LINE = 1 << 24
"""Characters, or bytes."""

_TEMPORARY = ".quickstudy.tmp"


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


def read_line(file: IO[AnyStr]) -> AnyStr:
    """The next line of a file, which need not have any; empty at its end.

    Raises:
        ValueError: it is longer than 16,777,216 characters; names the file.
    """
    line = file.readline(LONGEST_LINE + 1)
    if len(line) > LONGEST_LINE:
        raise ValueError(f"{file.name} has a line of more than {LONGEST_LINE:,} characters")
    return line


def check_there(path: str | os.PathLike[str]) -> None:
    """Raise ``FileNotFoundError`` if there is no such file."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")


@contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Within the block, whatever a damaged file makes Python raise becomes one ``ValueError``.

    Args:
        path: the file, which the error names.
        what: what it was to be, such as ``"a result card"``.
    """
    try:
        yield
    except (OSError, ModuleNotFoundError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(path) in str(error):
            raise
        reason = str(error) if isinstance(error, ValueError) else repr(error)
        raise ValueError(f"{path} is not {what} that can be read: {reason}") from error


def unpack(layout: Any, tensor: Callable[[str], Any]) -> Any:
    """The nesting of which `quickstudy.checkpoint.save_state` wrote the layout.

    Args:
        layout: as JSON has it.
        tensor: gives each tensor by its name in the file.
    """
    if not isinstance(layout, dict):
        return layout
    ((kind, value),) = layout.items()
    if kind == "tensor":
        return tensor(value)
    if kind == "dict":
        return {k: unpack(v, tensor) for k, v in value}
    items = [unpack(v, tensor) for v in value]
    return items if kind == "list" else tuple(items)


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a whole file or leave the old one: never half of it, even if the machine stops.

    A new file may be read by whom the user's umask says, and one that is replaced by whom it could
    before; where the path is a link, what it leads to is written. What a write that was killed
    left behind is removed by the next one in that folder, once it is ten minutes old.

    Raises:
        OSError: the file cannot be written; names it.
    """
    data = content.encode() if isinstance(content, str) else content
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe, or a device
        path.write_bytes(data)
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_temporaries(path.parent, older=600)
    temporary = path.with_name(f".{secrets.token_hex(6)}{_TEMPORARY}")
    try:
        # The system takes from 0o666 what the umask says.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def clear_temporaries(folder: str | os.PathLike[str], older: float = 0.0) -> None:
    """Remove what writes that were killed have left in a folder.

    Args:
        folder: the one.
        older: seconds that have passed since; whoever knows that nobody writes there may say 0.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(_TEMPORARY):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime >= older:
                        os.unlink(entry.path)


def interval_of(right: float, n: int) -> tuple[float, float]:
    """Wilson's 95% (1927), of a share of ``n`` of which ``right`` are; 0 to 1 of none."""
    z = 1.96
    middle, half = right + z * z / 2, z * math.sqrt(right * (1 - right / max(n, 1)) + z * z / 4)
    return max(0.0, (middle - half) / (n + z * z)), min(1.0, (middle + half) / (n + z * z))
