"""The first block of a convolutional network, folded into one product of matrices.

Convolutions may be grouped: the channels of ``G`` groups lie side by side, ``[n,G*C,H,W]``, and
each group has its own filters. An ordinary convolution has a single group.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.execution import execution

__all__ = ["ConvolutionGeometry", "first_block", "folds", "is_plain", "maps", "patches"]


class ConvolutionGeometry(NamedTuple):
    """How a convolution moves over its input, and the sizes before and after it."""

    groups: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, layer: nn.Conv2d, x: Tensor, groups: int = 1) -> "ConvolutionGeometry":
        """Of a layer without groups or dilation, on ``x [n,G*C,H,W]``."""
        kernel, stride, padding = layer.kernel_size, layer.stride, layer.padding
        return cls(groups, kernel, stride, padding, (x.shape[2], x.shape[3]))  # type: ignore[arg-type]

    @property
    def out(self) -> tuple[int, int]:
        parts = zip(self.size, self.padding, self.kernel, self.stride, strict=True)
        height, width = ((size + 2 * pad - k) // stride + 1 for size, pad, k, stride in parts)
        return height, width

    def small(self, images: int) -> bool:
        """Whether a group has so few outputs that library convolutions are slow at it, and a
        product of matrices is worth the copy of `patches`.
        """
        return images * self.out[0] * self.out[1] <= execution().products_up_to

    def windows(self, padded: Tensor) -> Tensor:
        """``[n,G*C,H+2p,W+2p]`` to what each output sees, a view ``[n,G,C,h,w,k,k]``."""
        channels = torch.unflatten(padded, 1, (self.groups, -1))
        rows = channels.unfold(3, self.kernel[0], self.stride[0])
        return rows.unfold(4, self.kernel[1], self.stride[1])


def patches(x: Tensor, geometry: ConvolutionGeometry) -> Tensor:
    """What each output of a convolution sees of ``x [n,G*C,H,W]``: ``[G, n*h*w, k*k*C]``."""
    top, left = geometry.padding
    padded = F.pad(x, (left, left, top, top))
    windows = geometry.windows(padded).permute(1, 0, 3, 4, 5, 6, 2)
    outputs = len(x) * geometry.out[0] * geometry.out[1]
    return windows.reshape(geometry.groups, outputs, -1)


def maps(rows: Tensor, size: tuple[int, int]) -> Tensor:
    """``[G, n*h*w, C]`` to ``[n,G*C,h,w]``."""
    channels = rows.shape[0] * rows.shape[2]
    return rows.transpose(0, 1).reshape(-1, *size, channels).permute(0, 3, 1, 2)


def is_plain(layer: nn.Conv2d) -> bool:
    """Whether a convolution has no groups, no dilation, and zeros of a stated number around it."""
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def folds(layer: nn.Conv2d, x: Tensor) -> bool:
    """Whether `first_block` pays: ``x`` is a constant, and its patches are small."""
    return (
        execution().folded and not x.requires_grad and layer.weight[0].numel() < layer.out_channels
    )


def first_block(
    x: Tensor,
    geometry: ConvolutionGeometry,
    filters: Tensor,
    filter_bias: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Convolution, batch norm and ReLU of images that are constants: one product of matrices.

    What a filter ``w`` finds in patches ``P`` has variance ``w cov(P) w``, so that batch norm is a
    scale on the filter, and no derivative of it has to pass over the maps.

    Args:
        x: ``[n,G*C,H,W]``.
        geometry: of the convolution.
        filters: of the convolution, ``[G,O,C,k,k]``.
        filter_bias: of the convolution, ``[G,O]`` as all that follow.
        weight: of batch norm.
        bias: of batch norm.
        eps: added to the variance.
        statistics: mean and variance to normalise by; default those of ``x``.

    Returns:
        ``[n,G*O,h,w]``, and the mean and the variance ``[G,O]`` that normalised it.
    """
    seen = patches(x, geometry)
    filters = filters.movedim(2, -1).flatten(2)
    offset = torch.zeros_like(bias) if filter_bias is None else filter_bias
    if statistics is None:
        centre = seen.mean(1, keepdim=True)
        seen = seen - centre
        with torch.autocast(x.device.type, enabled=False):
            offset = offset + torch.bmm(filters, centre.mT).squeeze(-1)
            covariance = torch.bmm(seen.mT, seen) / seen.shape[1]
            statistics = offset, (torch.bmm(filters, covariance) * filters).sum(-1)
    mean, var = statistics
    scale = weight * torch.rsqrt(var + eps)
    shift = bias + scale * (offset - mean)
    affine = torch.cat([filters * scale.unsqueeze(-1), shift.unsqueeze(-1)], -1)
    seen = torch.cat([seen, torch.ones_like(seen[..., :1])], -1)
    return maps(torch.bmm(seen, affine.mT), geometry.out).relu(), mean, var
