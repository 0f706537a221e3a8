"""The demonstration: learn on invented alphabets, then meet real handwriting never seen."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from quickstudy.data import ClassDataset, EpisodeSampler, TaskSource, digits
from quickstudy.evaluation import Evaluation, evaluate
from quickstudy.experiment import Experiment
from quickstudy.learner import MetaLearner
from quickstudy.learners import MAML, NearestNeighbour
from quickstudy.plots import plot_adaptation, plot_task
from quickstudy.training import train

__all__ = ["DemoResult", "run_demo"]

SHOTS = (1, 5)
CURVE_STEPS = (0, 1, 2, 3, 5, 10)


@dataclass(frozen=True)
class DemoResult:
    """What `run_demo` measured.

    Attributes:
        table: evaluation by row name and shot.
        curves: evaluation of MAML by start and number of inner steps.
        pictures: the files written.
        seconds: of each part, by name.
    """

    table: dict[str, dict[int, Evaluation]]
    curves: dict[str, dict[int, Evaluation]]
    pictures: tuple[Path, ...]
    seconds: dict[str, float]


def run_demo(
    out: Path,
    *,
    root: Path | None = None,
    classes: int = 1000,
    scale: float = 1.0,
    n_tasks: int = 100,
    seed: int = 0,
    say: Callable[[str], None] = print,
    progress: bool = True,
) -> DemoResult:
    """Train ProtoNet, MAML and an LSTM, and test them on 10-way tasks of unseen real characters.

    Args:
        out: folder for the pictures.
        root: where Omniglot is; then its background alphabets are trained on and its evaluation
            alphabets tested. Default: synthetic alphabets to train, handwritten digits to test.
        classes: synthetic characters to train on.
        scale: multiplies the training steps.
        n_tasks: test tasks of each figure.
        seed: of weights and tasks.
        say: told what is going on.
        progress: show progress bars.
    """
    seconds: dict[str, float] = {}
    began = time.monotonic()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name] = time.monotonic() - began
        began = time.monotonic()

    base = Experiment(
        "protonet",
        data="alphabets" if root is None else "omniglot",
        root=None if root is None else str(root),
        classes=classes,
        way=10,
        downsample="stride",
        seed=seed,
    )
    plans = {
        "ProtoNet": replace(base, way=30, steps=_scaled(450, scale), lr=2e-3),
        "MAML": replace(
            base,
            learner="maml",
            query=2,
            tasks=8,
            steps=_scaled(220, scale),
            lr=3e-3,
            inner_steps=2,
        ),
        "LSTM": replace(
            base, learner="lstm", query=3, tasks=16, steps=_scaled(450, scale), lr=2e-3
        ),
    }
    where = "invented alphabets" if root is None else "Omniglot's background alphabets"
    say(f"Meta-training on {where}: {base.splits.train}")
    lap("training data")
    learners: dict[str, MetaLearner] = {}
    for name, plan in plans.items():
        learners[name] = plan.build_learner()
        optimizer, scheduler = plan.build_optimizer(learners[name])
        vars(plan)["splits"] = base.splits
        train(
            learners[name],
            plan.sampler("train"),
            steps=plan.steps,
            optimizer=optimizer,
            scheduler=scheduler,
            progress=progress,
        )
        lap(f"train {name}")
        say(f"  {name}: {plan.steps} steps in {seconds[f'train {name}']:.0f} s")

    unseen = digits() if root is None else base.splits.test
    say(f"Meeting {'real digits' if root is None else 'unseen alphabets'}: {unseen}")
    scratch = _from_scratch(replace(plans["MAML"], seed=seed + 1))
    rows: dict[str, MetaLearner] = {
        "nearest neighbour on pixels": NearestNeighbour(),
        "same network, untrained": plans["ProtoNet"].build_learner(),
        "same network, support only": scratch,
        **{f"{name}, meta-learned": learner for name, learner in learners.items()},
    }
    table: dict[str, dict[int, Evaluation]] = {}
    for name, learner in rows.items():
        table[name] = {
            shot: evaluate(learner, _tests(unseen, shot, seed), n_tasks=n_tasks) for shot in SHOTS
        }
        lap(f"test {name}")

    maml = learners["MAML"]
    assert isinstance(maml, MAML)
    curves = {
        "meta-learned": _curve(maml, _tests(unseen, 1, seed), n_tasks // 2),
        "random start": _curve(
            _from_scratch(replace(plans["MAML"], seed=seed + 1), maml.inner_lr),
            _tests(unseen, 1, seed),
            n_tasks // 2,
        ),
    }
    lap("adaptation curve")
    pictures = (out / "task.png", out / "adaptation.png")
    sampler = EpisodeSampler(unseen, way=10, shot=1, query=1, seed=seed)
    task = sampler[0]
    shown = {"pixels": rows["nearest neighbour on pixels"], **learners}
    with torch.no_grad():
        answers = {name: learner.eval()(task) for name, learner in shown.items()}
    names = sampler.class_names(0)[0] if root is None else None
    plot_task(task, answers, pictures[0], names=names)
    plot_adaptation(curves, pictures[1], title="MAML meets a new 10-way 1-shot task")
    lap("pictures")
    return DemoResult(table, curves, pictures, seconds)


def _scaled(steps: int, scale: float) -> int:
    return max(1, round(steps * scale))


def _tests(dataset: ClassDataset, shot: int, seed: int) -> TaskSource:
    return EpisodeSampler(dataset, way=10, shot=shot, query=10, seed=seed)


def _from_scratch(plan: Experiment, inner_lr: float = 0.1, inner_steps: int = 20) -> MAML:
    """A random network that gradient descent trains on the support of each task, and no more."""
    network: Any = plan.build_learner()
    return MAML(network.network, inner_lr=inner_lr, inner_steps=inner_steps)


def _curve(learner: MAML, tasks: TaskSource, n_tasks: int) -> dict[int, Evaluation]:
    own, curve = learner.inner_steps, {}
    for learner.inner_steps in CURVE_STEPS:
        curve[learner.inner_steps] = evaluate(learner, tasks, n_tasks=n_tasks)
    learner.inner_steps = own
    return curve
