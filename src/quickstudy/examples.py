"""Examples as people keep them: class folders, a zip, a CSV or JSON lines; or held in memory."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from quickstudy.data.folder import Files, class_folders, is_image

__all__ = ["Example", "Item", "as_example", "as_examples", "read_examples", "read_item"]

Item: TypeAlias = Union["Example", str, bytes, os.PathLike[str], Image.Image, NDArray[Any]]

_LABELS = ("label", "class", "intent", "category")


@dataclass(frozen=True)
class Example:
    """One example, not yet decoded.

    Attributes:
        item: the bytes of an image file, or a text.
        label: its class; ``None`` if unknown.
        where: what to call it in a message.
    """

    item: bytes | str
    label: str | None
    where: str


def read_examples(path: str | os.PathLike[str]) -> Iterator[Example]:
    """Examples one by one, so that a large collection never stands in memory as a whole.

    Args:
        path: a folder or ``.zip`` with a folder of images for each class; or a ``.csv`` (with a
            header) or ``.jsonl`` whose rows have a ``label`` and either a ``text`` or the ``path``
            of an image, relative to the file.

    Raises:
        FileNotFoundError: there is no such path, or a row names an image that is not there.
        ValueError: it is none of these; names the file, the row and what is missing.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".jsonl"):
        yield from _table(path)
        return
    with Files(path) as files:
        for label, names in class_folders(files).items():
            for name in names:
                yield Example(files.read(name), label, files.where(name))


def read_item(path: str | os.PathLike[str]) -> Example:
    """One image file, without a label.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    return Example(path.read_bytes(), None, str(path))


def as_examples(given: str | os.PathLike[str] | Iterable[Any]) -> Iterator[Example]:
    """Labelled examples, in whatever form you hold them.

    Args:
        given: a path, as `read_examples` takes; or `Example`s, or pairs of an item (see
            `as_example`) and its label.

    Raises:
        ValueError: one of them is neither; says which.
    """
    if isinstance(given, str | os.PathLike):
        yield from read_examples(given)
        return
    for i, pair in enumerate(given):
        if isinstance(pair, Example):
            yield pair
            continue
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ValueError(
                f"example {i + 1} is {_a(pair)}; expected a pair of an item and its label"
            )
        item, label = pair
        yield as_example(item, f"example {i + 1}", label=str(label))


def as_example(item: Item, where: str = "it", *, label: str | None = None) -> Example:
    """An example from what people hold.

    Args:
        item: a text; the path of an image (of type ``str`` if it ends like one and is there, or
            `pathlib.Path`); the bytes of an image file; a Pillow image; or the pixels of one as an
            array: ``[H,W]``, ``[H,W,C]`` or ``[C,H,W]`` with C 1, 3 or 4, whole numbers 0..255 or
            real ones 0..1.
        where: what to call it; a file is called by its path.
        label: its class.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of these.
    """
    if isinstance(item, Example):
        return item
    if isinstance(item, os.PathLike) or (
        isinstance(item, str) and is_image(item) and os.path.isfile(item)
    ):
        read = read_item(item)
        return Example(read.item, label, read.where)
    if isinstance(item, str | bytes):
        return Example(item, label, where)
    if isinstance(item, Image.Image):
        image = ImageOps.exif_transpose(item)
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
            image = image.convert("RGB")
        return Example(_png(image), label, where)
    if hasattr(item, "__array__"):
        return Example(_png(Image.fromarray(_pixels(np.asarray(item), where))), label, where)
    raise ValueError(
        f"{where} is {_a(item)}; expected a text, the path of an image, its bytes, a Pillow image "
        "or an array of pixels"
    )


def _pixels(x: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """As Pillow takes them: uint8 ``[H,W]`` or ``[H,W,C]``."""
    if x.ndim == 3 and x.shape[0] in (1, 3, 4) and x.shape[2] not in (1, 3, 4):
        x = np.moveaxis(x, 0, 2)
    if x.ndim == 3 and x.shape[2] == 1:
        x = x[:, :, 0]
    if not x.size or x.ndim not in (2, 3) or (x.ndim == 3 and x.shape[2] not in (3, 4)):
        raise ValueError(
            f"{where} is an array of shape {list(x.shape)}; expected an image: [H,W], or with "
            "1, 3 or 4 channels first or last"
        )
    white = 255 if x.dtype.kind in "iu" else 1
    number = x.dtype.kind in "biuf"
    if not number or not (x.min() >= 0 and x.max() <= white):
        span = f", from {x.min()} to {x.max()}" if number else ""
        raise ValueError(
            f"{where} is an array of {x.dtype}{span}; expected whole numbers from 0 to 255, or "
            "real ones from 0 to 1"
        )
    return (x if white == 255 else np.round(x * 255.0)).astype(np.uint8)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def _a(value: Any) -> str:
    return f"of type {type(value).__name__}"


def _table(path: Path) -> Iterator[Example]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    rows = _csv(path) if path.suffix.lower() == ".csv" else _json_lines(path)
    empty = True
    for where, row in rows:
        empty = False
        label = next((row[name] for name in _LABELS if row.get(name) not in (None, "")), None)
        if label is None:
            raise ValueError(f"{where} has no label; it has: {', '.join(map(str, row))}")
        if isinstance(text := row.get("text"), str) and text.strip():
            yield Example(text, str(label), where)
        elif isinstance(name := row.get("path"), str) and name:
            yield Example(read_item(path.parent / name).item, str(label), str(path.parent / name))
        else:
            raise ValueError(f"{where} has neither a text nor a path; it has: {', '.join(row)}")
    if empty:
        raise ValueError(f"{path} holds no examples")


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            for row in reader:
                yield f"{path}, line {reader.line_num}", row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8: {error}") from error


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{where} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise ValueError(f"{where} is {type(row).__name__}; expected an object")
            yield where, row
