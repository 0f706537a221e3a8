"""The command that compares: `quickstudy compare`."""

from pathlib import Path
from typing import Annotated

import typer

from quickstudy.cli.options import DataOption, RootOption, SplitOption, busy, say
from quickstudy.plain import to_json

__all__ = ["compare"]


def compare(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, shipped weights, nearest, scratch; or saved evaluations (JSON)."
        ),
    ],
    way: Annotated[int | None, typer.Option(help="Default: as the first run was trained.")] = None,
    shots: Annotated[str | None, typer.Option(help="Examples per class: 1,5.")] = None,
    query: Annotated[int, typer.Option(help="Query examples per class.")] = 15,
    inner_steps: Annotated[str, typer.Option(help="Gradient steps to try.")] = "0,1,3,5,10",
    n_tasks: Annotated[int, typer.Option("--tasks", help="Test tasks.")] = 200,
    frozen: Annotated[Path | None, typer.Option(help="Use the tasks in this file.")] = None,
    data: DataOption = None,
    root: RootOption = None,
    split: SplitOption = None,
    seed: Annotated[int, typer.Option(help="Decides the tasks.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path(
        "comparison"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare learners, and learning from scratch, by numbers of examples and of gradient steps.

    Saved evaluations are compared without being run again, each paired with the first.
    """
    from quickstudy.cli.tables import saved_table, study_table
    from quickstudy.experiments.targets import check_target

    for target in targets:
        check_target(target)
    with busy("starting"):
        from quickstudy.comparison import compare_runs, compare_saved, draw_study
        from quickstudy.evaluation import FrozenTasks

    if all(target.endswith(".json") for target in targets):
        saved_table(targets, compare_saved(targets), as_json)
        return
    result = compare_runs(
        targets,
        way=way,
        shots=None if shots is None else _integers("shots", shots),
        query=query,
        steps=_integers("inner-steps", inner_steps),
        n_tasks=n_tasks,
        frozen=None if frozen is None else FrozenTasks.load(frozen),
        data=data,
        root=root,
        split=split,
        seed=seed,
        say=say,
    )
    try:
        pictures = draw_study(result, out)
    except ModuleNotFoundError as missing:
        say(str(missing))
        pictures = []
    if as_json:
        print(to_json(result.rows()))
        return
    study_table(result)
    if pictures:
        say(f"pictures: {', '.join(map(str, pictures))}")


def _integers(name: str, text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(f"--{name} is {text!r}; expected integers such as 1,5") from None
