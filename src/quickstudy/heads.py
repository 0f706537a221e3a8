"""Heads: learners on top of features that a frozen encoder gives."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.learner import MetaLearner
from quickstudy.learners import R2D2, Logistic, ProtoMAML, ProtoNet
from quickstudy.nn import set_batch_norm_policy

__all__ = [
    "HEADS",
    "Logistic",
    "ProtoMAML",
    "UnitVectors",
    "describe_learner",
    "load_learner",
    "rebuild_learner",
]


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
    """A learner in evaluation mode: a head (`HEADS`), or what `quickstudy.load` takes.

    It answers each example for itself: its batch norm is made inductive.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: the file or folder is damaged.
    """
    return describe_learner(name)[1]


def describe_learner(name: str) -> tuple[dict[str, Any], MetaLearner]:
    """What `load_learner` gives, with plain values from which `rebuild_learner` makes it again."""
    if name in HEADS:
        return {"head": name}, HEADS[name](UnitVectors()).eval()
    from quickstudy.experiments.pretrained import load_described

    spec, learner = load_described(name)
    set_batch_norm_policy(learner, "inductive")
    return spec.model_dump(), learner


def rebuild_learner(about: dict[str, Any]) -> MetaLearner:
    """The learner that `describe_learner` described, in evaluation mode, with other weights.

    Raises:
        ValueError: there is no such learner.
    """
    if "head" in about:
        if about["head"] not in HEADS:
            raise ValueError(f"there is no head {about['head']!r}; there are: {', '.join(HEADS)}")
        return describe_learner(about["head"])[1]
    from quickstudy.experiments.spec import LearnerSpec

    learner = LearnerSpec(**about).build().eval()
    set_batch_norm_policy(learner, "inductive")
    return learner
