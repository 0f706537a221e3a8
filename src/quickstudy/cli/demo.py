"""The demonstration: `quickstudy demo`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from quickstudy.cli.options import RootOption, busy, say
from quickstudy.plain import to_json

__all__ = ["demo"]


DemoData = Literal["alphabets", "omniglot"]


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path(
        "demo"
    ),
    data: Annotated[DemoData, typer.Option("--data", help="What to learn on.")] = "alphabets",
    root: RootOption = None,
    scale: Annotated[float, typer.Option(help="Multiplies the training steps.")] = 1.0,
    n_tasks: Annotated[int, typer.Option("--tasks", help="Test tasks of each figure.")] = 100,
    classes: Annotated[int, typer.Option(help="Synthetic characters to train on.")] = 1000,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn to learn on invented alphabets, then meet real digits never seen (some minutes)."""
    from rich.console import Console
    from rich.table import Table

    from quickstudy.cli.tables import figure

    with busy("starting"):
        from quickstudy.demo import SHOTS, run_demo

    if data == "omniglot" and root is None:
        from quickstudy.data.omniglot import cache_dir

        root = cache_dir()
    result = run_demo(
        out,
        root=root if data == "omniglot" else None,
        classes=classes,
        scale=scale,
        n_tasks=n_tasks,
        seed=seed,
        say=say,
    )
    if as_json:
        rows = {n: {s: e.as_dict() for s, e in r.items()} for n, r in result.table.items()}
        print(to_json({"table": rows, "seconds": result.seconds}))
        return
    table = Table("10-way accuracy on classes never seen, %", *(f"{s} per class" for s in SHOTS))
    for name, row in result.table.items():
        table.add_row(name, *(figure(row[s]) for s in SHOTS))
    Console().print(table)
    print(f"{result.seconds:.0f} seconds; pictures: {', '.join(map(str, result.pictures))}")
