"""Nearest neighbour: the baseline every meta-learner has to beat."""

import torch
from torch import Tensor, nn

from quickstudy.functional import embed, squared_distances
from quickstudy.learner import MetaLearner, Phi
from quickstudy.task import check_support

__all__ = ["NearestNeighbour"]


class NearestNeighbour(MetaLearner):
    """The class of the closest support example, by Euclidean distance.

    The logit of a class is minus the squared distance to its nearest example, so their order is
    the nearest-neighbour rule::

        logits[q, n] = -min_{s: y_s = n} ||e(x_q) - e(x_s)||^2

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``. Default: the pixels themselves, and then
            there is nothing to train.

    ``phi``: ``{"support": [T,S,D], "labels": [T,S], "classes": [T,N]}``.

    Example:
        >>> import torch
        >>> learner = NearestNeighbour()
        >>> x, y = torch.tensor([[[0.0], [1.0]]]), torch.tensor([[0, 1]])
        >>> phi = learner.adapt(x, y, n_way=2)
        >>> learner.predict(phi, torch.tensor([[[0.25]]])).argmax(-1)
        tensor([[0]])
    """

    def __init__(self, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.encoder = nn.Flatten() if encoder is None else encoder

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_way(n_way)
        check_support(support_x, support_y, n_way)
        classes = torch.arange(n_way or 0, device=support_y.device)
        return {
            "support": embed(self.encoder, support_x),
            "labels": support_y,
            "classes": classes.expand(len(support_y), -1),
        }

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        distances = squared_distances(embed(self.encoder, query_x), phi["support"])
        T, Q, _ = distances.shape
        labels = phi["labels"].unsqueeze(1).expand_as(distances)
        nearest = distances.new_full((T, Q, phi["classes"].shape[1]), torch.inf)
        return -nearest.scatter_reduce(2, labels, distances, "amin")
