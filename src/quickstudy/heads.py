"""Heads: learners on top of features that a frozen encoder gives."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from quickstudy.checkpoint import weights_about
from quickstudy.learner import MetaLearner
from quickstudy.learners import R2D2, Logistic, ProtoMAML, ProtoNet
from quickstudy.names import HEAD_NAMES
from quickstudy.nn import set_batch_norm_policy

__all__ = [
    "HEADS",
    "LEARNED_HEADS",
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

    Each further step is made if it is given, and is followed by making them unit vectors again.

    Args:
        centre: ``[D]``, subtracted.
        basis: ``[D,k]``, orthonormal directions.
        gain: ``[k]``, what the component along each is multiplied by.
        power: that each number is raised to at the very first, its sign kept.
    """

    def __init__(
        self,
        centre: Tensor | None = None,
        basis: Tensor | None = None,
        gain: Tensor | None = None,
        *,
        power: float = 1.0,
    ) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("basis", basis)
        self.register_buffer("gain", gain)
        self.power = power

    def forward(self, z: Tensor) -> Tensor:
        z = z.flatten(1)
        largest = z.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        z = z / largest  # whatever their unit: no square overflows
        if self.power != 1:
            z = z.sign() * z.abs() ** self.power
        z = F.normalize(z, dim=-1)
        centre, basis, gain = self.centre, self.basis, self.gain
        if isinstance(centre, Tensor):
            if z.shape[1] != len(centre):
                raise ValueError(
                    f"this head takes features whose average it knows, {len(centre)} of them, not "
                    f'{z.shape[1]}; the head "logistic" takes any'
                )
            z = F.normalize(z - centre, dim=-1)
        if isinstance(basis, Tensor) and isinstance(gain, Tensor):
            basis = basis.to(z.dtype)
            z = F.normalize(z + z @ basis * (gain - 1) @ basis.T, dim=-1)
        return z


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
learn); it and ``"logistic"`` take a ``penalty``.
"""

LEARNED_HEADS = ("photo", "sentence")
"""``"logistic"``, meta-learned for the features of one encoder: EfficientNet-Lite0 and MiniLM.

They subtract the average of other photos or sentences; ``"photo"`` takes square roots before, and
then makes directions shorter in which photos of one class differ. ``tools/heads.py`` learns them.
"""

_PENALISED = (*LEARNED_HEADS, "logistic", "ridge")
_TEMPERATURES = {
    "logistic": Temperature(0.197, 0.114, 0.191),
    "ridge": Temperature(0.421, -0.150, 0.295),
    "centroid": Temperature(0.113, -0.035, -0.319),
    "proto-maml": Temperature(0.464, -0.344, -0.157),
    "protonet-drawings": Temperature(3.0, -0.3, -0.4),
}

_OF_TABLES = {
    "logistic": Temperature(6.812, -0.757, -0.273),
    "ridge": Temperature(13.154, -1.117, -0.166),
    "centroid": Temperature(3.775, -0.840, -0.498),
}


def usual_temperature(name: str | None, sizes: Sequence[int], *, table: bool = False) -> float:
    """What the logits of a head are best divided by; 1 for a learner of which that is not known.

    The laws are least squares to the best temperatures, in logarithms, of tasks of photos and
    sentences with 2 to 100 ways and 1 to 20 shots, where a standard deviation of 0.2 is left. Those
    of `LEARNED_HEADS` are meta-learned with them. That of ``"protonet-drawings"`` lies between the
    best for characters, of which it is surer than it should be of anything else, and for icons.

    Those of tables have the least log-loss on the tables that ``benchmarks/tables.py`` has there to
    choose by, with 1 to 20 rows of each class.

    Args:
        name: of the head.
        sizes: examples of each class.
        table: the head learned from rows of a table.
    """
    if table:
        return _OF_TABLES[name].of(sizes) if name in _OF_TABLES else 1.0
    law = _learned(name).temperature if name in LEARNED_HEADS else _TEMPERATURES.get(name or "")
    if name and name not in HEAD_NAMES and os.path.exists(name):
        law = None  # `load_learner` takes what is there, whatever comes with quickstudy
    return 1.0 if law is None else law.of(sizes)


def load_learner(name: str) -> MetaLearner:
    """A learner in evaluation mode: a head (`HEADS`), or what `quickstudy.load` takes.

    It answers each example for itself: its batch norm is made inductive.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: the file or folder is damaged.
    """
    return describe_learner(name)[1]


def describe_learner(
    name: str, penalty: float | None = None, *, unit: bool = True
) -> tuple[dict[str, Any], MetaLearner]:
    """What `load_learner` gives, with plain values from which `rebuild_learner` makes it again.

    Args:
        name: of a head or of what was trained.
        penalty: of a regression head, if not the usual one.
        unit: a head of `HEADS` makes unit vectors of its features, see `UnitVectors`; else it takes
            them as they are, as is right for the rows of tables.
    """
    if penalty is not None and name not in _PENALISED:
        raise ValueError(f"{name} takes no penalty; the heads that do are: {', '.join(_PENALISED)}")
    settings = {} if penalty is None else {"penalty": float(penalty)}
    if name in LEARNED_HEADS and not unit:
        raise ValueError(f"the head {name} was learned for its encoder's features, not for tables")
    if name in LEARNED_HEADS:
        encoder = _learned(name).encoder()
        rank = 0 if encoder.basis is None else torch.as_tensor(encoder.basis).shape[1]
        about = {"head": name, "rank": rank, "power": encoder.power, **settings}
        return about, _learned(name).head(encoder, penalty)
    if name in HEADS:
        about = {"head": name, **settings, **({} if unit else {"unit": False})}
        return about, HEADS[name](UnitVectors() if unit else nn.Flatten(), **settings).eval()
    from quickstudy.experiments.pretrained import load_described

    spec, learner = load_described(name)
    return spec.model_dump(), _each_alone(learner)


def rebuild_learner(about: dict[str, Any], at_most: int | None = None) -> MetaLearner:
    """The learner that `describe_learner` described, in evaluation mode, with other weights.

    Args:
        about: the description.
        at_most: how many numbers it may have, see `LearnerSpec.build`.

    Raises:
        ValueError: there is no such learner, or it is larger.
    """
    if "head" in about:
        return _rebuilt_head(at_most, **about)
    from quickstudy.experiments.spec import LearnerSpec

    return _each_alone(LearnerSpec(**about).build(at_most=at_most).eval())


def _each_alone(learner: MetaLearner) -> MetaLearner:
    """It answers each example for itself, however it was trained."""
    set_batch_norm_policy(learner, "inductive")
    for module in learner.modules():
        if isinstance(module, ProtoNet):
            module.refine = 0
    return learner


def _rebuilt_head(
    at_most: int | None,
    *,
    head: Any,
    penalty: float | None = None,
    rank: Any = 0,
    power: Any = 1.0,
    unit: bool = True,
    **others: object,
) -> MetaLearner:
    """Without a rank and a power, as heads were that only subtracted an average."""
    if head not in HEAD_NAMES or others:
        what = f"head {head!r}" if head not in HEAD_NAMES else f"head with {', '.join(others)}"
        raise ValueError(f"there is no {what}; there are: {', '.join(HEAD_NAMES)}")
    if head not in LEARNED_HEADS:
        return describe_learner(head, penalty, unit=unit)[1]
    learned = _learned(head)
    size = len(learned.tensors["centre"])
    if rank not in range(size + 1) or not (isinstance(power, float) and 0 < power <= 1):
        raise ValueError(f"rank is {rank!r} and power {power!r}; expected 0..{size} and 0..1")
    if at_most is not None and size * (1 + rank) > at_most:
        raise ValueError(f"a rank of {rank} takes more than the {at_most} numbers that there are")
    extra = (torch.zeros(size, rank).half(), torch.zeros(rank)) if rank else ()
    return learned.head(UnitVectors(torch.zeros(size), *extra, power=power), penalty)


@dataclass(frozen=True)
class _Learned:
    """One of `LEARNED_HEADS`, as its file has it."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def temperature(self) -> Temperature:
        return Temperature(*self.about["temperature"])

    def encoder(self) -> UnitVectors:
        tensors = {name: z.clone() for name, z in self.tensors.items()}
        return UnitVectors(**tensors, power=self.about["power"])

    def head(self, encoder: UnitVectors, penalty: float | None) -> MetaLearner:
        numbers = {name: self.about[name] for name in ("penalty", "prior", "debias")}
        if penalty is not None:
            numbers["penalty"] = float(penalty)
        return Logistic(encoder, **numbers).eval()


@cache
def _learned(name: str) -> _Learned:
    file = Path(__file__).with_name(f"heads_{name}.safetensors")
    return _Learned(load_file(file), weights_about(file) or {})
