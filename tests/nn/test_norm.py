from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.learners import ANIL, MAML, R2D2, Baseline, ProtoNet
from quickstudy.nn import (
    BatchNorm,
    Conv4,
    adopt_batch_norm,
    batch_norm_policy,
    set_batch_norm_policy,
    statistics_from,
)
from quickstudy.testing import make_task


def test_inductive_is_pytorchs_batch_norm() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    for _ in range(3):
        x = torch.randn(8, 3, 5, 5) * 2 + 1
        assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    ours.eval(), theirs.eval()
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert torch.allclose(ours.running_var, theirs.running_var)


def test_transductive_training_keeps_averages_for_an_inductive_evaluation() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm(3, policy="transductive"), nn.BatchNorm2d(3)
    for _ in range(3):
        x = torch.randn(8, 3, 5, 5) * 2 + 1
        assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    set_batch_norm_policy(ours, "inductive")
    ours.eval(), theirs.eval()
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_transductive_evaluation_uses_the_batch_and_keeps_nothing() -> None:
    layer = BatchNorm(3, policy="transductive").eval()
    x = torch.randn(8, 3, 4, 4) * 3 + 2
    y = layer(x)
    assert torch.allclose(y.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(y.var((0, 2, 3), correction=0), torch.ones(3), atol=1e-3)
    assert torch.equal(layer.running_mean, torch.zeros(3))


def test_recorded_statistics_are_those_of_the_batch_with_gradient() -> None:
    layer = BatchNorm(2)
    x = torch.randn(6, 2, 3, 3, requires_grad=True)
    state = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    with statistics_from(layer, "record"):
        y = functional_call(layer, state, (x,))
    assert torch.allclose(state["running_mean"], x.mean((0, 2, 3)))
    assert state["running_mean"].requires_grad
    assert torch.equal(layer.running_mean, torch.zeros(2)), "the layer itself must not change"
    with statistics_from(layer, "stored"):
        assert torch.allclose(functional_call(layer, state, (x,)), y)
    assert layer.source is None


def test_policy_of_a_network() -> None:
    network = Conv4()
    assert batch_norm_policy(network) == "inductive"
    set_batch_norm_policy(network, "transductive")
    assert batch_norm_policy(network) == "transductive"
    assert batch_norm_policy(nn.Linear(2, 2)) is None
    network.blocks[0][1].policy = "inductive"
    with pytest.raises(ValueError, match="different policies"):
        batch_norm_policy(network)
    with pytest.raises(ValueError, match="expected 'inductive'"):
        set_batch_norm_policy(network, "both")


def test_single_value_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="several examples"):
        BatchNorm(4, policy="transductive")(torch.randn(1, 4))


@pytest.mark.parametrize(
    ("downsample", "size", "features"),
    [("pool", 28, 64), ("pool", 84, 1600), ("stride", 28, 64)],
)
def test_conv4_out_features(downsample: str, size: int, features: int) -> None:
    network = Conv4(3, image_size=size, downsample=downsample)
    assert network.out_features == features
    assert network(torch.rand(2, 3, size, size)).shape == (2, features)


def test_conv4_bad_arguments() -> None:
    with pytest.raises(ValueError, match="at least 16 pixels"):
        Conv4(image_size=8)
    with pytest.raises(ValueError, match="'avg'"):
        Conv4(downsample="avg")


class _Foreign(nn.Module):
    """As timm's networks are: PyTorch's batch norm, one of them with its activation inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.bn = _WithActivation(4)
        self.head = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
        self.num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bn(self.stem(x))).mean((2, 3))  # type: ignore[no-any-return]


class _WithActivation(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))  # type: ignore[no-any-return]


def test_networks_of_others_get_our_batch_norm() -> None:
    torch.manual_seed(0)
    network = _Foreign()
    network(torch.rand(9, 3, 8, 8))
    x = torch.rand(4, 3, 8, 8)
    expected = [network.train()(x), network.eval()(x)]
    own = adopt_batch_norm(deepcopy(network))
    assert batch_norm_policy(own) == "inductive"
    for mode, before in zip((True, False), expected, strict=True):
        found = own.train(mode)(x)
        if mode:
            assert torch.allclose(found, before, atol=1e-6)
    assert torch.allclose(adopt_batch_norm(network).eval()(x), expected[1], atol=1e-6)
    with pytest.raises(ValueError, match="no running averages"):
        adopt_batch_norm(nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False)))


@pytest.mark.parametrize("kind", [ProtoNet, R2D2, ANIL, MAML, Baseline])
def test_networks_of_others_learn(kind: Any) -> None:
    network = adopt_batch_norm(_Foreign())
    options = {ANIL: {"outputs": 3}, Baseline: {"classes": 3}}.get(kind, {})
    given = nn.Sequential(network, nn.Linear(6, 3)) if kind is MAML else network
    learner = kind(given, **options).train()
    task = make_task((3, 8, 8), way=3, shot=2, tasks=2).to(torch.float32)
    learner.loss(task).backward()
    assert network.bn[0].weight.grad is not None  # type: ignore[index, union-attr]
