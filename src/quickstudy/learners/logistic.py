"""Logistic regression as the last layer, solved anew for every task."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import features_and_one
from quickstudy.learner import MetaLearner, Phi

__all__ = ["Logistic"]

_SOLVER_STEPS = 100


class Logistic(MetaLearner):
    """Multinomial logistic regression, the head of Tian et al. 2020 (arXiv:2003.11539)::

        X = [e(x_s), 1]
        W = argmin  sum over s of -log softmax(X W)[y_s]  +  penalty / 2 * ||W||^2
        logits = [e(x), 1] W

    scikit-learn's ``C`` is ``1 / penalty``. The Hessian of the sum is at most ``X^T X / 2`` for
    each class (Böhning 1992, Ann. Inst. Statist. Math. 44:197-200), so with ``W = X^T A`` each step
    is a ridge regression on what is not explained yet. It never overshoots, and its matrix, of the
    size of the support, stays the same::

        A <- A + (X X^T / 2 + penalty I)^-1 (Y - softmax(X X^T A) - penalty A)

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``, of vectors about as long as 1: far longer
            ones are not at the minimum after the 100 steps that are taken.
        penalty: positive.

    ``phi``: ``{"weight": [T,D+1,N]}``.

    Example:
        >>> learner = Logistic(nn.Flatten())
    """

    def __init__(self, encoder: nn.Module, *, penalty: float = 1.0) -> None:
        super().__init__()
        if not penalty > 0:
            raise ValueError(f"penalty is {penalty}; expected a positive number")
        self.encoder = encoder
        self.penalty = penalty

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        X = features_and_one(self.encoder, support_x)
        Y = F.one_hot(support_y, n_way or 0).to(X.dtype)
        gram = X @ X.mT
        identity = torch.eye(gram.shape[1], dtype=X.dtype, device=X.device)
        step = torch.linalg.inv(gram / 2 + self.penalty * identity)
        A = torch.zeros_like(Y)
        for _ in range(_SOLVER_STEPS):
            A = A + step @ (Y - (gram @ A).softmax(-1) - self.penalty * A)
        return {"weight": (X.mT @ A).to(support_x.dtype)}

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        weight: Tensor = phi["weight"]
        X = features_and_one(self.encoder, query_x)
        return (X @ weight.to(X.dtype)).to(weight.dtype)
