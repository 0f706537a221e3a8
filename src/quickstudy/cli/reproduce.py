"""The command that reproduces published results: `quickstudy reproduce`."""

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.options import RootOption, StoppedError, busy, check_root, say
from quickstudy.policy import Precision

__all__ = ["reproduce"]


def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(help="Recipes, or your own: mine.toml, mine.toml:5w1s.")
    ] = None,
    show: Annotated[
        bool,
        typer.Option(
            "--list",
            help="The recipes (those of which a word is given), the papers' and our figures.",
        ),
    ] = False,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Minutes of training per recipe; default: the whole protocol."),
    ] = None,
    root: RootOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes, one per device.")] = 1,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each operation.")] = None,
    precision: Annotated[Precision, typer.Option(help="Of a step's operations.")] = "32-true",
    seed: Annotated[int, typer.Option(min=0, help="Decides weights and tasks.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where each run gets a folder.")] = Path(
        "runs"
    ),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train a published result by its recipe, evaluate it as the paper does, and write its card.

    Continues where an earlier call stopped, at the end of its budget or by Ctrl-C.
    """
    import shlex

    from quickstudy.cli.tables import card_table, recipe_table
    from quickstudy.experiments.recipe import load_recipe

    if show:
        recipe_table(names or [])
        return
    if not names:
        raise ValueError("name a recipe; quickstudy reproduce --list shows them")
    check_root(root)
    names = [*dict.fromkeys(names)]
    recipes = [load_recipe(name) for name in names]
    with busy("starting"):
        from quickstudy.experiments.reproduce import reproduce as run
        from quickstudy.processes import LostProcessError

    for name, recipe in zip(names, recipes, strict=True):
        folder = out / recipe.name
        try:
            card = run(
                recipe,
                folder,
                root=root,
                minutes=budget,
                seed=seed,
                accelerator=device,
                devices=devices,
                threads=threads,
                precision=precision,
                command=f"quickstudy {shlex.join(lasting(sys.argv[1:]))}",
                quiet=quiet,
                say=say,
            )
        except KeyboardInterrupt as stop:
            why = str(stop) or "stopped"
            raise StoppedError(f"{why}; the same command goes on with {name}") from None
        except LostProcessError as lost:
            raise LostProcessError(f"{lost}, by the same command") from None
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise OSError(f"{error}; make room, and the same command goes on") from error
            raise
        card_table(card, recipe)
        say(f"card: {folder / 'card.md'}")
        if not card.complete:
            say(f"the same command goes on with {name}; without --budget to its end")


def lasting(words: list[str]) -> list[str]:
    """A command without what belongs to one sitting: its budget, and whether it is watched."""
    sitting = ("--quiet", "-q", "--budget")
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before != "--budget" and word not in sitting and not word.startswith("--budget=")
    ]
