"""Labelled examples as people keep them: class folders, a zip of them, a CSV or JSON lines."""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.data.folder import Files, class_folders

__all__ = ["Example", "read_examples", "read_item"]

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
