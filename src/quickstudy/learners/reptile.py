"""Reptile: move the start towards where ordinary training on each task ends."""

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
from quickstudy.task import Task

__all__ = ["Reptile"]


class Reptile(MetaLearner):
    """Reptile (Nichol, Achiam & Schulman 2018, arXiv:1803.02999, algorithms 1 and 2)::

        phi   = L steps of Adam (beta1 = 0) from theta on D_tr, in mini-batches
        theta <- theta + epsilon * mean_i(phi_i - theta)

    The update is a gradient step on ``1/2 ||theta - stopgrad(phi)||^2``, which `loss` returns, so
    the ordinary loop serves: `torch.optim.SGD` with rate ``epsilon``, falling linearly to 0. One
    task a batch is the serial version, several the batched one. No query is looked at in training.

    Args:
        network: ``f``, a module ``[n,...] -> [n,outputs]``.
        inner_lr: of the inner optimiser; the paper's is 1e-3 for images, and 0.02 with plain SGD
            for sinusoids.
        inner_steps: ``L``; may be changed afterwards (the paper: 5 in training, 50 at test).
        inner_batch: examples of an inner step, taken from the support in turn and around again;
            ``None`` for all of them. With it the order of the support matters.
        inner_optimizer: `inner.Adam` (the paper's beta1 of 0), `inner.SGD`, or your own.

    ``phi``: ``{"network": adapted parameters and statistics by name, each [T,...],
    "classes": [T,N]}``. Batch norm as in `MAML`: inductive means the support's statistics.

    Differs from the paper: each task starts with a fresh inner Adam, where the authors' code
    carries its second moments from task to task; and mini-batches are in order, since a sampled
    support already comes in random order.

    Example:
        >>> from quickstudy.nn import MLP
        >>> from quickstudy.inner import SGD
        >>> learner = Reptile(MLP(1, [64, 64], 1), inner_lr=0.02, inner_optimizer=SGD())
    """

    label_equivariant = False

    def __init__(
        self,
        network: nn.Module,
        *,
        inner_lr: float = 1e-3,
        inner_steps: int = 5,
        inner_batch: int | None = None,
        inner_optimizer: InnerOptimizer = Adam(beta1=0.0),
    ) -> None:
        super().__init__()
        check_inner(inner_lr, inner_steps, inner_optimizer)
        if inner_batch is not None and inner_batch < 1:
            raise ValueError(f"inner_batch is {inner_batch}; expected at least 1, or None")
        self.network = network
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.inner_batch = inner_batch
        self.inner_optimizer = inner_optimizer
        self.order_invariant = inner_batch is None

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
            batch=self.inner_batch,
        )

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return run_network(self.network, phi, query_x)

    def loss(self, task: Task) -> Tensor:
        """``1/2 ||theta - stopgrad(phi)||^2``, a mean over tasks: its gradient is Reptile's."""
        phi = self.adapt(task.support_x, task.support_y, task.n_way)["network"]
        apart = [
            (p - phi[name]).square().sum()
            for name, p in self.network.named_parameters()
            if p.requires_grad
        ]
        return torch.stack(apart).sum() / (2 * len(task))
