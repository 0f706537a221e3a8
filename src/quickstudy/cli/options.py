"""What the commands share: options, words to the user, and what a name on the line stands for."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.experiments.spec import DataName, Experiment, Part, SplitName, Weights

if TYPE_CHECKING:
    from quickstudy.data import TaskSource
    from quickstudy.learner import MetaLearner

__all__ = [
    "BASELINES",
    "DEFAULT",
    "SCRATCH",
    "DataOption",
    "RootOption",
    "SkipOption",
    "SplitOption",
    "StoppedError",
    "find_learner",
    "meaning",
    "say",
    "tasks_to_test",
    "with_data",
]


def meaning(field: str) -> str | None:
    """What a field of `Experiment` means, as its flag's help."""
    return Experiment.model_fields[field].description


DataOption = Annotated[DataName | None, typer.Option("--data", help=meaning("data"))]
RootOption = Annotated[Path | None, typer.Option("--root", help=meaning("root"))]
SplitOption = Annotated[SplitName | None, typer.Option("--split", help=meaning("split"))]
SkipOption = Annotated[bool, typer.Option(help=meaning("skip_corrupt"))]

SCRATCH = "scratch"
BASELINES = ("nearest", SCRATCH)
DEFAULT = Experiment("protonet")


class StoppedError(Exception):
    """The user pressed Ctrl-C; Typer would swallow the words of a `KeyboardInterrupt`."""


def say(line: str) -> None:
    """A line for the user, on standard error."""
    print(" ".join(line.split("\n")), file=sys.stderr)


def with_data(
    experiment: Experiment,
    data: DataName | None,
    root: str | os.PathLike[str] | None,
    split: SplitName | None,
) -> Experiment:
    """The experiment on other data, with the split that suits it unless one is named."""
    name = data or experiment.data
    if split is None:
        split = (
            experiment.split if data is None else "published" if name == "omniglot" else "random"
        )
    path = experiment.root if root is None else os.fspath(root)
    return experiment.replace(data=name, root=path, split=split)


def find_learner(
    target: str, weights: Weights = "auto", inner_steps: int | None = None
) -> tuple[Experiment, "MetaLearner"]:
    """What a run folder holds, or shipped weights, or an untrained baseline."""
    from quickstudy.experiments.run import load_run

    learner: MetaLearner
    if Path(target).exists():
        experiment, learner = load_run(target, weights)
    elif target in BASELINES:
        experiment = Experiment(target)  # type: ignore[arg-type]
        learner = experiment.build_learner()
    else:
        from quickstudy.experiments.pretrained import load, shipped
        from quickstudy.experiments.recipe import load_recipe

        if target not in shipped():
            raise FileNotFoundError(
                f"{target} is no run folder, and none of {', '.join((*BASELINES, *shipped()))}"
            )
        experiment, learner = load_recipe(target).experiment(), load(target)
    if inner_steps is not None:
        if not hasattr(learner, "inner_steps"):
            raise ValueError(f"{experiment.learner} takes no inner steps")
        learner.inner_steps = inner_steps  # type: ignore[assignment]
    return experiment, learner


def tasks_to_test(
    experiment: Experiment,
    frozen: Path | None,
    part: Part,
    way: int | None,
    shot: int | None,
    query: int,
    within_group: bool,
    seed: int,
) -> tuple["TaskSource", dict[str, Any]]:
    """Test tasks, one a batch, and what to say of them; ``tasks`` tells if two sets are one."""
    from quickstudy.evaluation import FrozenTasks

    if frozen is not None:
        kept = FrozenTasks.load(frozen)
        return kept, {**kept.about, "tasks": kept.fingerprint}
    settings: dict[str, Any] = {
        "way": way or experiment.way,
        "shot": shot or experiment.shot,
        "query": query,
        "within_group": within_group,
        "seed": seed,
    }
    tasks = experiment.sampler(part, **settings, tasks=1)
    about = {**experiment.about_data(), "part": part, **settings}
    return tasks, {**about, "tasks": json.dumps(about)}
