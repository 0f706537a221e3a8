"""The demonstration: learn on invented alphabets, then meet real handwriting never seen."""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.checkpoint import load_weights, save_weights
from quickstudy.data import (
    ClassDataset,
    EpisodeSampler,
    alphabets,
    digits,
    embedded,
    omniglot,
    published,
    scanned,
)
from quickstudy.evaluation import Evaluation, evaluate
from quickstudy.experiments.spec import Experiment
from quickstudy.experiments.start import keep_encoder
from quickstudy.learner import MetaLearner, temporarily
from quickstudy.learners import NearestNeighbour
from quickstudy.nn import Conv4
from quickstudy.plots import plot_curves, plot_task
from quickstudy.training import train

__all__ = ["DemoResult", "run_demo"]

WAY = 10
SHOTS = (1, 5)
CURVE_STEPS = (0, 1, 2, 3, 5, 10)
PIXELS, UNTRAINED, SCRATCH = (
    "nearest neighbour on pixels",
    "same network, untrained",
    "same network, support only",
)


@dataclass(frozen=True)
class DemoResult:
    """What `run_demo` measured.

    Attributes:
        table: evaluation by row name and shot.
        curves: evaluation of MAML by start and number of inner steps.
        pictures: the files written.
        seconds: that all of it took.
    """

    table: dict[str, dict[int, Evaluation]]
    curves: dict[str, dict[int, Evaluation]]
    pictures: tuple[Path, ...]
    seconds: float


@dataclass(frozen=True)
class _Row:
    """One row of the table.

    Attributes:
        name: of the row.
        plan: the learner and its training.
        trained: or left as it is.
        start: the row whose encoder this one begins with, when that is trained.
        frozen: keep that encoder as it is, and learn to learn on its embeddings.
        at_test: attributes that the learner has only in tests.
        curve: name of its curve of accuracy by inner steps.
    """

    name: str
    plan: Experiment
    trained: bool = True
    start: "_Row | None" = None
    frozen: bool = False
    at_test: dict[str, Any] = field(default_factory=dict)
    curve: str | None = None

    def build(self) -> MetaLearner:
        return self.plan.build_learner()


def run_demo(
    out: Path,
    *,
    root: Path | None = None,
    classes: int = 1000,
    scale: float = 1.0,
    n_tasks: int = 100,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> DemoResult:
    """Train a learner of each kind, and test them on 10-way tasks of unseen real characters.

    ProtoNet learns from nothing; MAML goes on from its encoder, and a transformer learns to read
    its embeddings. They are trained and tested side by side, one process per core.

    Args:
        out: folder for the pictures.
        root: where Omniglot is; then its background alphabets are trained on and its evaluation
            alphabets tested. Default: synthetic alphabets to train, handwritten digits to test.
        classes: synthetic characters to train on.
        scale: multiplies the training steps.
        n_tasks: test tasks of each figure.
        seed: of weights and tasks.
        say: called with progress messages.
    """
    began = time.monotonic()
    seen, unseen = _data(root, classes, seed)
    rows = _rows(seen.shape[-1], scale, seed)
    known = "invented alphabets" if root is None else "Omniglot's background alphabets"
    new = "handwritten digits" if root is None else "Omniglot's evaluation alphabets"
    say(f"Learning to learn on {known}: {seen.n_classes} classes, {seen.n_examples} images,")
    say(f"then meeting {new}, never seen: {unseen.n_classes} classes. This takes some minutes ...")
    table: dict[str, dict[int, Evaluation]] = {}
    curves: dict[str, dict[int, Evaluation]] = {}
    learners: dict[str, MetaLearner] = {}
    with tempfile.TemporaryDirectory() as folder:
        seen.save(Path(folder, "seen"))
        unseen.save(Path(folder, "unseen"))
        with ProcessPoolExecutor(_cores(), mp_context=_context()) as pool:

            def submit(rows: list[_Row]) -> dict[Any, _Row]:
                return {pool.submit(_run, row, folder, n_tasks, seed): row for row in rows}

            jobs = submit([row for row in rows if row.start is None])
            while jobs:
                for job in wait(jobs, return_when=FIRST_COMPLETED).done:
                    row = jobs.pop(job)
                    seconds, table[row.name], curve = job.result()
                    jobs |= submit([other for other in rows if other.start is row])
                    if row.curve:
                        curves[row.curve] = curve
                    learners[row.name] = row.build()
                    load_weights(Path(folder, row.name), learners[row.name])
                    done = f"{row.plan.steps} steps of training, " if row.trained else ""
                    say(f"  {row.name}: {done}{n_tasks} + {n_tasks} tasks, {seconds:.0f} s")
    pictures = (out / "task.png", out / "adaptation.png")
    _draw_task(rows, learners, unseen, pictures[0], seed, names=root is None)
    order = [row.curve for row in rows if row.curve]
    plot_curves(
        {name: curves[name] for name in order},
        pictures[1],
        x="inner gradient steps on the support",
        baseline="random start",
        title="MAML meets a new 10-way 1-shot task",
    )
    ordered = {name: table[name] for name in _order(rows)}
    return DemoResult(ordered, curves, pictures, time.monotonic() - began)


def _context() -> Any:
    """How its processes begin: as forks of one that has imported all this, if possible."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "lightning_fabric"])
    return context


def _data(root: Path | None, classes: int, seed: int) -> tuple[ClassDataset, ClassDataset]:
    """Classes to learn to learn on, and classes to meet."""
    if root is None:
        style: Any = {"size": 16, "margin": 0, "crisp": False}
        drawn = alphabets(classes, size=40, seed=seed)
        return scanned(drawn, **style).rotated(), digits(**style)
    split = published(omniglot(root, size=20)).rotated()
    return split.train, split.test


def _rows(size: int, scale: float, seed: int) -> list[_Row]:
    """The table's rows: the learners, and what they are compared with; the longest work first."""
    base = Experiment("protonet", size=size, way=WAY, seed=seed)

    def plan(steps: int, **changes: Any) -> Experiment:
        return base.replace(steps=max(1, round(steps * scale)), **changes)

    inner = {"inner_lr": 0.5, "inner_steps": 2}
    maml = plan(150, learner="maml", query=2, tasks=8, options=inner)
    reader = plan(400, learner="transformer", query=2, tasks=32, lr=2e-3)
    random = maml.replace(seed=seed + 1)
    alone = {"inner_steps": 20, "inner_lr": 0.1}
    protonet = _Row("ProtoNet, meta-learned", plan(500, way=30, lr=2e-3))
    return [
        protonet,
        _Row(
            "MAML, meta-learned from ProtoNet's encoder on",
            maml,
            start=protonet,
            at_test={"inner_steps": 10},
            curve="meta-learned",
        ),
        _Row(
            "Transformer, meta-learned on ProtoNet's embeddings",
            reader,
            start=protonet,
            frozen=True,
        ),
        _Row(SCRATCH, random, trained=False, at_test=alone, curve="random start"),
        _Row(UNTRAINED, protonet.plan, trained=False),
        _Row(PIXELS, base.replace(learner="nearest"), trained=False),
    ]


def _order(rows: list[_Row]) -> list[str]:
    """Baselines first, then the meta-learners."""
    return [PIXELS, UNTRAINED, SCRATCH, *(row.name for row in rows if row.trained)]


def _cores() -> int:
    return max(1, min(6, os.cpu_count() or 1))


def _run(
    row: _Row, folder: str, n_tasks: int, seed: int
) -> tuple[float, dict[int, Evaluation], dict[int, Evaluation]]:
    """Train and test one row in a process of its own; the weights are left in ``folder``.

    Returns:
        The seconds it took, the evaluation by shot, and by inner step where the row has a curve.
    """
    began = time.monotonic()
    torch.set_num_threads(1)
    learner = row.build()
    if row.start is not None:
        begun = row.start.build()
        load_weights(Path(folder, row.start.name), begun)
        _conv4(learner).load_state_dict(_conv4(begun).state_dict())
    if row.trained:
        seen = ClassDataset.open(Path(folder, "seen"))
        if row.frozen:
            seen = embedded(seen, keep_encoder(learner))
        _train(learner, row.plan, seen, seed)
    unseen = ClassDataset.open(Path(folder, "unseen"))

    def test(shot: int, n_tasks: int, **at_test: Any) -> Evaluation:
        tasks = EpisodeSampler(unseen, way=WAY, shot=shot, query=10, seed=seed)
        with temporarily(learner, **at_test):
            return evaluate(learner, tasks, n_tasks=n_tasks)

    table = {shot: test(shot, n_tasks, **row.at_test) for shot in SHOTS}
    steps = CURVE_STEPS if row.curve is not None else ()
    curve = {n: test(1, max(2, n_tasks // 2), inner_steps=n) for n in steps}
    save_weights(Path(folder, row.name), learner)
    return time.monotonic() - began, table, curve


def _train(learner: MetaLearner, plan: Experiment, seen: ClassDataset, seed: int) -> None:
    optimizer, scheduler = plan.build_optimizer(learner)
    tasks = EpisodeSampler(
        seen, way=plan.way, shot=1, query=plan.query, tasks=plan.tasks, seed=seed
    )
    train(
        learner,
        tasks,
        steps=plan.steps,
        optimizer=optimizer,
        scheduler=scheduler,
        progress=False,
    )


def _conv4(learner: MetaLearner) -> Conv4:
    return next(part for part in learner.modules() if isinstance(part, Conv4))


def _draw_task(
    rows: list[_Row],
    learners: dict[str, MetaLearner],
    unseen: ClassDataset,
    path: Path,
    seed: int,
    *,
    names: bool,
) -> None:
    """The first 1-shot task, with what the learners say of one query per class."""
    sampler = EpisodeSampler(unseen, way=WAY, shot=1, query=1, seed=seed)
    task = sampler[0]
    answers: dict[str, Tensor] = {"pixels": NearestNeighbour()(task)}
    for row in rows:
        if not row.trained:
            continue
        learner = learners[row.name]
        with torch.no_grad(), temporarily(learner, training=False, **row.at_test):
            answers[row.name.partition(",")[0]] = learner(task)
    plot_task(task, answers, path, names=sampler.class_names(0)[0] if names else None)
