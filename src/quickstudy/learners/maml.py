"""MAML: learn an initialisation from which a few gradient steps suffice."""

from torch import nn

from quickstudy.inner import (
    SGD,
    GradientLearner,
    InnerOptimizer,
    Parameters,
    State,
    StepLoss,
    check_inner,
    grad,
)
from quickstudy.nn.norm import norm_parameters

__all__ = ["MAML"]


class MAML(GradientLearner):
    """Model-agnostic meta-learning (Finn, Abbeel & Levine 2017, arXiv:1703.03400, algorithm 2)::

        phi_0     = theta
        phi_{l+1} = phi_l - alpha * grad L(phi_l, D_tr)        l = 0 .. L-1     (eq. 1)
        loss      = L(phi_L, D_ts), differentiated through all L steps

    ``L`` is the mean over support examples. The authors' code *sums* over the batch and divides
    by K, so its ``inner_lr=0.4`` at 5-way 1-shot is ``inner_lr=2.0`` here.

    Args:
        network: ``f``, a module ``[n,...] -> [n,outputs]`` with one output a class (a task may
            have fewer classes) or the regression output.
        inner_lr: ``alpha``.
        inner_steps: ``L``; may be changed afterwards, for instance to take more at evaluation.
            Trained with none, it is the plain pretrained network of the paper's section 5.1.
        first_order: drop the second derivative (section 5.2 of the paper): cheaper, a bit worse.
        adapt_norm: move batch norm's scales and shifts in inner steps, too. The authors' code does
            not: it has no scale, and the outer loop alone learns the shift.
        inner_optimizer: what makes a step of a gradient, differentiated through: `inner.SGD`, with
            momentum or without, `inner.Adam`, or your own. If yours is a module, its parameters are
            learned with the start.

    ``phi``: ``{"network": adapted parameters and statistics by name, each [T,...],
    "classes": [T,N]}``.

    Batch norm: support images are normalised by their own batch. Queries too when the policy is
    ``"transductive"`` (what the paper did); when ``"inductive"``, by the support set's statistics
    under the adapted parameters, so that a query never sees another. Running averages, which
    belong to no task, are not used.

    Only the step stands here. The loop that takes it, and the outer loss, are those of all
    gradient learners: `quickstudy.inner.GradientLearner`.

    Differs from the paper: momentum and Adam as inner optimisers are additions.

    Example:
        >>> from quickstudy.nn import MLP
        >>> learner = MAML(MLP(1, [40, 40], 1), inner_lr=0.01)  # the paper's sinusoid network
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        inner_lr: float = 0.4,
        inner_steps: int = 1,
        first_order: bool = False,
        adapt_norm: bool = True,
        inner_optimizer: InnerOptimizer = SGD(),
    ) -> None:
        super().__init__()
        check_inner(inner_lr, inner_steps, inner_optimizer)
        self.network = network
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.first_order = first_order
        self.kept = frozenset() if adapt_norm else frozenset(norm_parameters(network))
        self.inner_optimizer = inner_optimizer

    def inner_step(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        """``phi_{l+1} = phi_l - alpha * grad L(phi_l, D_tr)``                    (eq. 1)"""
        gradient = grad(support_loss, phi, first_order=self.first_order)
        direction, state = self.inner_optimizer.direction(gradient, state, step)
        return {k: p.sub(direction[k], alpha=self.inner_lr) for k, p in phi.items()}, state
