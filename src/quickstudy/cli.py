"""The command line. Everything heavy is imported inside the commands, so that help is instant."""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from quickstudy import __version__, cli_model
from quickstudy.experiment import (
    Backbone,
    DataName,
    Downsample,
    Experiment,
    LearnerName,
    Optimizer,
    Part,
    Policy,
    Schedule,
    SplitName,
    Weights,
)

if TYPE_CHECKING:
    from quickstudy.data import TaskSource
    from quickstudy.learner import MetaLearner
    from quickstudy.task import Task

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train once on many tasks, then learn a new one from a handful of examples.",
)
data_app = typer.Typer(no_args_is_help=True, help="See and check the data tasks are made of.")
app.add_typer(data_app, name="data")
for _command in cli_model.COMMANDS:
    app.command()(_command)

DemoData = Literal["alphabets", "omniglot"]
SCRATCH = "scratch"
BASELINES = ("nearest", SCRATCH)
SCRATCH_SINUSOID = {"inner_lr": 0.01, "inner_steps": 200}  # see docs/experiments.md
BAD_INPUT, INTERRUPTED = 2, 130
_DEFAULT = Experiment("protonet")


class _StoppedError(Exception):
    """The user pressed Ctrl-C; Typer would swallow the words of a `KeyboardInterrupt`."""


def main() -> None:
    """Run the command line; bad input gives one clear line and exit status 2."""
    debug = "--debug" in sys.argv
    try:
        sys.exit(app([a for a in sys.argv[1:] if a != "--debug"], standalone_mode=False) or 0)
    except (_StoppedError, KeyboardInterrupt, typer.Abort) as stop:
        _say(str(stop) or "stopped")
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
InvertOption = Annotated[
    bool, typer.Option(help="Folders: swap black and white (dark drawings on light paper).")
]
SkipOption = Annotated[
    bool, typer.Option(help="Folders: leave out images that cannot be read, and name them.")
]


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
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
    ] = _DEFAULT.validation_groups,
    size: Annotated[int, typer.Option(help="Height and width of images.")] = _DEFAULT.size,
    channels: Annotated[int, typer.Option(help="1 grey, 3 colour.")] = _DEFAULT.channels,
    invert: InvertOption = False,
    skip_corrupt: SkipOption = False,
    classes: Annotated[int, typer.Option(help="Synthetic characters.")] = _DEFAULT.classes,
    way: Annotated[int, typer.Option(help="Classes of a training task.")] = _DEFAULT.way,
    shot: Annotated[int, typer.Option(help="Support examples a class.")] = _DEFAULT.shot,
    most_shot: Annotated[
        int | None, typer.Option(help="Draw the shot of each batch from --shot up to this.")
    ] = None,
    query: Annotated[int, typer.Option(help="Query examples a class.")] = _DEFAULT.query,
    tasks: Annotated[int, typer.Option(help="Tasks in a batch.")] = _DEFAULT.tasks,
    within_group: Annotated[bool, typer.Option(help="Tasks within one alphabet.")] = False,
    augment: Annotated[
        float, typer.Option(help="Distort training images; 1 for up to 15 degrees, 15% of size.")
    ] = _DEFAULT.augment,
    steps: Annotated[int, typer.Option(help="Outer steps.")] = _DEFAULT.steps,
    lr: Annotated[float, typer.Option(help="Outer learning rate.")] = _DEFAULT.lr,
    optimizer: Annotated[Optimizer, typer.Option(help="Of the outer loop.")] = _DEFAULT.optimizer,
    schedule: Annotated[Schedule, typer.Option(help="Of the learning rate.")] = _DEFAULT.schedule,
    halve_every: Annotated[int, typer.Option(help="For halve, in steps.")] = _DEFAULT.halve_every,
    average: Annotated[
        float, typer.Option(help="Keep a moving average of the weights, with this decay.")
    ] = _DEFAULT.average,
    backbone: Annotated[Backbone, typer.Option(help="The network.")] = _DEFAULT.backbone,
    filters: Annotated[int, typer.Option(help="Of each block of Conv4.")] = _DEFAULT.filters,
    downsample: Annotated[Downsample, typer.Option(help="How Conv4 halves.")] = _DEFAULT.downsample,
    batch_norm: Annotated[
        Policy, typer.Option(help="inductive, or transductive: queries see each other.")
    ] = _DEFAULT.batch_norm,
    seed: Annotated[int, typer.Option(help="Decides weights and tasks.")] = 0,
    validation_tasks: Annotated[int, typer.Option(help="Tasks of a validation.")] = 200,
    validate_every: Annotated[int, typer.Option(help="Steps between validations.")] = 1000,
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
    from quickstudy.processes import LostProcessError
    from quickstudy.run import Machine, run_experiment

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
        experiment = _with_data(Experiment.suited(learner, **given), data, root, split)
        experiment = experiment.with_classes()
        machine = Machine(
            accelerator=accelerator,
            devices=devices,
            precision=precision,
            threads=threads,
            validation_tasks=validation_tasks,
            validate_every=validate_every,
            checkpoint_every=checkpoint_every,
            tensorboard=tensorboard,
        )
    folder = resume or out or Path("runs") / experiment.learner
    try:
        run_experiment(experiment, folder, machine, resume=resume is not None, quiet=quiet)
    except KeyboardInterrupt as stop:
        why = str(stop) or "stopped before the first step"
        raise _StoppedError(f"{why}; go on with: quickstudy train --resume {folder}") from None
    except LostProcessError as lost:
        raise LostProcessError(f"{lost}: quickstudy train --resume {folder}") from None


def _was_given(context: typer.Context, name: str) -> bool:
    return getattr(context.get_parameter_source(name), "name", "DEFAULT") != "DEFAULT"


def _learner_options(learner: LearnerName, words: list[str]) -> dict[str, Any]:
    """Options of the learner's class from the rest of the line: ``--inner-lr 0.5 --causal``."""
    from quickstudy.experiment import learner_options

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


@app.command()
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
    from quickstudy.evaluation import FrozenTasks
    from quickstudy.evaluation import evaluate as run
    from quickstudy.tables import instance_table

    experiment, learner = _learner(target, weights, inner_steps)
    if nearest is not None:
        learner = _nearest(learner, nearest)
    given = {"inner_steps": inner_steps, "nearest": nearest}
    adapted = {name: value for name, value in given.items() if value is not None}
    experiment = _with_data(experiment, data, root, split)
    if rotations is not None:
        experiment = dataclasses.replace(experiment, rotations=rotations)
    query = 1 if by_instance else query
    tasks, about = _tasks(experiment, frozen, part, way, shot, query, within_group, seed)
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
        _say(f"scores of each task: {out}")


@app.command()
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
    from quickstudy.tables import saved_table, study_rows, study_table

    if all(target.endswith(".json") for target in targets):
        saved_table(targets, as_json)
        return
    from quickstudy.comparison import draw_study, study
    from quickstudy.evaluation import FrozenTasks

    runs = [target for target in targets if target not in BASELINES]
    short = [Path(run).name for run in runs]
    found = {
        name if short.count(name) == 1 else run: _learner(run)
        for name, run in zip(short, runs, strict=True)
    }
    if not found:
        raise ValueError("compare needs at least one run to compare with the baselines")
    kept = FrozenTasks.load(frozen) if frozen is not None else None
    way = kept[0].n_way if kept is not None else way
    first = next(iter(found.values()))[0]
    experiment = _with_data(dataclasses.replace(first, way=way or first.way), data, root, split)
    baselines: dict[str, MetaLearner] = {}
    for name in dict.fromkeys((SCRATCH, *(t for t in targets if t in BASELINES))):
        if name == "nearest" and experiment.data == "sinusoid":
            raise ValueError("nearest cannot learn sinusoids")
        sinusoid = name == SCRATCH and experiment.data == "sinusoid"
        plain = dataclasses.replace(
            experiment,
            learner=name,  # type: ignore[arg-type]
            options=SCRATCH_SINUSOID if sinusoid else {},
            downsample=_DEFAULT.downsample,  # the better one where nothing is meta-learned
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
            source, about = _tasks(
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
        say=_say,
    )
    try:
        pictures = draw_study(result, learners, out)
    except ModuleNotFoundError as missing:
        _say(str(missing))
        pictures = []
    if as_json:
        print(json.dumps(study_rows(result)))
        return
    study_table(result, "sinusoids" if experiment.data == "sinusoid" else f"{experiment.way}-way")
    if pictures:
        _say(f"pictures: {', '.join(map(str, pictures))}")


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


@app.command()
def reproduce(
    names: Annotated[
        list[str] | None, typer.Argument(help="Recipes, or your own: mine.toml, mine.toml:5w1s.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Every recipe, with the paper's figures and ours.")
    ] = False,
    budget: Annotated[
        float | None, typer.Option(help="Minutes of training, each; default: the whole protocol.")
    ] = None,
    root: RootOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    devices: Annotated[int, typer.Option(help="Processes, one a device.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads of each operation.")] = None,
    seed: Annotated[int, typer.Option(help="Decides weights and tasks.")] = 0,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where each run gets a folder.")] = Path(
        "runs"
    ),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train a published result by its recipe, evaluate it as the paper does, and write its card.

    Goes on where an earlier call stopped: with a budget, or by Ctrl-C.
    """
    import shlex

    from quickstudy.recipe import load_recipe
    from quickstudy.tables import card_table, recipe_table

    if show:
        recipe_table()
        return
    if not names:
        raise ValueError("name a recipe; quickstudy reproduce --list shows them")
    recipes = [load_recipe(name) for name in names]
    from quickstudy.processes import LostProcessError
    from quickstudy.reproduce import reproduce as run

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
                command=f"quickstudy {shlex.join(sys.argv[1:])}",
                quiet=quiet,
                say=_say,
            )
        except KeyboardInterrupt as stop:
            why = str(stop) or "stopped"
            raise _StoppedError(f"{why}; the same command goes on with {name}") from None
        except LostProcessError as lost:
            raise LostProcessError(f"{lost}, by the same command") from None
        card_table(card)
        _say(f"card: {folder / 'card.md'}")


@app.command("learners")
def list_learners() -> None:
    """Every learner by name, with its class and its own options."""
    from quickstudy.tables import learner_table

    learner_table()


@data_app.command("list")
def data_list() -> None:
    """The data sets and splits there are."""
    from rich.console import Console
    from rich.table import Table

    table = Table("data", "what", "needs")
    for row in (
        (
            "omniglot",
            "1623 handwritten characters of 50 alphabets, 20 drawers each",
            "--root, or a network",
        ),
        ("miniimagenet", "100 classes of ImageNet, 600 photos each, Ravi's split", "--root"),
        ("alphabets", "synthetic characters, as many as you ask for", "nothing"),
        ("digits", "scikit-learn's 1797 handwritten digits", "nothing"),
        ("folder", "your own images: a folder (or zip) with a folder a class", "--root"),
    ):
        table.add_row(*row)
    Console().print(table)
    print("splits: published, vinyals, vinyals-trainval, maml (omniglot); group (whole alphabets);")
    print("random")


@data_app.command("fetch")
def data_fetch(
    name: Annotated[DataName, typer.Argument(help="What to download.")] = "omniglot",
) -> None:
    """Download a data set into the cache: checksummed, and resumed where it broke off."""
    from quickstudy.data import omniglot
    from quickstudy.data.omniglot import cache_dir

    if name != "omniglot":
        raise ValueError(f"{name} needs no download")
    print(f"{omniglot()} in {cache_dir()}")


@data_app.command("check")
def data_check(
    name: Annotated[DataName, typer.Argument(help="Which data.")],
    root: RootOption = None,
    split: SplitOption = None,
    rotations: Annotated[bool, typer.Option(help="Rotations as classes.")] = False,
    size: Annotated[int, typer.Option(help="Height and width of images.")] = _DEFAULT.size,
    channels: Annotated[int, typer.Option(help="1 grey, 3 colour.")] = _DEFAULT.channels,
    skip_corrupt: SkipOption = False,
) -> None:
    """Read every example, split the classes, and print sizes and fingerprints."""
    experiment = Experiment(
        "nearest",
        rotations=rotations,
        size=size,
        channels=channels,
        skip_corrupt=skip_corrupt,
        classes=400,
    )
    print(_with_data(experiment, name, root, split).splits)


@data_app.command("preview")
def data_preview(
    name: Annotated[DataName, typer.Argument(help="Which data.")],
    root: RootOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The PNG to write.")] = Path(
        "preview.png"
    ),
    part: Annotated[Part, typer.Option(help="Which classes.")] = "train",
    size: Annotated[int, typer.Option(help="Height and width of images.")] = _DEFAULT.size,
    channels: Annotated[int, typer.Option(help="1 grey, 3 colour.")] = _DEFAULT.channels,
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
) -> None:
    """Draw a contact sheet of some classes."""
    from quickstudy.plots import plot_classes

    experiment = Experiment("nearest", rotations=False, size=size, channels=channels, classes=400)
    parts = _with_data(experiment, name, root, None).splits.parts()
    if part not in parts:
        raise ValueError(f"this split has no {part} classes")
    plot_classes(parts[part], out, seed=seed)
    print(out)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path(
        "demo"
    ),
    data: Annotated[DemoData, typer.Option("--data", help="What to learn on.")] = "alphabets",
    root: RootOption = None,
    scale: Annotated[float, typer.Option(help="Multiplies the training steps.")] = 1.0,
    n_tasks: Annotated[int, typer.Option("--tasks", help="Test tasks of each figure.")] = 100,
    classes: Annotated[int, typer.Option(help="Synthetic characters to train on.")] = 1000,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn to learn on invented alphabets, then meet real digits never seen (4 minutes)."""
    from rich.console import Console
    from rich.table import Table

    from quickstudy.demo import SHOTS, run_demo
    from quickstudy.tables import figure

    if data == "omniglot" and root is None:
        from quickstudy.data.omniglot import cache_dir

        root = cache_dir()
    result = run_demo(
        out,
        root=root if data == "omniglot" else None,
        classes=classes,
        scale=scale,
        n_tasks=n_tasks,
        seed=seed,
        say=_say,
    )
    if as_json:
        rows = {n: {s: e.as_dict() for s, e in r.items()} for n, r in result.table.items()}
        print(json.dumps({"table": rows, "seconds": result.seconds}))
        return
    table = Table("10-way accuracy on classes never seen, %", *(f"{s} a class" for s in SHOTS))
    for name, row in result.table.items():
        table.add_row(name, *(figure(row[s]) for s in SHOTS))
    Console().print(table)
    print(f"{result.seconds:.0f} seconds; pictures: {', '.join(map(str, result.pictures))}")


def _nearest(learner: "MetaLearner", k: int) -> "MetaLearner":
    """The k-nearest-neighbour rule in the feature space of another learner."""
    from torch import nn

    from quickstudy.learners import NearestNeighbour

    encoder = getattr(learner, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise ValueError(f"{type(learner).__name__} has no encoder to measure distances with")
    return NearestNeighbour(encoder, k=k)


def _learner(
    target: str, weights: Weights = "auto", inner_steps: int | None = None
) -> tuple[Experiment, "MetaLearner"]:
    """What a run folder holds, or shipped weights, or an untrained baseline."""
    from quickstudy.run import load_run

    learner: MetaLearner
    if Path(target).exists():
        experiment, learner = load_run(target, weights)
    elif target in BASELINES:
        experiment = Experiment(target)  # type: ignore[arg-type]
        learner = experiment.build_learner()
    else:
        from quickstudy.pretrained import load, shipped
        from quickstudy.recipe import load_recipe

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


def _tasks(
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
