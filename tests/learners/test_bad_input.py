"""Every learner says in words what is wrong with its input, before it computes anything."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quickstudy.learners
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
    Ensemble,
    InContextTransformer,
    Logistic,
    MAMLPlusPlus,
    MatchingNetwork,
    MetaSGD,
    NearestNeighbour,
    ProtoMAML,
    ProtoNet,
    Reptile,
    Scratch,
    SimpleShot,
    SoftNearestNeighbour,
)
from quickstudy.nn import MLP, Conv4
from quickstudy.task import Task
from quickstudy.testing import make_task

Build = Callable[[nn.Module], MetaLearner]

NETWORK_BASED: dict[str, Build] = {
    "MAML": MAML,
    "MAML++": MAMLPlusPlus,
    "Meta-SGD": MetaSGD,
    "Reptile": Reptile,
    "Scratch": Scratch,
}
NEEDS_SIZE: dict[str, Build] = {
    "ANIL": lambda e: ANIL(e, outputs=3),
    "Baseline": lambda e: Baseline(e, classes=3),
    "SimpleShot": lambda e: SimpleShot(e, classes=3),
    "matching-full-context": lambda e: MatchingNetwork(e, reading_steps=2),
    "LSTM": lambda e: BlackBoxLSTM(e, outputs=3, hidden=4),
    "MANN": lambda e: MANN(e, outputs=3, hidden=4, slots=5, width=3),
    "MANN-offset": lambda e: MANN(e, outputs=3, hidden=4, slots=5, width=3, protocol="offset"),
    "transformer": lambda e: InContextTransformer(e, outputs=3, width=4),
    "CNP": lambda e: ConditionalNeuralProcess(e, outputs=3, width=4),
}
ENCODER_BASED: dict[str, Build] = {
    **NEEDS_SIZE,
    "nearest": NearestNeighbour,
    "soft-nearest": SoftNearestNeighbour,
    "matching": MatchingNetwork,
    "logistic": Logistic,
    "PMF": PMF,
    "ProtoMAML": ProtoMAML,
    "ProtoNet": ProtoNet,
    "R2D2": R2D2,
    "ensemble": lambda e: Ensemble([ProtoNet(e)]),
}
LEARNERS = {**NETWORK_BASED, **ENCODER_BASED}
BOUNDED = [*NETWORK_BASED, "ANIL", "LSTM", "MANN", "MANN-offset", "transformer", "CNP"]
CLASSIFIERS = [
    "Baseline",
    "CNP",
    "PMF",
    "ProtoMAML",
    "ProtoNet",
    "SimpleShot",
    "ensemble",
    "logistic",
    "matching",
    "matching-full-context",
    "nearest",
    "soft-nearest",
]


REGRESSION: dict[str, Build] = {
    **{name: LEARNERS[name] for name in BOUNDED if name != "CNP"},
    "CNP": lambda e: ConditionalNeuralProcess(e, outputs=3, width=4, regression=True),
}


def small(name: str) -> MetaLearner:
    """A learner for inputs of size 8 and at most 3 classes, where it has to know."""
    return LEARNERS[name](MLP(8, [], 3))


def refuses(learner: MetaLearner, x: Tensor, y: Any, n_way: int | None, message: str) -> None:
    """`adapt` raises ``ValueError`` with the message, and no module has run by then."""
    ran: list[nn.Module] = []
    for module in learner.modules():
        module.register_forward_pre_hook(lambda module, _: ran.append(module))
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        learner.adapt(x, y, n_way)
    assert not ran
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_every_learner_is_here() -> None:
    built = {type(small(name)).__name__ for name in LEARNERS}
    assert built == {*quickstudy.learners.__all__} - {
        "TableKernels",
        "TableTransformer",
    }  # see test_tables.py
    assert set(BOUNDED) == {name for name in LEARNERS if small(name).max_way is not None}


def good() -> tuple[Tensor, Tensor]:
    task = make_task((8,), 3).to(torch.float32)
    return task.support_x, task.support_y


@pytest.mark.parametrize("name", LEARNERS)
def test_good_input(name: str) -> None:
    task = make_task((8,), 3).to(torch.float32)
    assert small(name)(task).shape == (2, 12, 3)


@pytest.mark.parametrize("name", LEARNERS)
def test_one_class(name: str) -> None:
    x, y = good()
    refuses(small(name), x, y * 0, 1, "n_way is 1; .* at least 2 classes")


@pytest.mark.parametrize("name", LEARNERS)
def test_shot_of_zero(name: str) -> None:
    x, y = good()
    y[1] = y[1].clamp(min=1)
    refuses(small(name), x, y, 3, "task 1 has no example of class 0.* shot of zero")


@pytest.mark.parametrize("convert", [list, np.array])
@pytest.mark.parametrize("name", LEARNERS)
def test_labels_that_are_words(name: str, convert: Callable[[Any], Any]) -> None:
    x, _ = good()
    words = convert([["cat", "dog", "owl"] * 2] * 2)
    refuses(small(name), x, words, 3, "support_y must be a torch tensor, not (list|ndarray)")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", LEARNERS)
def test_images_that_are_not_numbers(name: str, value: float) -> None:
    x, y = good()
    x[1, 2, 3] = value
    refuses(small(name), x, y, 3, r"support_x has a NaN or infinite value.*\[1, 2, 3\]")


@pytest.mark.parametrize("name", LEARNERS)
def test_labels_outside_the_classes(name: str) -> None:
    x, y = good()
    refuses(small(name), x, y + 1, 3, r"labels from 1 to 3; expected 0\.\.2")


@pytest.mark.parametrize("name", BOUNDED)
def test_more_classes_than_built_for(name: str) -> None:
    task = make_task((8,), 5).to(torch.float32)
    refuses(small(name), task.support_x, task.support_y, 5, "n_way=5 .* built for at most 3")
    with pytest.raises(ValueError, match=r"n_way=5 .* built for at most 3"):
        small(name).loss(task)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_regression_given_to_classifiers(name: str) -> None:
    task = make_task((8,), None).to(torch.float32)
    refuses(
        small(name), task.support_x, task.support_y, None, "classifies; it cannot .* regression"
    )


@pytest.mark.parametrize("name", REGRESSION)
def test_targets_of_another_size(name: str) -> None:
    """One number an example, for a learner that answers with three: not to be broadcast."""
    task = make_task((8,), None, shot=4).to(torch.float32)
    learner = REGRESSION[name](MLP(8, [], 3))
    refuses(learner, task.support_x, task.support_y, None, "target")


class Map(nn.Module):
    """An encoder that was not flattened, whatever size it claims: ``[n,1,4,4] -> [n,3,4,4]``."""

    def __init__(self, out_features: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.conv(x)
        return z


@pytest.mark.parametrize("answer", ["forward", "loss"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("out_features", [3, 48])
@pytest.mark.parametrize("name", ENCODER_BASED)
def test_encoder_must_give_vectors(
    name: str, out_features: int, training: bool, answer: str
) -> None:
    """Whether its claim is the number of channels or the size it should have had."""
    task = make_task((1, 4, 4), 3).to(torch.float32)
    learner = ENCODER_BASED[name](Map(out_features)).train(training)
    message = r"the encoder maps \[1, 4, 4\] to \[3, 4, 4\].* one vector an example"
    with pytest.raises(ValueError, match=message):
        getattr(learner, answer)(task)


@pytest.mark.parametrize("name", NEEDS_SIZE)
def test_encoder_must_know_its_size(name: str) -> None:
    with pytest.raises(ValueError, match="Flatten has no integer attribute out_features"):
        NEEDS_SIZE[name](nn.Flatten())


@pytest.mark.parametrize("name", sorted(set(ENCODER_BASED) - set(NEEDS_SIZE)))
def test_other_encoders_need_not_know(name: str) -> None:
    task = make_task((1, 4, 4), 3).to(torch.float32)
    assert ENCODER_BASED[name](nn.Flatten())(task).shape == (2, 12, 3)


@pytest.mark.parametrize("name", ["SimpleShot", "Baseline"])
def test_pretraining_needs_the_classes(name: str) -> None:
    task = make_task((8,), 3).to(torch.float32)
    task = Task(*task.tensors(), n_way=3)
    learner = small(name)
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    with pytest.raises(ValueError, match="needs tasks with `classes`"):
        learner.loss(task)
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_wrong_image_size_is_named() -> None:
    task = make_task((1, 16, 16), 3).to(torch.float32)
    with pytest.raises(ValueError, match=r"built for images of shape \[1, 28, 28\].*\[1, 16, 16\]"):
        ProtoNet(Conv4())(task)
