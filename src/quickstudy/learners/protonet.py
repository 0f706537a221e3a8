"""Prototypical networks: a class is the mean of its examples in a learned space."""

from torch import Tensor, nn

from quickstudy.embedding import embed, embed_jointly
from quickstudy.functional import class_means, size_offsets, squared_distances
from quickstudy.learner import MetaLearner, Phi
from quickstudy.task import Task

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
        joint_norm: in training, support and query pass through batch norm as one batch, as in the
            authors' code; else as two, so that in training, too, the support is read alone. A test
            that is transductive normalises them apart either way.

    ``phi``: ``{"prototypes": [T,N,D], "offset": [T,N]}``. At evaluation running averages are used,
    as in that code.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = ProtoNet(Conv4())
    """

    def __init__(self, encoder: nn.Module, *, joint_norm: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.joint_norm = joint_norm

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        return _prototypes(embed(self.encoder, support_x), support_y, n_way or 0)

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return _nearness(embed(self.encoder, query_x), phi)

    def forward(self, task: Task) -> Tensor:
        if not (self.training and self.joint_norm):
            return super().forward(task)
        self.check_task(task.support_x, task.support_y, task.n_way)
        support, query = embed_jointly(self.encoder, task)
        return _nearness(query, _prototypes(support, task.support_y, task.n_way or 0))


def _prototypes(z: Tensor, y: Tensor, n_way: int) -> Phi:
    return {"prototypes": class_means(z, y, n_way), "offset": size_offsets(z, y, n_way)}


def _nearness(z: Tensor, phi: Phi) -> Tensor:
    offset: Tensor = phi["offset"]
    return offset.unsqueeze(1) - squared_distances(z, phi["prototypes"])
