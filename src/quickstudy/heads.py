"""Heads: learners on top of features that a frozen encoder gives."""

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.learner import MetaLearner

__all__ = ["HEADS", "UnitVectors", "load_head"]

HEADS = ("centroid", "ridge")


class UnitVectors(nn.Module):
    """Features ``[n,...]`` to vectors of length 1, so that only their direction counts."""

    def forward(self, z: Tensor) -> Tensor:
        return F.normalize(z.flatten(1), dim=-1)


def load_head(name: str) -> MetaLearner | None:
    """A head by name, or ``None`` if there is none of that name.

    ``"centroid"`` is the nearest class mean of unit vectors, ``"ridge"`` a ridge regression on
    them (`R2D2` with nothing to learn). Neither has been trained: the encoder has.
    """
    from quickstudy.learners import R2D2, ProtoNet

    if name == "centroid":
        return ProtoNet(UnitVectors())
    if name == "ridge":
        return R2D2(UnitVectors(), penalty=1.0)
    return None
