"""Files in a folder or a zip, and how they are read: never without end."""

import bz2
import hashlib
import lzma
import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from quickstudy.plain import MOST_BYTES, read_file

__all__ = ["Files", "parents"]

_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"}
_DEEPEST = 64  # folders: each of them is a name as long as all those around it
_SAID_UTF8 = 0x800  # a flag of a zip's member
_OF_PYTHON = (EOFError, IndexError, MemoryError, OSError, RuntimeError, ValueError)
_FAULTS = (*_OF_PYTHON, lzma.LZMAError, struct.error, zlib.error, zipfile.BadZipFile)  # of a file


class Files:
    """The files below a folder or inside a ``.zip``, which is read without extracting it.

    Hidden files and folders, and those that systems make (``__MACOSX``, ``@eaDir``), are left out.
    Links are followed, once each.

    Attributes:
        path: the folder or zip.
        names: the files' paths relative to it, with ``/``, sorted.
        folders: the folders' paths, likewise.
        doubt: what is uncertain about the names, if anything is.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ValueError: ``path`` is a file but not a zip that can be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, zipfile.ZipInfo] = {}
        self.doubt: str | None = None
        if self.path.is_dir():
            names, folders = _walk(self.path)
        elif self.path.exists():
            if not self.path.is_file():
                raise ValueError(f"{self.path} is no ordinary file")
            try:
                self._zip = zipfile.ZipFile(self.path)
            except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
                raise ValueError(
                    f"{self.path} is not a zip file that can be read ({error}); "
                    "if it was downloaded, delete it and download it again"
                ) from error
            self._members = _member_names(self._zip)
            names = [name for name in self._members if not name.endswith("/")]
            folders = [name.rstrip("/") for name in self._members if name.endswith("/")]
            if deep := next((name for name in names if name.count("/") > _DEEPEST), None):
                raise ValueError(
                    f"{self.path} has folders more than {_DEEPEST} deep: {deep[:40]}..."
                )
            folders += {parent for name in names for parent in parents(name)}
            if any(
                not name.isascii() and name == entry.filename and not entry.flag_bits & _SAID_UTF8
                for name, entry in self._members.items()
            ):
                self.doubt = "names that are not in UTF-8 were read as code page 437 has them"
            several = Counter(_member_name(entry) for entry in self._zip.infolist())
            name, count = max(several.items(), key=lambda pair: pair[1], default=("", 0))
            if count > 1:
                self.doubt = f"{count} members are called {name}; only the last is read"
        else:
            raise FileNotFoundError(f"no such folder or zip: {self.path}")
        self.names = sorted({name for name in names if not _hidden(name)})
        self.folders = sorted({name for name in folders if not _hidden(name)})

    def read(self, name: str) -> bytes:
        """The bytes of one file.

        Raises:
            ValueError: it cannot be read, or unpacks to more than 256 MiB; names the file.
        """
        try:
            if self._zip is None:
                return read_file(self.path / name)
            entry = self._members[name]
            if entry.compress_type in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
                data = self._unpacked(entry)
            else:
                with self._zip.open(entry) as file:
                    data = file.read(MOST_BYTES + 1)  # whatever size the directory says
            if len(data) > MOST_BYTES:
                raise ValueError(f"unpacks to more than {MOST_BYTES >> 20} MiB")
            return data
        except _FAULTS as e:
            raise ValueError(f"cannot read {self.where(name)}: {e}") from e

    def _unpacked(self, entry: zipfile.ZipInfo) -> bytes:
        """A member that zipfile would unpack without a bound, however much that is."""
        with self.path.open("rb") as file:
            file.seek(entry.header_offset + 26)
            file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
            packed = file.read(min(entry.compress_size, MOST_BYTES))
        if entry.flag_bits & 1:
            raise ValueError("it is encrypted")
        if entry.compress_type == zipfile.ZIP_BZIP2:
            data = bz2.BZ2Decompressor().decompress(packed, MOST_BYTES + 1)
        else:
            size = struct.unpack("<H", packed[2:4])[0]
            traits, window = packed[4], struct.unpack("<I", packed[5:9])[0]
            if window > MOST_BYTES:
                raise ValueError(f"it needs more than {MOST_BYTES >> 20} MiB to be unpacked")
            lc, lp, pb = traits % 9, traits // 9 % 5, traits // 45
            how = {"id": lzma.FILTER_LZMA1, "dict_size": window, "lc": lc, "lp": lp, "pb": pb}
            unpack = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[how])
            data = unpack.decompress(packed[4 + size :], MOST_BYTES + 1)
        if len(data) <= MOST_BYTES and zlib.crc32(data) != entry.CRC:
            raise ValueError("its checksum is another")
        return data

    def where(self, name: str) -> str:
        """What to call this file in a message."""
        return str(self.path / name)

    def signature(self) -> str:
        """SHA-256 that changes when the files do: of a zip's bytes, or a folder's listing."""
        if self._zip is not None:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        for name in self.names:
            stat = os.stat(self.path / name)
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return digest.hexdigest()

    def close(self) -> None:
        if self._zip is not None:
            self._zip.close()

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Files and folders below. What a link leads to is read where it really is, if it is here."""
    names, folders = [], []
    seen: set[str] = set()
    waiting = [str(root)]

    def fail(error: OSError) -> None:
        raise error

    while waiting:
        for here, below, files in os.walk(waiting.pop(0), onerror=fail):
            if (real := os.path.realpath(here)) in seen:
                below.clear()
                continue
            seen.add(real)
            relative = Path(here).relative_to(root)
            names += [(relative / name).as_posix() for name in files]
            folders.append(relative.as_posix())
            below[:] = sorted(name for name in below if not _hidden(name))
            links = [name for name in below if os.path.islink(os.path.join(here, name))]
            waiting += [os.path.join(here, name) for name in links]
            below[:] = [name for name in below if name not in links]
    return names, folders[1:]


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part in _SYSTEM_FOLDERS for part in name.split("/"))


def _member_names(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members by path. Some programs of Windows write backslashes between folders."""
    members = {_member_name(entry): entry for entry in archive.infolist()}
    if sum("/" in name for name in members) >= sum("\\" in name for name in members):
        return members
    return {name.replace("\\", "/"): entry for name, entry in members.items()}


def _member_name(entry: zipfile.ZipInfo) -> str:
    """As whoever wrote it meant it: many programs do not say that their names are in UTF-8."""
    if entry.flag_bits & _SAID_UTF8:
        return entry.filename
    try:
        return entry.filename.encode("cp437").decode()
    except UnicodeError:
        return entry.filename


def parents(name: str) -> Iterator[str]:
    """The folders around a file or folder, from the inside."""
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name
