"""Tables as people keep them: columns of numbers, dates, categories and holes, to numbers."""

import math
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Column", "Columns", "Row", "rows_of"]

Row = Mapping[str, Any]

Kind = Literal["number", "date", "category", "empty", "constant", "text", "index"]
Order = Literal["", "day", "month"]
_MISSING = {
    "",
    "na",
    "n/a",
    "nan",
    "nat",
    "<na>",
    "null",
    "<null>",
    "none",
    "nil",
    "?",
    "-",
    "--",
    "missing",
    "#n/a",
}
_MOST_LEVELS = 16
_FEW_WORDS = 0.1  # of a column of numbers, that are none
_SHORT = 4  # rows, of which nobody can tell whether words come again
_COLUMNS = 10_000
_COMES_AGAIN = 1 / 3  # of a category's rows, at least, have a value that others have, too
_INDEX = re.compile(r"(?i:(.*[\W_])?(id|index|nr|no|row|key)|unnamed: 0|)|.*[a-z]I[dD]")
_DATE = re.compile(r"(\d{1,4})([./-])(\d\d?)\2(\d{1,4})(?:[T ,]+(\d.*))?")
_HALF_DAY = re.compile(r"(0?[1-9]|1[0-2])(:\d\d(?::\d\d(?:\.\d+)?)?)? ?([aApP])\.?[mM]\.?")
_INFINITE = re.compile(r"(?i)[+-]?inf(inity)?")
_LATER = {"points": False, "unit": "", "order": "", "optional": False}
"""What the first files do not have."""


@dataclass(frozen=True)
class Column:
    """What a column was taken for.

    Attributes:
        name: in its header.
        kind: ``"number"``; ``"date"``, in days; ``"category"``; or one of those that are left out:
            ``"empty"``, ``"constant"``, ``"text"`` (hardly a value comes again), ``"index"`` (whole
            numbers, each another, in a column without a name or that is called an id).
        levels: of a category: its values, the most frequent first, 16 at most; of more than two
            that come again, those alone. Of a column of ticks (one value, or none), that value and
            the empty one.
        thousands: whether commas divide thousands; else they stand for the decimal point.
        points: whether points divide thousands.
        unit: what stands behind its numbers, beside a currency's sign or a percent sign.
        order: of dates that are not ISO 8601, whether the day comes first (31.7.2025) or the month.
        optional: whether a row may lack it altogether, as one of those learned from did.
    """

    name: str
    kind: Kind
    levels: tuple[str, ...] = ()
    thousands: bool = False
    points: bool = False
    unit: str = ""
    order: Order = ""
    optional: bool = False

    @property
    def width(self) -> int:
        """How many numbers a value becomes: a category of two levels one, of more one for each."""
        if self.kind in ("number", "date"):
            return 1
        return 0 if self.kind != "category" else 1 if len(self.levels) == 2 else len(self.levels)


@dataclass(frozen=True)
class Columns:
    """A table's columns, and how their values become numbers.

    Args:
        columns: each column's.

    Example:
        >>> rows = [{"age": "31", "plan": "free"}, {"age": "44", "plan": "?"}]
        >>> columns = Columns.fit([*rows, {"age": None, "plan": "paid"}])
        >>> columns.numbers(rows).tolist()
        [[31.0, 0.0], [44.0, nan]]
    """

    columns: tuple[Column, ...] = field(default=())

    @classmethod
    def fit(cls, rows: Sequence[Row]) -> Self:
        """Find out what the columns of these rows hold.

        A category is a column with words in it, a third of which at least come again. What is
        missing is an empty field, ``NaN``, ``NA``, ``null``, ``?`` or the like, or a column that a
        row has not. A word among numbers (one in ten at most) and an infinite number count as
        missing, as does what is no date among dates.

        Raises:
            ValueError: nothing is left to learn from.
        """
        names = list(dict.fromkeys(name for row in rows for name in row))
        if len(names) > _COLUMNS:
            raise ValueError(f"the table has {len(names):,} columns; expected at most {_COLUMNS:,}")
        found = cls(
            tuple(
                replace(
                    _found(name, [row.get(name) for row in rows]),
                    optional=any(name not in row for row in rows),
                )
                for name in names
            )
        )
        if not any(column.width for column in found.columns):
            raise ValueError(f"no column can be learned from: {found.summary() or 'there is none'}")
        return found

    def numbers(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """``[n,F]``, ``NaN`` where a value is missing; so is a category that is no level.

        Raises:
            ValueError: a row lacks a column that all had that were learned from, or has none.
        """
        parts = []
        for column in self.columns:
            if not column.width:
                continue
            if any(column.name not in row for row in rows) and not column.optional:
                raise self._missing(column.name)
            parts.append(_numbers(column, [row.get(column.name) for row in rows]))
        if not all(any(c.name in row for c in self.columns if c.width) for row in rows):
            raise self._missing(next(c.name for c in self.columns if c.width))
        return np.concatenate(parts, axis=1) if rows else np.empty((0, self.width))

    def _missing(self, name: str) -> ValueError:
        names = ", ".join(column.name for column in self.columns)
        return ValueError(f"the column {name!r} is missing; the model was learned from: {names}")

    def unread(self, row: Row) -> list[tuple[str, str]]:
        """What counts as missing in a row though it is there: of each such column name and value.

        A category that is no level, a word among numbers, a number in another unit.
        """
        return [
            (column.name, word)
            for column in self.columns
            if column.width
            and (word := _word(row.get(column.name))) is not None
            and np.isnan(_numbers(column, [word])).all()
        ]

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return sum(column.width for column in self.columns)

    def summary(self) -> str:
        """What each column was taken for, in a line."""
        said = {
            "number": "numbers",
            "date": "dates",
            "category": "categories",
            "empty": "empty, left out",
            "constant": "the same everywhere, left out",
            "text": "text that hardly comes again, left out",
            "index": "row numbers or ids, left out",
        }
        orders = {"": "", "day": " (day first)", "month": " (month first)"}
        parts = []
        for kind, words in said.items():
            these = [column for column in self.columns if column.kind == kind]
            names = [column.name + orders[column.order] for column in these]
            if names:
                more = f" and {len(names) - 8} more" if len(names) > 8 else ""
                parts.append(f"{words}: {', '.join(names[:8])}{more}")
        return "; ".join(parts)

    def plain(self) -> list[dict[str, Any]]:
        """As plain values, from which `of_plain` makes it again."""
        return [
            {
                name: list(value) if name == "levels" else value
                for name, value in asdict(column).items()
                if value or name not in _LATER
            }
            for column in self.columns
        ]

    @classmethod
    def of_plain(cls, values: Any) -> Self:
        """What `plain` gave.

        Raises:
            ValueError: it is something else.
        """
        kinds = Kind.__args__  # type: ignore[attr-defined]
        columns = []
        for value in values if isinstance(values, list) else [None]:
            if isinstance(value, dict):
                value = {**_LATER, **value}
            if (
                not isinstance(value, dict)
                or set(value) != {"name", "kind", "levels", "thousands", *_LATER}
                or not isinstance(value["name"], str)
                or value["kind"] not in kinds
                or not isinstance(value["levels"], list)
                or not all(isinstance(level, str) for level in value["levels"])
                or (value["kind"] == "category") != (len(value["levels"]) > 1)
                or not isinstance(value["thousands"], bool)
                or not isinstance(value["points"], bool)
                or not isinstance(value["unit"], str)
                or not isinstance(value["optional"], bool)
                or value["order"] not in Order.__args__  # type: ignore[attr-defined]
            ):
                raise ValueError(f"a column is {value!r}; expected its name, kind and levels")
            columns.append(Column(**{**value, "levels": tuple(value["levels"])}))
        return cls(tuple(columns))


def rows_of(given: Any) -> list[Row] | None:
    """The rows of a DataFrame, of pandas or of polars; ``None`` if it is none.

    Raises:
        ValueError: two columns have one name.
    """
    if not hasattr(given, "columns"):
        return None
    if hasattr(given, "to_dicts"):
        return list(given.to_dicts())
    if not hasattr(given, "to_dict"):
        return None
    names = [str(name) for name in given.columns]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"the table has several columns called {twice[0]!r}")
    return [dict(zip(names, row.values(), strict=True)) for row in given.to_dict("records")]


def _word(value: Any) -> str | None:
    """A value as text; ``None`` if it is missing."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    text = str(value).strip()
    text = text if text.isascii() else unicodedata.normalize("NFC", text)
    if text.lower() in ("true", "false"):  # as Python, Excel and JSON write them
        return text.lower()
    return None if text.lower() in _MISSING else text


def _number(text: str, column: Column) -> float:
    """Its value; ``NaN`` if it is no number, or infinite."""
    text = text.replace("\u2212", "-").removesuffix(column.unit)
    marks = " \u00a0\u202f'\u2019" + "," * column.thousands + "." * column.points  # of thousands
    text = re.sub(rf"(?<=\d)[{marks}](?=\d{{3}}(?!\d))", "", text)
    text = text if column.thousands else text.replace(",", ".")
    text, times = (text[:-1], 1000) if re.search(r"\d ?[kK]$", text) else (text, 1)
    text = text.rstrip("%").strip("€$£ \u00a0\u202f")
    text = re.sub(r"^([+-]?)([A-Z]{3}\s|[A-Z]{0,3}[€$£¥₹])\s*(?=[\d.+-])", r"\1", text)
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text):
        return math.nan
    value = float(text) * times
    return value if math.isfinite(value) else math.nan


def _days(text: str, order: Order = "") -> float:
    """A date in days, the time of day as part of one; ``NaN`` if it is none.

    2025-07-31, 2025/7/31, or by its order 31.7.2025, 31/7/2025, 7/31/2025 and the like, with a
    time or without.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        return math.nan
    first, _, second, last, time = found.groups(default="")
    if len(first) == 4 and len(last) < 3:
        year, month, day = first, second, last
    elif len(last) == 4 and len(first) < 3 and order:
        year, (day, month) = last, (first, second) if order == "day" else (second, first)
    else:
        return math.nan
    if half := _HALF_DAY.fullmatch(time):
        time = f"{int(half[1]) % 12 + 12 * (half[3] in 'pP'):02}{half[2] or ':00'}"
    hour = f"T{time:0>5}" if re.fullmatch(r"\d:\d\d", time) else f"T{time}" * bool(time)
    try:
        moment = datetime.fromisoformat(f"{year}-{month:0>2}-{day:0>2}{hour}").replace(tzinfo=None)
    except ValueError:
        return math.nan
    return 1 + (moment - datetime.min) / timedelta(days=1)


def _dates(words: Sequence[str]) -> tuple[Order, list[str]]:
    """How dates are written, and those words that are dates.

    Where no day is beyond the 12th, the month is taken to be first if slashes divide, as in the US.
    """
    orders: tuple[Order, ...] = ("", "month", "day") if "/" in words[0] else ("", "day", "month")
    fit = {order: [w for w in words if not math.isnan(_days(w, order))] for order in orders}
    return max(fit.items(), key=lambda found: len(found[1]))


def _mostly(name: str, kind: str, words: Sequence[str], read: Sequence[str]) -> bool:
    """Whether nine in ten of the words of a column could be ``read``; warns of the others."""
    odd = len(words) - len(read)
    if not read or odd > _FEW_WORDS * len(words):
        return False
    if odd:
        known = {*read}
        first = next(word for word in words if word not in known)
        warnings.warn(
            f"the column {name!r} holds {kind}s, and {first!r}, which counts as missing"
            + (f" ({odd} of this kind)" if odd > 1 else ""),
            stacklevel=5,
        )
    return True


def _of_numbers(name: str, words: Sequence[str]) -> Column:
    """The column that these would be, if they were numbers."""
    dots = [word for word in words if "." in word]
    points = any(re.fullmatch(r"\D*\d+(\.\d{3})+(,\d*|\.\d{3})\D*", word) for word in dots) and all(
        re.fullmatch(r"\D*[1-9]\d{0,2}(\.\d{3})+(,\d*)?\D*", word) for word in dots
    )
    commas = [word for word in words if "," in word]
    thousands = all(
        re.fullmatch(r"\D*[1-9]\d{0,2}(,\d{3})+(\.\d*)?\D*", word) for word in commas
    ) and (bool(commas) or bool(dots and not points))  # what has points for decimals has no commas
    units = Counter(
        found[1]
        for word in words
        if (found := re.search(r"\d\s*([^\W\d_][^\d,]*|°[^\d,]*)$", word))
    )
    del units["k"], units["K"]  # thousands
    unit = units.most_common(1)[0][0] if units else ""
    return Column(name, "number", thousands=thousands, points=points, unit=unit)


def _found(name: str, values: Sequence[Any]) -> Column:
    words = [word for word in map(_word, values) if word is not None]
    if not words:
        return Column(name, "empty")
    if len(set(words)) == 1:
        if min(len(words), len(values) - len(words)) > 1:
            return Column(name, "category", (words[0], ""))
        return Column(name, "constant")
    finite = [word for word in words if not _INFINITE.fullmatch(word)]
    column = _of_numbers(name, finite)
    numbers = [word for word in finite if not math.isnan(_number(word, column))]
    if _mostly(name, "number", finite, numbers):
        if len(set(numbers)) == 1:
            return replace(column, kind="constant")
        return Column(name, "index") if _counts(name, words) else column
    order, dates = _dates(words)
    if _mostly(name, "date", words, dates):
        return Column(name, "date", order=order)
    counts = Counter(words)
    again = sum(count for count in counts.values() if count > 1)
    if len(words) > _SHORT and again < _COMES_AGAIN * len(words):
        return Column(name, "text")
    often = counts.most_common(_MOST_LEVELS)
    several = [word for word, count in often if count > 1]
    return Column(name, "category", tuple(several if len(several) > 1 else [w for w, _ in often]))


def _counts(name: str, words: Sequence[str]) -> bool:
    """Whether these are the numbers of rows, or ids: by their name, whole, and each another."""
    if len(words) <= _SHORT or _INDEX.fullmatch(name.strip()) is None:
        return False
    return all(re.fullmatch(r"\d+", word) for word in words) and len({*words}) == len(words)


def _numbers(column: Column, values: Sequence[Any]) -> NDArray[np.float64]:
    """``[n,width]`` of one column."""
    words = [_word(value) for value in values]
    if column.kind == "category":
        place = {_word(level): i for i, level in enumerate(column.levels)}
        out = np.full((len(words), column.width), np.nan)
        for row, word in enumerate(words):
            if word in place and column.width == 1:
                out[row] = place[word]
            elif word in place:
                out[row] = np.arange(column.width) == place[word]
        return out

    def read(word: str) -> float:
        return _days(word, column.order) if column.kind == "date" else _number(word, column)

    return np.array([[math.nan if word is None else read(word)] for word in words])
