"""What papers' networks have that Conv4 and PyTorch have not."""

import math

import pytest
import torch
from torch import Tensor, nn

from quickstudy.nn import BatchNorm, Conv4, R2D2Encoder, glorot_, norm_parameters


def test_r2d2_encoder_is_its_layers() -> None:
    torch.manual_seed(0)
    encoder = R2D2Encoder(1, 8, image_size=28).double().train()
    x = torch.rand(6, 1, 28, 28, dtype=torch.float64)
    layers = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]

    def block(z: Tensor, i: int, stride: int) -> Tensor:
        z = nn.functional.conv2d(z, layers[i].weight, layers[i].bias, padding=1)
        z = nn.functional.batch_norm(z, None, None, training=True)
        return nn.functional.leaky_relu(nn.functional.max_pool2d(z, 2, stride), 0.1)

    third = block(block(block(x, 0, 2), 1, 2), 2, 2)
    joined = (nn.functional.max_pool2d(third, 2, 1), block(third, 3, 1))
    expected = torch.cat([z.flatten(1) for z in joined], 1)
    torch.testing.assert_close(encoder(x), expected, rtol=1e-9, atol=1e-12)
    assert expected.shape[1] == encoder.out_features == 64


@pytest.mark.parametrize("size", [16, 20, 28, 32, 84])
def test_r2d2_encoder_knows_its_size(size: int) -> None:
    encoder = R2D2Encoder(3, 4, image_size=size).eval()
    assert encoder(torch.rand(2, 3, size, size)).shape == (2, encoder.out_features)


def test_r2d2_encoder_refuses_other_images() -> None:
    with pytest.raises(ValueError, match=r"built for images of shape \[1, 28, 28\] but got \[3"):
        R2D2Encoder()(torch.rand(2, 3, 28, 28))
    with pytest.raises(ValueError, match=r"image_size is 15; .* at least 16"):
        R2D2Encoder(image_size=15)


def test_glorot() -> None:
    """The bounds are reached, and PyTorch's own lie 1.7 times closer for 64 filters of 3x3."""
    torch.manual_seed(0)
    network = nn.Sequential(Conv4(1, 64), nn.Linear(64, 5))
    before = network[0].blocks[1][0].weight.abs().max().item()  # type: ignore[union-attr, index]
    glorot_(network)
    for layer in (m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
        bound = math.sqrt(6 / (fan_in + fan_out))
        assert 0.95 * bound < layer.weight.abs().max().item() <= bound
        assert layer.bias is not None
        assert not layer.bias.any()
    after = network[0].blocks[1][0].weight.abs().max().item()  # type: ignore[union-attr, index]
    assert after / before == pytest.approx(math.sqrt(3), rel=0.01)
    wide = nn.Sequential(nn.Linear(50, 50), nn.Linear(50, 200))
    glorot_(wide, last_normal=True)
    assert wide[1].weight.std().item() == pytest.approx(1, rel=0.05)  # type: ignore[operator, union-attr]
    assert wide[0].weight.abs().max().item() <= math.sqrt(6 / 100)  # type: ignore[operator, union-attr]


def test_batch_norm_without_a_scale() -> None:
    network = Conv4(1, 4, norm_scale=False)
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {name for name in norm_parameters(network) if name in trained} == {
        f"blocks.{i}.1.bias" for i in range(4)
    }
    assert norm_parameters(BatchNorm(3)) == {"weight", "bias"}
    assert all(bool((network.get_parameter(f"blocks.{i}.1.weight") == 1).all()) for i in range(4))
