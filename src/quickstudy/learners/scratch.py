"""Learning from scratch: what a network makes of the support alone."""

import copy

import torch
from torch import Tensor, nn

from quickstudy.functional import output_size
from quickstudy.inner import (
    Adam,
    InnerOptimizer,
    adapt_network,
    check_inner,
    run_network,
)
from quickstudy.learner import MetaLearner, Phi

__all__ = ["Scratch"]


class Scratch(MetaLearner):
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

    label_equivariant = False

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
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.inner_optimizer = inner_optimizer

    @property
    def max_way(self) -> int | None:
        return output_size(self.network)

    @torch.no_grad()
    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        return adapt_network(
            self.network,
            support_x,
            support_y,
            n_way,
            steps=self.inner_steps,
            rate=self.inner_lr,
            optimizer=self.inner_optimizer,
            frozen=True,
        )

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return run_network(self.network, phi, query_x)
