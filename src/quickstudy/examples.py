"""Examples as people keep them: class folders, a zip, a CSV or JSON lines; or held in memory."""

import io
import os
import unicodedata
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from quickstudy.class_folders import class_folders
from quickstudy.columns import Row, rows_of
from quickstudy.files import Files
from quickstudy.images import is_image
from quickstudy.plain import read_file
from quickstudy.rows import LABELS, column_name, read_csv, read_json_lines, read_json_list

__all__ = [
    "Example",
    "Item",
    "as_example",
    "as_examples",
    "is_table",
    "label_form",
    "read_examples",
    "read_item",
    "read_table",
]

Item: TypeAlias = Union["Example", str, bytes, os.PathLike[str], Image.Image, NDArray[Any], Row]

_SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_TABLES = (".csv", ".tsv", ".jsonl", ".json")
_LONGEST_NAME = 1000  # characters of a label


@dataclass(frozen=True)
class Example:
    """One example, not yet decoded.

    Attributes:
        item: the bytes of an image file, a text, or a row of a table: its values by column.
        label: its class; ``None`` if unknown.
        where: what to call it in a message.
    """

    item: bytes | str | Row
    label: str | None
    where: str


def read_examples(
    path: str | os.PathLike[str], failed: list[str] | None = None, label: str | None = None
) -> Iterator[Example]:
    """Examples one by one, so that a large collection never stands in memory as a whole.

    Args:
        path: a folder or ``.zip`` with a folder of images for each class; or a ``.csv``, ``.tsv``
            (with a header), ``.jsonl`` or ``.json`` (a list) whose rows have a ``label`` and either
            a ``text``, the ``path`` of an image, relative to the file, or any other columns.
        failed: receives what is wrong with a file or a row, which is left out; without it the first
            one raises, but for a row whose text is empty, of which a warning tells.
        label: the column of a table that holds the labels, if it is not called ``label``,
            ``class``, ``intent`` or ``category``.

    Raises:
        FileNotFoundError: there is no such path, or a row names an image that is not there.
        ValueError: it is none of these, or nothing in it can be used; names the file, the row and
            what is missing.
    """
    path = Path(path)
    if is_table(path):
        yield from _table(path, failed, label)
        return
    if label is not None and path.suffix.lower() not in _SHEETS:
        raise ValueError(f"{path} is no table: no column of it is called {label!r}")
    archive = path.suffix.lower() == ".zip" or zipfile.is_zipfile(path)
    if path.is_file() and (not archive or path.suffix.lower() in _SHEETS):
        sheet = path.suffix.lower() in _SHEETS
        raise ValueError(
            f"{path} is no folder, no zip and none of {', '.join(_TABLES)}; "
            + (
                "save the sheet as CSV"
                if sheet
                else "a table needs a column label and others: text, path, or what you know of "
                "each row"
            )
        )
    with Files(path) as files:
        for label, names in class_folders(files).items():
            for name in names:
                try:
                    known = label_form(label, files.where(name))
                    data = files.read(name)
                except ValueError as fault:
                    if failed is None:
                        raise
                    failed.append(str(fault))
                    continue
                yield Example(data, known, files.where(name))


def is_table(path: str | os.PathLike[str]) -> bool:
    """Whether a file is named like a table that can be read."""
    return Path(path).suffix.lower() in _TABLES


def read_table(path: str | os.PathLike[str], failed: list[str] | None = None) -> Iterator[Example]:
    """The texts, images or rows of a table, whether it has labels or not. See `read_examples`."""
    yield from _table(Path(path), failed, labelled=False)


def read_item(path: str | os.PathLike[str]) -> Example:
    """One image file, without a label.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is larger than 256 MiB, or no file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; expected a file")
    return Example(read_file(path), None, str(path))


def as_examples(
    given: str | os.PathLike[str] | Iterable[Any],
    failed: list[str] | None = None,
    label: str | None = None,
) -> Iterator[Example]:
    """Labelled examples, in whatever form you hold them.

    Args:
        given: a path, as `read_examples` takes; or `Example`s, or pairs of an item (see
            `as_example`) and its label; or a DataFrame.
        failed: as for `read_examples`.
        label: the column of a table that holds the labels, as for `read_examples`.

    Raises:
        ValueError: one of them is neither; says which.
    """
    if isinstance(given, str | os.PathLike):
        yield from read_examples(given, failed, label)
        return
    if (rows := rows_of(given)) is not None:
        yield from _of_rows("the table", enumerate(rows, 1), failed, label)
        return
    for i, pair in enumerate(given):
        where = f"example {i + 1}"
        try:
            if isinstance(pair, Example):
                label = pair.label
                yield pair if label is None else replace(pair, label=label_form(label, pair.where))
                continue
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ValueError(f"{where} is {_a(pair)}; expected a pair of an item and its label")
            item, label = pair
            yield as_example(item, where, label=label_form(label, where))
        except (OSError, ValueError) as fault:
            if failed is None:
                raise
            failed.append(str(fault))


def label_form(value: Any, where: str) -> str:
    """A label as it is kept: text, composed (Unicode's NFC), without blanks around it.

    Numbers of one value are one label: 1, 1.0 and ``"1"``.

    Args:
        value: a text, a number, a truth value or a date.
        where: what to call its example in a message.

    Raises:
        ValueError: it is missing, or several, or longer than 1,000 characters: composing takes time
            that grows with their square.
    """
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if value is None or value != value:
        text = ""
    elif isinstance(value, str | bool | int | float | date | Decimal):
        known = int(value) if isinstance(value, float) and value.is_integer() else value
        text = str(known).strip()
        if len(text) > _LONGEST_NAME:
            raise ValueError(
                f"{where} has a label of {len(text):,} characters; expected at most "
                f"{_LONGEST_NAME:,}"
            )
        text = unicodedata.normalize("NFC", text).strip()
    else:
        raise ValueError(
            f"{where} has the label {value!r}; expected one text or number: several labels of one "
            "example are not supported"
        )
    if not text:
        raise ValueError(f"{where} has no label")
    return text.encode("utf-8", "backslashreplace").decode()  # of a file's name in another encoding


def _check_text(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} has half a character in its text: {error}") from error


def as_example(item: Item, where: str = "it", *, label: str | None = None) -> Example:
    """An example from what people hold.

    Args:
        item: a text; the path of an image (of type ``str`` if it ends like one and is there, or
            `pathlib.Path`); the bytes of an image file; a Pillow image; or the pixels of one as an
            array: ``[H,W]``, ``[H,W,C]`` or ``[C,H,W]`` with C 1, 3 or 4, whole numbers 0..255 or
            real ones 0..1; or a row of a table, as a mapping of its columns.
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
    if isinstance(item, str):
        if is_image(item) and not any(map(str.isspace, item)):
            raise FileNotFoundError(f"no such file: {item}")
        _check_text(item, where)
    if isinstance(item, str | bytes):
        return Example(item, label, where)
    if isinstance(item, Mapping):
        return Example({column_name(name): value for name, value in item.items()}, label, where)
    if isinstance(item, Image.Image):
        if item.mode == "F":
            raise ValueError(f"{where} has pixels that are floats: nothing says what is white")
        image = ImageOps.exif_transpose(item)
        if image.mode in ("La", "PA", "RGBa"):
            image = image.convert("RGBA")
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
            image = image.convert("RGB")
        return Example(_file(image), label, where)
    if hasattr(item, "detach"):  # a tensor, of any device and precision
        tensor: Any = item.detach().cpu()
        item = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    if hasattr(item, "__array__"):
        return Example(_file(Image.fromarray(_pixels(np.asarray(item), where))), label, where)
    raise ValueError(
        f"{where} is {_a(item)}; expected a text, the path of an image, its bytes, a Pillow image, "
        "an array of pixels or a row of a table (a mapping of its columns)"
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
    white = 255 if x.dtype.kind in "iu" and x.max() > 1 else 1  # 0 and 1: a mask
    number = x.dtype.kind in "biuf"
    if not number or not (x.min() >= 0 and x.max() <= white):
        span = f", from {x.min()} to {x.max()}" if number else ""
        raise ValueError(
            f"{where} is an array of {x.dtype}{span}; expected whole numbers from 0 to 255, or "
            "real ones from 0 to 1"
        )
    return (x if white == 255 else np.round(x * 255.0)).astype(np.uint8)


def _file(image: Image.Image) -> bytes:
    file = io.BytesIO()
    if image.mode == "I":  # of which PNG has no form
        image.save(file, "tiff")
    else:
        image.save(file, "png", compress_level=1)
    return file.getvalue()


def _a(value: Any) -> str:
    return f"of type {type(value).__name__}"


class _EmptyError(ValueError):
    """A row has a label, and nothing that it is of."""


def _table(
    path: Path, failed: list[str] | None, label: str | None = None, labelled: bool = True
) -> Iterator[Example]:
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    read = {".jsonl": read_json_lines, ".json": read_json_list}.get(path.suffix.lower(), read_csv)
    outside = list[str]()
    rows = read(path) if label is None or read is not read_csv else read_csv(path, label)
    for example in _of_rows(path, rows, failed, label, labelled):
        if isinstance(example.item, bytes) and not _is_below(example.where, path.parent):
            outside.append(example.where)
        yield example
    if outside:
        warnings.warn(
            f"{path}: {len(outside)} images lie outside its folder, such as {outside[0]}",
            stacklevel=2,
        )


def _of_rows(
    source: Path | str,
    rows: Iterable[tuple[Any, Row | Exception]],
    failed: list[str] | None,
    label: str | None,
    labelled: bool = True,
) -> Iterator[Example]:
    """The examples of rows; each comes with where it stands, or its number."""
    first: Exception | None = None
    some, empty = False, list[str]()
    for where, row in rows:
        try:
            if isinstance(row, Exception):
                raise row
            place = where if isinstance(where, str) else f"row {where} of {source}"
            example = _of_row(source, place, row, labelled, label)
        except (OSError, ValueError) as fault:
            first = first or fault
            if failed is not None:
                failed.append(str(fault))
            elif isinstance(fault, _EmptyError):
                empty.append(str(fault))
            else:
                raise
            continue
        if labelled and not some and isinstance(example.item, str):
            _say_unread(source, row, label)
        some = True
        yield example
    if not some:
        raise first or ValueError(f"{source} holds no examples")
    if empty:
        more = f", and {len(empty) - 1} more" if len(empty) > 1 else ""
        warnings.warn(f"left out: {empty[0]}{more}", stacklevel=2)


def _say_unread(source: Path | str, row: Row, label: str | None) -> None:
    """Where there are texts, that nothing else is read: a table may have a column of notes."""
    known = {"text", "path", "id", *LABELS, *((column_name(label),) if label else ())}
    if others := [name for name in map(column_name, row) if name not in known]:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        shown = (name or "a column without a name" for name in others[:3])
        warnings.warn(
            f"{source} has texts, which alone are read, and not {', '.join(shown)}{more}: "
            "to learn from a table, call its column of texts otherwise",
            stacklevel=2,
        )


def _is_below(file: str, folder: Path) -> bool:
    return Path(os.path.abspath(file)).is_relative_to(os.path.abspath(folder))


def _names(row: Iterable[str]) -> str:
    """Columns for a message, of which each row may have one."""
    first, rest = [*islice(names := iter(row), 8)], sum(1 for _ in names)
    return ", ".join(name[:100] for name in first) + (f" and {rest} more" if rest else "")


def _of_row(
    source: Path | str, where: str, given: Row, labelled: bool, column: str | None
) -> Example:
    row = {column_name(name): value for name, value in given.items()}
    if len(row) < len(given):
        given_names = [column_name(name) for name in given]
        twice = next(name for name in given_names if given_names.count(name) > 1)
        raise ValueError(f"{where} has two columns called {twice!r}")
    if column is not None and column_name(column) not in row:
        raise ValueError(f"{where} has no column {column!r}; it has: {_names(row)}")
    if not {"text", "path"} & {*row}:
        return _of_columns(where, row, labelled, column)
    names = LABELS if column is None else (column_name(column),)
    value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
    if value is None and labelled:
        raise ValueError(f"{where} has no label; it has: {_names(row)}")
    label = None if value is None else label_form(value, where)
    text = row.get("text")
    if isinstance(text, str) and text.strip():
        _check_text(text, where)
        return Example(text, label, where)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{where} has the text {text!r}; expected a text in quotes")
    if isinstance(name := row.get("path"), str) and name:
        path = Path(source).parent / name
        try:
            return Example(read_item(path).item, label, str(path))
        except (OSError, ValueError) as fault:
            raise type(fault)(f"{where}: {fault}") from fault
    raise _EmptyError(f"{where} has neither a text nor a path; it has: {_names(row)}")


def _is_nothing(value: Any) -> bool:
    """Whether it is one of the values that stand for none in numpy and pandas."""
    return str(value) in ("nan", "NaT", "<NA>")


def _of_columns(where: str, row: dict[str, Any], labelled: bool, column: str | None) -> Example:
    """A row that is neither a text nor an image; to be learned, without its label."""
    name = next((name for name in LABELS if name in row), None)
    name = name if column is None else column_name(column)
    value = None if name is None else row[name]
    missing = value in (None, "") if isinstance(value, str | None) else _is_nothing(value)
    if missing and labelled:
        if name:
            raise ValueError(f"{where} has no label: the column {name!r} is empty")
        raise ValueError(f"{where} has no label; it has: {_names(row)}; --label names its column")
    if labelled:
        row = {known: value for known, value in row.items() if known != name}
    if not row:
        raise ValueError(
            f"{where} has a label, and nothing to tell it by: there is no other column"
        )
    return Example(row, None if missing else label_form(value, where), where)
