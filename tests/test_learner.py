"""What is changed for a moment is put back: by `temporarily`, and by everything that uses it."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from quickstudy.comparison import study
from quickstudy.data import SinusoidSampler, alphabets
from quickstudy.demo import _draw_task, _Row
from quickstudy.evaluation import FrozenTasks, accuracy_by_instance, choose, evaluate
from quickstudy.experiments.recipe import Cell
from quickstudy.experiments.reproduce import _Scorer
from quickstudy.experiments.spec import Experiment
from quickstudy.learner import Phi, temporarily
from quickstudy.learners import MAML, ProtoNet
from quickstudy.memory import step_bytes
from quickstudy.nn import MLP, Conv4
from quickstudy.nn.norm import BatchNorm
from quickstudy.task import Task
from quickstudy.testing import make_task
from quickstudy.training import train


class Breaks(MAML):
    """Fails where it has taken on a certain number of inner steps; its own number is 1."""

    def __init__(self, broken: int, network: nn.Module | None = None) -> None:
        super().__init__(
            network or nn.Sequential(Conv4(1, 4, image_size=16), nn.Linear(4, 5)), inner_lr=0.1
        )
        self.broken = broken

    def adapt(self, *support: Any) -> Phi:
        self.read()
        return super().adapt(*support)

    def loss(self, task: Task) -> torch.Tensor:
        self.read()
        return super().loss(task)

    def read(self, *_: Any) -> torch.Tensor:
        assert not self.training
        if self.inner_steps == self.broken:
            raise ArithmeticError("broken")
        return torch.zeros(2, 5, 5)


def state(learner: nn.Module) -> list[object]:
    modules = list(learner.modules())
    policies = [m.policy for m in modules if isinstance(m, BatchNorm)]
    steps = getattr(learner, "inner_steps", None)
    return [[m.training for m in modules], policies, steps, getattr(learner, "inner_lr", None)]


def with_a_frozen_part(broken: int = -1) -> Breaks:
    learner = Breaks(broken)
    learner.train()
    learner.network[0].eval()  # type: ignore[index]
    return learner


def some_tasks() -> list[Task]:
    return [make_task((1, 16, 16), 5, 2, shot=1, query=2, seed=i).to(torch.float32) for i in (0, 1)]


def test_all_is_changed_within_and_put_back_after() -> None:
    learner = with_a_frozen_part()
    before = state(learner)
    with temporarily(learner, training=False, batch_norm="transductive", inner_steps=5):
        assert not any(m.training for m in learner.modules())
        assert learner.transductive
        assert learner.inner_steps == 5
        with temporarily(learner, training=True, inner_steps=2):
            assert all(m.training for m in learner.modules())
            assert learner.inner_steps == 2
        assert not learner.training
        assert learner.inner_steps == 5
    assert state(learner) == before
    assert len(set(before[0])) == 2, "one part is frozen in evaluation mode, the rest is not"


def test_nothing_is_changed_that_is_not_named() -> None:
    learner = with_a_frozen_part()
    before = state(learner)
    with temporarily(learner):
        assert state(learner) == before


def test_what_it_cannot_change_is_named_and_nothing_else_is_changed() -> None:
    learner = ProtoNet(MLP(4, [], 4))
    with (
        pytest.raises(ValueError, match=r"ProtoNet takes no inner steps: .* 'inner_steps'"),
        temporarily(learner, training=False, inner_steps=5),
    ):
        pass
    assert learner.training
    with (
        pytest.raises(ValueError, match=r"has no quickstudy\.nn\.BatchNorm"),
        temporarily(learner, training=False, batch_norm="inductive"),
    ):
        pass
    assert learner.training
    learner = with_a_frozen_part()
    before = state(learner)
    wrong: Any = "sometimes"
    with pytest.raises(ValueError, match="'sometimes'"), temporarily(learner, batch_norm=wrong):
        pass
    assert state(learner) == before


def test_a_parameter_is_no_setting_to_change() -> None:
    learner = ProtoNet(MLP(4, [], 4))
    with pytest.raises(TypeError), temporarily(learner, training=False, encoder=3):
        pass
    assert learner.training


def compare_by_steps(learner: Breaks) -> None:
    tasks = some_tasks()
    frozen = {1: FrozenTasks.freeze(tasks, 2)}
    study({"a": learner}, frozen, tasks[0], baseline="a", steps=(3,), n_tasks=2, say=str)


def score(learner: Breaks) -> None:
    recipe: Any = SimpleNamespace(test_tasks=lambda *_: some_tasks(), validation=None)
    cell = Cell(shot=1, tasks=2, at_test={"inner_lr": 0.2, "inner_steps": 3})
    _Scorer(recipe, Experiment("maml"), learner)(cell, "transductive")


def draw(learner: Breaks) -> None:
    row = _Row("a", Experiment("maml"), at_test={"inner_steps": 3})
    _draw_task([row] * 3, {"a": learner}, alphabets(12, 4, size=16), Path(), 0, names=False)


USERS: dict[str, tuple[int, Callable[[Breaks], object]]] = {
    "evaluate": (1, lambda x: evaluate(x, some_tasks(), n_tasks=2, batch_norm="transductive")),
    "choose": (3, lambda x: choose(x, "inner_steps", [2, 3], some_tasks(), n_tasks=2)),
    "accuracy_by_instance": (1, lambda x: accuracy_by_instance(x, some_tasks(), n_tasks=2)),
    "study, examples": (1, compare_by_steps),
    "study, steps": (3, compare_by_steps),
    "reproduce": (3, score),
    "train": (1, lambda x: train(x, some_tasks(), steps=1, progress=False)),
    "step_bytes": (1, lambda x: step_bytes(x, some_tasks()[0])),
    "demo": (3, draw),
}


@pytest.mark.parametrize("user", USERS)
def test_an_error_leaves_the_learner_as_it_was(user: str) -> None:
    broken, use = USERS[user]
    learner = with_a_frozen_part(broken)
    before = state(learner)
    with pytest.raises(ArithmeticError, match="broken"):
        use(learner)
    assert state(learner) == before


@pytest.mark.parametrize("broken", [1, 10])
def test_an_error_in_the_picture_of_a_sinusoid_does_too(broken: int) -> None:
    learner = Breaks(broken, MLP(1, [4], 1))
    before = state(learner)
    sampler = SinusoidSampler(shot=5, query=3)
    frozen = {5: FrozenTasks.freeze(sampler, 2)}
    with pytest.raises(ArithmeticError, match="broken"):
        study({"a": learner}, frozen, sampler[0], baseline="a", n_tasks=2, say=str)
    assert state(learner) == before


def test_the_choice_stays_and_a_frozen_part_stays_frozen() -> None:
    learner = with_a_frozen_part()
    before = state(learner)
    best = choose(learner, "inner_steps", [2, 1], some_tasks(), n_tasks=4)
    assert learner.inner_steps == best
    assert state(learner)[:2] == before[:2]
    score(learner)
    step_bytes(learner, some_tasks()[0])
    assert state(learner)[:2] == before[:2]


def test_a_default_of_the_class_is_that_of_the_class_again() -> None:
    learner = ProtoNet(MLP(4, [], 2))
    with temporarily(learner, order_invariant=False):
        assert not learner.order_invariant
    assert learner.order_invariant
    assert "order_invariant" not in vars(learner)
