"""The command that evaluates: `quickstudy evaluate`."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.options import (
    DataOption,
    RootOption,
    SplitOption,
    find_learner,
    say,
    tasks_to_test,
    with_data,
)
from quickstudy.experiments.spec import Part, Weights
from quickstudy.policy import Policy

if TYPE_CHECKING:
    from quickstudy.learner import MetaLearner

__all__ = ["evaluate"]


def evaluate(
    target: Annotated[
        str, typer.Argument(help="A run folder, shipped weights, or: nearest, scratch.")
    ],
    way: Annotated[int | None, typer.Option(help="Default: as trained.")] = None,
    shot: Annotated[int | None, typer.Option(help="Default: as trained.")] = None,
    query: Annotated[int, typer.Option(help="Query examples a class.")] = 15,
    n_tasks: Annotated[int, typer.Option("--tasks", help="Test tasks.")] = 600,
    part: Annotated[Part, typer.Option(help="Which classes.")] = "test",
    within_group: Annotated[bool, typer.Option(help="Tasks within one alphabet.")] = False,
    batch_norm: Annotated[
        Policy | None, typer.Option(help="Whose statistics; default: as trained.")
    ] = None,
    inner_steps: Annotated[
        int | None, typer.Option(help="Gradient learners: steps on a new task.")
    ] = None,
    nearest: Annotated[
        int | None, typer.Option(help="Answer by so many nearest neighbours in its space.")
    ] = None,
    by_instance: Annotated[
        bool, typer.Option(help="MANN (offset): accuracy at each example of a class.")
    ] = False,
    data: DataOption = None,
    root: RootOption = None,
    split: SplitOption = None,
    rotations: Annotated[
        bool | None, typer.Option(help="Rotations as classes; default: as trained.")
    ] = None,
    frozen: Annotated[Path | None, typer.Option(help="Use the tasks in this file.")] = None,
    freeze: Annotated[Path | None, typer.Option(help="Save the tasks to this file.")] = None,
    weights: Annotated[Weights, typer.Option(help="Of the run.")] = "auto",
    seed: Annotated[int, typer.Option(help="Decides the tasks.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Scores (JSON).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Accuracy on unseen classes, with its 95% confidence interval; scores of each task on disk."""
    from quickstudy.cli.tables import instance_table
    from quickstudy.evaluation import FrozenTasks
    from quickstudy.evaluation import evaluate as run

    experiment, learner = find_learner(target, weights, inner_steps)
    if nearest is not None:
        learner = _nearest(learner, nearest)
    given = {"inner_steps": inner_steps, "nearest": nearest}
    adapted = {name: value for name, value in given.items() if value is not None}
    experiment = with_data(experiment, data, root, split)
    if rotations is not None:
        experiment = experiment.replace(rotations=rotations)
    query = 1 if by_instance else query
    tasks, about = tasks_to_test(experiment, frozen, part, way, shot, query, within_group, seed)
    if freeze is not None:
        kept = FrozenTasks.freeze(tasks, n_tasks, about)
        kept.save(freeze)
        tasks, about = kept, {**about, "tasks": kept.fingerprint}
    if by_instance:
        instance_table(learner, tasks, n_tasks, as_json)
        return
    result = run(
        learner,
        tasks,
        n_tasks=n_tasks,
        batch_norm=batch_norm,
        about={"learner": experiment.learner, "run": target, **adapted, **about},
    )
    if out is None:
        folder = Path(target) if Path(target).exists() else Path("runs") / target
        parts = [str(about[k]) for k in ("part", "way", "shot") if k in about] or ["frozen"]
        label = "-".join(parts + [f"{k}{v}" for k, v in adapted.items()])
        out = folder / "evaluations" / f"{label}-{result.batch_norm or 'plain'}.json"
    result.save(out)
    if as_json:
        print(json.dumps({**result.as_dict(), "file": os.fspath(out)}))
    else:
        print(f"{experiment.learner}: {result}")
        say(f"scores of each task: {out}")


def _nearest(learner: "MetaLearner", k: int) -> "MetaLearner":
    """The k-nearest-neighbour rule in the feature space of another learner."""
    from torch import nn

    from quickstudy.learners import NearestNeighbour

    encoder = getattr(learner, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ValueError(f"{type(learner).__name__} has no encoder to measure distances with")
    return NearestNeighbour(encoder, k=k)
