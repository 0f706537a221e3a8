"""Heads: learners on top of features that a frozen encoder gives."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.learner import MetaLearner
from quickstudy.learners import R2D2, Logistic, ProtoMAML, ProtoNet
from quickstudy.nn import set_batch_norm_policy

__all__ = [
    "HEADS",
    "Logistic",
    "ProtoMAML",
    "Temperature",
    "UnitVectors",
    "describe_learner",
    "load_learner",
    "mean_shot",
    "rebuild_learner",
    "usual_temperature",
]


class UnitVectors(nn.Module):
    """Features ``[n,...]`` to vectors of length 1, so that only their direction counts.

    Args:
        centre: subtracted from the unit vectors, which are then made unit vectors again.
    """

    def __init__(self, centre: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("centre", centre)

    def forward(self, z: Tensor) -> Tensor:
        z = z.flatten(1)
        largest = z.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        z = F.normalize(z / largest, dim=-1)  # whatever their unit: no square overflows
        centre = self.centre
        if not isinstance(centre, Tensor):
            return z
        if z.shape[1] != len(centre):
            raise ValueError(
                f'the head "photo" takes the {len(centre)} features of efficientnet-lite0, not '
                f'{z.shape[1]}; the head "logistic" takes any'
            )
        return F.normalize(z - centre, dim=-1)


@dataclass(frozen=True)
class Temperature:
    """What a head's logits are divided by before anything is known of a task: ``a N^b K^c``.

    Attributes:
        one: ``a``.
        way: ``b``, of the number of classes ``N``.
        shot: ``c``, of the harmonic mean ``K`` of their sizes.
    """

    one: float
    way: float
    shot: float

    def of(self, sizes: Sequence[int]) -> float:
        """For classes of these sizes."""
        return self.one * math.pow(len(sizes), self.way) * math.pow(mean_shot(sizes), self.shot)


def mean_shot(sizes: Sequence[int]) -> float:
    """Examples of a class: the harmonic mean, where classes differ in size."""
    return len(sizes) / sum(1 / n for n in sizes)


HEADS: dict[str, Callable[..., MetaLearner]] = {
    "logistic": lambda encoder, penalty=0.1: Logistic(
        encoder, penalty=penalty, prior=3.0, debias=2.0
    ),
    "ridge": lambda encoder, penalty=1.0: R2D2(encoder, penalty=penalty, debias=0.1),
    "centroid": ProtoNet,
    "proto-maml": lambda encoder: ProtoMAML(encoder, debias=1.0),
}
"""What each name builds, from an encoder of unit vectors. None has been trained: the encoder has.

``"centroid"`` is the nearest class mean, ``"ridge"`` a ridge regression (`R2D2` with nothing to
learn); it and ``"logistic"`` take a ``penalty``. ``"photo"`` is ``"logistic"`` on features of
EfficientNet-Lite0 less those of an average photo (``average_photo.json``).
"""

_PENALISED = ("photo", "logistic", "ridge")
_TEMPERATURES = {
    "logistic": Temperature(0.197, 0.114, 0.191),
    "photo": Temperature(0.197, 0.114, 0.191),
    "ridge": Temperature(0.421, -0.150, 0.295),
    "centroid": Temperature(0.113, -0.035, -0.319),
    "proto-maml": Temperature(0.464, -0.344, -0.157),
}


def usual_temperature(name: str | None, sizes: Sequence[int]) -> float:
    """What the logits of a head are best divided by; 1 for a learner that is no head.

    The laws are least squares to the best temperatures, in logarithms, of tasks of photos and
    sentences with 2 to 100 ways and 1 to 20 shots, where a standard deviation of 0.2 is left.

    Args:
        name: of the head.
        sizes: examples of each class.
    """
    law = _TEMPERATURES.get(name or "")
    return 1.0 if law is None else law.of(sizes)


def load_learner(name: str) -> MetaLearner:
    """A learner in evaluation mode: a head (`HEADS`), or what `quickstudy.load` takes.

    It answers each example for itself: its batch norm is made inductive.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: the file or folder is damaged.
    """
    return describe_learner(name)[1]


def describe_learner(name: str, penalty: float | None = None) -> tuple[dict[str, Any], MetaLearner]:
    """What `load_learner` gives, with plain values from which `rebuild_learner` makes it again.

    Args:
        name: of a head or of what was trained.
        penalty: of a regression head, if not the usual one.
    """
    if penalty is not None and name not in _PENALISED:
        raise ValueError(f"{name} takes no penalty; the heads that do are: {', '.join(_PENALISED)}")
    if name in (*HEADS, "photo"):
        settings = {} if penalty is None else {"penalty": float(penalty)}
        encoder = UnitVectors(_average_photo().clone() if name == "photo" else None)
        head = HEADS["logistic" if name == "photo" else name](encoder, **settings)
        return {"head": name, **settings}, head.eval()
    from quickstudy.experiments.pretrained import load_described

    spec, learner = load_described(name)
    set_batch_norm_policy(learner, "inductive")
    return spec.model_dump(), learner


def rebuild_learner(about: dict[str, Any], at_most: int | None = None) -> MetaLearner:
    """The learner that `describe_learner` described, in evaluation mode, with other weights.

    Args:
        about: the description.
        at_most: how many numbers it may have, see `LearnerSpec.build`.

    Raises:
        ValueError: there is no such learner, or it is larger.
    """
    if "head" in about:
        names = [*HEADS, "photo"]
        if about["head"] not in names:
            raise ValueError(f"there is no head {about['head']!r}; there are: {', '.join(names)}")
        return describe_learner(about["head"], about.get("penalty"))[1]
    from quickstudy.experiments.spec import LearnerSpec

    learner = LearnerSpec(**about).build(at_most=at_most).eval()
    set_batch_norm_policy(learner, "inductive")
    return learner


@cache
def _average_photo() -> Tensor:
    file = resources.files("quickstudy").joinpath("average_photo.json")
    return torch.tensor(json.loads(file.read_text("utf-8"))["mean"])
