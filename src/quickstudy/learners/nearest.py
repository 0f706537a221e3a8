"""Nearest neighbours: the baseline every meta-learner has to beat, and its soft, trained form."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import embed
from quickstudy.functional import squared_distances, vote
from quickstudy.learner import MetaLearner, Phi, class_labels
from quickstudy.task import Task

__all__ = ["NearestNeighbour", "SoftNearestNeighbour"]


class NearestNeighbour(MetaLearner):
    """The class of the closest support example, or of most of the ``k`` closest.

    By Euclidean distance (Cover & Hart 1967) or by the cosine, which is the Euclidean distance of
    vectors of length 1. For one neighbour the logit of a class is minus the
    squared distance to its nearest example, so their order is the rule, and an encoder can be
    trained by it. For more it is the class's number of votes (examples that are equally far share
    those that are left); ties go to the class with the closer example::

        k = 1:  logits[q, n] = -min_{s: y_s = n} ||e(x_q) - e(x_s)||^2
        k > 1:  logits[q, n] = votes_n - (classes with a closer example) / N

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``, for instance of a trained learner. Default:
            the pixels themselves, and then there is nothing to train.
        k: neighbours that vote; all of the support where it has fewer.
        metric: ``"euclidean"`` or ``"cosine"``. On pixels the cosine depends on which colour is 0.

    ``phi``: ``{"support": [T,S,D], "labels": [T,S], "classes": [T,N]}``.

    Example:
        >>> import torch
        >>> learner = NearestNeighbour()
        >>> x, y = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[0, 1]])
        >>> phi = learner.adapt(x, y, n_way=2)
        >>> learner.predict(phi, torch.tensor([[[0.25]]])).argmax(-1)
        tensor([[0]])
    """

    def __init__(
        self,
        encoder: nn.Module | None = None,
        *,
        k: int = 1,
        metric: Literal["euclidean", "cosine"] = "euclidean",
    ) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k is {k}; expected at least 1")
        if metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric is {metric!r}; expected 'euclidean' or 'cosine'")
        self.encoder = nn.Flatten() if encoder is None else encoder
        if metric == "cosine":
            self.encoder = nn.Sequential(self.encoder, _UnitLength())
        self.k = k
        self.class_balanced = k == 1

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        return _remember(self.encoder, support_x, support_y, n_way)

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        distances = squared_distances(embed(self.encoder, query_x), phi["support"])
        T, Q, S = distances.shape
        labels = phi["labels"].unsqueeze(1).expand_as(distances)
        N = int(phi["classes"].shape[1])
        closest = distances.new_full((T, Q, N), torch.inf)
        closest = closest.scatter_reduce(2, labels, distances, "amin")
        if self.k == 1:
            return -closest
        k = min(self.k, S)
        last = distances.kthvalue(k, keepdim=True).values
        closer, level = (distances < last).to(last), (distances == last).to(last)
        left = (k - closer.sum(-1, keepdim=True)) / level.sum(-1, keepdim=True)
        votes = distances.new_zeros(T, Q, N).scatter_add(2, labels, closer + left * level)
        before = (closest.unsqueeze(-1) > closest.unsqueeze(-2)).to(votes).sum(-1)
        return votes - before / N

    def loss(self, task: Task) -> Tensor:
        """The outer loss, a scalar, for one neighbour.

        Raises:
            ValueError: an encoder would be trained by the votes of ``k > 1``.
        """
        if self.k > 1 and any(p.requires_grad for p in self.parameters()):
            raise ValueError(
                f"the votes of k={self.k} neighbours have no gradient: train with k=1, or a "
                "SoftNearestNeighbour, and vote afterwards"
            )
        return super().loss(task)


class _UnitLength(nn.Module):
    """``x / ||x||``, row by row."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


class SoftNearestNeighbour(MetaLearner):
    """Every support example votes, the nearer the more: nearest neighbour, trained end to end.

    The classifier of neighbourhood components analysis (Goldberger et al. 2004, eq. 1 and 2),
    with the support in place of the training set::

        p(y = n | x) = sum of softmax_s( -||e(x) - e(x_s)||^2 ) over s with y_s = n

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``.

    ``phi``: ``{"support": [T,S,D], "labels": [T,S], "classes": [T,N]}``, as that of
    `NearestNeighbour`, which can use the trained encoder.

    Differs from the paper: ``e`` is any network, where the paper's is linear.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = SoftNearestNeighbour(Conv4())
        >>> hard = NearestNeighbour(learner.encoder, k=3)
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        return _remember(self.encoder, support_x, support_y, n_way)

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        distances = squared_distances(embed(self.encoder, query_x), phi["support"])
        return vote(-distances, phi["labels"], phi["classes"].shape[1])


def _remember(encoder: nn.Module, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
    phi = {"support": embed(encoder, support_x), "labels": support_y}
    return phi | class_labels(support_y, n_way)
