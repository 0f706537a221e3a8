"""Heads: learners on top of features that a frozen encoder gives."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.learner import MetaLearner
from quickstudy.learners import R2D2, Logistic, ProtoMAML, ProtoNet
from quickstudy.nn import set_batch_norm_policy

__all__ = ["HEADS", "Logistic", "ProtoMAML", "UnitVectors", "load_learner"]


class UnitVectors(nn.Module):
    """Features ``[n,...]`` to vectors of length 1, so that only their direction counts."""

    def forward(self, z: Tensor) -> Tensor:
        return F.normalize(z.flatten(1), dim=-1)


HEADS: dict[str, Callable[[nn.Module], MetaLearner]] = {
    "centroid": ProtoNet,
    "ridge": lambda encoder: R2D2(encoder, penalty=1.0),
    "logistic": Logistic,
    "proto-maml": ProtoMAML,
}
"""What each name builds, from an encoder of unit vectors. None has been trained: the encoder has.

``"centroid"`` is the nearest class mean, ``"ridge"`` a ridge regression (`R2D2` with nothing to
learn).
"""


def load_learner(name: str) -> MetaLearner:
    """A learner by name, in evaluation mode: a head (`HEADS`), or weights that come along.

    It answers each example for itself: its batch norm is made inductive.

    Raises:
        FileNotFoundError: there is neither of that name.
    """
    if name in HEADS:
        return HEADS[name](UnitVectors()).eval()
    from quickstudy.experiments.pretrained import load

    learner = load(name)
    set_batch_norm_policy(learner, "inductive")
    return learner
