"""Networks that are trained no more and only answer: batch norm is a part of the convolutions."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from quickstudy.nn.conv4 import Conv4
from quickstudy.nn.folding import ConvolutionGeometry, maps, patches
from quickstudy.nn.norm import BatchNorm, batch_norm_policy

__all__ = ["frozen"]


def frozen(module: nn.Module) -> nn.Module:
    """A copy that answers as ``module`` does in evaluation, but for rounding, and sooner.

    Each inductive `Conv4` in it takes about two thirds of the time. It cannot be trained.
    """
    if type(module) is Conv4 and batch_norm_policy(module) == "inductive":
        return _FrozenConv4(module)
    copy = deepcopy(module).eval().requires_grad_(False)
    for name, part in module.named_children():
        copy.add_module(name, frozen(part))
    return copy


class _FrozenConv4(nn.Module):
    """The first convolution is a product of matrices, see `quickstudy.nn.folding`."""

    def __init__(self, network: Conv4) -> None:
        super().__init__()
        self.check, self.pooled = network.check, network.pooled
        self.convolutions = nn.ModuleList(_folded(*block[:2]) for block in network.blocks)  # type: ignore[index]
        self.halve: nn.Module = network.blocks[0][3]  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        first, *others = self.convolutions
        assert isinstance(first, nn.Conv2d)
        geometry = ConvolutionGeometry.of(first, x)
        filters = first.weight.movedim(1, -1).flatten(1)
        rows = torch.addmm(first.bias, patches(x, geometry)[0], filters.mT)  # type: ignore[arg-type]
        z: Tensor = self.halve(maps(rows.unsqueeze(0), geometry.out)).relu_()
        for convolution in others:
            z = self.halve(convolution(z)).relu_()
        return self.pooled(z)


def _folded(convolution: nn.Conv2d, norm: BatchNorm) -> nn.Conv2d:
    folded = deepcopy(convolution).requires_grad_(False)
    scale = (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).detach()
    folded.weight.mul_(scale.view(-1, 1, 1, 1))
    assert folded.bias is not None
    folded.bias.sub_(norm.running_mean).mul_(scale).add_(norm.bias.detach())
    return folded
