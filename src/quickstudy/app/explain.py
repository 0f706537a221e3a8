"""How a learner came to its answer, in numbers that a page can draw."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.embedding import embed
from quickstudy.functional import squared_distances
from quickstudy.inner import trajectory
from quickstudy.learner import MetaLearner, Phi
from quickstudy.learners import MAML, MatchingNetwork, NearestNeighbour, ProtoNet

__all__ = ["loss_curve", "reasons"]


def reasons(learner: MetaLearner, phi: Phi, support_x: Tensor, x: Tensor) -> list[dict[str, Any]]:
    """For each query ``[1,Q,...]``: what the answer rests on.

    Returns:
        ``distances`` to the prototype of each class (ProtoNet), ``attention`` to each example
        (matching networks), and ``looked_at``, the index of the example that mattered most.
    """
    if isinstance(learner, MatchingNetwork):
        z = F.normalize(embed(learner.query_encoder or learner.encoder, x), dim=-1)
        attention = (learner.scale * z @ F.normalize(phi["support"], dim=-1).mT).softmax(-1)[0]
        return [{"attention": _rounded(row), "looked_at": int(row.argmax())} for row in attention]
    if isinstance(learner, ProtoNet):
        z = embed(learner.encoder, x)
        distances = squared_distances(z, phi["prototypes"])[0].sqrt()
        nearest = squared_distances(z, embed(learner.encoder, support_x))[0].argmin(-1)
        return [
            {"distances": _rounded(row), "looked_at": int(at)}
            for row, at in zip(distances, nearest, strict=True)
        ]
    if isinstance(learner, NearestNeighbour):
        nearest = squared_distances(embed(learner.encoder, x), phi["support"])[0].argmin(-1)
        return [{"looked_at": int(at)} for at in nearest]
    return [{} for _ in range(x.shape[1])]


def loss_curve(
    learner: MetaLearner, support_x: Tensor, support_y: Tensor, n_way: int
) -> list[float] | None:
    """Loss on the support after 0, 1, ... inner steps; ``None`` without an inner loop."""
    if not isinstance(learner, MAML):
        return None
    loss = learner.support_loss(support_x, support_y, n_way)
    start = learner.start(len(support_x))
    path = trajectory(learner.inner_step, loss, start, steps=learner.inner_steps)
    return [round(float(loss(phi, step)), 4) for step, phi in enumerate(path)]


def _rounded(row: Tensor) -> list[float]:
    return [round(v, 4) for v in torch.as_tensor(row).tolist()]
