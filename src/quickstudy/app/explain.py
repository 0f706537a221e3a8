"""How a learner came to its answer, in numbers that a page can draw."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy._moved import refused_from
from quickstudy.embedding import embed
from quickstudy.functional import class_sizes, squared_distances
from quickstudy.inner import trajectory
from quickstudy.learner import MetaLearner, Phi, class_labels
from quickstudy.learners import MAML, BlackBoxLSTM, MatchingNetwork, NearestNeighbour, ProtoNet

__all__ = ["Lesson", "lesson"]

_LESSON = "quickstudy.app.explain.lesson"
__getattr__ = refused_from(__name__, {"loss_curve": _LESSON, "reasons": _LESSON})

_STEPS = 10
_FOR_STEPS = 60  # examples; with more, so many gradient steps take too long
_READINGS = 24


class Lesson:
    """What there is to show of a learner that has learned a task; of most, nothing.

    Attributes:
        shown: of the learning itself, whatever is asked afterwards.
    """

    def __init__(self) -> None:
        self.shown: dict[str, Any] = {}

    def answers(self, x: Tensor) -> list[dict[str, Any]]:
        """What the answer to each query ``[1,Q,...]`` rests on."""
        return [{} for _ in range(x.shape[1])]


def lesson(
    learner: MetaLearner, phi: Phi, support_x: Tensor, support_y: Tensor, n_way: int
) -> Lesson:
    """What a learner's kind lets one see of it.

    ================== =================================== =======================================
    learner            ``shown``                           of each answer
    ================== =================================== =======================================
    `ProtoNet`         ``map``: examples and class means   ``at``, its place there; ``distances``
                       in a plane                          to the means; ``looked_at``
    `MatchingNetwork`                                      ``attention``, to each example;
                                                           ``looked_at``
    `MAML`             ``curve``: ``loss`` and
                       ``accuracy`` after 0, 1, ... steps
    `BlackBoxLSTM`                                         ``growth``: ``probabilities`` after
                                                           reading ``examples``
    `NearestNeighbour`                                     ``looked_at``
    ================== =================================== =======================================

    ``looked_at`` is the index of the example that mattered most. The map tells how far examples
    are from the mean of the others of their class, ``typical``, where a class has others; how far
    each mean is from the next, ``apart``; and how much of the examples' variance it keeps.

    Args:
        learner: in evaluation mode.
        phi: what it has made of the support.
        support_x: ``[1,S,...]``.
        support_y: ``[1,S]``.
        n_way: classes.
    """
    if isinstance(learner, MatchingNetwork) and not learner.reading_steps:
        return _Attention(learner, phi)
    if isinstance(learner, ProtoNet):
        return _Means(learner, phi, support_x, support_y)
    if isinstance(learner, NearestNeighbour):
        return _Nearest(learner, phi)
    if isinstance(learner, MAML):
        return _Steps(learner, support_x, support_y, n_way)
    if isinstance(learner, BlackBoxLSTM) and learner.queries == "alone":
        return _Growth(learner, support_x, support_y, n_way)
    return Lesson()


class _Attention(Lesson):
    """As the answer counts it: each class's shares add up to its probability."""

    def __init__(self, learner: MatchingNetwork, phi: Phi) -> None:
        super().__init__()
        self.learner = learner
        self.support = F.normalize(phi["support"], dim=-1)
        sizes = class_sizes(phi["labels"], phi["classes"].shape[1])
        self.bias = -sizes.gather(1, phi["labels"]).to(self.support.dtype).log().unsqueeze(1)

    def answers(self, x: Tensor) -> list[dict[str, Any]]:
        z = F.normalize(embed(self.learner.query_encoder or self.learner.encoder, x), dim=-1)
        attention = (self.learner.scale * z @ self.support.mT + self.bias).softmax(-1)[0]
        return [{"attention": _rounded(row), "looked_at": int(row.argmax())} for row in attention]


class _Means(Lesson):
    """The embedding, seen along the two directions in which the examples differ most."""

    def __init__(self, learner: ProtoNet, phi: Phi, support_x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.learner, self.means = learner, phi["prototypes"]
        self.support = embed(learner.encoder, support_x)
        self.centre = self.support.mean(1)
        spread = (self.support - self.centre)[0]
        _, sizes, directions = torch.linalg.svd(spread, full_matrices=False)
        signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
        self.axes = F.pad(directions * signs, (0, 0, 0, 1))[:2]
        whole = sizes.square().sum()
        kept = sizes[:2].square().sum() / whole if whole > 0 else torch.ones(())
        between = squared_distances(self.means, self.means)[0].sqrt()
        self.shown = {
            "map": {
                "examples": self._places(self.support),
                "means": self._places(self.means),
                "kept": round(float(kept), 4),
                "typical": self._typical(y[0]),
                "apart": _rounded(between.fill_diagonal_(torch.inf).amin(-1)),
            }
        }

    def _typical(self, y: Tensor) -> float | None:
        n = y.bincount()[y]
        own = (self.support - self.means[:, y])[0].norm(dim=-1)
        to_others = (own * n / (n - 1))[n > 1]  # the mean without it is so much further away
        return round(float(to_others.mean()), 4) if len(to_others) else None

    def _places(self, z: Tensor) -> list[list[float]]:
        return [_rounded(row) for row in (z - self.centre)[0] @ self.axes.mT]

    def answers(self, x: Tensor) -> list[dict[str, Any]]:
        z = embed(self.learner.encoder, x)
        distances = squared_distances(z, self.means)[0].sqrt()
        nearest = squared_distances(z, self.support)[0].argmin(-1)
        return [
            {"distances": _rounded(row), "at": at, "looked_at": int(i)}
            for row, at, i in zip(distances, self._places(z), nearest, strict=True)
        ]


class _Nearest(Lesson):
    def __init__(self, learner: NearestNeighbour, phi: Phi) -> None:
        super().__init__()
        self.learner, self.support = learner, phi["support"]

    def answers(self, x: Tensor) -> list[dict[str, Any]]:
        nearest = squared_distances(embed(self.learner.encoder, x), self.support)[0].argmin(-1)
        return [{"looked_at": int(at)} for at in nearest]


class _Steps(Lesson):
    """Ten gradient steps, though the answers come after fewer: where would more lead?"""

    def __init__(self, learner: MAML, x: Tensor, y: Tensor, n_way: int) -> None:
        super().__init__()
        steps = max(_STEPS if x.shape[1] <= _FOR_STEPS else 0, learner.inner_steps)
        loss = learner.support_loss(x, y, n_way)
        path = trajectory(learner.inner_step, loss, learner.start(1), steps=steps)
        labels = class_labels(y, n_way)
        right = []
        for step, phi in enumerate(path):
            network = learner.network_state(phi, x, step)
            answer = learner.predict({"network": network, **labels}, x).argmax(-1)
            right.append((answer == y).float().mean())
        self.shown = {
            "curve": {
                "loss": [round(float(loss(phi, step)), 4) for step, phi in enumerate(path)],
                "accuracy": _rounded(torch.stack(right)),
                "taken": learner.inner_steps,
            }
        }


class _Growth(Lesson):
    """What the state answers after each example that is read; of many, after some."""

    def __init__(self, learner: BlackBoxLSTM, x: Tensor, y: Tensor, n_way: int) -> None:
        super().__init__()
        S = x.shape[1]
        self.learner, self.n_way = learner, n_way
        self.read = sorted({round(1 + i * (S - 1) / (_READINGS - 1)) for i in range(_READINGS)})
        z = embed(learner.encoder, x)
        steps = torch.cat([z, F.one_hot(y, learner.outputs).to(z.dtype)], dim=-1)
        states, state = [], None
        for s in range(S):
            _, state = learner.lstm(steps[:, s : s + 1], state)
            states.append(state)
        self.states = [
            torch.cat(part, 1) for part in zip(*(states[s - 1] for s in self.read), strict=True)
        ]

    def answers(self, x: Tensor) -> list[dict[str, Any]]:
        z = embed(self.learner.encoder, x)[0]
        R, Q = len(self.read), len(z)
        steps = F.pad(z, (0, self.learner.outputs)).unsqueeze(1).repeat(R, 1, 1)
        h, c = (part.repeat_interleave(Q, 1) for part in self.states)
        out, _ = self.learner.lstm(steps, (h, c))  # each query alone, after each of the readings
        each = self.learner.head(out[:, 0])[:, : self.n_way].softmax(-1).view(R, Q, -1)
        return [
            {"growth": {"examples": self.read, "probabilities": [_rounded(row) for row in rows]}}
            for rows in each.transpose(0, 1)
        ]


def _rounded(row: Tensor) -> list[float]:
    return [round(v, 4) for v in torch.as_tensor(row).tolist()]
