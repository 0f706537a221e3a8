"""MAML++: MAML with learned rates, a loss at every step, and batch norm of its own at each."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.functional import example_loss, output_size
from quickstudy.inner import (
    SGD,
    LearnedRates,
    Parameters,
    check_inner,
    descend,
    record_statistics,
    run_network,
    split_parameters,
    stack_states,
)
from quickstudy.learner import MetaLearner, Phi
from quickstudy.nn.norm import BatchNorm, Source, batch_norm_policy, statistics_from
from quickstudy.task import Task

__all__ = ["MAMLPlusPlus"]


class MAMLPlusPlus(MetaLearner):
    """How to train your MAML (Antoniou, Edwards & Storkey 2019, arXiv:1810.09502, section 4).

    MAML, with four of the paper's remedies, each an option of its own::

        learned_rates      phi_{l+1} = phi_l - alpha_{l,k} grad_k L   layer k, step l   (LSLR)
        multi_step_loss    loss = sum_l v_l L(phi_l, D_ts),  l = 1..L          eq. 2   (MSL)
        per_step_scales    batch norm's scale and shift, one for each step             (BNWB)
        per_step_averages  batch norm's running averages, one for each step            (BNRS)

    The weights ``v`` start equal and move linearly, over ``anneal_steps`` outer steps, to almost
    all on the last step (0.03/L stay on each of the others, as in the authors' code).

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
        anneal_steps: outer steps until ``v`` has settled.

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

    label_equivariant = False
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

    @property
    def max_way(self) -> int | None:
        return output_size(self.network)

    @property
    def step_weights(self) -> list[float]:
        """``v_1 .. v_L`` at this point of training."""
        L, least = self.inner_steps, 0.03 / self.inner_steps
        if not self.multi_step_loss:
            return [0.0] * (L - 1) + [1.0]
        settled = min(1.0, int(self._outer_steps) / self.anneal_steps)
        others = max((1 - settled) / L, least)
        return [others] * (L - 1) + [1 - others * (L - 1)]

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        states = []
        for x, y in zip(support_x, support_y, strict=True):
            state = self._path(x, y, n_way)[-1]
            averages = self.per_step_averages
            states.append(state if averages else self._record(state, x))
        return stack_states(states, support_y, n_way)

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        source: Source | None = None
        if self.per_step_averages and self.training:
            source = "batch"
        return run_network(self.network, phi, query_x, source)

    def loss(self, task: Task) -> Tensor:
        """The outer loss, a scalar; in training it also counts the outer steps for ``v``."""
        self.check_task(task.support_x, task.support_y, task.n_way, regression=True)
        weights = list(enumerate(self.step_weights, start=1)) if self.inner_steps else [(0, 1.0)]
        total = task.query_x.new_zeros(())
        for t in range(len(task)):
            x, y, query_x, query_y = (part[t] for part in task.tensors())
            path = self._path(x, y, task.n_way)
            for step, weight in weights:
                if weight:
                    output = self._query(path[step], step, x, query_x)[:, : task.n_way]
                    total = total + weight * example_loss(output, query_y)
        if self.training:
            self._outer_steps += 1
        return total / len(task)

    def _path(self, x: Tensor, y: Tensor, n_way: int | None) -> list[Parameters]:
        """The state of one task after 0 to L steps."""
        phi, fixed = split_parameters(self.network)

        def state(phi: Parameters, step: int) -> Parameters:
            return {**phi, **fixed, **self._norm_state(step)}

        def loss(phi: Parameters, step: int) -> Tensor:
            return example_loss(self._run(state(phi, step), step, x)[:, :n_way], y)

        path = descend(
            loss,
            phi,
            steps=self.inner_steps,
            rate=self.rates,
            optimizer=SGD(),
            first_order=self.first_order,
        )
        return [state(phi, step) for step, phi in enumerate(path)]

    def _query(self, state: Parameters, step: int, support_x: Tensor, x: Tensor) -> Tensor:
        if self.per_step_averages or batch_norm_policy(self.network) != "inductive":
            return self._run(state, step, x)
        state = self._record(state, support_x)
        with statistics_from(self.network, "stored"):
            return functional_call(self.network, state, (x,))  # type: ignore[no-any-return]

    def _record(self, state: Parameters, support_x: Tensor) -> Parameters:
        tasks = {name: p.unsqueeze(0) for name, p in state.items()}
        tasks = record_statistics(self.network, tasks, support_x.unsqueeze(0))
        return {name: p[0] for name, p in tasks.items()}

    def _run(self, state: Parameters, step: int, x: Tensor) -> Tensor:
        """The network at a step of one task, which may move that step's running averages."""
        source: Source = "batch"
        if self.per_step_averages and batch_norm_policy(self.network) == "inductive":
            source = "record" if self.training else "stored"
        state = dict(state)
        with statistics_from(self.network, source):
            output: Tensor = functional_call(self.network, state, (x,))
        if source == "record":
            for name, norm in self.norms.items():
                assert isinstance(norm, _PerStepNorm)
                norm.average(step, name.replace("/", "."), state)
        return output

    def _norm_state(self, step: int) -> Parameters:
        """Batch norm's parameters and averages at a step, under the network's own names."""
        return {
            f"{name.replace('/', '.')}.{part}": value[min(step, len(value) - 1)]
            for name, norm in self.norms.items()
            for part, value in (*norm.named_parameters(), *norm.named_buffers())
        }


class _PerStepNorm(nn.Module):
    """What one batch norm layer has of its own at each step, each ``[L+1, C]``."""

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
            kept[min(step, len(kept) - 1)].lerp_(state[f"{name}.{part}"], self.momentum)
