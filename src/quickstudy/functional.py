"""The pure mathematics that learners share. Shapes follow the legend in `quickstudy.task`."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy._moved import names_from

__all__ = [
    "balanced",
    "class_means",
    "class_sizes",
    "class_weights",
    "example_loss",
    "linear_logits",
    "size_offsets",
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

_MOST_TURNS, _EVEN = 1000, 1e-3
_HARDLY = 1e4  # of a probability of 0 the logarithm is none


def class_sizes(y: Tensor, n_way: int) -> Tensor:
    """How many examples each class has: ``[T,S] -> [T,N]``."""
    return F.one_hot(y, n_way).sum(1)


def class_weights(y: Tensor, n_way: int | None) -> Tensor | None:
    """Weights of support examples under which all classes count alike: ``[T,S] -> [T,S]``.

    ``S / (N * size of the class)``: their mean is 1, and so is each where classes are of one size.
    ``None`` in regression.
    """
    return None if n_way is None else y.shape[1] / (n_way * class_sizes(y, n_way).gather(1, y))


def class_means(z: Tensor, y: Tensor, n_way: int) -> Tensor:
    """Mean embedding of each class: ``[T,S,D], [T,S] -> [T,N,D]`` (Snell et al. 2017, eq. 1)."""
    member = F.one_hot(y, n_way).to(z.dtype)
    return member.mT @ z / member.sum(1).unsqueeze(-1)


def size_offsets(z: Tensor, y: Tensor, n_way: int) -> Tensor:
    """What distances to class means owe to the sizes of classes: ``[T,S,D], [T,S] -> [T,N]``.

    The mean of ``n`` examples lies ``s^2 / n`` further, in squared distance, from a new example
    than the class's true mean does, ``s^2`` being the variance within classes, summed over
    features and estimated from all classes of two or more. Here that is, less its mean over
    classes: 0 where they are of one size.
    """
    sizes = class_sizes(y, n_way).to(z.dtype)
    own = class_means(z, y, n_way).gather(1, y.unsqueeze(-1).expand_as(z))
    spread = (z - own).square().sum((1, 2)) / (sizes - 1).sum(1).clamp_min(1)
    share = 1 / sizes
    return spread.unsqueeze(1) * (share - share.mean(1, keepdim=True))


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distance of each pair: ``[T,A,D], [T,B,D] -> [T,A,B]``."""
    squares = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * a @ b.mT).clamp_min(0)


def balanced(logits: Tensor) -> Tensor:
    """Class logits where all classes are known to be equally many among the queries of a task.

    ``[T,Q,N] -> [T,Q,N]``. By turns the probabilities of each class are scaled to sum to ``Q/N``
    and those of each query to 1 (Sinkhorn & Knopp 1967), as Hu et al. 2021 (arXiv:2006.03806) do in
    few-shot learning; until each class has its share within 0.1%, or 1000 times, which certainties
    beyond what probabilities can say (a nearest neighbour's) may need. Every answer then depends on
    all queries.
    """
    if not logits.numel():
        return logits
    scaled = logits.double().log_softmax(-1).clamp_min(-_HARDLY)
    each = math.log(logits.shape[1] / logits.shape[2])
    for _ in range(_MOST_TURNS):
        surplus = scaled.logsumexp(1, keepdim=True) - each
        if surplus.device.type != "meta" and surplus.abs().max() < _EVEN:
            break
        scaled = (scaled - surplus).log_softmax(-1)
    return scaled.to(logits.dtype)


def vote(score: Tensor, labels: Tensor, n_way: int) -> Tensor:
    """Log-probability of each class when examples vote in proportion to ``exp(score)``.

    ``[T,Q,S], [T,S] -> [T,Q,N]``: ``log_softmax_n(log mean_{s: y_s = n} exp(score))``. With classes
    of one size that is ``log sum_{s: y_s = n} softmax_s(score)``; a mean, so that a class with more
    examples has no more votes.
    """
    member = F.one_hot(labels, n_way).mT.unsqueeze(1).bool()
    votes = score.unsqueeze(2).where(member, -torch.inf).logsumexp(-1)
    sizes = class_sizes(labels, n_way).to(score.dtype)
    return (votes - sizes.log().unsqueeze(1)).log_softmax(-1)


def example_loss(prediction: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean loss over examples: cross-entropy for integer labels, squared error for floats.

    Shapes: logits ``[...,N]`` with ``y [...]``, or ``[...,d]`` with ``y [...,d]``.
    The sum over the ``d`` outputs is a mean too, so a learning rate keeps its meaning.

    Args:
        prediction: of each example.
        y: labels or targets.
        weight: ``[...]``, what each example's cross-entropy is multiplied by.
    """
    if y.is_floating_point():
        return F.mse_loss(prediction, y)
    logits, labels = prediction.flatten(0, -2), y.flatten()
    if weight is None:
        return F.cross_entropy(logits, labels)
    losses = F.cross_entropy(logits, labels, reduction="none")
    return (losses * weight.flatten().to(losses.dtype)).mean()


def linear_logits(phi: dict[str, Any], z: Tensor) -> Tensor:
    """Each task's linear layer, ``weight [T,N,D]`` and ``bias [T,N]``, on ``z [T,n,D]``."""
    logits: Tensor = z @ phi["weight"].mT + phi["bias"].unsqueeze(1)
    return logits
