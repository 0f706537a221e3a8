"""The command line. Everything heavy is imported inside the commands, so that help is instant."""

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy import __version__
from quickstudy.experiment import DataName, Experiment, LearnerName, SplitName

if TYPE_CHECKING:
    from quickstudy.evaluation import Evaluation

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train once on many tasks, then learn a new one from a handful of examples.",
)
data_app = typer.Typer(no_args_is_help=True, help="See and check the data tasks are made of.")
app.add_typer(data_app, name="data")

BAD_INPUT, INTERRUPTED = 2, 130
_DEFAULT = Experiment("protonet")


def main() -> None:
    """Run the command line; bad input gives one clear line and exit status 2."""
    debug = "--debug" in sys.argv
    try:
        sys.exit(app([a for a in sys.argv[1:] if a != "--debug"], standalone_mode=False) or 0)
    except (KeyboardInterrupt, typer.Abort) as stop:
        why = str(stop.__cause__ or stop)
        _say(f"stopped: {why}" if why else "stopped")
        sys.exit(INTERRUPTED)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # Typer's own usage errors
            error.show()
            sys.exit(BAD_INPUT)
        if debug:
            raise
        if isinstance(error, ValueError | OSError | ArithmeticError | ModuleNotFoundError):
            _say(f"error: {error}")
            sys.exit(BAD_INPUT)
        _say(f"error: {error} [{type(error).__name__}; see it all with --debug]")
        sys.exit(1)


def _say(line: str) -> None:
    print(" ".join(line.split("\n")), file=sys.stderr)


DataOption = Annotated[DataName | None, typer.Option("--data", help="Where the classes come from.")]
RootOption = Annotated[Path | None, typer.Option("--root", help="Folder or zip with the data.")]
SplitOption = Annotated[
    SplitName | None, typer.Option("--split", help="How classes are split into train and test.")
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Folder for the run.")]


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def train(
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
    ] = _DEFAULT.validation_groups,
    size: Annotated[int, typer.Option(help="Height and width of images.")] = _DEFAULT.size,
    channels: Annotated[int, typer.Option(help="1 grey, 3 colour.")] = _DEFAULT.channels,
    classes: Annotated[int, typer.Option(help="Synthetic characters.")] = _DEFAULT.classes,
    way: Annotated[int, typer.Option(help="Classes of a training task.")] = _DEFAULT.way,
    shot: Annotated[int, typer.Option(help="Support examples a class.")] = _DEFAULT.shot,
    query: Annotated[int, typer.Option(help="Query examples a class.")] = _DEFAULT.query,
    tasks: Annotated[int, typer.Option(help="Tasks in a batch.")] = _DEFAULT.tasks,
    within_group: Annotated[bool, typer.Option(help="Tasks within one alphabet.")] = False,
    steps: Annotated[int, typer.Option(help="Outer steps.")] = _DEFAULT.steps,
    lr: Annotated[float, typer.Option(help="Outer learning rate (Adam).")] = _DEFAULT.lr,
    schedule: Annotated[str, typer.Option(help="constant, cosine or halve.")] = _DEFAULT.schedule,
    halve_every: Annotated[int, typer.Option(help="For halve, in steps.")] = _DEFAULT.halve_every,
    backbone: Annotated[str, typer.Option(help="conv4 or mlp.")] = _DEFAULT.backbone,
    downsample: Annotated[str, typer.Option(help="Conv4: pool or stride.")] = _DEFAULT.downsample,
    batch_norm: Annotated[
        str, typer.Option(help="inductive, or transductive: queries see each other.")
    ] = _DEFAULT.batch_norm,
    inner_lr: Annotated[
        float, typer.Option(help="MAML: rate of the inner steps on the mean loss.")
    ] = _DEFAULT.inner_lr,
    inner_steps: Annotated[int, typer.Option(help="MAML.")] = _DEFAULT.inner_steps,
    first_order: Annotated[bool, typer.Option(help="MAML without second derivatives.")] = False,
    hidden: Annotated[int, typer.Option(help="LSTM: size of the state.")] = _DEFAULT.hidden,
    queries: Annotated[
        str, typer.Option(help="LSTM: read queries alone, or as one sequence.")
    ] = _DEFAULT.queries,
    seed: Annotated[int, typer.Option(help="Decides weights and tasks.")] = 0,
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = 1000,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 200,
    threads: Annotated[int | None, typer.Option(help="Threads of each operation.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes, one a device.")] = 1,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed, ...")] = "32-true",
    tensorboard: Annotated[bool, typer.Option(help="Also log to TensorBoard.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train a learner on many tasks, or go on with a run (--resume)."""
    if (resume is None) == (learner is None):
        raise ValueError("name a learner to train, or a run to --resume (not both)")
    if resume is not None:
        experiment, machine = Experiment.load(resume), _machine(resume)
    else:
        given = dict(locals())
        fields = {f.name for f in dataclasses.fields(Experiment)} - {"data", "split", "root"}
        experiment = _with_data(
            Experiment(**{name: given[name] for name in fields}), data, root, split
        )
        machine = {
            "accelerator": accelerator,
            "devices": devices,
            "precision": precision,
            "threads": threads,
            "validate_every": validate_every,
            "checkpoint_every": checkpoint_every,
            "tensorboard": tensorboard,
        }
    folder = resume or out or Path("runs") / experiment.learner
    try:
        _train(experiment, machine, folder, resume=resume is not None, quiet=quiet)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"{stop or 'before the first step'}; go on with: quickstudy train --resume {folder}"
        ) from None


def _train(
    experiment: Experiment, machine: dict[str, Any], folder: Path, *, resume: bool, quiet: bool
) -> None:
    import torch
    from lightning_fabric import Fabric

    from quickstudy.training import train as run

    if machine["threads"] is not None:
        torch.set_num_threads(machine["threads"])
    learner = experiment.build_learner()
    optimizer, scheduler = (None, None)
    if any(True for _ in learner.parameters()):
        optimizer, scheduler = experiment.build_optimizer(learner)
    tasks = experiment.sampler("train")
    validation = None
    if experiment.splits.validation is not None:
        validation = experiment.sampler("validation", tasks=_batch(experiment.way), seed=1)
    fabric = Fabric(
        accelerator=machine["accelerator"],
        devices=machine["devices"],
        precision=machine["precision"],
    )
    fabric.launch()
    torch.manual_seed(experiment.seed + fabric.global_rank)
    if fabric.is_global_zero and not quiet:
        _say(f"{experiment.learner}: {experiment.splits}")
    result = run(
        learner,
        tasks,
        steps=experiment.steps,
        optimizer=optimizer,
        scheduler=scheduler,
        run_dir=folder,
        resume=resume,
        validation=validation,
        validate_every=machine["validate_every"],
        checkpoint_every=machine["checkpoint_every"],
        fabric=fabric,
        progress=not quiet,
        tensorboard=machine["tensorboard"],
        about={**experiment.about(), "machine_options": machine},
    )
    if fabric.is_global_zero:
        best = "" if result.best is None else f"; best validation {result.best}"
        _say(f"{result.steps} steps in {result.seconds / 60:.1f} minutes, in {folder}{best}")


def _machine(run: Path) -> dict[str, Any]:
    options: dict[str, Any] = json.loads((run / "run.json").read_text())["machine_options"]
    return options


def _batch(way: int) -> int:
    return max(1, 40 // way)


def _with_data(
    experiment: Experiment, data: DataName | None, root: Path | None, split: SplitName | None
) -> Experiment:
    """The experiment on other data, with the split that suits it unless one is named."""
    name = data or experiment.data
    if split is None:
        split = (
            experiment.split if data is None else "published" if name == "omniglot" else "random"
        )
    path = experiment.root if root is None else os.fspath(root)
    return dataclasses.replace(experiment, data=name, root=path, split=split)
