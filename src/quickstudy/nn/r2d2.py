"""The encoder of R2-D2: four blocks, of which the last two are given out together."""

import torch
from torch import Tensor, nn

from quickstudy.nn.norm import BatchNorm, Policy

__all__ = ["R2D2Encoder"]


class R2D2Encoder(nn.Module):
    """Four blocks of [3x3 convolution, batch norm, halve, leaky ReLU]; the last two, flattened.

    Bertinetto et al. (2019), section 4.2, as in the authors' code: max-pooling comes before the
    activation, whose slope is 0.1; the fourth block pools without halving, and the third block's
    maps, pooled in the same way, are joined to its own.

    Args:
        in_channels: 1 for grey images, 3 for colour.
        channels: filters of every block. The smaller of the authors' two networks has 64; the
            larger, of 96, 192, 384 and 512, with dropout on photos, is not here.
        image_size: height and width of the input, at least 16; decides ``out_features``.
        batch_norm: whose statistics normalise, see `quickstudy.nn.BatchNorm`.

    Shapes: ``[n, in_channels, image_size, image_size] -> [n, out_features]``.

    Example:
        >>> R2D2Encoder().out_features  # 2 x 64 maps of 2x2
        512
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: int = 64,
        *,
        image_size: int = 28,
        batch_norm: Policy = "inductive",
    ) -> None:
        super().__init__()
        if image_size < 16:
            raise ValueError(f"image_size is {image_size}; the poolings need at least 16 pixels")
        self.blocks = nn.Sequential()
        for block in range(4):
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(in_channels if block == 0 else channels, channels, 3, padding=1),
                    BatchNorm(channels, policy=batch_norm),
                    nn.MaxPool2d(2, stride=2 if block < 3 else 1),
                    nn.LeakyReLU(0.1),
                )
            )
        self.pool = nn.MaxPool2d(2, stride=1)
        self.input_shape = (in_channels, image_size, image_size)
        self.out_features = 2 * channels * (image_size // 8 - 1) ** 2

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"R2D2Encoder was built for images of shape {list(self.input_shape)} but got "
                f"{list(x.shape[1:])}"
            )
        *first, last = self.blocks
        for block in first:
            x = block(x)
        return torch.cat([self.pool(x).flatten(1), last(x).flatten(1)], 1)
