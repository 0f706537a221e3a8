"""The commands about data: `quickstudy data list`, `fetch`, `check` and `preview`."""

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.options import (
    DEFAULT,
    RootOption,
    SkipOption,
    SplitOption,
    meaning,
    with_data,
)
from quickstudy.experiments.spec import DataName, Experiment, PartName

__all__ = ["data_app"]

data_app = typer.Typer(no_args_is_help=True, help="See and check the data tasks are made of.")


@data_app.command("list")
def data_list() -> None:
    """The data sets and splits there are."""
    from rich.console import Console
    from rich.table import Table

    table = Table("data", "what", "needs")
    for row in (
        (
            "omniglot",
            "1623 handwritten characters of 50 alphabets, 20 drawers each",
            "--root, or a network",
        ),
        ("miniimagenet", "100 classes of ImageNet, 600 photos each, Ravi's split", "--root"),
        ("alphabets", "synthetic characters, as many as you ask for", "nothing"),
        ("digits", "scikit-learn's 1797 handwritten digits", "nothing"),
        ("folder", "your own images: a folder (or zip) with one folder per class", "--root"),
    ):
        table.add_row(*row)
    Console().print(table)
    print("splits: published, vinyals, vinyals-trainval, maml (omniglot); group (whole alphabets);")
    print("random")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[DataName, typer.Argument(help="What to download.")] = "omniglot",
) -> None:
    """Download a data set into the cache: checksummed, and resumed where it broke off."""
    from quickstudy.data import omniglot
    from quickstudy.data.omniglot import cache_dir

    if name != "omniglot":
        raise ValueError(f"{name} needs no download")
    print(f"{omniglot()} in {cache_dir()}")


@data_app.command("check")
def data_check(
    name: Annotated[DataName, typer.Argument(help="Which data.")],
    root: RootOption = None,
    split: SplitOption = None,
    rotations: Annotated[bool, typer.Option(help=meaning("rotations"))] = False,
    size: Annotated[int, typer.Option(help=meaning("size"))] = DEFAULT.size,
    channels: Annotated[int, typer.Option(help=meaning("channels"))] = DEFAULT.channels,
    skip_corrupt: SkipOption = False,
) -> None:
    """Read every example, split the classes, and print sizes and fingerprints."""
    experiment = Experiment(
        "nearest",
        rotations=rotations,
        size=size,
        channels=channels,
        skip_corrupt=skip_corrupt,
        classes=400,
    )
    print(with_data(experiment, name, root, split, rotations=rotations).splits)


@data_app.command("preview")
def data_preview(
    name: Annotated[DataName, typer.Argument(help="Which data.")],
    root: RootOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG to write.")] = Path(
        "preview.png"
    ),
    part: Annotated[PartName, typer.Option(help="Which classes.")] = "train",
    size: Annotated[int, typer.Option(help=meaning("size"))] = DEFAULT.size,
    channels: Annotated[int, typer.Option(help=meaning("channels"))] = DEFAULT.channels,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
) -> None:
    """Draw a contact sheet of some classes."""
    from quickstudy.plots import plot_classes

    experiment = Experiment("nearest", rotations=False, size=size, channels=channels, classes=400)
    parts = with_data(experiment, name, root, None).splits.parts()
    if part not in parts:
        raise ValueError(f"this split has no {part} classes")
    plot_classes(parts[part], out, seed=seed)
    print(out)
