"""A little training makes each learner better at tasks it never saw: the point of it all."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quickstudy.data import SinusoidSampler
from quickstudy.evaluation import evaluate
from quickstudy.inner import SGD, Adam
from quickstudy.learner import MetaLearner
from quickstudy.learners import (
    ANIL,
    MAML,
    MANN,
    PMF,
    R2D2,
    Baseline,
    BlackBoxLSTM,
    ConditionalNeuralProcess,
    InContextTransformer,
    MAMLPlusPlus,
    MatchingNetwork,
    MetaSGD,
    NearestNeighbour,
    ProtoNet,
    Reptile,
    Scratch,
    SimpleShot,
    SoftNearestNeighbour,
)
from quickstudy.nn import MLP
from quickstudy.task import Task
from quickstudy.training import train


class TwoThatMatter:
    """Ten classes on a circle in two dimensions, hidden among six of louder noise; two a task."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __getitem__(self, index: int) -> Task:
        rng = torch.Generator().manual_seed(self.seed * 100_000 + index)
        angle = torch.arange(10) * 2 * math.pi / 10
        circle = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
        classes = torch.stack([torch.randperm(10, generator=rng)[:2] for _ in range(32)])

        def draw(n: int) -> tuple[Tensor, Tensor]:
            y = torch.arange(2).repeat(n)[torch.randperm(2 * n, generator=rng)].repeat(32, 1)
            x = torch.randn(32, 2 * n, 8, generator=rng) * torch.tensor([0.3] * 2 + [2.0] * 6)
            x[..., :2] += circle[classes.gather(1, y)]
            return x, y

        return Task(*draw(2), *draw(4), n_way=2, classes=classes)


def encoder() -> nn.Module:
    return MLP(8, [32], 16)


def network() -> nn.Module:
    return MLP(8, [32], 2)


LEARNERS: dict[str, Callable[[], MetaLearner]] = {
    "soft-nearest": lambda: SoftNearestNeighbour(encoder()),
    "protonet": lambda: ProtoNet(encoder()),
    "matching": lambda: MatchingNetwork(encoder()),
    "matching-full-context": lambda: MatchingNetwork(encoder(), reading_steps=2),
    "r2d2": lambda: R2D2(encoder(), penalty=1.0),
    "maml": lambda: MAML(network(), inner_lr=0.3),
    "maml-first-order": lambda: MAML(network(), inner_lr=0.3, first_order=True),
    "maml-adam": lambda: MAML(network(), inner_lr=0.05, inner_steps=2, inner_optimizer=Adam()),
    "meta-sgd": lambda: MetaSGD(network(), inner_lr=0.3),
    "maml++": lambda: MAMLPlusPlus(network(), inner_lr=0.3, inner_steps=2, anneal_steps=50),
    "anil": lambda: ANIL(encoder(), outputs=2, inner_lr=0.3, inner_steps=3),
    "lstm": lambda: BlackBoxLSTM(encoder(), outputs=2, hidden=32),
    "mann": lambda: MANN(encoder(), outputs=2, hidden=32, slots=8, width=8, reads=1),
    "transformer": lambda: InContextTransformer(encoder(), outputs=2, width=32, heads=2),
    "transformer-causal": lambda: InContextTransformer(
        encoder(), outputs=2, width=32, heads=2, causal=True
    ),
    "cnp": lambda: ConditionalNeuralProcess(encoder(), outputs=2, width=32),
    "baseline": lambda: Baseline(encoder(), classes=10, inner_lr=0.05),
    "simpleshot": lambda: SimpleShot(encoder(), classes=10),
    "pmf": lambda: PMF(encoder()),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_training_on_tasks_helps_with_new_ones(name: str) -> None:
    """Nearest neighbour and learning from scratch, who know no other task, get 65%."""
    torch.manual_seed(0)
    learner, unseen = LEARNERS[name](), TwoThatMatter(seed=2)
    optimizer = torch.optim.Adam(learner.parameters(), lr=5e-3)
    train(learner, TwoThatMatter(seed=1), steps=120, optimizer=optimizer, progress=False)
    result = evaluate(learner, unseen, n_tasks=128)
    assert result.mean - result.ci95 > 0.78


def test_without_other_tasks() -> None:
    torch.manual_seed(0)
    for learner in (NearestNeighbour(), Scratch(network(), inner_lr=0.01)):
        assert 0.55 < evaluate(learner, TwoThatMatter(seed=2), n_tasks=64).mean < 0.75


def test_reptile_learns_sinusoids() -> None:
    torch.manual_seed(0)
    learner = Reptile(
        MLP(1, [40, 40], 1), inner_lr=0.02, inner_steps=10, inner_batch=10, inner_optimizer=SGD()
    )
    unseen = SinusoidSampler(shot=10, query=20, tasks=50, seed=1 << 32)

    def error() -> float:
        learner.inner_steps = 20
        mean = evaluate(learner, unseen, n_tasks=100).mean
        learner.inner_steps = 10
        return mean

    before = error()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.3)
    tasks = SinusoidSampler(shot=20, query=1, tasks=2)
    train(learner, tasks, steps=250, optimizer=optimizer, progress=False)
    assert error() < 0.5 * before
