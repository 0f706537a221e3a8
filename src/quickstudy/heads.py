"""Heads: learners on top of features that a frozen encoder gives."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.functional import (
    class_means,
    embed,
    example_loss,
    features_and_one,
    linear_logits,
)
from quickstudy.inner import SGD, Parameters, check_inner, descend
from quickstudy.learner import MetaLearner, Phi
from quickstudy.learners import R2D2, ProtoNet
from quickstudy.nn import set_batch_norm_policy

__all__ = [
    "HEADS",
    "Logistic",
    "ProtoMAML",
    "UnitVectors",
    "describe_learner",
    "load_learner",
    "rebuild_learner",
]

_SOLVER_STEPS = 100


class UnitVectors(nn.Module):
    """Features ``[n,...]`` to vectors of length 1, so that only their direction counts."""

    def forward(self, z: Tensor) -> Tensor:
        return F.normalize(z.flatten(1), dim=-1)


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
        >>> learner = Logistic(UnitVectors())
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


class ProtoMAML(MetaLearner):
    """The last layer of Proto-MAML (Triantafillou et al. 2020, arXiv:1903.03096, section 3).

    A linear layer starts out as the prototypical network, whose squared distances are linear in
    the features but for a part that all classes share, and is fine-tuned on the support::

        start   w_n = 2 c_n,  b_n = -||c_n||^2,    c_n = mean of e(x_s) of class n
        phi     inner_steps of gradient descent on the support's cross-entropy

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``.
        inner_lr: of the mean over the support.
        inner_steps: may be changed afterwards; with none it is `ProtoNet`.

    ``phi``: ``{"weight": [T,N,D], "bias": [T,N]}``.

    Differs from the paper: the encoder stays as it is, only the layer adapts.

    Example:
        >>> learner = ProtoMAML(UnitVectors())
    """

    def __init__(self, encoder: nn.Module, *, inner_lr: float = 1.0, inner_steps: int = 50) -> None:
        super().__init__()
        check_inner(inner_lr, inner_steps)
        self.encoder = encoder
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps

    @torch.no_grad()
    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        z = embed(self.encoder, support_x)
        means = class_means(z, support_y, n_way or 0)

        def loss(phi: Parameters, step: int) -> Tensor:
            """The sum over tasks, so that each task's gradient is its own."""
            return len(z) * example_loss(linear_logits(phi, z), support_y)

        start = {"weight": 2 * means, "bias": -means.square().sum(-1)}
        return descend(loss, start, steps=self.inner_steps, rate=self.inner_lr, optimizer=SGD())[-1]

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return linear_logits(phi, embed(self.encoder, query_x))


HEADS: dict[str, Callable[[nn.Module], MetaLearner]] = {
    "centroid": ProtoNet,
    "ridge": lambda encoder: R2D2(encoder, penalty=1.0),
    "logistic": Logistic,
    "proto-maml": ProtoMAML,
}
"""What each name builds, from an encoder of unit vectors. None has been trained: the encoder has.

``"centroid"`` is the nearest class mean, ``"ridge"`` a ridge regression (`R2D2` with nothing to
learn).
"""


def load_learner(name: str) -> MetaLearner:
    """A learner in evaluation mode: a head (`HEADS`), or what `quickstudy.load` takes.

    It answers each example for itself: its batch norm is made inductive.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: the file or folder is damaged.
    """
    return describe_learner(name)[1]


def describe_learner(name: str) -> tuple[dict[str, Any], MetaLearner]:
    """What `load_learner` gives, with plain values from which `rebuild_learner` makes it again."""
    if name in HEADS:
        return {"head": name}, HEADS[name](UnitVectors()).eval()
    from quickstudy.experiments.pretrained import load_described

    spec, learner = load_described(name)
    set_batch_norm_policy(learner, "inductive")
    return spec.model_dump(), learner


def rebuild_learner(about: dict[str, Any]) -> MetaLearner:
    """The learner that `describe_learner` described, in evaluation mode, with other weights.

    Raises:
        ValueError: there is no such learner.
    """
    if "head" in about:
        if about["head"] not in HEADS:
            raise ValueError(f"there is no head {about['head']!r}; there are: {', '.join(HEADS)}")
        return describe_learner(about["head"])[1]
    from quickstudy.experiments.spec import LearnerSpec

    learner = LearnerSpec(**about).build().eval()
    set_batch_norm_policy(learner, "inductive")
    return learner
