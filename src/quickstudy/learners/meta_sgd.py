"""Meta-SGD: learn where to start, in which direction to go, and how far."""

from torch import nn

from quickstudy.inner import (
    GradientLearner,
    LearnedRates,
    Parameters,
    State,
    StepLoss,
    check_inner,
    grad,
)

__all__ = ["MetaSGD"]


class MetaSGD(GradientLearner):
    """Meta-SGD (Li, Zhou, Chen & Li 2017, arXiv:1707.09835, algorithm 1)::

        phi  = theta - alpha * grad L(theta, D_tr)         elementwise          (eq. 5)
        loss = L(phi, D_ts), by theta and by alpha

    ``alpha`` has the shape of ``theta``: every parameter has a rate of its own, whose sign and
    size are learned, so a step need not go down the gradient.

    Args:
        network: ``f``, a module ``[n,...] -> [n,outputs]``.
        inner_lr: where every rate starts. As in `MAML` it belongs to a mean over the support.
        inner_steps: steps with the same ``alpha``; the paper takes one.
        first_order: drop the second derivative.

    ``phi``: ``{"network": adapted parameters and statistics by name, each [T,...],
    "classes": [T,N]}``. Batch norm as in `MAML`.

    Differs from the paper: rates start from one number instead of at random in 0.005..0.1.

    Example:
        >>> from quickstudy.nn import MLP
        >>> learner = MetaSGD(MLP(1, [40, 40], 1), inner_lr=0.01)
        >>> sum(p.numel() for p in learner.alpha.parameters())  # one rate a parameter
        1761
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        inner_lr: float = 0.4,
        inner_steps: int = 1,
        first_order: bool = False,
    ) -> None:
        super().__init__()
        check_inner(inner_lr, inner_steps)
        self.network = network
        adapted = {k: p for k, p in network.named_parameters() if p.requires_grad}
        self.alpha = LearnedRates(adapted, inner_lr, per="parameter")
        self.inner_steps = inner_steps
        self.first_order = first_order

    def inner_step(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        """``phi - alpha * grad L(phi, D_tr)``, number by number                   (eq. 5)"""
        gradient = grad(support_loss, phi, first_order=self.first_order)
        phi = {k: p.addcmul(self.alpha(step, k), gradient[k], value=-1) for k, p in phi.items()}
        return phi, state
