"""Backbones. They map ``[n, ...]`` to ``[n, out_features]`` and know nothing of tasks."""

from quickstudy.nn.conv4 import Conv4
from quickstudy.nn.mlp import MLP
from quickstudy.nn.norm import (
    BatchNorm,
    batch_norm_policy,
    set_batch_norm_policy,
    statistics_from,
)

__all__ = [
    "MLP",
    "BatchNorm",
    "Conv4",
    "batch_norm_policy",
    "set_batch_norm_policy",
    "statistics_from",
]
