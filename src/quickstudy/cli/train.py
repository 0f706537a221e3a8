"""The command that trains: `quickstudy train`."""

import errno
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from quickstudy.cli.options import StoppedError, busy, check_root, meaning, nearest, with_data
from quickstudy.experiments.heeded import check_heeded
from quickstudy.experiments.spec import Experiment, LearnerName, LearnerSpec
from quickstudy.policy import Precision

__all__ = ["train"]

NO_FLAGS = ("learner", "options", "backbone_config")
"""Fields of `Experiment` without a flag: the argument, the options, which have their own, and what
the backbone decides."""

LEARNER_PANEL, TASKS_PANEL = "The learner", "Data, tasks and training"


def with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that takes ``**settings`` a flag for each of them: a field of `Experiment`."""
    signature = inspect.signature(command)
    explicit = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    flags = [_flag(name) for name in Experiment.model_fields if name not in NO_FLAGS]
    command.__dict__["__signature__"] = signature.replace(parameters=[*explicit, *flags])
    return command


def _flag(name: str) -> inspect.Parameter:
    field = Experiment.model_fields[name]
    words = get_args(field.annotation)
    kind: Any = int if words and all(isinstance(word, int) for word in words) else field.annotation
    panel = LEARNER_PANEL if name in LearnerSpec.model_fields else TASKS_PANEL
    option = typer.Option(help=field.description, rich_help_panel=panel)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=field.default,
        annotation=Annotated[kind, option],
    )


@with_fields
def train(
    context: typer.Context,
    learner: Annotated[LearnerName | None, typer.Argument(help=meaning("learner"))] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the run.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder, exactly.")
    ] = None,
    validation_tasks: Annotated[int, typer.Option(help="Tasks of a validation.")] = 200,
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = 1000,
    patience: Annotated[
        int | None, typer.Option(help="End after this many validations without a new best.")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each operation.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes, one per device.")] = 1,
    precision: Annotated[Precision, typer.Option(help="Of a step's operations.")] = "32-true",
    tensorboard: Annotated[bool, typer.Option(help="Also log to TensorBoard.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    **settings: Any,
) -> None:
    """Train a learner on many tasks, or go on with a run (--resume).

    A learner's own options are given the same way (--inner-lr 0.5);
    `quickstudy learners` lists them. Where other values than the defaults below
    are known to suit a learner or its data, they are taken unless you give your
    own: the lines that a run begins with say what it took.
    """
    if (resume is None) == (learner is None):
        raise ValueError("name a learner to train, or a run to --resume (not both)")
    if resume is not None:
        _check_resume(context)
        experiment = Experiment.load(resume)
    else:
        check_root(settings["root"])
    with busy("starting"):
        from quickstudy.experiments.run import Machine, run_experiment
        from quickstudy.processes import LostProcessError

    if resume is not None:
        machine = Machine.load(resume)
    else:
        assert learner is not None
        chosen = {name: value for name, value in settings.items() if _was_given(context, name)}
        given = dict(chosen)
        root, split = chosen.pop("root", None), chosen.pop("split", None)
        chosen["options"] = _learner_options(learner, context)
        suited = Experiment.suited(learner, **chosen)
        experiment = with_data(suited, chosen.get("data"), root, split)
        check_heeded(experiment, given, flags=True)
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
        experiment = experiment.with_details()
    folder = resume or out or Path("runs") / experiment.learner
    try:
        run_experiment(experiment, folder, machine, resume=resume is not None, quiet=quiet)
    except KeyboardInterrupt as stop:
        if not (folder / "run.json").exists():
            raise StoppedError("stopped before the first step") from None
        why = str(stop) or "stopped"
        raise StoppedError(f"{why}; go on with: quickstudy train --resume {folder}") from None
    except LostProcessError as lost:
        raise LostProcessError(f"{lost}: quickstudy train --resume {folder}") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            again = f"make room and go on with: quickstudy train --resume {folder}"
            raise OSError(f"{error}; {again}") from error
        raise


def _check_resume(context: typer.Context) -> None:
    """Raise ``ValueError`` for options that a run, which goes on as it began, would not heed."""
    own = ("resume", "quiet")
    given = [name for name in context.params if name not in own and _was_given(context, name)]
    flags = [f"--{name.replace('_', '-')}" for name in given] + context.args
    if flags:
        raise ValueError(f"--resume goes on with a run as it began; leave out {', '.join(flags)}")


def _was_given(context: typer.Context, name: str) -> bool:
    return getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"


def _learner_options(learner: LearnerName, context: typer.Context) -> dict[str, Any]:
    """Options of the learner's class from the rest of the line: ``--inner-lr 0.5 --causal``."""
    from quickstudy.experiments.spec import learner_options

    known = learner_options(learner)
    options: dict[str, Any] = {}
    remaining = [part for word in context.args for part in word.split("=", 1)]
    while remaining:
        word = remaining.pop(0)
        name = word.removeprefix("--").replace("-", "_")
        value = not name.startswith("no_")
        name = name if name in known else name.removeprefix("no_")
        if not word.startswith("--") or name not in known:
            flags = (f"--{option.replace('_', '-')}" for option in known)
            has = ", ".join(flags) or "none"
            others = (option for parameter in context.command.params for option in parameter.opts)
            near = nearest(word, [*(f"--{o.replace('_', '-')}" for o in known), *others])
            raise ValueError(f"{learner} has no option {word}{near or f'; it has: {has}'}")
        kind = known[name]
        if kind is bool:
            options[name] = value
        elif not remaining:
            raise ValueError(f"{word} needs a value")
        else:
            options[name] = _parse(word, remaining.pop(0), kind)
    return options


def _parse(flag: str, text: str, kind: Any) -> Any:
    """``text`` as an int, a float, or one of a ``Literal``'s words."""
    if kind not in (int, float) and int not in get_args(kind):
        return text
    try:
        return float(text) if kind is float else int(text)
    except ValueError:
        expected = "a number" if kind is float else "an integer"
        raise ValueError(f"{flag} is {text!r}; expected {expected}") from None
