import pytest
import torch
from torch import nn
from torch.func import functional_call

from quickstudy.nn import (
    BatchNorm,
    Conv4,
    batch_norm_policy,
    set_batch_norm_policy,
    statistics_from,
)


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
