"""Images in class folders, or in a zip of class folders."""

import hashlib
import importlib.util
import io
import lzma
import math
import os
import posixpath
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features
from torch import Tensor

from quickstudy.data.dataset import ClassDataset, atomic_folder

__all__ = [
    "Files",
    "class_folders",
    "decode_image",
    "image_folder",
    "is_image",
    "not_read",
    "read_image",
]

_FORMATS = {"bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm"}
_FORMATS |= {"tif", "tiff", "webp"}  # of any Pillow
_NEEDS = {
    "avif": "a Pillow that was built with AVIF",
    "heic": "quickstudy[heic]",
    "heif": "quickstudy[heic]",
}
_SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information"}
_SYSTEM_FILES = {"desktop.ini", "ehthumbs.db", "icon\r", "picasa.ini", "thumbs.db"}
_PARTS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing")
_MOST_BYTES = 1 << 28
_SAID_UTF8 = 0x800  # a flag of a zip's member
_FAULTS = (EOFError, OSError, RuntimeError, ValueError, lzma.LZMAError, zlib.error)  # of a file


def image_folder(
    root: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] = 84,
    channels: Literal[1, 3] = 3,
    corrupt: Literal["skip", "refuse"] = "refuse",
    invert: bool = False,
    memmap: str | os.PathLike[str] | None = None,
) -> ClassDataset:
    """Load a folder (or zip) of class folders as uint8 ``[M,channels,height,width]``.

    A folder that holds images is a class, at any depth. Its name is its path below the deepest
    folder that holds all the classes; if every class lies two levels or more below that, the
    folder around a class is its group (``Greek/character01`` has the group ``Greek``). Classes
    and images stand in the order of their names.

    Files that are not named like an image, folders with nothing else in them and images beside the
    class folders are left out, and a warning counts them. Where ``train`` and ``test`` hold the
    same classes, ``train`` is read, and a warning says so. Hidden files and what systems put into
    folders (thumbnails, ``desktop.ini``) are left out.

    Images are turned as their EXIF tag says, laid over white where they are transparent, shrunk
    or enlarged (Lanczos) until they just cover ``size``, and cut to it around the centre. With a
    square ``size`` that is the common "resize the short side, then centre crop". 16-bit images
    keep their upper 8 bits (of those in use: 16, 12 or 8); of an animation the first frame is read.
    White on transparent ground is laid over black.

    Args:
        root: folder or ``.zip``.
        size: side of the images, or (height, width).
        channels: 3 for RGB, 1 for grey.
        corrupt: what to do with an image that cannot be read, or that has more pixels than
            ``PIL.Image.MAX_IMAGE_PIXELS``: raise, or leave it out and warn once.
        invert: swap black and white, for dark drawings on light paper.
        memmap: a folder to write the images to, one by one, and to read them from. With it the
            images never stand in memory together; `ClassDataset.open` opens it again.

    Raises:
        FileNotFoundError: there is no ``root``.
        ValueError: an image is corrupt, a class has no images, or there are fewer than two
            classes; names the file or folder.
    """
    height, width = _check_size(size, channels)
    if corrupt not in ("skip", "refuse"):
        raise ValueError(f"corrupt is {corrupt!r}; expected 'skip' or 'refuse'")
    with Files(root) as files:
        classes = _classes(files)
        n_images = sum(len(names) for names in classes.values())
        shape = (n_images, channels, height, width)
        read: Counter[str] = Counter()
        failed: list[str] = []

        def images() -> Iterator[NDArray[np.uint8]]:
            for folder, names in classes.items():
                for name in names:
                    where = files.where(name)
                    try:
                        data = decode_image(files.read(name), where, (height, width), channels)
                    except ValueError as error:
                        if corrupt == "refuse":
                            raise ValueError(
                                f"{error} (corrupt='skip' leaves such images out)"
                            ) from error
                        failed.append(where)
                    else:
                        read[folder] += 1
                        yield 255 - data if invert else data

        def dataset(storage: NDArray[np.uint8]) -> ClassDataset:
            if failed:
                _warn(failed)
            if empty := [folder for folder in classes if not read[folder]]:
                raise ValueError(f"no image of {files.where(empty[0])} can be read")
            names, groups = _names(list(classes))
            sizes = [read[folder] for folder in classes]
            return ClassDataset.from_sizes(
                torch.from_numpy(storage[: sum(sizes)]), sizes, names, groups
            )

        if memmap is None:
            storage = np.empty(shape, np.uint8)
            for i, image in enumerate(images()):
                storage[i] = image
            return dataset(storage)
        with atomic_folder(memmap) as folder:
            with (folder / "storage.npy").open("wb") as file:
                np.lib.format.write_array_header_1_0(
                    file, {"descr": "|u1", "fortran_order": False, "shape": shape}
                )
                start = file.tell()
                for image in images():
                    file.write(image.tobytes())
                file.truncate(start + math.prod(shape))
            mapped = np.load(folder / "storage.npy", mmap_mode="c")
            dataset(mapped).save_classes(folder)
            del mapped
    return ClassDataset.open(memmap)


def read_image(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] = 84,
    channels: Literal[1, 3] = 3,
    invert: bool = False,
) -> Tensor:
    """One image file, made ready exactly as `image_folder` does: uint8 ``[channels,H,W]``.

    Args:
        path: the file.
        size: side of the image, or (height, width).
        channels: 3 for RGB, 1 for grey.
        invert: swap black and white.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a readable image.
    """
    pixels = decode_image(Path(path).read_bytes(), str(path), _check_size(size, channels), channels)
    return torch.from_numpy(255 - pixels if invert else pixels.copy())


def _check_size(size: int | tuple[int, int], channels: int) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel")
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}; expected 1 (grey) or 3 (RGB)")
    return height, width


def is_image(name: str) -> bool:
    """Whether a file is named like an image that can be read here.

    AVIF needs a Pillow that was built with it, HEIC and HEIF the extra ``quickstudy[heic]``.
    """
    return _suffix(name) in _formats()


def not_read(names: Iterable[str]) -> str | None:
    """How many of these files are no images, by what their names end with; ``None`` if none is."""
    other = [name.rpartition("/")[2] for name in names if not is_image(name)]
    ends = Counter(_suffix(name) for name in other if name.lower() not in _SYSTEM_FILES)
    if not ends:
        return None
    return "not read: " + ", ".join(
        f"{count} {'.' + end if end else 'without an ending'}"
        + (f" (needs {_NEEDS[end]})" if end in _NEEDS else "")
        for end, count in sorted(ends.items(), key=lambda pair: (-pair[1], pair[0]))
    )


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1][1:].lower()


@cache
def _formats() -> set[str]:
    found = set(_FORMATS)
    if features.check("avif"):
        found.add("avif")
    if importlib.util.find_spec("pillow_heif"):
        importlib.import_module("pillow_heif").register_heif_opener()
        found |= {"heic", "heif"}
    return found


def class_folders(files: "Files") -> dict[str, list[str]]:
    """The image files of each class, by the name that `image_folder` gives it, both sorted.

    Raises:
        ValueError: there are no classes, or one of them is empty; names the folder.
    """
    classes = _classes(files, least=1)
    names, _ = _names(list(classes))
    return dict(zip(names, classes.values(), strict=True))


def _classes(files: "Files", least: int = 2) -> dict[str, list[str]]:
    """The images of each folder that holds some, both sorted; warns of what is left out."""
    classes: dict[str, list[str]] = {}
    for name in files.names:
        if is_image(name):
            classes.setdefault(name.rpartition("/")[0], []).append(name)
    left_out = [not_read(files.names)]
    if stray := classes.pop("", []):
        if not classes:
            raise ValueError(
                f"{files.where(stray[0])} lies in no class folder; expected "
                f"{files.path}/CLASS/IMAGE"
            )
        more = f", nor do {len(stray) - 1} more images" if len(stray) > 1 else ""
        left_out.append(f"left out: {files.where(stray[0])} lies in no class folder{more}")
    inner = {parent for folder in files.folders for parent in _parents(folder)}
    for folder in files.folders:
        if folder not in classes and folder not in inner:
            content = not_read(name for name in files.names if name.startswith(folder + "/"))
            if content is None:
                raise ValueError(f"class folder {files.where(folder)} holds no images")
            left_out.append(
                f"left out: the class folder {files.where(folder)} holds no images ({content})"
            )
    if len(classes) < least:
        content = f"only the class {next(iter(classes))!r}" if classes else "no images"
        known = f" ({left_out[0]})" if left_out[0] else ""
        raise ValueError(
            f"{files.path} holds {content}{known}; expected a folder for each of at least 2 classes"
        )
    for line in filter(None, [*left_out, files.doubt, _keep_one_part(classes)]):
        warnings.warn(f"{files.path}: {line}", stacklevel=4)
    return dict(sorted(classes.items()))


def _keep_one_part(classes: dict[str, list[str]]) -> str | None:
    """Of classes that stand in ``train`` and again in ``test``, keep the former; says so."""
    parts: dict[str, dict[str, str]] = {}
    for folder, name in zip(classes, _names(list(classes))[0], strict=True):
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = folder
    if len(parts) < 2 or not {part.lower() for part in parts} <= {*_PARTS}:
        return None
    first, *others = sorted(parts, key=lambda part: _PARTS.index(part.lower()))
    if not any(parts[first].keys() & parts[other].keys() for other in others):
        return None
    for other in others:
        for folder in parts[other].values():
            del classes[folder]
    return f"{first} and {' and '.join(others)} hold the same classes; only {first} is read"


def _names(folders: list[str]) -> tuple[list[str], list[str] | None]:
    """Class names below the deepest folder around them all, and their groups if each has one."""
    around = posixpath.commonpath(["/" + folder.rpartition("/")[0] for folder in folders])
    names = [f"/{folder}".removeprefix(around).lstrip("/") for folder in folders]
    groups = [name.rpartition("/")[0] for name in names]
    return names, groups if all(groups) else None


def decode_image(
    data: bytes, where: str, size: tuple[int, int], channels: Literal[1, 3]
) -> NDArray[np.uint8]:
    """An encoded image as `image_folder` prepares it: uint8 ``[channels, *size]``.

    Args:
        data: the bytes of the file.
        where: what to call it in a message.
        size: height and width.
        channels: 3 for RGB, 1 for grey.

    Raises:
        ValueError: as `open_image`.
    """
    image = open_image(data, where, "L" if channels == 1 else "RGB")
    pixels = np.asarray(ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS))
    return pixels[None] if channels == 1 else np.moveaxis(pixels, 2, 0)


def open_image(data: bytes, where: str, mode: Literal["L", "RGB"]) -> Image.Image:
    """An encoded image, upright, on white where it is transparent.

    Raises:
        ValueError: it cannot be read, or has more pixels than ``PIL.Image.MAX_IMAGE_PIXELS``.
    """
    heic = "heic" in _formats()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                return _to_mode(_upright(image), mode)
    except UnidentifiedImageError as error:
        fault = "it is damaged, or no image at all"
        if not heic and data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
            fault = "HEIC needs quickstudy[heic]"
        raise ValueError(f"cannot read the image {where}: {fault}") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file makes them raise
        raise ValueError(f"cannot read the image {where}: {error!r}") from error


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF tag says, if that can be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels of an image with a broken tag may be whole
        return image


def _to_mode(image: Image.Image, mode: Literal["L", "RGB"]) -> Image.Image:
    """Grey or RGB, 8 bits.

    Of 16-bit pixels the upper 8 bits, or, if none is that large, of 12-bit or 8-bit ones, as
    microscopes and scanners put them into such files. On white where it is transparent; on black,
    if only that shows anything.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats, of which nothing says what is white")
    if image.mode.startswith("I"):
        wide = np.asarray(image).clip(0, 65535)
        bits = next(bits for bits in (8, 12, 16) if wide.max() < 1 << bits)
        image = Image.fromarray((wide >> (bits - 8)).astype(np.uint8))
    if "A" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        laid = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if _is_blank(laid):
            on_black = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
            laid = laid if _is_blank(on_black) else on_black
        image = laid
    return image.convert("RGB").convert(mode)


def _is_blank(image: Image.Image) -> bool:
    pixels = np.asarray(image.convert("L"))
    return bool(pixels.min() == pixels.max())


def _warn(failed: list[str]) -> None:
    shown = ", ".join(failed[:3]) + (", ..." if len(failed) > 3 else "")
    warnings.warn(f"left out {len(failed)} images that cannot be read: {shown}", stacklevel=4)


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
            try:
                self._zip = zipfile.ZipFile(self.path)
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                raise ValueError(
                    f"{self.path} is not a zip file that can be read ({error}); "
                    "if it was downloaded, delete it and download it again"
                ) from error
            self._members = _member_names(self._zip)
            names = [name for name in self._members if not name.endswith("/")]
            folders = [name.rstrip("/") for name in self._members if name.endswith("/")]
            folders += [str(parent) for name in names for parent in _parents(name)]
            if any(
                not name.isascii() and name == entry.filename and not entry.flag_bits & _SAID_UTF8
                for name, entry in self._members.items()
            ):
                self.doubt = "names that are not in UTF-8 were read as code page 437 has them"
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
                return (self.path / name).read_bytes()
            with self._zip.open(self._members[name]) as file:
                data = file.read(_MOST_BYTES + 1)  # whatever size the directory says
            if len(data) > _MOST_BYTES:
                raise ValueError(f"unpacks to more than {_MOST_BYTES >> 20} MiB")
            return data
        except (*_FAULTS, zipfile.BadZipFile) as e:
            raise ValueError(f"cannot read {self.where(name)}: {e}") from e

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
    if any("/" in name for name in members):
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


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name
