"""R2-D2: ridge regression as the last layer, solved anew for every task."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import embed, embed_jointly, with_one
from quickstudy.functional import class_sizes, size_offsets
from quickstudy.learner import MetaLearner, Phi
from quickstudy.task import Task

__all__ = ["R2D2"]


class R2D2(MetaLearner):
    """Ridge regression differentiable discriminator (Bertinetto et al. 2019, arXiv:1805.08136).

    Between metric and gradient learners: the inner problem is solved exactly, in closed form, and
    the solution is differentiated through::

        X = [e(x_s), 1],  Y = onehot(y_s)
        W = argmin ||X W - Y||^2 + lambda ||W||^2 = X^T (X X^T + lambda I)^-1 Y    (eq. 4 and 5)
        logits = a * [e(x), 1] W                                                   (eq. 6)

    The matrix to solve has the size of the support, not of the features. ``lambda`` and ``a`` are
    learned with the encoder.

    Where classes are of unequal size, each counts alike: the square of an example is weighted by
    ``1 / (size of its class)``, times the harmonic mean of all sizes. That puts
    ``lambda / weight`` on the diagonal in place of ``lambda``. What that leaves to large classes,
    ``debias`` takes away: ``logits / a + debias * o``, with `quickstudy.functional.size_offsets`.

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``.
        penalty: where ``lambda`` starts.
        scale: where ``a`` starts.
        learn_penalty: learn ``lambda``, as the paper says; the authors' commands leave it at 50.
        debias: how much of ``o``, for unequal classes.
        per_example: ``lambda`` times the size of the support, which is what the authors' code
            solves: it divides ``X`` and ``Y`` by the square root of that size.
        joint_norm: in training, support and query pass through batch norm as one batch, as in the
            authors' code; else as two.

    ``phi``: ``{"weight": [T,D+1,N]}``; in regression the targets stand for the one-hot labels.

    Differs from the paper: eq. 6 also adds a learned number to all logits alike, which the
    softmax does not see; ``lambda`` and ``a`` are learned as logarithms, so that they stay
    positive.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = R2D2(Conv4())
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        penalty: float = 50.0,
        scale: float = 10.0,
        learn_penalty: bool = True,
        per_example: bool = False,
        debias: float = 0.0,
        joint_norm: bool = False,
    ) -> None:
        super().__init__()
        if not (0 < penalty < math.inf and 0 < scale < math.inf):
            raise ValueError(
                f"penalty is {penalty} and scale {scale}; both must be positive numbers"
            )
        if not debias >= 0:
            raise ValueError(f"debias is {debias}; expected at least 0")
        self.encoder = encoder
        self.debias = debias
        self.log_penalty = nn.Parameter(
            torch.tensor(math.log(penalty)), requires_grad=learn_penalty
        )
        self.per_example, self.joint_norm = per_example, joint_norm
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        z = embed(self.encoder, support_x)
        return {"weight": self._solve(z, support_y, n_way).to(support_x.dtype)}

    def _solve(self, z: Tensor, support_y: Tensor, n_way: int | None) -> Tensor:
        """``a * W``, in the precision of the solver."""
        X = with_one(z)
        Y = (support_y if n_way is None else F.one_hot(support_y, n_way)).to(X.dtype)
        ridge = self.log_penalty.exp().to(X.dtype) * self._share(X, support_y, n_way)
        weight = X.mT @ torch.linalg.solve(X @ X.mT + ridge.diag_embed(), Y)
        if n_way is not None and self.debias:
            offset = self.debias * size_offsets(X, support_y, n_way)
            weight = weight + F.pad(offset.unsqueeze(1), (0, 0, X.shape[-1] - 1, 0))
        solved: Tensor = self.log_scale.exp() * weight
        return solved

    def _share(self, X: Tensor, support_y: Tensor, n_way: int | None) -> Tensor:
        """What ``lambda`` is multiplied by for each example ``[T,S]``."""
        T, S = support_y.shape[:2]
        if n_way is None:
            return X.new_full((T, S), S if self.per_example else 1)
        sizes = class_sizes(support_y, n_way).to(X.dtype)
        mean = n_way if self.per_example else (1 / sizes).mean(1, keepdim=True)
        return sizes.gather(1, support_y) * mean

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return _answers(phi["weight"], embed(self.encoder, query_x))

    def forward(self, task: Task) -> Tensor:
        if not (self.training and self.joint_norm):
            return super().forward(task)
        self.check_task(task.support_x, task.support_y, task.n_way, regression=True)
        support, query = embed_jointly(self.encoder, task)
        return _answers(self._solve(support, task.support_y, task.n_way), query)


def _answers(weight: Tensor, z: Tensor) -> Tensor:
    X = with_one(z)
    return (X @ weight.to(X.dtype)).to(weight.dtype)
