"""Logistic regression as the last layer, solved anew for every task."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import features_and_one
from quickstudy.functional import class_sizes, size_offsets
from quickstudy.learner import MetaLearner, Phi

__all__ = ["Logistic"]

_SOLVER_STEPS = 100


class Logistic(MetaLearner):
    """Multinomial logistic regression, the head of Tian et al. 2020 (arXiv:2003.11539)::

        X = [e(x_s), 1],  M = mean of X of each class
        W = argmin  sum over s of -v_s log softmax(X W)[y_s]  +  penalty / 2 * ||W - prior M||^2
        logits = [e(x), 1] W  +  debias * o

    With a ``prior`` an example that resembles none of the classes gets low logits everywhere, so
    that the largest says how familiar it is.

    Classes of any sizes count alike. ``v_s`` is ``1 / (size of its class)``, times the harmonic
    mean of all sizes. That is not enough: a class of one example is fitted to that very example,
    noise and all, and a new one finds it less like the class than it finds large classes. ``o``
    makes up for that (`quickstudy.functional.size_offsets`); where classes are of one size,
    ``v_s`` is 1 and ``o`` is 0.

    scikit-learn's ``C`` is ``1 / penalty``. The Hessian of the sum is at most ``X^T V X / 2`` for
    each class (Böhning 1992, Ann. Inst. Statist. Math. 44:197-200), so with ``W = X^T A`` each step
    is a ridge regression on what is not explained yet. It never overshoots, and its matrix, of the
    size of the support, stays the same::

        A <- A + (V X X^T / 2 + penalty I)^-1 (V (Y - softmax(X X^T A)) - penalty (A - A_0))

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``, of vectors about as long as 1: far longer
            ones are not at the minimum after the 100 steps that are taken.
        penalty: positive.
        prior: what the weights are drawn to, in means of the class; 0 as in the paper.
        debias: how much of ``o``; 0 leaves the large classes ahead.

    ``phi``: ``{"weight": [T,D+1,N]}``.

    Example:
        >>> learner = Logistic(nn.Flatten())
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        penalty: float = 1.0,
        prior: float = 0.0,
        debias: float = 0.0,
    ) -> None:
        super().__init__()
        if not penalty > 0:
            raise ValueError(f"penalty is {penalty}; expected a positive number")
        if prior < 0 or debias < 0:
            raise ValueError(f"prior is {prior} and debias {debias}; expected neither below 0")
        self.encoder = encoder
        self.penalty, self.prior, self.debias = penalty, prior, debias

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        X = features_and_one(self.encoder, support_x)
        Y = F.one_hot(support_y, n_way or 0).to(X.dtype)
        gram = X @ X.mT
        sizes = class_sizes(support_y, n_way or 0).to(X.dtype)
        own = sizes.gather(1, support_y) * (1 / sizes).mean(1, keepdim=True)
        V = (1 / own).unsqueeze(-1)
        identity = torch.eye(gram.shape[1], dtype=X.dtype, device=X.device)
        step = torch.linalg.inv(V * gram / 2 + self.penalty * identity)
        A = first = self.prior * Y / sizes.unsqueeze(1)
        for _ in range(_SOLVER_STEPS):
            A = A + step @ (V * (Y - (gram @ A).softmax(-1)) - self.penalty * (A - first))
        offset = self.debias * size_offsets(X, support_y, n_way or 0)
        weight = X.mT @ A + F.pad(offset.unsqueeze(1), (0, 0, X.shape[-1] - 1, 0))
        return {"weight": weight.to(support_x.dtype)}

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        weight: Tensor = phi["weight"]
        X = features_and_one(self.encoder, query_x)
        return (X @ weight.to(X.dtype)).to(weight.dtype)
