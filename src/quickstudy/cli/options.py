"""What the commands share: options, and words to the user."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from quickstudy.experiments.spec import DataName, Experiment, SplitName
from quickstudy.experiments.targets import with_data

__all__ = [
    "DEFAULT",
    "DataOption",
    "InvertOption",
    "RootOption",
    "SkipOption",
    "SplitOption",
    "StoppedError",
    "say",
    "with_data",
]

DataOption = Annotated[DataName | None, typer.Option("--data", help="Where the classes come from.")]
RootOption = Annotated[Path | None, typer.Option("--root", help="Folder or zip with the data.")]
SplitOption = Annotated[
    SplitName | None, typer.Option("--split", help="How classes are split into train and test.")
]
InvertOption = Annotated[
    bool, typer.Option(help="Folders: swap black and white (dark drawings on light paper).")
]
SkipOption = Annotated[
    bool, typer.Option(help="Folders: leave out images that cannot be read, and name them.")
]

DEFAULT = Experiment("protonet")


class StoppedError(Exception):
    """The user pressed Ctrl-C; Typer would swallow the words of a `KeyboardInterrupt`."""


def say(line: str) -> None:
    """A line for the user, on standard error."""
    print(" ".join(line.split("\n")), file=sys.stderr)
