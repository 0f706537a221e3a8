"""Reptile: move the start towards where ordinary training on each task ends."""

import torch
from torch import Tensor, nn

from quickstudy.functional import class_weights
from quickstudy.inner import (
    Adam,
    GradientLearner,
    InnerOptimizer,
    Parameters,
    State,
    StepLoss,
    SupportLoss,
    check_inner,
    grad,
    unroll,
)
from quickstudy.inner.parts import split_tasks
from quickstudy.learner import Phi
from quickstudy.processes import mean_over_processes
from quickstudy.task import Task

__all__ = ["Reptile"]


class Reptile(GradientLearner):
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
        if isinstance(inner_optimizer, nn.Module) and list(inner_optimizer.parameters()):
            raise ValueError(
                f"{type(self).__name__} cannot learn an inner optimiser: it differentiates through "
                "no inner step; use MAML"
            )
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

    def inner_step(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        """An ordinary step of the inner optimiser, which goes on from the training tasks before."""
        gradient = grad(support_loss, phi)
        direction, state = self.inner_optimizer.direction(gradient, state, self._done() + step)
        return {k: p.sub(direction[k], alpha=self.inner_lr) for k, p in phi.items()}, state

    @torch.no_grad()
    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        return super().adapt(support_x, support_y, n_way)

    def loss(self, task: Task) -> Tensor:
        """``1/2 ||theta - stopgrad(phi)||^2``, a mean over tasks: its gradient is Reptile's."""
        self.check_task(task.support_x, task.support_y, task.n_way, regression=True)
        parts = split_tasks(self.network, task.support_x, task.support_y)
        with torch.no_grad():
            ends = [self._train(x, y, task.n_way) for x, y in parts]
        if self.training:
            self._carry([state for _, state in ends])
        theta = dict(self.network.named_parameters())
        apart = [(theta[k] - p).square().sum() for phi, _ in ends for k, p in phi.items()]
        return torch.stack(apart).sum() / (2 * len(task))

    def _train(self, x: Tensor, y: Tensor, n_way: int | None) -> tuple[Parameters, State]:
        return unroll(
            self.inner_step,
            self.support_loss(x, y, n_way),
            self.start(len(x)),
            self.start_state(),
            steps=self.inner_steps,
        )

    def support_loss(
        self, x: Tensor, y: Tensor, n_way: int | None, weight: Tensor | None = None
    ) -> SupportLoss:
        size, whole = self.inner_batch, super().support_loss
        weight = class_weights(y, n_way) if weight is None else weight
        if size is None or size >= y.shape[1]:
            return whole(x, y, n_way, weight)

        def loss(phi: Parameters, step: int) -> Tensor:
            rows = torch.arange(step * size, (step + 1) * size, device=y.device) % y.shape[1]
            some = None if weight is None else weight[:, rows]
            return whole(x[:, rows], y[:, rows], n_way, some)(phi, step)

        return loss

    def start_state(self) -> State:
        """What the training tasks before have left."""
        return {key: self._carried(key) for key in self.carried} if self._done() else {}

    def _done(self) -> int:
        counter = self.get_buffer("inner_done")
        return 0 if counter.is_meta else int(counter)

    def _carried(self, key: str) -> Parameters:
        parameters = dict(self.network.named_parameters())
        flat = self.get_buffer(f"inner_{key}")
        parts = torch.split(flat, [p.numel() for p in parameters.values()])
        return {
            name: part.view_as(p) for (name, p), part in zip(parameters.items(), parts, strict=True)
        }

    @torch.no_grad()
    def _carry(self, ends: list[State]) -> None:
        for key in self.carried if self.inner_steps else ():
            means = self._carried(key)
            for name in ends[0][key]:
                means[name] = torch.cat([end[key][name] for end in ends]).mean(0)
            self.get_buffer(f"inner_{key}").copy_(mean_over_processes(_flat(means)))
        self.get_buffer("inner_done").add_(self.inner_steps)


def _flat(parameters: Parameters) -> Tensor:
    return torch.cat([p.flatten() for p in parameters.values()])
