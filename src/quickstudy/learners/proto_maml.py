"""Proto-MAML: a linear layer that starts as the prototypical network, then takes gradient steps."""

from torch import Tensor, nn

from quickstudy.embedding import embed
from quickstudy.functional import (
    class_means,
    class_weights,
    example_loss,
    linear_logits,
    size_offsets,
)
from quickstudy.inner import Parameters, State, StepLoss, check_inner, grad, unroll
from quickstudy.learner import MetaLearner, Phi

__all__ = ["ProtoMAML"]


class ProtoMAML(MetaLearner):
    """The last layer of Proto-MAML (Triantafillou et al. 2020, arXiv:1903.03096, section 3).

    A linear layer starts out as the prototypical network, whose squared distances are linear in
    the features but for a part that all classes share, and is fine-tuned on the support::

        start   w_n = 2 c_n,  b_n = -||c_n||^2 + o_n,    c_n = mean of e(x_s) of class n
        phi     inner_steps of gradient descent on the support's cross-entropy

    ``o_n`` is what a distance owes to the class's size (`quickstudy.functional.size_offsets`), 0
    where all are of one; each class counts alike in the steps.

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``.
        inner_lr: of the mean over the support.
        inner_steps: may be changed afterwards; with none it is `ProtoNet`.
        debias: how much of ``o_n`` to add once more, after the steps, which fit small classes to
            their very examples.

    ``phi``: ``{"weight": [T,N,D], "bias": [T,N]}``.

    Differs from the paper: only the layer adapts to a task; the paper adapts the encoder with it.
    In meta-training the encoder gets its gradient through the start and all steps, exactly.

    Example:
        >>> learner = ProtoMAML(nn.Flatten())
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        inner_lr: float = 1.0,
        inner_steps: int = 50,
        debias: float = 0.0,
    ) -> None:
        super().__init__()
        if not debias >= 0:
            raise ValueError(f"debias is {debias}; expected at least 0")
        self.debias = debias
        check_inner(inner_lr, inner_steps)
        self.encoder = encoder
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps

    def inner_step(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        """A step of gradient descent on the support's cross-entropy, of the layer alone."""
        gradient = grad(support_loss, phi)
        return {k: p.sub(gradient[k], alpha=self.inner_lr) for k, p in phi.items()}, state

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        z = embed(self.encoder, support_x)
        means = class_means(z, support_y, n_way or 0)
        weight = class_weights(support_y, n_way)

        def support_loss(phi: Parameters, step: int) -> Tensor:
            return len(z) * example_loss(linear_logits(phi, z), support_y, weight)

        offset = size_offsets(z, support_y, n_way or 0)
        start = {"weight": 2 * means, "bias": offset - means.square().sum(-1)}
        phi, _ = unroll(self.inner_step, support_loss, start, steps=self.inner_steps)
        return {**phi, "bias": phi["bias"] + self.debias * offset}

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return linear_logits(phi, embed(self.encoder, query_x))
