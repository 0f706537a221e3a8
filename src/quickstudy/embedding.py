"""What learners ask of an encoder or network: vectors of every task's examples, and sizes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.nn.norm import BatchNorm, batch_norm_policy
from quickstudy.task import Task

__all__ = [
    "NormedEncoder",
    "check_tensor",
    "check_vectors",
    "embed",
    "embed_jointly",
    "feature_size",
    "features_and_one",
    "output_size",
    "pretraining_loss",
    "with_one",
]


def embed(encoder: nn.Module, x: Tensor) -> Tensor:
    """Encode the examples of every task: ``[T,n,...] -> [T,n,D]``.

    All tasks go through in one batch, except where batch norm is transductive: its statistics are
    a task's own, in training as at a test, so tasks then go one by one. (Running averages then
    move with each of them, and hold the last few.)

    Raises:
        ValueError: the encoder's output is not one vector per example.
    """
    T, n = x.shape[:2]
    if batch_norm_policy(encoder) == "transductive":
        z = torch.cat([check_tensor(encoder(task), "encoder") for task in x])
    else:
        z = encoder(x.flatten(0, 1))
    return check_vectors(z, x.flatten(0, 1)).reshape(T, n, -1)


def embed_jointly(encoder: nn.Module, task: Task) -> tuple[Tensor, Tensor]:
    """Support and query of every task as one batch, for batch norm in training: ``[T,S,D]`` and
    ``[T,Q,D]``.
    """
    z = embed(encoder, torch.cat([task.support_x, task.query_x], dim=1))
    S = task.support_x.shape[1]
    return z[:, :S], z[:, S:]


def check_tensor(output: object, giver: str) -> Tensor:
    """What an encoder or a network (``giver``) returned, unchanged.

    Raises:
        ValueError: it is no tensor but, as of many networks from elsewhere, a tuple or the like.
    """
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the {giver} returned a {type(output).__name__}; expected one tensor, [n,...] of n "
            "examples (wrap it in a module whose forward picks that out)"
        )
    return output


def check_vectors(z: Tensor, x: Tensor) -> Tensor:
    """Embeddings ``z [n,D]`` of examples ``x [n,...]``, unchanged.

    Raises:
        ValueError: ``z`` is not one vector per example.
    """
    if check_tensor(z, "encoder").dim() != 2:
        raise ValueError(
            f"the encoder maps {list(x.shape[1:])} to {list(z.shape[1:])}; a learner needs one "
            "vector an example (add nn.Flatten())"
        )
    return z


class NormedEncoder(nn.Sequential):
    """An encoder, and batch norm of its embeddings by the encoder's policy.

    Args:
        encoder: ``[n,...] -> [n,D]``, with ``out_features``.
    """

    def __init__(self, encoder: nn.Module) -> None:
        policy = batch_norm_policy(encoder) or "inductive"
        super().__init__(encoder, BatchNorm(feature_size(encoder), policy=policy))

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self[0](x)
        return self[1](check_vectors(z, x))  # type: ignore[no-any-return]


def features_and_one(encoder: nn.Module, x: Tensor) -> Tensor:
    """``[e(x), 1]``, ``[T,n,D+1]``: `with_one` of the embeddings."""
    return with_one(embed(encoder, x))


def with_one(z: Tensor) -> Tensor:
    """``[z, 1]``, ``[T,n,D+1]``, in single precision at least: linear solvers accept no less."""
    z = z if z.dtype == torch.float64 else z.float()
    return F.pad(z, (0, 1), value=1.0)


def pretraining_loss(
    encoder: Callable[[Tensor], Tensor], classifier: nn.Module, task: Task
) -> Tensor:
    """Cross-entropy over all training classes, of support and query examples alike.

    Args:
        encoder: ``[n,...] -> [n,D]``.
        classifier: ``[n,D] -> [n,C]``, an output for each class of the training set.
        task: with ``classes``.

    Raises:
        ValueError: the task does not say which class each label stands for.
    """
    if task.n_way is None:
        raise ValueError("pretraining classifies; it cannot learn a regression task (n_way=None)")
    if task.classes is None:
        raise ValueError(
            "pretraining on all classes needs tasks with `classes`, the class of the data set "
            "that each label stands for; EpisodeSampler gives them"
        )
    x = torch.cat([task.support_x, task.query_x], dim=1).flatten(0, 1)
    y = task.classes.gather(1, torch.cat([task.support_y, task.query_y], dim=1))
    return F.cross_entropy(classifier(check_vectors(encoder(x), x)), y.flatten())


def feature_size(encoder: nn.Module) -> int:
    """The encoder's ``out_features``, for learners that must know it beforehand.

    Networks of timm call it ``num_features``.

    Raises:
        ValueError: it has no such integer attribute.
    """
    size = getattr(encoder, "out_features", getattr(encoder, "num_features", None))
    if not isinstance(size, int):
        raise ValueError(
            f"{type(encoder).__name__} has no integer attribute out_features: this learner needs "
            "the size of the encoder's output vector"
        )
    return size


def output_size(network: nn.Module) -> int | None:
    """``out_features`` of a network or of its last layer; ``None`` if neither says."""
    *_, last = network.modules()
    size = getattr(network, "out_features", getattr(last, "out_features", None))
    return size if isinstance(size, int) else None
