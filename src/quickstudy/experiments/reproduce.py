"""Run a recipe: train within a budget, evaluate every cell of its table, write the card."""

import csv
import dataclasses
import hashlib
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from quickstudy.checkpoint import load_weights, save_weights
from quickstudy.devices import find_device
from quickstudy.evaluation import Evaluation, accuracy_by_instance, choose, evaluate
from quickstudy.experiments.card import Card, Result
from quickstudy.experiments.recipe import Cell, Recipe
from quickstudy.experiments.run import Machine, load_run, run_experiment
from quickstudy.experiments.spec import Experiment
from quickstudy.experiments.start import ask_together, check_unseen
from quickstudy.experiments.targets import find_target
from quickstudy.learner import MetaLearner, temporarily
from quickstudy.policy import Policy
from quickstudy.processes import first_goes, processes
from quickstudy.training import TrainResult

__all__ = ["WEIGHTS", "code_commit", "digest", "reproduce", "validations"]

WEIGHTS = "weights.safetensors"
CODE = (".", ":!experiments/recipes/cards", ":!experiments/recipes/weights")


def reproduce(
    recipe: Recipe,
    folder: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    minutes: float | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int = 1,
    threads: int | None = None,
    precision: str = "32-true",
    command: str = "",
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> Card:
    """Train what a recipe says, or go on where an earlier call stopped, and write its card.

    Args:
        recipe: see `load_recipe`.
        folder: of the run; an earlier call's training and evaluations in it are used.
        root: folder or zip with the data, as its loader takes it.
        minutes: of training in this call; ``None`` for the whole protocol.
        seed: of everything random.
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        devices: processes to start, one per device; see `processes.launch`.
        threads: of each operation.
        precision: of the training, as Lightning Fabric names it; evaluations are in float32. The
            card says it where it is another.
        command: kept on the card.
        quiet: no progress.
        say: called with each figure as it comes.

    Raises:
        ValueError: the folder holds a run of another protocol, seed or precision; names what
            differs.
    """
    folder = Path(folder)
    experiment = recipe.experiment(None if root is None else os.fspath(root), seed).with_details()
    _check_same(folder, experiment, precision)
    chosen = recipe.validation
    machine = Machine(
        accelerator=accelerator,
        devices=devices,
        threads=threads,
        precision=precision,
        validation=None if chosen is None else chosen.model_dump(include={"way", "shot", "query"}),
        validation_tasks=200 if chosen is None else chosen.tasks,
        validate_every=1000 if chosen is None else chosen.every,
        patience=_patience(recipe) if experiment.has_validation else None,
    )
    if recipe.members:
        trained = TrainResult(0, 0.0)
    else:
        trained = run_experiment(
            experiment, folder, machine, resume=True, quiet=quiet, minutes=minutes
        )
    with first_goes() as first:
        if first:
            learner = _members(recipe, experiment) if recipe.members else load_run(folder)[1]
            members = zip(recipe.members, getattr(learner, "members", ()), strict=True)
            weights, results = _judge(recipe, experiment, learner, folder, machine, say)
            about = experiment.about_data()
            card = Card(
                recipe=recipe.name,
                digest=recipe.digest,
                command=command,
                seed=seed,
                commit=code_commit(),
                date=time.strftime("%Y-%m-%d"),
                data=str(about.get("split", about["data"])),
                fingerprint=about.get("split_fingerprint"),
                steps=trained.steps,
                protocol_steps=recipe.protocol.steps,
                training_minutes=trained.seconds / 60,
                settled=trained.stopped == "patience",
                best_step=trained.best_step,
                validation=validations(folder, experiment),
                weights=weights,
                members={name: digest(member) for name, member in members},
                versions={
                    "python": platform.python_version(),
                    **{name: version(name) for name in ("quickstudy", "torch", "numpy")},
                },
                machine=_hardware(machine),
                results=results,
            )
            card.save(folder, recipe)
    return Card.load(folder / "card.json")


def _judge(
    recipe: Recipe,
    experiment: Experiment,
    learner: MetaLearner,
    folder: Path,
    machine: Machine,
    say: Callable[[str], None],
) -> tuple[str, list[Result]]:
    """The hash of the weights, and what they reach in every cell."""
    described = learner.described or experiment.learner_spec()
    about = described.model_dump()
    save_weights(folder / WEIGHTS, learner, half=recipe.ships, about=about)
    load_weights(folder / WEIGHTS, learner)
    weights = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    learner.to(find_device(machine.accelerator))
    results = []
    score = _Scorer(recipe, experiment, learner)
    for cell in recipe.cells:
        for column, scores in _evaluations(score, cell, folder, weights, say):
            metric = scores.metric
            mean, ci95 = metric.scale * scores.mean, metric.scale * scores.ci95
            n = len(scores.scores)
            policy: Any = column or scores.batch_norm
            results.append(Result(cell=cell, column=policy, mean=mean, ci95=ci95, tasks=n))
    return weights, results


def validations(folder: Path, experiment: Experiment) -> dict[int, float]:
    """What validation gave in a run, by step: accuracy in %, or the mean squared error."""
    log = folder / "metrics.csv"
    if not log.is_file():
        return {}
    scale = 1 if experiment.regression else 100
    with log.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("validation")]
    return {int(row["step"]): round(scale * float(row["validation"]), 4) for row in rows}


def digest(learner: torch.nn.Module) -> str:
    """SHA-256 (16 hex digits) of its weights."""
    found = hashlib.sha256()
    for name, value in sorted(learner.state_dict().items()):
        found.update(f"{name} {value.dtype} {[*value.shape]}".encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def _members(recipe: Recipe, experiment: Experiment) -> MetaLearner:
    """Its trained members as one, none of which has seen what any cell tests on."""
    found = ((name, *find_target(name)) for name in recipe.members)
    learner = ask_together(experiment, found)
    tested_on = (recipe.tested_on(cell, experiment) for cell in recipe.cells)
    for other in {own.model_dump_json(): own for own in tested_on if own != experiment}.values():
        for name in recipe.members:
            check_unseen(other, name)
    refine = getattr(learner, "refine", 0)
    if refine and any("refine" not in cell.at_test for cell in recipe.cells):
        raise ValueError(
            f"a member was trained with refine {refine}: at_test of every cell should have it "
            "(0 for a test without it)"
        )
    return learner


def _check_same(folder: Path, experiment: Experiment, precision: str) -> None:
    if not (folder / "run.json").exists():
        return
    saved, current = Experiment.load(folder).model_dump(), experiment.model_dump()
    saved["precision"], current["precision"] = Machine.load(folder).precision, precision
    for name, value in current.items():
        if name != "root" and saved[name] != value:
            raise ValueError(
                f"{folder} holds another run: its {name} is {saved[name]!r}, this one's is "
                f"{value!r}; begin as it did, or choose another folder with --out"
            )


def _patience(recipe: Recipe) -> int | None:
    """Validations without a new best that end a training: those of a fifth of the protocol.

    A rate that falls to 0 at the end has its gains there, so such a training runs to its end.
    """
    if recipe.validation is None or recipe.protocol.schedule not in ("constant", "halve"):
        return None
    return max(1, math.ceil(recipe.protocol.steps / 5 / recipe.validation.every))


def _evaluations(
    score: "_Scorer", cell: Cell, folder: Path, weights: str, say: Callable[[str], None]
) -> list[tuple[Policy | None, Evaluation]]:
    """The cell's figure in each of its columns: from an earlier call if nothing has changed."""
    evaluations: list[tuple[Policy | None, Evaluation]] = []
    columns: list[Policy | None] = [*cell.columns] or [None]
    for column in columns:
        about = {
            "cell": cell.model_dump(mode="json"),
            "column": column,
            "weights": weights,
            "seed": score.experiment.seed,
        }
        key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:8]
        path = folder / "evaluations" / f"{cell.label.replace(' ', '-')}-{column}-{key}.json"
        if not path.exists():
            scores = score(cell, column)
            dataclasses.replace(scores, about={**about, **scores.about}).save(path)
        scores = Evaluation.load(path)
        say(f"{cell.label}: {scores}")
        evaluations.append((column, scores))
    return evaluations


class _Scorer:
    """Evaluates one learner; sequences that serve several cells are read once."""

    def __init__(self, recipe: Recipe, experiment: Experiment, learner: MetaLearner) -> None:
        self.recipe, self.experiment, self.learner = recipe, experiment, learner
        self.read: dict[str, dict[int, Evaluation]] = {}

    def __call__(self, cell: Cell, column: Policy | None) -> Evaluation:
        tasks = self.recipe.test_tasks(cell, self.experiment)
        if cell.instance is not None:
            sequences = cell.model_dump_json(exclude={"instance", "published", "interval"})
            if sequences not in self.read:
                scores = accuracy_by_instance(self.learner, tasks, n_tasks=cell.tasks)
                self.read[sequences] = scores
            return self.read[sequences][cell.instance]
        attributes = {name: getattr(self.learner, name, None) for name in cell.at_test}
        with temporarily(self.learner, **attributes):  # puts back what is set within
            chosen = {name: self._set(name, value, cell) for name, value in cell.at_test.items()}
            about = {"at_test": chosen}
            return evaluate(
                self.learner,
                tasks,
                n_tasks=cell.tasks,
                batch_norm=column,
                balanced=cell.balanced,
                about=about,
            )

    def _set(self, name: str, value: Any, cell: Cell) -> Any:
        """Give the learner a value, or the best of several; which one."""
        if not isinstance(value, list) or self.recipe.validation is None:
            setattr(self.learner, name, value)
            return value
        shape = cell.model_dump(include={"way", "shot", "query"})
        tasks = self.experiment.sampler("validation", **shape, tasks=1)
        return choose(self.learner, name, value, tasks, n_tasks=self.recipe.validation.tasks)


def _hardware(machine: Machine) -> str:
    trained = "" if machine.precision == "32-true" else f", trained in {machine.precision}"
    if find_device(machine.accelerator).type == "cuda":
        return f"{processes()} x {torch.cuda.get_device_name()}{trained}"
    threads = torch.get_num_threads()
    each = f"{threads} thread{'s' * (threads > 1)}"
    several = "" if processes() == 1 else f"{processes()} processes of "
    return f"CPU ({platform.machine()}, {os.cpu_count()} cores), {several}{each}{trained}"


def code_commit() -> str:
    """The commit of this code, ``+`` with uncommitted changes; nothing outside a clone.

    Cards and weights, which a run may just have added, are no code.
    """

    def git(*words: str) -> str:
        folder = Path(__file__).parents[1]
        run = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True)
        return run.stdout.strip() if run.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        return commit + "+" * bool(commit and git("status", "--porcelain", "--", *CODE))
    except OSError:
        return ""
