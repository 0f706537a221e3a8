"""The command that trains: `quickstudy train`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from quickstudy.cli.options import (
    DEFAULT,
    DataOption,
    InvertOption,
    RootOption,
    SkipOption,
    SplitOption,
    StoppedError,
    with_data,
)
from quickstudy.experiments.spec import (
    Backbone,
    Downsample,
    Experiment,
    LearnerName,
    Optimizer,
    Policy,
    Schedule,
)

__all__ = ["train"]


def train(
    context: typer.Context,
    learner: Annotated[LearnerName | None, typer.Argument(help="What to train.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the run.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder, exactly.")
    ] = None,
    data: DataOption = None,
    root: RootOption = None,
    split: SplitOption = None,
    rotations: Annotated[bool, typer.Option(help="Rotations as classes.")] = True,
    validation_groups: Annotated[
        int, typer.Option(help="Training alphabets to hold out for choosing the best weights.")
    ] = DEFAULT.validation_groups,
    size: Annotated[int, typer.Option(help="Height and width of images.")] = DEFAULT.size,
    channels: Annotated[int, typer.Option(help="1 grey, 3 colour.")] = DEFAULT.channels,
    invert: InvertOption = False,
    skip_corrupt: SkipOption = False,
    classes: Annotated[int, typer.Option(help="Synthetic characters.")] = DEFAULT.classes,
    way: Annotated[int, typer.Option(help="Classes of a training task.")] = DEFAULT.way,
    shot: Annotated[int, typer.Option(help="Support examples a class.")] = DEFAULT.shot,
    most_shot: Annotated[
        int | None, typer.Option(help="Draw the shot of each batch from --shot up to this.")
    ] = None,
    query: Annotated[int, typer.Option(help="Query examples a class.")] = DEFAULT.query,
    tasks: Annotated[int, typer.Option(help="Tasks in a batch.")] = DEFAULT.tasks,
    within_group: Annotated[bool, typer.Option(help="Tasks within one alphabet.")] = False,
    augment: Annotated[
        float, typer.Option(help="Distort training images; 1 for up to 15 degrees, 15% of size.")
    ] = DEFAULT.augment,
    steps: Annotated[int, typer.Option(help="Outer steps.")] = DEFAULT.steps,
    lr: Annotated[float, typer.Option(help="Outer learning rate.")] = DEFAULT.lr,
    optimizer: Annotated[Optimizer, typer.Option(help="Of the outer loop.")] = DEFAULT.optimizer,
    schedule: Annotated[Schedule, typer.Option(help="Of the learning rate.")] = DEFAULT.schedule,
    halve_every: Annotated[int, typer.Option(help="For halve, in steps.")] = DEFAULT.halve_every,
    average: Annotated[
        float, typer.Option(help="Keep a moving average of the weights, with this decay.")
    ] = DEFAULT.average,
    backbone: Annotated[Backbone, typer.Option(help="The network.")] = DEFAULT.backbone,
    filters: Annotated[int, typer.Option(help="Of each block of Conv4.")] = DEFAULT.filters,
    downsample: Annotated[Downsample, typer.Option(help="How Conv4 halves.")] = DEFAULT.downsample,
    batch_norm: Annotated[
        Policy, typer.Option(help="inductive, or transductive: queries see each other.")
    ] = DEFAULT.batch_norm,
    seed: Annotated[int, typer.Option(help="Decides weights and tasks.")] = 0,
    validation_tasks: Annotated[int, typer.Option(help="Tasks of a validation.")] = 200,
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = 1000,
    patience: Annotated[
        int | None, typer.Option(help="End after so many validations without a new best.")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    threads: Annotated[int | None, typer.Option(help="Threads of each operation.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes, one a device.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed, ...")] = "32-true",
    tensorboard: Annotated[bool, typer.Option(help="Also log to TensorBoard.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train a learner on many tasks, or go on with a run (--resume).

    A learner's own options are given the same way (--inner-lr 0.5); `quickstudy learners` lists
    them. Reptile, the baselines and sinusoids have other defaults where those below do not suit.
    """
    if (resume is None) == (learner is None):
        raise ValueError("name a learner to train, or a run to --resume (not both)")
    from quickstudy.experiments.run import Machine, run_experiment
    from quickstudy.processes import LostProcessError

    if resume is not None:
        experiment, machine = Experiment.load(resume), Machine.load(resume)
    else:
        names = {f.name for f in dataclasses.fields(Experiment)} - {"learner", "split", "root"}
        given = {
            name: value
            for name, value in context.params.items()
            if name in names and _was_given(context, name)
        }
        assert learner is not None
        given["options"] = _learner_options(learner, context.args)
        experiment = with_data(Experiment.suited(learner, **given), data, root, split)
        experiment = experiment.with_classes()
        machine = Machine(
            accelerator=accelerator,
            devices=devices,
            precision=precision,
            threads=threads,
            validation_tasks=validation_tasks,
            validate_every=validate_every,
            patience=patience,
            checkpoint_every=checkpoint_every,
            tensorboard=tensorboard,
        )
    folder = resume or out or Path("runs") / experiment.learner
    try:
        run_experiment(experiment, folder, machine, resume=resume is not None, quiet=quiet)
    except KeyboardInterrupt as stop:
        why = str(stop) or "stopped before the first step"
        raise StoppedError(f"{why}; go on with: quickstudy train --resume {folder}") from None
    except LostProcessError as lost:
        raise LostProcessError(f"{lost}: quickstudy train --resume {folder}") from None


def _was_given(context: typer.Context, name: str) -> bool:
    return getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"


def _learner_options(learner: LearnerName, words: list[str]) -> dict[str, Any]:
    """Options of the learner's class from the rest of the line: ``--inner-lr 0.5 --causal``."""
    from quickstudy.experiments.spec import learner_options

    known = learner_options(learner)
    options: dict[str, Any] = {}
    rest = [part for word in words for part in word.split("=", 1)]
    while rest:
        word = rest.pop(0)
        name = word.removeprefix("--").replace("-", "_")
        value = not name.startswith("no_")
        name = name if name in known else name.removeprefix("no_")
        if not word.startswith("--") or name not in known:
            flags = (f"--{option.replace('_', '-')}" for option in known)
            has = ", ".join(flags) or "none"
            raise ValueError(f"{learner} has no option {word}; it has: {has}")
        kind = known[name]
        if kind is bool:
            options[name] = value
        elif not rest:
            raise ValueError(f"{word} needs a value")
        else:
            options[name] = _parse(word, rest.pop(0), kind)
    return options


def _parse(flag: str, text: str, kind: Any) -> Any:
    """``text`` as an int, a float, or one of a ``Literal``'s words."""
    if kind not in (int, float) and int not in get_args(kind):
        return text
    try:
        return float(text) if kind is float else int(text)
    except ValueError:
        what = "a number" if kind is float else "an integer"
        raise ValueError(f"{flag} is {text!r}; expected {what}") from None
