"""Reptile: move the start towards where ordinary training on each task ends."""

import torch
from torch import Tensor, nn

from quickstudy.functional import mean_over_processes, output_size
from quickstudy.inner import (
    Adam,
    InnerOptimizer,
    Parameters,
    State,
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

    The inner optimiser does not start anew with each task: as in the authors' code, what it has
    learnt of the gradients' size (Adam's second moments, and how many steps they stand for) is
    carried from training task to training task and into evaluation. With a fresh Adam and no first
    moment a step is hardly more than the gradients' signs.

    Differs from the authors' code: tasks of a batch start from the same moments, and their mean is
    carried on; mini-batches are in order, since a sampled support already comes in random order.

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
        nothing = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
        self.carried = tuple(inner_optimizer.direction(nothing, {}, 0)[1])
        for key in self.carried:
            self.register_buffer(f"inner_{key}", _flat(nothing))
        self.register_buffer("inner_done", torch.zeros((), dtype=torch.int64))

    @property
    def max_way(self) -> int | None:
        return output_size(self.network)

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        return self._adapt(support_x, support_y, n_way, self._resumed())

    @torch.no_grad()
    def _adapt(
        self, support_x: Tensor, support_y: Tensor, n_way: int | None, optimizer: InnerOptimizer
    ) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        return adapt_network(
            self.network,
            support_x,
            support_y,
            n_way,
            steps=self.inner_steps,
            rate=self.inner_lr,
            optimizer=optimizer,
            batch=self.inner_batch,
        )

    def _resumed(self) -> "_Resumed":
        """The inner optimiser as the training tasks so far have left it."""
        counter = self.get_buffer("inner_done")
        done = 0 if counter.is_meta else int(counter)
        state = {key: self._carried(key) for key in self.carried} if done else {}
        return _Resumed(self.inner_optimizer, state, done)

    def _carried(self, key: str) -> Parameters:
        parameters = dict(self.network.named_parameters())
        flat = self.get_buffer(f"inner_{key}")
        parts = torch.split(flat, [p.numel() for p in parameters.values()])
        return {
            name: part.view_as(p) for (name, p), part in zip(parameters.items(), parts, strict=True)
        }

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return run_network(self.network, phi, query_x)

    def loss(self, task: Task) -> Tensor:
        """``1/2 ||theta - stopgrad(phi)||^2``, a mean over tasks: its gradient is Reptile's."""
        optimizer = self._resumed()
        phi = self._adapt(task.support_x, task.support_y, task.n_way, optimizer)["network"]
        if self.training:
            self._carry(optimizer.ends)
        apart = [
            (p - phi[name]).square().sum()
            for name, p in self.network.named_parameters()
            if p.requires_grad
        ]
        return torch.stack(apart).sum() / (2 * len(task))

    @torch.no_grad()
    def _carry(self, ends: list[State]) -> None:
        for key in self.carried if ends else ():
            means = self._carried(key)
            for name in ends[0][key]:
                means[name] = torch.cat([end[key][name] for end in ends]).mean(0)
            self.get_buffer(f"inner_{key}").copy_(mean_over_processes(_flat(means)))
        self.get_buffer("inner_done").add_(self.inner_steps)


class _Resumed:
    """An inner optimiser that goes on from ``state``, after ``done`` steps."""

    def __init__(self, optimizer: InnerOptimizer, state: State, done: int) -> None:
        self.optimizer, self.state, self.done = optimizer, state, done
        self.ends: list[State] = []

    def direction(self, gradients: Parameters, state: State, step: int) -> tuple[Parameters, State]:
        """Of several tasks at once; ``ends`` receives the last state of each set of tasks."""
        if step == 0:
            state = self.state
            self.ends.append({})
        directions, self.ends[-1] = self.optimizer.direction(gradients, state, step + self.done)
        return directions, self.ends[-1]


def _flat(parameters: Parameters) -> Tensor:
    return torch.cat([p.flatten() for p in parameters.values()])
