"""Heads: learners on top of features that a frozen encoder gives."""

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.learner import MetaLearner

__all__ = ["HEADS", "UnitVectors", "load_head"]

HEADS = ("centroid", "ridge")


class UnitVectors(nn.Module):
    """Features ``[n,D]`` to unit vectors, their large numbers tamed first::

        z <- sign(z) |z|^power,    z <- z / ||z||

    A power of 1/2 makes the skewed features of networks that end in a ReLU more like a Gaussian
    (Tukey's ladder; Yang, Liu & Xu 2021, arXiv:2101.06395, eq. 3).
    """

    def __init__(self, power: float = 0.5) -> None:
        super().__init__()
        self.power = power

    def forward(self, z: Tensor) -> Tensor:
        z = z.flatten(1)
        return F.normalize(z.sign() * z.abs() ** self.power, dim=-1)


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
