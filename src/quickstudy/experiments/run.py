"""A run: an `Experiment` in a folder of its own, on some machine."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from quickstudy.checkpoint import check_finite, count_weights, load_state, load_weights, reading
from quickstudy.experiments.spec import Experiment, Weights
from quickstudy.memory import keep_memory
from quickstudy.plain import read_file
from quickstudy.processes import launch
from quickstudy.training import (
    BEST,
    CHECKPOINT,
    FINAL,
    TrainResult,
    check_free,
    save_untrained,
    train,
)
from quickstudy.training.loop import check_counts

if TYPE_CHECKING:
    from quickstudy.data import TaskSource
    from quickstudy.learner import MetaLearner

_INVENTED = {"sinusoid": "sinusoids", "tables": "tables"}

__all__ = ["Machine", "load_run", "run_experiment"]


@dataclass(frozen=True)
class Machine:
    """How a run is carried out; ``run.json`` keeps it, so that resuming needs nothing else.

    Attributes:
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        devices: processes to start, one per device; see `processes.launch`.
        precision: as Lightning Fabric names it.
        threads: of each operation; ``None`` leaves PyTorch's own choice.
        validation: in what validation tasks differ from training ones (``way``, ``shot``,
            ``query``); ``None`` for no validation.
        validation_tasks: how many.
        validate_every: steps between validations.
        patience: end when this many validations in a row have brought no new best; ``None`` for
            never.
        checkpoint_every: steps between checkpoints.
        tensorboard: also log to TensorBoard.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    threads: int | None = None
    validation: dict[str, int] | None = field(default_factory=dict)
    validation_tasks: int = 200
    validate_every: int = 1000
    patience: int | None = None
    checkpoint_every: int = 200
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_counts(
            devices=self.devices,
            validation_tasks=self.validation_tasks,
            validate_every=self.validate_every,
            patience=self.patience,
            checkpoint_every=self.checkpoint_every,
        )

    @classmethod
    def load(cls, run: str | os.PathLike[str]) -> "Machine":
        """The machine of a run folder."""
        path = Path(run) / "run.json"
        with reading(path, "the description of a run"):
            return cls(**json.loads(read_file(path))["machine_options"])


def run_experiment(
    experiment: Experiment,
    folder: Path,
    machine: Machine,
    *,
    resume: bool = False,
    quiet: bool = False,
    minutes: float | None = None,
) -> TrainResult:
    """Train what an experiment describes, in a run folder, as `training.train` does.

    Args:
        experiment: what to train, and on what.
        folder: for the run.
        machine: how to carry it out.
        resume: go on with the run in the folder, or begin it if there is none.
        quiet: no progress on standard error.
        minutes: stop after this many, to be resumed.

    Raises:
        ValueError: the run in the folder is of another experiment (but for its steps), or its data
            have changed.
        LostProcessError: another process of this training is gone.
    """
    from quickstudy.experiments.start import keep_encoder, look_once, looking_once_pays

    keep_memory()
    check_free(folder, resume)
    if resume:
        _check_same(experiment, folder)
    begun = resume and (folder / CHECKPOINT).exists()
    learner = load_run(folder, "checkpoint")[1] if begun else _build(experiment)
    kept = keep_encoder(learner) if experiment.keep_encoder else None
    tasks = experiment.sampler("train")
    about = {**experiment.about(), "machine_options": asdict(machine)}
    if kept is not None:  # a run goes on as it began, whatever its steps are now
        pays = looking_once_pays(experiment, kept, tasks)
        about["embedded"] = _described(folder).get("embedded", False) if begun else pays
    fabric = launch(machine.accelerator, machine.devices, machine.precision)
    if machine.threads is not None:  # only now: launching sets it, too
        torch.set_num_threads(machine.threads)
    if not any(p.requires_grad for p in learner.parameters()):
        if fabric.is_global_zero and not (resume and (folder / FINAL).exists()):
            save_untrained(learner, folder, about)
        _say(f"{experiment.learner} learns from the support alone, without training: {folder}")
        return TrainResult(0, 0.0)
    optimizer, scheduler = experiment.build_optimizer(learner)
    say = _say if fabric.is_global_zero and not quiet else lambda line: None
    validation = _validation(experiment, machine, say)
    if machine.patience is not None and validation is None:
        raise ValueError(
            "patience needs two classes or more to validate on, and this data holds out fewer; of "
            "alphabets, --validation-groups holds out some"
        )
    torch.manual_seed(experiment.seed + fabric.global_rank)
    if fabric.is_global_zero and not quiet:
        source, look = f"invented {_INVENTED.get(experiment.data)}", ""
        if experiment.has_classes:
            source, colour = (
                str(experiment.splits),
                "grey" if experiment.channels == 1 else "colour",
            )
            look = f"; images of {experiment.size}x{experiment.size}, {colour}"
        _say(f"{experiment.learner}: {source}{look}")
        each = "" if fabric.world_size == 1 else f" of each of {fabric.world_size} processes"
        in_ = "" if machine.precision == "32-true" else f"; in {machine.precision}"
        _say(f"a step{each}: {experiment.step_in_words}{in_}")
    if kept is not None and about["embedded"]:
        look_once(kept.to(fabric.device), tasks, validation, say=say)
    result = train(
        learner,
        tasks,
        steps=experiment.steps,
        optimizer=optimizer,
        scheduler=scheduler,
        run_dir=folder,
        resume=resume,
        validation=validation,
        validation_tasks=machine.validation_tasks,
        validate_every=machine.validate_every,
        patience=machine.patience,
        checkpoint_every=machine.checkpoint_every,
        fabric=fabric,
        progress=not quiet,
        tensorboard=machine.tensorboard,
        about=about,
        minutes=minutes,
        average=experiment.average,
    )
    if fabric.is_global_zero:
        best = "" if result.best is None else f"; best validation {result.best}"
        early = "; ended early, by patience" if result.stopped == "patience" else ""
        took = f"{result.steps} steps in {result.seconds / 60:.1f} minutes"
        _say(f"{took}, in {folder}{best}{early}")
    return result


def _validation(
    experiment: Experiment, machine: Machine, say: Callable[[str], None]
) -> "TaskSource | None":
    """Tasks to choose weights by, of fewer classes than in training if no more are held out."""
    if machine.validation is None:
        return None
    if not experiment.has_validation:
        if experiment.has_classes:
            say("no validation: this split holds out no classes for it")
        return None
    changes = {**machine.validation, "tasks": 1}
    classes = experiment.splits.validation if experiment.has_classes else None
    if classes is not None:
        held_out = len({*classes.roots}) if experiment.one_turn else classes.n_classes
        if held_out < 2:
            say("no validation: a single class is held out for it")
            return None
        if held_out < changes.get("way", experiment.way):
            say(f"validating on {held_out}-way tasks: no more classes are held out for it")
            changes["way"] = held_out
    return experiment.sampler("validation", **changes)


def _build(experiment: Experiment) -> "MetaLearner":
    from quickstudy.experiments.start import build_started  # which finds runs

    if experiment.start is None:
        return experiment.with_details().build_learner()
    return build_started(experiment, experiment.start)


def _check_same(experiment: Experiment, folder: Path) -> None:
    """Raise ``ValueError`` unless the run in a folder, if there is one, is of this experiment."""
    if not (folder / "run.json").exists():
        return
    before, now = Experiment.load(folder), experiment.with_details()
    for name in type(now).model_fields:
        old, new = getattr(before, name), getattr(now, name)
        if old != new and name not in ("root", "steps"):
            raise ValueError(
                f"{folder} was begun with {name} {old!r}, not {new!r}; go on as it began, or train "
                "in another folder"
            )
    if difference := changed_data(experiment, folder):
        raise ValueError(f"{difference}. Put them back, or train in another folder")


def changed_data(experiment: Experiment, run: str | os.PathLike[str]) -> str | None:
    """How the data of an experiment differ from those that a run was begun on, if they do."""
    begun = _described(run).get("split_fingerprint")
    found = experiment.about_data().get("split_fingerprint")
    if begun in (None, found):
        return None
    return (
        f"{os.fspath(run)} was begun on other data: the fingerprint of its classes and examples "
        f"was {begun} and is {found}"
    )


def _described(run: str | os.PathLike[str]) -> dict[str, Any]:
    return json.loads(read_file(Path(run) / "run.json"))  # type: ignore[no-any-return]


def load_run(
    run: str | os.PathLike[str], weights: Weights = "auto"
) -> tuple[Experiment, "MetaLearner"]:
    """The experiment and the trained learner of a run folder.

    Args:
        run: the folder.
        weights: ``"auto"`` takes the best by validation, else the last ones.

    Raises:
        FileNotFoundError: there is no run, or none of these weights yet.
        ValueError: a file is damaged.
    """
    folder = Path(run)
    experiment = Experiment.load(folder)
    files = {"best": folder / BEST, "final": folder / FINAL}
    chosen: str = weights
    if weights == "auto":
        chosen = next((name for name, file in files.items() if file.exists()), "checkpoint")
    path = folder / CHECKPOINT if chosen == "checkpoint" else files[chosen]
    if experiment.counts_classes and "classes" not in experiment.options:
        raise ValueError(
            f"{folder} does not say how many classes its {experiment.learner} was trained on: "
            "options has no classes"
        )
    learner = experiment.build_learner(at_most=count_weights(path))
    if chosen == "checkpoint":
        saved, prefix = load_state(path), "module."
        with reading(path, "a checkpoint"):
            state, average = saved["learner"], saved.get("averaged") or {}
            whole = {k.removeprefix(prefix): v for k, v in average.items() if k.startswith(prefix)}
            check_finite(whole or state, str(path))
            learner.load_state_dict(whole or state)
    else:
        load_weights(path, learner)
    return experiment, learner


def _say(line: str) -> None:
    print(line, file=sys.stderr)
