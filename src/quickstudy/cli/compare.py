"""The command that compares: `quickstudy compare`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.options import (
    BASELINES,
    DEFAULT,
    SCRATCH,
    DataOption,
    RootOption,
    SplitOption,
    find_learner,
    say,
    tasks_to_test,
    with_data,
)
from quickstudy.experiments.spec import Experiment

if TYPE_CHECKING:
    from quickstudy.learner import MetaLearner
    from quickstudy.task import Task

__all__ = ["compare"]


SCRATCH_SINUSOID = {"inner_lr": 0.01, "inner_steps": 200}  # see docs/experiments.md


def compare(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, shipped weights, nearest, scratch; or saved evaluations (JSON)."
        ),
    ],
    way: Annotated[int | None, typer.Option(help="Default: as the first was trained.")] = None,
    shots: Annotated[str | None, typer.Option(help="Examples a class: 1,5.")] = None,
    query: Annotated[int, typer.Option(help="Query examples a class.")] = 15,
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
    """Learners on the same tasks: by examples, by gradient steps, and against none before.

    Saved evaluations are compared as they are, paired with the first.
    """
    from quickstudy.cli.tables import saved_table, study_rows, study_table

    if all(target.endswith(".json") for target in targets):
        saved_table(targets, as_json)
        return
    from quickstudy.comparison import draw_study, study
    from quickstudy.evaluation import FrozenTasks

    runs = [target for target in targets if target not in BASELINES]
    short = [Path(run).name for run in runs]
    found = {
        name if short.count(name) == 1 else run: find_learner(run)
        for name, run in zip(short, runs, strict=True)
    }
    if not found:
        raise ValueError("compare needs at least one run to compare with the baselines")
    kept = FrozenTasks.load(frozen) if frozen is not None else None
    way = kept[0].n_way if kept is not None else way
    first = next(iter(found.values()))[0]
    experiment = with_data(first.replace(way=way or first.way), data, root, split)
    baselines: dict[str, MetaLearner] = {}
    for name in dict.fromkeys((SCRATCH, *(t for t in targets if t in BASELINES))):
        if name == "nearest" and experiment.data == "sinusoid":
            raise ValueError("nearest cannot learn sinusoids")
        sinusoid = name == SCRATCH and experiment.data == "sinusoid"
        plain = experiment.replace(
            learner=name,
            options=SCRATCH_SINUSOID if sinusoid else {},
            downsample=DEFAULT.downsample,  # the better one where nothing is meta-learned
        )
        baselines[name] = plain.build_learner()
    trained = {name: learner for name, (_, learner) in found.items()}
    learners = {SCRATCH: baselines.pop(SCRATCH), **trained, **baselines}
    if kept is not None:
        tasks = {int(kept.about.get("shot", 1)): kept}
    else:
        default = "5,10" if experiment.data == "sinusoid" else "1,5"
        tasks = {}
        for shot in _integers("shots", shots or default):
            source, about = tasks_to_test(
                experiment, None, "test", experiment.way, shot, query, False, seed
            )
            tasks[shot] = FrozenTasks.freeze(source, n_tasks, about)
    example, names = _example(experiment, seed)
    result = study(
        learners,
        tasks,
        example,
        names=names,
        steps=_integers("inner-steps", inner_steps),
        n_tasks=n_tasks,
        baseline=SCRATCH,
        say=say,
    )
    try:
        pictures = draw_study(result, learners, out)
    except ModuleNotFoundError as missing:
        say(str(missing))
        pictures = []
    if as_json:
        print(json.dumps(study_rows(result)))
        return
    study_table(result, "sinusoids" if experiment.data == "sinusoid" else f"{experiment.way}-way")
    if pictures:
        say(f"pictures: {', '.join(map(str, pictures))}")


def _integers(name: str, text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise ValueError(f"--{name} is {text!r}; expected integers such as 1,5") from None


def _example(experiment: Experiment, seed: int) -> tuple["Task", list[str] | None]:
    """Two classes never seen, one example of each; or one sinusoid, seen all along."""
    from quickstudy.data import EpisodeSampler

    if experiment.data == "sinusoid":
        return experiment.sampler("test", shot=10, query=200, tasks=1, seed=seed)[0], None
    sampler = experiment.sampler("test", way=2, shot=1, query=6, tasks=1, seed=seed)
    assert isinstance(sampler, EpisodeSampler)
    return sampler[0], sampler.class_names(0)[0]
