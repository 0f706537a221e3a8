"""Wide residual networks, WRN-28-10 among them."""

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nn.norm import BatchNorm, Policy

__all__ = ["WideResNet"]


class WideResNet(nn.Module):
    """Three groups of residual blocks [batch norm, ReLU, 3x3 convolution] twice; then averaged.

    Zagoruyko & Komodakis (2016), table 1, without dropout; the groups have 16, 32 and 64 times
    ``widen`` filters, and the second and third begin with a stride of 2. Few-shot papers take
    WRN-28-10: Rusu et al. (2019, LEO), Mangla et al. (2020).

    Args:
        in_channels: 1 for grey images, 3 for colour.
        depth: of convolutions, 6 times the blocks of a group and 4.
        widen: multiplies the filters.
        image_size: height and width of the input, at least 4.
        batch_norm: whose statistics normalise, see `quickstudy.nn.BatchNorm`.

    Shapes: ``[n, in_channels, image_size, image_size] -> [n, 64 * widen]``.

    Example:
        >>> round(sum(p.numel() for p in WideResNet(3).parameters()) / 1e6, 1)  # as in table 5
        36.5
    """

    def __init__(
        self,
        in_channels: int = 3,
        depth: int = 28,
        widen: int = 10,
        *,
        image_size: int = 84,
        batch_norm: Policy = "inductive",
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth is {depth}; expected 10, 16, 22, 28 or another 6 n + 4")
        if image_size < 4:
            raise ValueError(f"image_size is {image_size}; expected at least 4 pixels")
        self.first = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential()
        before = 16
        for group in range(3):
            for i in range((depth - 4) // 6):
                stride = 2 if group and not i else 1
                self.blocks.append(
                    _Block(before, before := 16 * widen << group, stride, batch_norm)
                )
        self.norm = BatchNorm(before, policy=batch_norm)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        self.input_shape = (in_channels, image_size, image_size)
        self.out_features = before

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"WideResNet was built for images of shape {list(self.input_shape)} but got "
                f"{list(x.shape[1:])}"
            )
        z: Tensor = F.relu(self.norm(self.blocks(self.first(x)))).mean((2, 3))
        return z


class _Block(nn.Module):
    def __init__(self, before: int, channels: int, stride: int, policy: Policy) -> None:
        super().__init__()
        self.norms = nn.ModuleList(BatchNorm(n, policy=policy) for n in (before, channels))
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(before, channels, 3, stride, padding=1, bias=False),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            ]
        )
        changes = stride > 1 or before != channels
        self.shortcut = nn.Conv2d(before, channels, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        (first, second), (one, two) = self.norms, self.convolutions
        seen = F.relu(first(x))
        kept: Tensor = x if self.shortcut is None else self.shortcut(seen)
        return kept + two(F.relu(second(one(seen))))  # type: ignore[no-any-return]
