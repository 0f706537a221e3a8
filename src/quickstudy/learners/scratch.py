"""Learning from scratch: what a network makes of the support alone."""

import copy

import torch
from torch import Tensor, nn

from quickstudy.inner import (
    Adam,
    GradientLearner,
    InnerOptimizer,
    Parameters,
    State,
    StepLoss,
    check_inner,
    grad,
)
from quickstudy.learner import Phi

__all__ = ["Scratch"]


class Scratch(GradientLearner):
    """A network trained on each task's support from a random start, with no experience of others.

    Whoever has never seen a cat or a dog: the baseline that the lecture's claim is about. Nothing
    here is meta-learned, so there is nothing to train beforehand::

        phi = inner_steps of an optimiser on L(., D_tr) from one random initialisation

    Args:
        network: ``f``, a module ``[n,...] -> [n,outputs]``; a frozen copy of it is the start of
            every task.
        inner_lr: of the optimiser.
        inner_steps: how many steps; may be changed afterwards.
        inner_optimizer: `inner.Adam`, `inner.SGD`, or your own.

    ``phi``: ``{"network": adapted parameters and statistics by name, each [T,...],
    "classes": [T,N]}``. Batch norm as in `MAML`: inductive means the support's statistics.

    Example:
        >>> from quickstudy.nn import MLP
        >>> learner = Scratch(MLP(64, [32], 5))
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        inner_lr: float = 1e-3,
        inner_steps: int = 50,
        inner_optimizer: InnerOptimizer = Adam(),
    ) -> None:
        super().__init__()
        check_inner(inner_lr, inner_steps, inner_optimizer)
        if isinstance(inner_optimizer, nn.Module) and list(inner_optimizer.parameters()):
            raise ValueError(
                f"{type(self).__name__} cannot learn an inner optimiser: it differentiates through "
                "no inner step; use MAML"
            )
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.inner_optimizer = inner_optimizer

    def inner_step(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        """An ordinary step of the optimiser on ``L(phi, D_tr)``."""
        gradient = grad(support_loss, phi)
        direction, state = self.inner_optimizer.direction(gradient, state, step)
        return {k: p.sub(direction[k], alpha=self.inner_lr) for k, p in phi.items()}, state

    def start(self, tasks: int) -> Parameters:
        return {k: p.expand(tasks, *p.shape) for k, p in self.network.named_parameters()}

    @torch.no_grad()
    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        return super().adapt(support_x, support_y, n_way)
