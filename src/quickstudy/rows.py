"""Rows as files hold them: CSV, TSV, JSON lines, a JSON list; each with where it stands."""

import codecs
import csv
import json
import re
import sys
from collections import Counter, deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from quickstudy.plain import LONGEST_LINE, read_file, read_line

__all__ = ["LABELS", "column_name", "read_csv", "read_json_lines", "read_json_list"]

LABELS = ("label", "class", "intent", "category")
"""What a column of labels is called, if nobody says otherwise."""

Found: TypeAlias = tuple[str, dict[str, Any] | Exception]
"""Where a row stands, and its columns, or what is wrong with it."""

_LONGEST_NAME = 1000  # characters of a column's name
_MOST_LINES = 1000  # of a text in quotes


def column_name(name: Any) -> str:
    """The name of a column in small letters, without spaces around it."""
    return sys.intern(str(name).strip().lower())  # all rows share it


def read_csv(path: Path, label: str | None = None) -> Iterator[Found]:
    """Rows of a ``.csv`` or ``.tsv`` with a header, which names the column ``label``, if given.

    Raises:
        ValueError: the header has a column twice, or one with an endless name.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        top = read_line(file)
        number = 0
        if re.fullmatch(r"sep=.\s*", top):  # as Excel writes it
            delimiter, number = top[4], 1
        else:
            delimiter = _delimiter(path, top, label)
            file.seek(0)
        head: list[str] = []
        for lines, fields in _records(file, delimiter):
            where = f"{path}, line {number + lines}"
            number += lines
            if isinstance(fields, Exception):
                yield where, ValueError(f"{where} {fields}")
                continue
            while fields and not fields[-1].strip() and len(fields) > len(head):
                fields.pop()  # as spreadsheets leave them at the end
            if not any(field.strip() for field in fields):
                continue
            if not head:
                head = [*map(column_name, fields)]
                for name, count in Counter(head).items():
                    if len(name) > _LONGEST_NAME:
                        raise ValueError(
                            f"{path} has a column whose name has {len(name):,} characters; "
                            f"expected at most {_LONGEST_NAME:,}"
                        )
                    if count > 1 and name:
                        raise ValueError(f"{path} has {count} columns called {name}")
                continue
            if len(fields) != len(head):
                wrong = f"{len(fields)} fields, and the header {len(head)}"
                more = "a text that holds the separator stands in quotes"
                yield where, ValueError(f"{where} has {wrong}; {more}")
                continue
            yield where, dict(zip(head, fields, strict=True))


def read_json_lines(path: Path) -> Iterator[Found]:
    """Rows of a ``.jsonl``: an object a line."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(partial(read_line, file), b""), 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line.removeprefix(codecs.BOM_UTF8))
            except (RecursionError, ValueError) as error:
                yield where, ValueError(f"{where} is not JSON: {error}")
                continue
            yield where, _object(row, where)


def read_json_list(path: Path) -> Iterator[Found]:
    """Rows of a ``.json`` that is a list of objects.

    Raises:
        ValueError: it is none.
    """
    try:
        rows = json.loads(read_file(path).decode("utf-8-sig"))
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} is not JSON in UTF-8: {error}") from error
    if not isinstance(rows, list):
        raise ValueError(f"{path} is a {type(rows).__name__}; expected a list of objects")
    for number, row in enumerate(rows, 1):
        yield f"{path}, entry {number}", _object(row, f"{path}, entry {number}")


def _records(file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str] | Exception]]:
    """The lines that each record takes, and its fields, or what is wrong with it.

    A quote that is not closed takes no other line with it.
    """
    waiting: deque[str] = deque()
    while True:
        taken: list[str] = []

        def lines(taken: list[str] = taken) -> Iterator[str]:
            while len(taken) < _MOST_LINES:
                line = waiting.popleft() if waiting else read_line(file)
                if not line:
                    return
                taken.append(line)
                yield line

        try:
            fields = next(csv.reader(lines(), delimiter=delimiter), None)
        except csv.Error as error:
            waiting.extendleft(reversed(taken[1:]))
            yield 1, ValueError(f"is no row of a table in UTF-8: {error}")
            continue
        if fields is None:
            return
        if len(taken) > 1 and not _is_strict(taken, delimiter):
            waiting.extendleft(reversed(taken[1:]))
            yield 1, ValueError("has a quote that is not closed")
        elif any("\udc80" <= character <= "\udcff" for character in "".join(taken)):
            yield len(taken), ValueError("is not in UTF-8; save the table as UTF-8")
        else:
            yield len(taken), fields


def _is_strict(lines: list[str], delimiter: str) -> bool:
    """Whether these are a record by the book: else a quote has been closed by that of another."""
    try:
        next(csv.reader(lines, delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    return True


def _delimiter(path: Path, head: str, label: str | None) -> str:
    """What separates fields: whatever makes a name that we know stand in the header.

    Where none is known, whatever divides it into most.
    """
    if path.suffix.lower() == ".tsv":
        return "\t"
    known = {*LABELS, "text", "path"} | ({column_name(label)} if label is not None else set())
    for mark in ",;\t|":
        names = {name.strip().strip('"').lower() for name in head.split(mark)}
        if names & known and len(names) > 1:
            return mark
    return max(",;\t|", key=head.count)


def _object(row: Any, where: str) -> dict[str, Any] | Exception:
    if isinstance(row, dict):
        return row
    return ValueError(f"{where} is {type(row).__name__}; expected an object")
