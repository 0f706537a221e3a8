"""What a learner makes of several tasks at once; no web here."""

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.app.explain import Lesson, lesson
from quickstudy.app.unknown import Unknown
from quickstudy.heads import load_learner, usual_temperature
from quickstudy.learner import MetaLearner, Phi
from quickstudy.learners import MAML, BlackBoxLSTM, MatchingNetwork, NearestNeighbour, ProtoNet
from quickstudy.nn.frozen import frozen

__all__ = ["Fitted", "Parts", "fit", "logits_of", "parts"]

_SMALL = 1 << 20  # bytes of a phi


class Parts(NamedTuple):
    """A learner in two parts.

    Attributes:
        encoder: what it makes of an example, whosever that is.
        head: the learner itself, which takes what the encoder gives.
    """

    encoder: nn.Module
    head: MetaLearner


@dataclass(frozen=True)
class Fitted:
    """A head adapted to a task.

    Attributes:
        phi: what it adapted to.
        temperature: what its logits are divided by.
        milliseconds: that learning took.
        lesson: what there is to show of it.
        unknown: which of its answers are "unknown", where it can tell.
        shown: of its learning, whatever is asked afterwards.
        alike: equal for tasks that it can answer in one pass.
    """

    phi: Phi
    temperature: float
    milliseconds: float
    lesson: Lesson
    unknown: Unknown | None
    shown: dict[str, Any]
    alike: Hashable


@cache
def parts(source: str, device: torch.device) -> Parts:
    """A learner by the name of its weights, its run folder, or ``"nearest"``."""
    if source == "nearest":
        return Parts(nn.Identity(), NearestNeighbour().eval())
    learner = load_learner(source).to(device)
    encoder: nn.Module = nn.Identity()
    match learner:
        case MAML():
            learner.inner_steps = 3  # as it was evaluated
        case ProtoNet() | BlackBoxLSTM() | MatchingNetwork(query_encoder=None):
            encoder = frozen(learner.encoder)
            learner.add_module("encoder", nn.Identity())
    return Parts(encoder, learner)


def fit(source: str, x: Tensor, y: Tensor, n_way: int) -> Fitted:
    """A learner adapted to the examples ``x [S,...]`` of the classes ``y [S]``."""
    encoder, head = parts(source, x.device)
    began = time.perf_counter()
    support, labels = encoder(x).unsqueeze(0), y.unsqueeze(0)
    phi = head.adapt(support, labels, n_way)
    spent = 1000 * (time.perf_counter() - began)
    taught, unknown = lesson(head, phi, support, labels, n_way), Unknown.of(head, support, labels)
    rejects = {"rejects": unknown and unknown.shown} if Unknown.possible(head) else {}
    tensors = _tensors(phi)
    small = sum(tensor.nbytes for tensor in tensors) <= _SMALL
    return Fitted(
        phi,
        usual_temperature(source, y.bincount().tolist()),
        spent,
        taught,
        unknown,
        {**taught.shown, **rejects},
        tuple(tensor.shape for tensor in tensors) if small else object(),
    )


def logits_of(head: MetaLearner, fitted: Sequence[Fitted], x: Sequence[Tensor]) -> list[Tensor]:
    """``[Q,N]`` of the queries ``[Q,...]`` of each task; tasks alike in one pass."""
    groups: dict[Hashable, list[int]] = {}
    for i, own in enumerate(fitted):
        groups.setdefault((own.alike, x[i].shape), []).append(i)
    found: dict[int, Tensor] = {}
    for places in groups.values():
        phi = _joined([fitted[i].phi for i in places])
        logits = head.predict(phi, torch.stack([x[i] for i in places]))
        found |= zip(places, logits, strict=True)
    return [found[i] for i in range(len(fitted))]


def _tensors(phi: Any) -> list[Tensor]:
    if isinstance(phi, Tensor):
        return [phi]
    inner = phi.values() if isinstance(phi, dict) else phi
    return [tensor for part in inner for tensor in _tensors(part)]


def _joined(phis: Sequence[Any]) -> Any:
    """``phi`` of several tasks from that of each."""
    first = phis[0]
    if len(phis) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(phis))
    if isinstance(first, dict):
        return {key: _joined([phi[key] for phi in phis]) for key in first}
    return type(first)(_joined(each) for each in zip(*phis, strict=True))
