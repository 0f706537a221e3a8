"""What a name stands for: a run, weights or a baseline; and the tasks to test it on.

The command line and Python find learners by the same names here.
"""

import json
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from quickstudy.experiments.spec import DataName, Experiment, PartName, SplitName, Weights
from quickstudy.plain import read_file

if TYPE_CHECKING:
    from quickstudy.data import TaskSource
    from quickstudy.learner import MetaLearner
    from quickstudy.learners import NearestNeighbour

__all__ = [
    "BASELINES",
    "build_baseline",
    "check_target",
    "find_target",
    "nearest_in_space",
    "run_folder",
    "tasks_to_test",
    "trained_by",
    "trained_on",
    "with_data",
]

BaselineName = Literal["nearest", "scratch"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)
"""Learners that need no training, by name."""

_SCRATCH_SINUSOID = {"inner_lr": 0.01, "inner_steps": 200}  # see docs/experiments.md


def find_target(
    name: str | os.PathLike[str], weights: Weights = "auto"
) -> tuple[Experiment, "MetaLearner"]:
    """The experiment and the learner that a name stands for, as on the command line.

    Args:
        name: a run folder, weights that come with quickstudy (``"protonet-omniglot"``), what
            `quickstudy.load` opens beside these, or an untrained baseline: ``"nearest"`` or
            ``"scratch"``. Of a file of weights alone nothing says on which classes it was trained;
            a warning tells.
        weights: which of a run's, see `load_run`.

    Raises:
        FileNotFoundError: it is none of these; lists the names there are.
        ValueError: a file of the run is damaged.

    Example:
        >>> experiment, learner = find_target("protonet-omniglot")
        >>> experiment.learner, type(learner).__name__
        ('protonet', 'ProtoNet')
    """
    check_target(name)
    from quickstudy.experiments.pretrained import load
    from quickstudy.experiments.recipe import load_recipe, shipped
    from quickstudy.experiments.run import load_run

    if Path(name).exists() and (Path(name, "run.json").exists() or name not in shipped()):
        from quickstudy.hub import WEIGHTS

        alone = Path(name, WEIGHTS).is_file() and not Path(name, "run.json").exists()
        if alone or Path(name).is_file():
            return _of_weights(name)
        return load_run(name, weights)
    for baseline in BASELINES:
        if name == baseline:
            experiment = Experiment(baseline)
            return experiment, experiment.build_learner()
    name = os.fspath(name)
    return load_recipe(name).experiment(), load(name)


def _of_weights(name: str | os.PathLike[str]) -> tuple[Experiment, "MetaLearner"]:
    from quickstudy.experiments.pretrained import load_described

    spec, learner = load_described(name)
    warnings.warn(
        f"nothing says on which classes {os.fspath(name)} was trained: see to it that they are not "
        "those it is tested on",
        stacklevel=3,
    )
    data = "omniglot" if spec.inputs == "images" else spec.inputs
    return Experiment(**spec.model_dump(exclude={"inputs", "others"}), data=data), learner


def trained_by(name: str | os.PathLike[str]) -> Experiment | None:
    """The experiment that a target was trained by; ``None`` if it was not, or nothing says it."""
    if Path(name, "run.json").is_file():
        return Experiment.load(name)
    if Path(name).exists() or name in BASELINES:
        return None
    from quickstudy.experiments.recipe import load_recipe

    return load_recipe(os.fspath(name)).experiment()


def trained_on(name: str | os.PathLike[str]) -> str | None:
    """The fingerprint of the split that a target was trained on, if anything says it."""
    from quickstudy.experiments.card import load_cards

    run = Path(name, "run.json")
    if run.is_file():
        found: str | None = json.loads(read_file(run)).get("split_fingerprint")
        return found
    card = load_cards().get(os.fspath(name))
    return None if card is None else card.fingerprint


def check_target(name: str | os.PathLike[str]) -> None:
    """Raise ``FileNotFoundError`` if a name stands for nothing, before anything heavy is done."""
    from quickstudy.experiments.recipe import shipped

    if not Path(name).exists() and name not in (known := (*BASELINES, *shipped())):
        raise FileNotFoundError(f"{name} is no run folder, and none of {', '.join(known)}")


def run_folder(name: str | os.PathLike[str]) -> Path:
    """The folder for what is measured on a target: the run's own, or ``runs/NAME``."""
    return Path(name) if Path(name).is_dir() else Path("runs", Path(name).stem)


def build_baseline(name: BaselineName, experiment: Experiment) -> "MetaLearner":
    """An untrained baseline for the tasks of an experiment.

    Args:
        name: ``"nearest"``, nearest neighbour on pixels; or ``"scratch"``, the experiment's
            network trained on the support of each task alone.
        experiment: says how many classes of what images a task has.

    Raises:
        ValueError: the baseline cannot learn such tasks.
    """
    if name == "nearest" and experiment.regression:
        raise ValueError("nearest cannot learn sinusoids")
    options = _SCRATCH_SINUSOID if name == "scratch" and experiment.regression else {}
    # Pooling is the better network where nothing is meta-learned.
    return experiment.replace(learner=name, options=options, downsample="pool").build_learner()


def nearest_in_space(learner: "MetaLearner", k: int = 1) -> "NearestNeighbour":
    """The k-nearest-neighbour rule in the feature space of another learner.

    Raises:
        ValueError: the learner has no encoder.
    """
    from torch import nn

    from quickstudy.learners import NearestNeighbour

    encoder = getattr(learner, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ValueError(f"{type(learner).__name__} has no encoder to measure distances with")
    return NearestNeighbour(encoder, k=k)


def with_data(
    experiment: Experiment,
    data: DataName | None = None,
    root: str | os.PathLike[str] | None = None,
    split: SplitName | None = None,
    *,
    way: int | None = None,
    rotations: bool | None = None,
) -> Experiment:
    """The experiment on other data; what is not given stays the same.

    Args:
        experiment: to change.
        data: where the classes come from.
        root: folder or zip with the data.
        split: how classes are split; other data gets the split that suits it.
        way: classes of a task.
        rotations: whether rotations are classes of their own; of a folder that is not the
            experiment's they are not, unless asked for.
    """
    if rotations is None and data == "folder" != experiment.data:
        rotations = False
    if split is None and data is not None:
        split = "published" if data == "omniglot" else "random"
    changes = {
        "data": data,
        "root": None if root is None else os.fspath(root),
        "split": split,
        "way": way,
        "rotations": rotations,
    }
    return experiment.replace(**{k: v for k, v in changes.items() if v is not None})


def tasks_to_test(
    experiment: Experiment,
    *,
    part: PartName = "test",
    way: int | None = None,
    shot: int | None = None,
    query: int = 15,
    within_group: bool = False,
    seed: int = 0,
) -> tuple["TaskSource", dict[str, Any]]:
    """Tasks of unseen classes, one per batch, and a description of them.

    Args:
        experiment: whose data.
        part: which classes.
        way: classes of a task; default: as in training.
        shot: support examples of a class; default: as in training.
        query: query examples of a class.
        within_group: take the classes of a task from one alphabet.
        seed: decides the tasks.

    Returns:
        The tasks, and the ``about`` for `evaluate`: its entry ``tasks`` tells `compare` whether two
        evaluations were made on the same ones.
    """
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
