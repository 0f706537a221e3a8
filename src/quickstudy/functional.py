"""The pure mathematics that learners share. Shapes follow the legend in `quickstudy.task`."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy._moved import names_from

__all__ = [
    "class_means",
    "example_loss",
    "linear_logits",
    "squared_distances",
    "vote",
]

__getattr__ = names_from(
    __name__,
    {
        "class_labels": "quickstudy.learner",
        "mean_over_processes": "quickstudy.processes",
        "ways": "quickstudy.learner",
        **dict.fromkeys(
            (
                "NormedEncoder",
                "check_vectors",
                "embed",
                "feature_size",
                "features_and_one",
                "output_size",
                "pretraining_loss",
            ),
            "quickstudy.embedding",
        ),
    },
)


def class_means(z: Tensor, y: Tensor, n_way: int) -> Tensor:
    """Mean embedding of each class: ``[T,S,D], [T,S] -> [T,N,D]`` (Snell et al. 2017, eq. 1)."""
    member = F.one_hot(y, n_way).to(z.dtype)
    return member.mT @ z / member.sum(1).unsqueeze(-1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distance of each pair: ``[T,A,D], [T,B,D] -> [T,A,B]``."""
    squares = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * a @ b.mT).clamp_min(0)


def vote(score: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Log-probability of each class when examples vote in proportion to ``exp(score)``.

    ``[T,Q,S], [T,S] -> [T,Q,N]``: ``log sum_{s: y_s = n} softmax_s(score)``.
    """
    member = F.one_hot(labels, n_way).mT.unsqueeze(1).bool()
    return score.log_softmax(-1).unsqueeze(2).where(member, -torch.inf).logsumexp(-1)


def example_loss(prediction: Tensor, y: Tensor) -> Tensor:
    """Mean loss over examples: cross-entropy for integer labels, squared error for floats.

    Shapes: logits ``[...,N]`` with ``y [...]``, or ``[...,d]`` with ``y [...,d]``.
    The sum over the ``d`` outputs is a mean too, so a learning rate keeps its meaning.
    """
    if y.is_floating_point():
        return F.mse_loss(prediction, y)
    return F.cross_entropy(prediction.flatten(0, -2), y.flatten())


def linear_logits(phi: dict[str, Any], z: Tensor) -> Tensor:
    """Each task's linear layer, ``weight [T,N,D]`` and ``bias [T,N]``, on ``z [T,n,D]``."""
    logits: Tensor = z @ phi["weight"].mT + phi["bias"].unsqueeze(1)
    return logits
