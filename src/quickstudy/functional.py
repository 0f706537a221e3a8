"""The pure mathematics that learners share. Shapes follow the legend in `quickstudy.task`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nn.norm import batch_norm_policy

__all__ = ["class_means", "embed", "example_loss", "squared_distances"]


def embed(encoder: nn.Module, x: Tensor) -> Tensor:
    """Encode the examples of every task: ``[T,n,...] -> [T,n,D]``.

    All tasks go through in one batch, except where evaluation is transductive: batch statistics
    are a task's own, so tasks then go one by one.

    Raises:
        ValueError: the encoder's output is not one vector an example.
    """
    T, n = x.shape[:2]
    if not encoder.training and batch_norm_policy(encoder) == "transductive":
        z = torch.cat([encoder(task) for task in x])
    else:
        z = encoder(x.flatten(0, 1))
    if z.dim() != 2:
        raise ValueError(
            f"the encoder maps {list(x.shape[2:])} to {list(z.shape[1:])}; a learner needs one "
            "vector an example (add nn.Flatten())"
        )
    return z.reshape(T, n, -1)


def class_means(z: Tensor, y: Tensor, n_way: int) -> Tensor:
    """Mean embedding of each class: ``[T,S,D], [T,S] -> [T,N,D]`` (Snell et al. 2017, eq. 1)."""
    member = F.one_hot(y, n_way).to(z.dtype)
    return member.mT @ z / member.sum(1).unsqueeze(-1)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distance of each pair: ``[T,A,D], [T,B,D] -> [T,A,B]``."""
    squares = a.square().sum(-1).unsqueeze(-1) + b.square().sum(-1).unsqueeze(-2)
    return (squares - 2 * a @ b.mT).clamp_min(0)


def example_loss(prediction: Tensor, y: Tensor) -> Tensor:
    """Mean loss over examples: cross-entropy for integer labels, squared error for floats.

    Shapes: logits ``[...,N]`` with ``y [...]``, or ``[...,d]`` with ``y [...,d]``.
    The sum over the ``d`` outputs is a mean too, so a learning rate keeps its meaning.
    """
    if y.is_floating_point():
        return F.mse_loss(prediction, y)
    return F.cross_entropy(prediction.flatten(0, -2), y.flatten())
