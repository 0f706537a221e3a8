"""Prototypical networks: a class is the mean of its examples in a learned space."""

from torch import Tensor, nn

from quickstudy.embedding import embed, embed_jointly
from quickstudy.functional import (
    balanced,
    class_means,
    class_sizes,
    size_offsets,
    squared_distances,
)
from quickstudy.learner import MetaLearner, Phi
from quickstudy.task import Task

__all__ = ["ProtoNet"]


class ProtoNet(MetaLearner):
    """Prototypical network (Snell, Swersky & Zemel 2017, arXiv:1703.05175)::

        c_n          = mean of e(x_s) over the support examples of class n        (eq. 1)
        p(y = n | x) = softmax_n( -||e(x) - c_n||^2 )                             (eq. 2)

    With ``refine``, queries of which nobody says the class move the means, as often as that says:
    soft k-means, which Ren et al. 2018 (arXiv:1803.00676, eq. 3 and 4) do with other examples
    without a label, here with the queries themselves::

        c_n = (sum of e(x_s) + sum_q p(n | x_q) e(x_q)) / (number of them + sum_q p(n | x_q))

    An answer then depends on the other queries of its task. It is right more often where the
    classes are about alike among the queries, and less often where some are absent. A balanced
    evaluation (`quickstudy.evaluation.evaluate`) sets ``balanced``: p is then balanced each time.

    Any number of ways and shots, in training and at test; a larger way in training helps. Where
    classes are of unequal size, what a distance owes to that is taken off
    (`quickstudy.functional.size_offsets`); else the class of ten examples would be nearer to
    everything than the class of one, whose mean is noisier. (Means that queries have moved are
    taken as they are.)

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``; its training is the only meta-learning.
        joint_norm: in training, support and query pass through batch norm as one batch, as in the
            authors' code; else as two, so that in training, too, the support is read alone. A test
            that is transductive normalises them apart either way.
        refine: how often the means are moved by the queries; 0 for none.

    ``phi``: ``{"prototypes": [T,N,D], "offset": [T,N], "sizes": [T,N]}``. At evaluation running
    averages are used, as in the authors' code.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = ProtoNet(Conv4())
    """

    def __init__(self, encoder: nn.Module, *, joint_norm: bool = False, refine: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.joint_norm, self.refine = joint_norm, refine
        self.balanced = False

    @property
    def refine(self) -> int:
        return self._refine

    @refine.setter
    def refine(self, steps: int) -> None:
        if type(steps) is not int or steps < 0:
            raise ValueError(f"refine is {steps!r}; expected a whole number, at least 0")
        self._refine = steps

    @property
    def transductive(self) -> bool:
        return self.refine > 0 or super().transductive

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        return _prototypes(embed(self.encoder, support_x), support_y, n_way or 0)

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return self._answers(phi, embed(self.encoder, query_x))

    def forward(self, task: Task) -> Tensor:
        if not (self.training and self.joint_norm):
            return super().forward(task)
        self.check_task(task.support_x, task.support_y, task.n_way)
        support, query = embed_jointly(self.encoder, task)
        return self._answers(_prototypes(support, task.support_y, task.n_way or 0), query)

    def _answers(self, phi: Phi, z: Tensor) -> Tensor:
        offset: Tensor = phi["offset"]
        logits = offset.unsqueeze(1) - squared_distances(z, phi["prototypes"])
        for _ in range(self.refine):
            sure = balanced(logits) if self.balanced else logits
            logits = -squared_distances(z, _moved(phi, z, sure.softmax(-1)))
        return logits


def _prototypes(z: Tensor, y: Tensor, n_way: int) -> Phi:
    return {
        "prototypes": class_means(z, y, n_way),
        "offset": size_offsets(z, y, n_way),
        "sizes": class_sizes(y, n_way).to(z.dtype),
    }


def _moved(phi: Phi, z: Tensor, member: Tensor) -> Tensor:
    """The means with examples ``z [T,Q,D]`` that belong to each class by so much, ``[T,Q,N]``."""
    sizes: Tensor = phi["sizes"]
    sums = sizes.unsqueeze(-1) * phi["prototypes"] + member.mT @ z
    moved: Tensor = sums / (sizes + member.sum(1)).unsqueeze(-1)
    return moved
