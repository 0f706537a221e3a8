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
    "RootOption",
    "SkipOption",
    "SplitOption",
    "StoppedError",
    "meaning",
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


def say(line: str) -> None:
    """A line for the user, on standard error."""
    print(" ".join(line.split("\n")), file=sys.stderr)
