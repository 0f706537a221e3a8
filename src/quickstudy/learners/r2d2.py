"""R2-D2: ridge regression as the last layer, solved anew for every task."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import features_and_one
from quickstudy.learner import MetaLearner, Phi

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

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``.
        penalty: where ``lambda`` starts.
        scale: where ``a`` starts.
        learn_penalty: learn ``lambda``, as the paper says; the authors' commands leave it at 50.
        per_example: ``lambda`` times the size of the support, which is what the authors' code
            solves: it divides ``X`` and ``Y`` by the square root of that size.

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
    ) -> None:
        super().__init__()
        if not (0 < penalty < math.inf and 0 < scale < math.inf):
            raise ValueError(
                f"penalty is {penalty} and scale {scale}; both must be positive numbers"
            )
        self.encoder = encoder
        self.log_penalty = nn.Parameter(torch.tensor(penalty).log(), requires_grad=learn_penalty)
        self.per_example = per_example
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        X = features_and_one(self.encoder, support_x)
        Y = (support_y if n_way is None else F.one_hot(support_y, n_way)).to(X.dtype)
        gram = X @ X.mT
        S = gram.shape[1]
        penalty = self.log_penalty.exp().to(X.dtype) * (S if self.per_example else 1)
        ridge = penalty * torch.eye(S, dtype=X.dtype, device=X.device)
        weight = X.mT @ torch.linalg.solve(gram + ridge, Y)
        return {"weight": (self.log_scale.exp() * weight).to(support_x.dtype)}

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        weight: Tensor = phi["weight"]
        X = features_and_one(self.encoder, query_x)
        return (X @ weight.to(X.dtype)).to(weight.dtype)
