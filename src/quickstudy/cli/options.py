"""What the commands share: options, and words to the user."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from quickstudy.experiments.spec import DataName, Experiment, SplitName
from quickstudy.experiments.targets import with_data
from quickstudy.plain import printable

__all__ = [
    "DEFAULT",
    "DataOption",
    "RootOption",
    "SkipOption",
    "SplitOption",
    "StoppedError",
    "busy",
    "check_root",
    "meaning",
    "nearest",
    "say",
    "with_data",
]


def meaning(field: str) -> str | None:
    """What a field of `Experiment` means, as its flag's help."""
    return Experiment.model_fields[field].description


DataOption = Annotated[DataName | None, typer.Option("--data", help=meaning("data"))]
RootOption = Annotated[Path | None, typer.Option("--root", help=meaning("root"))]
SplitOption = Annotated[SplitName | None, typer.Option("--split", help=meaning("split"))]
SkipOption = Annotated[bool, typer.Option(help=meaning("skip_corrupt"))]

DEFAULT = Experiment("protonet")


class StoppedError(Exception):
    """The user pressed Ctrl-C; Typer would swallow the message of a `KeyboardInterrupt`."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A question about what was meant by a word that is not known; empty if nothing is near."""
    near = get_close_matches(word, list(known), 1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ""


def check_root(root: str | Path | None) -> None:
    """Raise ``FileNotFoundError`` unless ``--root`` is there."""
    if root is not None and not Path(root).exists():
        raise FileNotFoundError(f"--root is {root}, which does not exist")


def say(line: str) -> None:
    """A line for the user, on standard error."""
    print(printable(" ".join(line.split("\n"))), file=sys.stderr)


@contextmanager
def busy(what: str) -> Iterator[Callable[[str], None]]:
    """A sign on the terminal that something is being done, and since when, until the block ends.

    Yields a function to put other words there.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)  # where nobody looks, not even an empty line is written
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:
        task = progress.add_task(printable(what), total=None)
        yield lambda words: progress.update(task, description=printable(words))
