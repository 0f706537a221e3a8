"""The first block as one product of matrices is the layers one after the other."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quickstudy.inner import stacked
from quickstudy.nn import BatchNorm, Conv4, FitInk, conv4, folding, statistics_from
from quickstudy.nn.frozen import frozen
from quickstudy.nn.norm import Policy, Source


def layers(network: Conv4, x: Tensor) -> Tensor:
    """What the network's layers say, each in its turn."""
    return network.pooled(network.blocks(x))


def build(downsample: str, policy: Policy = "inductive") -> Conv4:
    torch.manual_seed(0)
    network = Conv4(1, 10, image_size=16, downsample=downsample, batch_norm=policy).double()  # type: ignore[arg-type]
    for layer in network.modules():
        if isinstance(layer, BatchNorm):
            nn.init.normal_(layer.weight, 1, 0.3)
            nn.init.normal_(layer.bias, 0, 0.3)
            nn.init.normal_(layer.running_mean, 0, 0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return network


@pytest.mark.parametrize("downsample", ["pool", "stride"])
@pytest.mark.parametrize(
    ("training", "policy", "source"),
    [
        *itertools.product(
            [True, False], ["inductive", "transductive"], [None, "batch", "record", "stored"]
        )
    ],
)
def test_equals_its_layers(
    downsample: str, training: bool, policy: Policy, source: Source | None
) -> None:
    """Answers, derivatives, and the statistics kept."""
    ours = build(downsample, policy).train(training)
    theirs = copy.deepcopy(ours)
    x = 3 + torch.randn(7, 1, 16, 16, dtype=torch.float64)
    found = []
    for network, run in ((ours, ours), (theirs, lambda x: layers(theirs, x))):
        before = {name: buffer.clone() for name, buffer in network.named_buffers()}
        if source is None:
            y = run(x)
        else:
            with statistics_from(network, source):
                y = run(x)
        gradients = torch.autograd.grad(y.sin().sum(), list(network.parameters()))
        buffers = [buffer.detach() for buffer in network.buffers()]
        found.append([y, *gradients, *buffers])
        moved = any(not torch.equal(b, before[name]) for name, b in network.named_buffers())
        assert moved == (source == "record" or (source is None and training))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_a_hook_is_called() -> None:
    network, seen = build("pool"), []
    network.blocks[0][2].register_forward_hook(lambda layer, x, y: seen.append(y.shape))
    network(torch.randn(2, 1, 16, 16, dtype=torch.float64))
    assert seen == [(2, 10, 16, 16)]


def test_images_have_a_gradient_where_it_is_asked_for() -> None:
    network = build("stride")
    x = torch.randn(4, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x).sin().sum(), x)
    (expected,) = torch.autograd.grad(layers(network, x).sin().sum(), x)
    torch.testing.assert_close(gradient, expected)
    assert gradient.abs().max() > 0


def test_one_value_a_channel_has_no_statistics() -> None:
    network = Conv4(1, 10, image_size=1, downsample="stride")
    with pytest.raises(ValueError, match="several examples"):
        network(torch.randn(1, 1, 1, 1))


@pytest.mark.parametrize("grad", [True, False])
def test_only_small_patches_of_constants_are_laid_out(
    grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of later blocks, whose images are as constant where gradients are off."""
    laid_out = []
    original = folding.first_block
    for module in (conv4, stacked):
        monkeypatch.setattr(
            module, "first_block", lambda x, *rest: laid_out.append(x.shape) or original(x, *rest)
        )
    network, x = Conv4(1, 10, image_size=16), torch.randn(3, 1, 16, 16)
    state = {name: p.unsqueeze(0) for name, p in network.state_dict(keep_vars=True).items()}
    with torch.set_grad_enabled(grad):
        network(x)
        stacked.run_stacked(network, state, x.unsqueeze(0), "batch")
        assert laid_out == [x.shape, x.shape]
        Conv4(1, 9, image_size=16)(x)
    assert len(laid_out) == 2


@pytest.mark.parametrize(
    ("place", "layer"),
    [
        (2, nn.GELU()),
        (1, nn.InstanceNorm2d(16)),
        (0, nn.Conv2d(1, 16, 3, padding=1, padding_mode="circular")),
        (0, nn.Conv2d(1, 16, 3, padding=1, bias=False)),
    ],
)
def test_another_layer_in_the_first_block_is_used(place: int, layer: nn.Module) -> None:
    network, x = Conv4(1, 16, image_size=16), torch.rand(4, 1, 16, 16)
    network.blocks[0][place] = layer
    expected = network.pooled(network.blocks(x))
    assert torch.allclose(network(x), expected, atol=1e-5)
    seen = []
    network.blocks[0].register_forward_hook(lambda block, x, y: seen.append(y.shape))
    network(x)
    assert seen, "a hook on the block is called"


@pytest.mark.parametrize("downsample", ["pool", "stride", "stride-flatten"])
@pytest.mark.parametrize("channels", [1, 3])
def test_frozen_it_answers_the_same(downsample: Any, channels: int) -> None:
    torch.manual_seed(0)
    network = Conv4(channels, 8, image_size=28, downsample=downsample)
    for _ in range(5):
        network(torch.rand(16, channels, 28, 28))  # statistics to be folded in
    for norm in (layer for layer in network.modules() if isinstance(layer, BatchNorm)):
        torch.nn.init.uniform_(norm.weight, -1, 2)
        torch.nn.init.normal_(norm.bias)
    whole = torch.nn.Sequential(FitInk(), network).eval() if channels == 1 else network.eval()
    answers = frozen(whole)
    x = torch.rand(6, channels, 28, 28)
    with torch.no_grad():
        assert torch.allclose(answers(x), whole(x), atol=1e-5)
        assert torch.allclose(answers(x[:1]), whole(x[:1]), atol=1e-5)
    assert not any(isinstance(layer, BatchNorm) for layer in answers.modules())
    assert any(isinstance(layer, BatchNorm) for layer in whole.modules()), "it is a copy"
    with pytest.raises(ValueError, match="built for images of shape"):
        answers(torch.rand(1, channels, 20, 20))


def test_batch_norm_that_needs_the_batch_is_not_frozen() -> None:
    network = Conv4(channels=4, batch_norm="transductive").eval()
    x = torch.rand(3, 1, 28, 28)
    assert torch.equal(frozen(network)(x), network(x))
    assert any(isinstance(layer, BatchNorm) for layer in frozen(network).modules())
