"""ResNet-12, the residual network of most few-shot papers since 2018, and DropBlock."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nn.norm import BatchNorm, Policy

__all__ = ["DropBlock", "ResNet12"]


class DropBlock(nn.Module):
    """Sets squares of maps to zero in training, and scales up what is left.

    Ghiasi, Lin & Le (2018), algorithm 1: centres are drawn at a rate that drops a share of about
    ``drop`` of each map.

    Args:
        drop: the share, 0..1.
        size: of the squares, or of the map where that is smaller.

    Shapes: ``[n,C,h,w] -> [n,C,h,w]``.
    """

    def __init__(self, drop: float, size: int = 5) -> None:
        super().__init__()
        if not 0 <= drop < 1:
            raise ValueError(f"drop is {drop:g}; expected at least 0 and below 1")
        self.drop, self.size = drop, size

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.drop:
            return x
        height, width = x.shape[-2:]
        size = min(self.size, height, width)
        valid = (height - size + 1) * (width - size + 1)
        rate = self.drop * height * width / size**2 / valid
        centres = (torch.rand_like(x[..., size - 1 :, size - 1 :]) < rate).to(x.dtype)
        dropped = F.max_pool2d(F.pad(centres, [size - 1] * 4), size, stride=1)
        kept = 1 - dropped
        return x * kept * (kept.numel() / kept.sum().clamp_min(1))

    def extra_repr(self) -> str:
        return f"{self.drop:g}, size={self.size}"


class ResNet12(nn.Module):
    """Four residual blocks of three 3x3 convolutions, each halved; the last map is averaged.

    Lee et al. (2019, MetaOptNet), section 4.1, with 64, 160, 320 and 640 filters; Oreshkin et al.
    (2018, TADAM) took 64, 128, 256 and 512. A block is ``halve(act(f(x) + shortcut(x)))`` with
    leaky ReLUs of slope 0.1; the shortcut is a 1x1 convolution with batch norm.

    Differs from MetaOptNet's code: there is no dropout in the first two blocks, DropBlock's rate in
    the last two does not rise during training, and the last map is always averaged.

    Args:
        in_channels: 1 for grey images, 3 for colour.
        channels: filters of each block.
        image_size: height and width of the input, at least 16.
        drop: share that `DropBlock` drops in the last two blocks; MetaOptNet: 0.1.
        batch_norm: whose statistics normalise, see `quickstudy.nn.BatchNorm`.

    Shapes: ``[n, in_channels, image_size, image_size] -> [n, channels[-1]]``.

    Example:
        >>> sum(p.numel() for p in ResNet12(3, image_size=84).parameters())
        12424320
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: tuple[int, int, int, int] = (64, 160, 320, 640),
        *,
        image_size: int = 84,
        drop: float = 0.0,
        batch_norm: Policy = "inductive",
    ) -> None:
        super().__init__()
        if image_size < 16:
            raise ValueError(f"image_size is {image_size}; four poolings need at least 16 pixels")
        before = (in_channels, *channels)
        self.blocks = nn.Sequential(
            *(_Block(before[i], channels[i], drop if i > 1 else 0.0, batch_norm) for i in range(4))
        )
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="leaky_relu")
        self.input_shape = (in_channels, image_size, image_size)
        self.out_features = channels[-1]

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"ResNet12 was built for images of shape {list(self.input_shape)} but got "
                f"{list(x.shape[1:])}"
            )
        z: Tensor = self.blocks(x).mean((2, 3))
        return z


class _Block(nn.Module):
    def __init__(self, before: int, channels: int, drop: float, policy: Policy) -> None:
        super().__init__()
        sizes = (before, channels, channels, channels)
        self.convolutions, self.norms = nn.ModuleList(), nn.ModuleList()
        for i in range(3):
            self.convolutions.append(nn.Conv2d(sizes[i], channels, 3, padding=1, bias=False))
            self.norms.append(BatchNorm(channels, policy=policy))
        self.shortcut = nn.Sequential(
            nn.Conv2d(before, channels, 1, bias=False), BatchNorm(channels, policy=policy)
        )
        self.drop = DropBlock(drop)

    def forward(self, x: Tensor) -> Tensor:
        z = x
        for i, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            z = norm(convolution(z))
            z = F.leaky_relu(z if i < 2 else z + self.shortcut(x), 0.1)
        dropped: Tensor = self.drop(F.max_pool2d(z, 2))
        return dropped
