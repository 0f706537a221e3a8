"""Backbones. They map ``[n, ...]`` to ``[n, out_features]`` and know nothing of tasks."""

from quickstudy.nn.conv4 import Conv4
from quickstudy.nn.init import glorot_
from quickstudy.nn.ink import FitInk
from quickstudy.nn.mlp import MLP
from quickstudy.nn.norm import (
    BatchNorm,
    adopt_batch_norm,
    batch_norm_policy,
    norm_parameters,
    set_batch_norm_policy,
    statistics_from,
)
from quickstudy.nn.r2d2 import R2D2Encoder
from quickstudy.nn.resnet12 import DropBlock, ResNet12
from quickstudy.nn.wide_resnet import WideResNet

__all__ = [
    "MLP",
    "BatchNorm",
    "Conv4",
    "DropBlock",
    "FitInk",
    "R2D2Encoder",
    "ResNet12",
    "WideResNet",
    "adopt_batch_norm",
    "batch_norm_policy",
    "glorot_",
    "norm_parameters",
    "set_batch_norm_policy",
    "statistics_from",
]
