"""The examples that arguments name, one by one."""

import itertools
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from quickstudy.cli.options import say
from quickstudy.plain import read_line

if TYPE_CHECKING:
    from quickstudy.examples import Example

__all__ = ["begun", "examples_named", "progress", "share_of"]

_WHAT = {"image": "images", "text": "sentences", "table": "a table"}


def begun(examples: Iterator["Example"]) -> Iterator["Example"]:
    """The same examples, of which the first is read at once: what is wrong is said before work."""
    return itertools.chain([*itertools.islice(examples, 1)], examples)


def share_of(shard: str | None) -> tuple[int, int]:
    """Which of how many shares: ``"3/16"`` is ``(2, 16)``, and nothing the only one."""
    part, _, parts = ("1/1" if shard is None else shard).partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"--shard is {shard!r}; expected one of so many, such as 3/16")
    return int(part) - 1, int(parts)


def examples_named(
    model: Path,
    files: list[str],
    texts: list[str],
    failed: list[str],
    share: tuple[int, int] = (0, 1),
) -> Iterator["Example"]:
    """What the arguments name, one by one; ``failed`` receives what cannot be read.

    Of several shares each takes its turn, by the order of the examples, and a file that is
    another's is not read.

    The first is looked at before anything heavy is loaded, unless it is still to be typed.
    """
    from quickstudy.examples import Example, as_example, is_table, read_item, read_table
    from quickstudy.files import Files
    from quickstudy.images import is_image, not_read
    from quickstudy.summary import read_summary

    kind = read_summary(model).kind
    if not files and not texts:
        raise ValueError("name something to look at: files, folders, or --text")
    if texts and kind != "text":
        raise ValueError(f"this model was learned from {_WHAT[kind]}; --text is for sentences")

    place, (own, shares) = itertools.count(), share

    def mine(_: object) -> bool:
        return next(place) % shares == own

    def each() -> Iterator[Example]:
        for text in filter(mine, texts):
            try:
                if not text.strip():
                    raise ValueError("a --text is empty")
                yield as_example(text, text)
            except ValueError as fault:
                failed.append(str(fault))
        for file in files:
            try:
                yield from of(file)
            except (OSError, ValueError) as fault:
                if len(files) == 1:
                    raise
                failed.append(str(fault))

    def of(file: str) -> Iterator[Example]:
        if is_table(file):
            faults: list[str] = []
            for example in turns(read_table(file, faults), faults):
                shown = example.item if isinstance(example.item, str) else example.where
                yield Example(example.item, example.label, shown)
        elif kind == "text":
            faults = []
            yield from turns(_lines(file, faults), faults)
        elif file == "-":
            raise ValueError(f"this model was learned from {_WHAT[kind]}; - is for sentences")
        elif kind == "table":
            raise ValueError(f"{file} is no table; this model takes .csv, .tsv, .jsonl or .json")
        elif Path(file).is_dir() or Path(file).suffix.lower() == ".zip":
            with Files(file) as inside:
                if other := not_read(inside.names):
                    say(f"{file}: {other}")
                for name in filter(mine, filter(is_image, inside.names)):
                    try:
                        yield Example(inside.read(name), None, inside.where(name))
                    except ValueError as fault:
                        failed.append(str(fault))
        elif mine(file):
            yield read_item(file)
        elif not is_image(file) and not Path(file).exists():  # a folder, which all would share
            raise FileNotFoundError(f"no such file: {file}")

    def turns(examples: Iterator[Example], faults: list[str]) -> Iterator[Example]:
        """Those of a file that is read whole; what cannot be read has its turn, too."""
        for example in itertools.chain(examples, [None]):
            failed.extend(filter(mine, faults))
            faults.clear()
            if example is not None and mine(example):
                yield example

    return each() if "-" in files else begun(each())


def _lines(file: str, failed: list[str]) -> Iterator["Example"]:
    """A sentence a line, of a text file or, for ``-``, of what is being typed or piped in."""
    from quickstudy.examples import Example

    name = "standard input" if file == "-" else file
    if file != "-" and not Path(file).exists():
        raise FileNotFoundError(f"no such file: {file}")
    if file != "-" and not Path(file).is_file():
        raise ValueError(f"{file} is no text file; this model takes sentences")
    with sys.stdin.buffer if file == "-" else Path(file).open("rb") as lines:
        for number, line in enumerate(iter(partial(read_line, lines), b""), 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                failed.append(f"{name}, line {number} is not a text in UTF-8")
                continue
            if text:
                yield Example(text, None, text)


def progress(examples: Iterator["Example"], label: str) -> Iterator["Example"]:
    """The same examples, counted on standard error while they pass."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}: {task.completed} examples"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        for example in examples:
            yield example
            progress.advance(task)
