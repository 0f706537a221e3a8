"""Prototypical networks: a class is the mean of its examples in a learned space."""

from torch import Tensor, nn

from quickstudy.embedding import embed
from quickstudy.functional import class_means, size_offsets, squared_distances
from quickstudy.learner import MetaLearner, Phi

__all__ = ["ProtoNet"]


class ProtoNet(MetaLearner):
    """Prototypical network (Snell, Swersky & Zemel 2017, arXiv:1703.05175)::

        c_n          = mean of e(x_s) over the support examples of class n        (eq. 1)
        p(y = n | x) = softmax_n( -||e(x) - c_n||^2 )                             (eq. 2)

    Any number of ways and shots, in training and at test; a larger way in training helps. Where
    classes are of unequal size, what a distance owes to that is taken off
    (`quickstudy.functional.size_offsets`); else the class of ten examples would be nearer to
    everything than the class of one, whose mean is noisier.

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``; its training is the only meta-learning.

    ``phi``: ``{"prototypes": [T,N,D], "offset": [T,N]}``.

    Differs from the paper: support and query pass through batch norm as two batches in training,
    where the authors' code joins them. At evaluation running averages are used, as there.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = ProtoNet(Conv4())
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        z = embed(self.encoder, support_x)
        return {
            "prototypes": class_means(z, support_y, n_way or 0),
            "offset": size_offsets(z, support_y, n_way or 0),
        }

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        distances = squared_distances(embed(self.encoder, query_x), phi["prototypes"])
        offset: Tensor = phi["offset"]
        return offset.unsqueeze(1) - distances
