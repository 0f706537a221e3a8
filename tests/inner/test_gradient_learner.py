"""The engine calls the algorithm: how far it is from a loss to its inner gradient."""

import inspect
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import FrameType

import pytest
import torch
from torch import Tensor, nn

import quickstudy
from quickstudy.execution import executing
from quickstudy.inner import GradientLearner, Parameters, gradient_learner
from quickstudy.inner.networks import goes_alone
from quickstudy.learner import MetaLearner
from quickstudy.learners import (
    ANIL,
    MAML,
    PMF,
    Baseline,
    MAMLPlusPlus,
    MetaSGD,
    ProtoMAML,
    Reptile,
    Scratch,
)
from quickstudy.nn import Conv4
from quickstudy.testing import make_task

OURS = str(Path(quickstudy.__file__).parent)
TASK = make_task((1, 16, 16), 3, tasks=4).to(torch.float32)


def encoder() -> Conv4:
    return Conv4(1, 8, image_size=16)


def network() -> nn.Module:
    return nn.Sequential(encoder(), nn.Linear(8, 3))


LEARNERS: dict[str, Callable[[], MetaLearner]] = {
    "maml": lambda: MAML(network()),
    "fomaml": lambda: MAML(network(), first_order=True),
    "meta_sgd": lambda: MetaSGD(network()),
    "maml_plus_plus": lambda: MAMLPlusPlus(network()),
    "anil": lambda: ANIL(encoder(), outputs=3),
    "reptile": lambda: Reptile(network()),
    "scratch": lambda: Scratch(network()),
    "baseline": lambda: Baseline(encoder(), classes=3),
    "proto_maml": lambda: ProtoMAML(encoder()),
    "pmf": lambda: PMF(encoder(), inner_steps=2),
}


def stacks_at_gradients(
    call: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> list[list[str]]:
    """Our files on the stack, outermost first, each time an inner gradient is taken."""
    found = []
    original = torch.autograd.grad

    def watched(*arguments: object, **options: object) -> object:
        frame: FrameType | None = sys._getframe(1)
        assert frame is not None
        if frame.f_code is gradient_learner.grad.__code__:
            files = []
            while frame is not None:
                if frame.f_code.co_filename.startswith(OURS):
                    files.append(frame.f_code.co_filename)
                frame = frame.f_back
            found.append(files[::-1])
        return original(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    call()
    return found


@pytest.mark.parametrize("parts", [False, True])
def test_from_the_loss_of_maml_to_its_gradient_it_is_not_far(
    parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 6 frames and 3 changes of file, whether a batch is worked through whole or not."""
    learner = MAML(network())
    task = TASK if parts else TASK[:1]
    with executing(tasks_at_once=2):
        found = stacks_at_gradients(lambda: learner.loss(task), monkeypatch)
    assert len(found) == (2 if parts else 1)
    for files in found:
        assert len(files) <= 6, files
        assert sum(a != b for a, b in pairwise(files)) <= 3, files
        assert any(file.endswith("learners/maml.py") for file in files)


@pytest.mark.parametrize("name", LEARNERS)
def test_every_inner_gradient_is_asked_for_in_the_learners_own_file(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a method `inner_step` of at most 12 lines, which the one inner loop has called."""
    learner = LEARNERS[name]()

    def adapt() -> None:
        learner.adapt(TASK.support_x, TASK.support_y, 3)

    found = stacks_at_gradients(adapt, monkeypatch)
    step = type(learner).inner_step  # type: ignore[attr-defined]
    own = inspect.getfile(type(learner))
    assert found
    for files in found:
        assert files[-2] == own, "the gradient is taken from the learner's file"
        assert files[-3] == gradient_learner.__file__, "and the loop called it"
    assert step.__qualname__ == f"{type(learner).__name__}.inner_step"
    assert len(inspect.getsource(step).splitlines()) <= 12
    assert "grad(support_loss, phi" in inspect.getsource(step)


def test_a_gradient_learner_is_a_step() -> None:
    """Signs of the gradient, in five lines, pass for a learner."""

    class Signs(GradientLearner):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network, self.inner_steps = network, 3

        def inner_step(self, phi, state, step, support_loss):  # type: ignore[no-untyped-def]
            gradient = gradient_learner.grad(support_loss, phi)
            return {k: p - 0.01 * gradient[k].sign() for k, p in phi.items()}, state

    learner = Signs(network())
    assert learner.max_way == 3
    phi = learner.adapt(TASK.support_x, TASK.support_y, 3)
    moved = phi["network"]["1.weight"] - learner.network[1].weight
    assert bool(moved.abs().max() <= 0.0301)
    learner.loss(TASK).backward()
    assert all(p.grad is not None for p in learner.parameters())


def test_what_is_not_adapted_is_learned_all_the_same() -> None:
    """A start of the last layer alone: the encoder gets its gradient through every step."""

    class LastLayer(MAML):
        def start(self, tasks: int) -> Parameters:
            return {k: p for k, p in super().start(tasks).items() if k.startswith("1.")}

    learner = LastLayer(network().double(), inner_lr=0.2, inner_steps=6)
    task, found = TASK.to(torch.float64), []
    for how in ({"graphs": None, "tasks_at_once": 4}, {"graphs": 1}, {"tasks_at_once": 1}):
        with executing(**how):
            found.append(torch.autograd.grad(learner.loss(task), list(learner.parameters())))
    scale = max(float(g.abs().max()) for g in found[0])
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11 * scale)
    assert float(found[0][0].abs().max()) > 1e-6 * scale


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.layer(x).mean(1))
        return out


class _Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(12, 2)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        out: Tensor = self.out(x.flatten(1))
        return out


class _Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        out: Tensor = self.out(x if x.mean() < 10 else -x)
        return out


def _spectral() -> nn.Module:
    linear = nn.Linear(12, 2)
    return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.spectral_norm(linear))


@pytest.mark.parametrize("make", [_Attention, _Counting, _Deciding, _spectral])
def test_networks_that_cannot_be_batched_go_task_by_task(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    learner = MAML(make().double(), inner_steps=2).eval()
    task = make_task((3, 4), 2, tasks=2)

    def gradient() -> list[Tensor]:
        return list(torch.autograd.grad(learner.loss(task), [*learner.parameters()]))

    with executing(tasks_at_once=1):
        expected = gradient()
    with executing(tasks_at_once=2):
        found = gradient()
        with torch.no_grad():
            learner(task)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs)


def test_an_error_of_the_networks_own_is_raised_as_it_is() -> None:
    learner = MAML(nn.Sequential(nn.Flatten(), _Deciding())).double()
    task = make_task((3, 5), 2, tasks=2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        learner.loss(task)
    assert not goes_alone(learner.network)


def test_numbers_of_another_type_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"support_x is torch.float64, and this MAML computes in t"
    ):
        MAML(nn.Linear(3, 2))(make_task((3,), 2))
