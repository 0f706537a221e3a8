"""The four-block convolutional network nearly every few-shot paper starts from."""

from typing import Literal

import torch
from torch import Tensor, nn

from quickstudy.nn.folding import ConvolutionGeometry, first_block, folds, is_plain
from quickstudy.nn.norm import BatchNorm, Policy

__all__ = ["Conv4"]


class Conv4(nn.Module):
    """Four blocks of [3x3 convolution, batch norm, ReLU, halve], then flatten.

    Vinyals et al. (2016), section 4.1.1. With ``downsample="stride"`` the convolutions halve
    (stride 2), about a quarter of the multiplications, and the last map is averaged over space, as
    in MAML for Omniglot (Finn et al. 2017, section 5.2). With ``"stride-flatten"`` it is not
    averaged, as in Reptile.

    Args:
        in_channels: 1 for grey images, 3 for colour.
        channels: filters of every block.
        image_size: height and width of the input; decides ``out_features``.
        downsample: ``"pool"`` (2x2 max-pooling), ``"stride"`` or ``"stride-flatten"``.
        batch_norm: whose statistics normalise, see `quickstudy.nn.BatchNorm`.
        norm_scale: whether batch norm learns a scale; MAML's code has none.

    Shapes: ``[n, in_channels, image_size, image_size] -> [n, out_features]``.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: int = 64,
        *,
        image_size: int = 28,
        downsample: Literal["pool", "stride", "stride-flatten"] = "pool",
        batch_norm: Policy = "inductive",
        norm_scale: bool = True,
    ) -> None:
        super().__init__()
        if downsample not in ("pool", "stride", "stride-flatten"):
            raise ValueError(
                f"downsample is {downsample!r}; expected 'pool', 'stride' or 'stride-flatten'"
            )
        pool = downsample == "pool"
        if pool and image_size < 16:
            raise ValueError(f"image_size is {image_size}; four poolings need at least 16 pixels")
        self.blocks = nn.Sequential()
        for block in range(4):
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(
                        in_channels if block == 0 else channels,
                        channels,
                        kernel_size=3,
                        stride=1 if pool else 2,
                        padding=1,
                    ),
                    BatchNorm(channels, policy=batch_norm, scale=norm_scale),
                    nn.ReLU(),
                    nn.MaxPool2d(2) if pool else nn.Identity(),
                )
            )
        for parameter in self.parameters():
            if parameter.dim() == 4:  # the faster layout of convolutions on CPUs
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        self.average = downsample == "stride"
        self.input_shape = (in_channels, image_size, image_size)
        side = image_size // 16 if pool else -(-image_size // 16)
        self.out_features = channels if self.average else channels * side**2

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        first, *others = self.blocks
        assert isinstance(first, nn.Sequential)
        z = _first(first, x)
        for block in others:
            z = block(z)
        return self.pooled(z)

    def check(self, x: Tensor) -> None:
        """Raise ``ValueError`` unless ``x`` holds images of the size this was built for."""
        if x.dim() != 4 or tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"Conv4 was built for images of shape {list(self.input_shape)} but got "
                f"{list(x.shape[1:])}"
            )

    def pooled(self, z: Tensor) -> Tensor:
        """The last block's maps ``[n,C,h,w]`` as vectors ``[n,out_features]``."""
        return z.mean((2, 3)) if self.average else z.flatten(1)


def _first(block: nn.Sequential, x: Tensor) -> Tensor:
    """The first block, the largest by far: see `quickstudy.nn.folding.first_block`."""
    conv, norm, _, halve = block
    exported = torch.compiler.is_compiling()
    if (
        not (isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNorm) and _is_as_built(block))
        or not (is_plain(conv) and folds(conv, x))
        or conv.bias is None
        or x.device.type != "cpu"
        or exported
    ):
        y: Tensor = block(x)
        return y
    filters, filter_bias, weight, bias = (
        p.unsqueeze(0) for p in (conv.weight, conv.bias, norm.weight, norm.bias)
    )
    statistics = None if norm.by_batch else (norm.running_mean, norm.running_var)
    geometry = ConvolutionGeometry.of(conv, x)
    z, mean, var = first_block(
        x, geometry, filters, filter_bias, weight, bias, norm.eps, statistics
    )
    if norm.by_batch:
        norm.check(z)
        norm.keep(mean[0], var[0], z.numel() // z.shape[1])
    halved: Tensor = halve(z)
    return halved


def _is_as_built(block: nn.Sequential) -> bool:
    """Whether nobody has put another kind of layer into a block, or a hook onto one."""
    parts = [block, *block][:4]
    kinds = [type(part) for part in parts]
    hooks = [part._forward_hooks or part._forward_pre_hooks for part in parts]
    return kinds == [nn.Sequential, nn.Conv2d, BatchNorm, nn.ReLU] and not any(hooks)
