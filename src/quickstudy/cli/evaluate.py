"""The command that evaluates: `quickstudy evaluate`."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.cli.options import DataOption, RootOption, SplitOption, busy, say
from quickstudy.experiments.spec import PartName, Weights
from quickstudy.plain import to_json
from quickstudy.policy import Policy

if TYPE_CHECKING:
    from quickstudy.data import TaskSource

__all__ = ["evaluate"]


def evaluate(
    target: Annotated[
        str,
        typer.Argument(help="A run folder, weights that ship or in a file, or: nearest, scratch."),
    ],
    way: Annotated[int | None, typer.Option(help="Default: as trained.")] = None,
    shot: Annotated[int | None, typer.Option(help="Default: as trained.")] = None,
    query: Annotated[int, typer.Option(help="Query examples per class.")] = 15,
    n_tasks: Annotated[int, typer.Option("--tasks", help="Test tasks.")] = 600,
    part: Annotated[PartName, typer.Option(help="Which classes.")] = "test",
    within_group: Annotated[bool, typer.Option(help="Tasks within one alphabet.")] = False,
    batch_norm: Annotated[
        Policy | None, typer.Option(help="Whose statistics; default: as trained.")
    ] = None,
    inner_steps: Annotated[
        int | None, typer.Option(help="Gradient learners: steps on a new task.")
    ] = None,
    refine: Annotated[
        int | None,
        typer.Option(help="ProtoNet: how often a task's queries, all together, move its means."),
    ] = None,
    nearest: Annotated[
        int | None,
        typer.Option(help="Answer by this many nearest neighbours in the learner's feature space."),
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="Ask this one, too, about the first one's tasks, and answer together. Repeatable.",
        ),
    ] = None,
    balanced: Annotated[
        bool,
        typer.Option(help="Let answers use that all classes have as many queries in a task."),
    ] = False,
    by_instance: Annotated[
        bool, typer.Option(help="MANN (offset): accuracy at each example of a class.")
    ] = False,
    data: DataOption = None,
    root: RootOption = None,
    split: SplitOption = None,
    rotations: Annotated[
        bool | None,
        typer.Option(
            help="Rotations as classes; default: as trained; on a folder, only if trained on one."
        ),
    ] = None,
    frozen: Annotated[Path | None, typer.Option(help="Use the tasks in this file.")] = None,
    freeze: Annotated[Path | None, typer.Option(help="Save the tasks to this file.")] = None,
    weights: Annotated[Weights, typer.Option(help="Which weights of the run.")] = "auto",
    seed: Annotated[int, typer.Option(help="Decides the tasks.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Scores (JSON).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure accuracy on unseen classes, with its 95% confidence interval; save every score."""
    from quickstudy.cli.tables import instance_table
    from quickstudy.experiments import targets

    names = [target, *(others or ())]
    for name in names:
        targets.check_target(name)
    if others and (nearest is not None or by_instance):
        raise ValueError("--nearest and --by-instance are of one learner: leave out --with")
    if balanced and by_instance:
        raise ValueError("--by-instance has no queries to be --balanced")
    with busy("starting"):
        from quickstudy.evaluation import FrozenTasks, accuracy_by_instance, result_path
        from quickstudy.evaluation import evaluate as run
        from quickstudy.experiments.run import changed_data
        from quickstudy.experiments.start import ask_together
        from quickstudy.learner import temporarily

        found = [(name, *targets.find_target(name, weights)) for name in names]
    _, experiment, learner = found[0]
    options = {"inner_steps": inner_steps, "refine": refine, "nearest": nearest}
    chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    experiment = targets.with_data(experiment, data, root, split, rotations=rotations)
    if others:
        learner = ask_together(experiment, found, unseen=frozen is None)
        chosen["with"] = others
    if nearest is not None:
        learner = targets.nearest_in_space(learner, nearest)
    if frozen is None and data is None and split is None and Path(target, "run.json").exists():
        difference = changed_data(experiment, target)
        if difference:
            warnings.warn(f"{difference}; the tasks are of what is there now", stacklevel=2)
    tasks: TaskSource
    if frozen is not None:
        tasks = stored = FrozenTasks.load(frozen)
        about = {**stored.about, "tasks": stored.fingerprint}
        of_split = stored.about.get("split_fingerprint")
        for name in names:
            if None not in (of_split, own := targets.trained_on(name)) and own != of_split:
                warnings.warn(
                    f"the tasks of {frozen} are of another split than {name} was trained on, "
                    "which may have seen their classes",
                    stacklevel=2,
                )
    else:
        tasks, about = targets.tasks_to_test(
            experiment,
            part=part,
            way=way,
            shot=shot,
            query=1 if by_instance else query,
            within_group=within_group,
            seed=seed,
        )
    if freeze is not None:
        tasks = stored = FrozenTasks.freeze(tasks, n_tasks, about)
        stored.save(freeze)
        about = {**about, "tasks": stored.fingerprint}
    at_test: dict[str, Any] = {
        name: value for name, value in chosen.items() if name not in ("nearest", "with")
    }
    with temporarily(learner, **at_test), busy(f"evaluating on {n_tasks} tasks") as show:
        if by_instance:
            instance_table(accuracy_by_instance(learner, tasks, n_tasks=n_tasks), as_json)
            return
        result = run(
            learner,
            tasks,
            n_tasks=n_tasks,
            batch_norm=batch_norm,
            balanced=balanced,
            about={**about, "learner": experiment.learner, "run": target, **chosen},
            on_batch=lambda done: show(f"evaluating {done}/{n_tasks} tasks"),
        )
    out = out or result_path(result, targets.run_folder(target))
    result.save(out)
    if as_json:
        print(to_json({**result.as_dict(), "file": os.fspath(out)}))
    else:
        several = hasattr(learner, "members")
        print(f"{' + '.join(names) if several else experiment.learner}: {result}")
        say(f"scores of each task: {out}")
