"""MAML++: MAML with learned rates, a loss at every step, and separate batch norm at each step."""

import torch
from torch import Tensor, nn

from quickstudy.functional import class_weights, example_loss
from quickstudy.inner import (
    GradientLearner,
    LearnedRates,
    Parameters,
    State,
    StepLoss,
    SupportLoss,
    check_inner,
    grad,
    trajectory,
)
from quickstudy.inner.networks import run_tasks
from quickstudy.inner.parts import part_by_part
from quickstudy.learner import Phi
from quickstudy.nn.norm import BatchNorm, Source, batch_norm_policy
from quickstudy.task import Task

__all__ = ["MAMLPlusPlus"]


class MAMLPlusPlus(GradientLearner):
    """How to train your MAML (Antoniou, Edwards & Storkey 2019, arXiv:1810.09502, section 4).

    MAML, with four of the paper's remedies, each an option of its own::

        learned_rates      phi_{l+1} = phi_l - alpha_{l,k} grad_k L   layer k, step l   (LSLR)
        multi_step_loss    loss = sum_l v_l L(phi_l, D_ts),  l = 1..L          eq. 2   (MSL)
        per_step_scales    batch norm's scale and shift, one for each step             (BNWB)
        per_step_averages  batch norm's running averages, one for each step            (BNRS)

    The weights ``v`` start equal and move linearly towards the last step's loss, with at least
    0.03/L on each of the others; after ``anneal_steps`` outer steps the last one counts alone, as
    in the authors' code.

    Args:
        network: ``f``, a module ``[n,...] -> [n,outputs]``.
        inner_lr: where the rates start (on the mean loss over the support).
        inner_steps: ``L`` in training. At evaluation it may be changed; steps beyond those
            trained repeat the last one's rates and batch norm.
        learned_rates: a rate for each tensor and step.
        multi_step_loss: the loss above instead of the last step's.
        per_step_scales: the scales and shifts are then learned by the outer loop alone. Whose
            statistics normalise is as in `MAML`.
        per_step_averages: normalise support and queries at step ``l`` by running averages of step
            ``l`` at evaluation (inductive policy), and by the batch in training. Off: on Omniglot
            it was at chance (docs/experiments.md), since the statistics of one task's few images
            are far from the average task's, and the authors' code does not use them either.
        first_order: drop the second derivative.
        anneal_steps: outer steps until the last step's loss counts alone.

    ``phi``: ``{"network": adapted parameters and statistics by name, each [T,...],
    "classes": [T,N]}``.

    Differs from the paper: its other remedies are settings elsewhere (a cosine outer schedule, a
    change from first to second order during training); it normalises by batch statistics even
    at test, which is our transductive policy.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> network = nn.Sequential(Conv4(), nn.Linear(64, 5))
        >>> learner = MAMLPlusPlus(network, inner_steps=5)
    """

    _outer_steps: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        inner_lr: float = 0.1,
        inner_steps: int = 5,
        learned_rates: bool = True,
        multi_step_loss: bool = True,
        per_step_scales: bool = True,
        per_step_averages: bool = False,
        first_order: bool = False,
        anneal_steps: int = 1000,
    ) -> None:
        super().__init__()
        check_inner(inner_lr, inner_steps)
        if inner_steps < 1 or anneal_steps < 1:
            raise ValueError("inner_steps and anneal_steps must each be at least 1")
        self.network = network
        self.inner_steps = inner_steps
        self.multi_step_loss = multi_step_loss
        self.first_order = first_order
        self.anneal_steps = anneal_steps
        self.register_buffer("_outer_steps", torch.zeros((), dtype=torch.int64))
        self.norms = nn.ModuleDict()
        self.per_step_averages = per_step_averages
        for name, layer in network.named_modules():
            if isinstance(layer, BatchNorm) and (per_step_scales or per_step_averages):
                self.norms[name.replace(".", "/")] = _PerStepNorm(
                    layer, inner_steps + 1, per_step_scales, per_step_averages
                )
                layer.requires_grad_(not per_step_scales)
        adapted = {k: p for k, p in network.named_parameters() if p.requires_grad}
        self.rates = (
            LearnedRates(adapted, inner_lr, per="tensor", steps=inner_steps)
            if learned_rates
            else inner_lr
        )

    def inner_step(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        """``phi_{l+1} = phi_l - alpha_{l,k} * grad_k L(phi_l, D_tr)``, layer by layer"""
        gradient = grad(support_loss, phi, first_order=self.first_order)
        return {k: p - self.rate(step, k) * gradient[k] for k, p in phi.items()}, state

    def rate(self, step: int, name: str) -> Tensor | float:
        """``alpha_{l,k}``."""
        return self.rates(step, name) if isinstance(self.rates, LearnedRates) else self.rates

    def step_parameters(self, step: int, tasks: int) -> Parameters:
        """Batch norm's parameters and averages at one step, under the network's names."""
        return {
            f"{name.replace('/', '.')}.{part}": value[min(step, len(value) - 1)].expand(tasks, -1)
            for name, norm in self.norms.items()
            for part, value in (*norm.named_parameters(), *norm.named_buffers())
        }

    @property
    def step_weights(self) -> list[float]:
        """``v_1 .. v_L`` at this point of training."""
        L, least = self.inner_steps, 0.03 / self.inner_steps
        if not self.multi_step_loss or self._outer_steps >= self.anneal_steps:
            return [0.0] * (L - 1) + [1.0]
        settled = int(self._outer_steps) / self.anneal_steps
        others = max((1 - settled) / L, least)
        return [others] * (L - 1) + [1 - others * (L - 1)]

    def loss(self, task: Task) -> Tensor:
        """``sum_l v_l L(phi_l, D_ts)``, a scalar; in training it also counts steps, for ``v``."""
        total = self._loss(task)
        if self.training:
            self._outer_steps += 1
        return total

    @part_by_part
    def _loss(self, task: Task) -> Tensor:
        self.check_task(task.support_x, task.support_y, task.n_way, regression=True)
        if self._averaging and len(task) > 1:  # each task moves the averages that the next one sees
            return torch.stack([self._loss(task[t : t + 1]) for t in range(len(task))]).mean()
        support_loss = self.support_loss(task.support_x, task.support_y, task.n_way)
        path = trajectory(
            self.inner_step,
            support_loss,
            self.start(len(task)),
            steps=self.inner_steps,
            **self.repeating(support_loss, task.support_x, task.support_y),
        )
        weights = [0.0, *self.step_weights] if self.inner_steps else [1.0]
        losses = [
            weight * self.query_loss(phi, task, step)
            for step, (phi, weight) in enumerate(zip(path, weights, strict=True))
            if weight
        ]
        return torch.stack(losses).sum()

    def support_loss(
        self, x: Tensor, y: Tensor, n_way: int | None, weight: Tensor | None = None
    ) -> SupportLoss:
        weight = class_weights(y, n_way) if weight is None else weight
        if not self._averaging:
            return super().support_loss(x, y, n_way, weight)

        def loss(phi: Parameters, step: int) -> Tensor:
            output = self._run_and_average(self.whole_state(phi, step), x, step)
            return len(x) * example_loss(output[..., :n_way], y, weight)

        return loss

    def query_loss(self, phi: Parameters, task: Task, step: int) -> Tensor:
        if not self._averaging:
            return super().query_loss(phi, task, step)
        output = self._run_and_average(self.whole_state(phi, step), task.query_x, step)
        return example_loss(output[..., : task.n_way], task.query_y)

    def network_state(self, phi: Parameters, support_x: Tensor, step: int) -> Parameters:
        if self._averaging:
            return self.whole_state(phi, step)
        return super().network_state(phi, support_x, step)

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        if self._averaging and self.training:
            return self.answer(phi, query_x, "batch")
        return super().predict(phi, query_x)

    def outer_parameters(self, *support: Tensor) -> list[Tensor] | None:
        # A step that moves averages must not be repeated.
        return None if self._averaging else super().outer_parameters(*support)

    @property
    def _averaging(self) -> bool:
        return self.per_step_averages and batch_norm_policy(self.network) == "inductive"

    def _run_and_average(self, state: Parameters, x: Tensor, step: int) -> Tensor:
        """The network by this step's averages, which in training the batch's statistics move."""
        source: Source = "record" if self.training else "stored"
        output, found = run_tasks(self.network, state, x, source)
        for name, norm in self.norms.items() if found else ():
            assert isinstance(norm, _PerStepNorm)
            norm.average(step, name.replace("/", "."), found)
        return output


class _PerStepNorm(nn.Module):
    """One batch norm layer's values at every step, each ``[L+1, C]``."""

    def __init__(self, layer: BatchNorm, steps: int, scales: bool, averages: bool) -> None:
        super().__init__()
        self.momentum = layer.momentum
        for part in ("weight", "bias") if scales else ():
            value = getattr(layer, part).detach().repeat(steps, 1)
            self.register_parameter(part, nn.Parameter(value))
        for part in ("running_mean", "running_var") if averages else ():
            self.register_buffer(part, getattr(layer, part).repeat(steps, 1))

    @torch.no_grad()
    def average(self, step: int, name: str, state: Parameters) -> None:
        for part in ("running_mean", "running_var"):
            kept = getattr(self, part)
            for task in state[f"{name}.{part}"]:
                kept[min(step, len(kept) - 1)].lerp_(task, self.momentum)
