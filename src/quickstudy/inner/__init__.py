"""The inner loop: gradient steps on one task's support that can be differentiated through.

An inner optimiser turns gradients into directions, a rate scales them, and `descend` takes the
steps. Optimisers and rates combine freely; every update is a new value, nothing is changed in
place. See `quickstudy.learners.MAML` for the algorithm.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.func import functional_call, vmap
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from quickstudy.execution import execution
from quickstudy.functional import class_labels, example_loss, ways
from quickstudy.inner.stacked import can_stack, run_stacked
from quickstudy.learner import Phi
from quickstudy.nn.norm import Source, batch_norm_policy, statistics_from
from quickstudy.task import Task

__all__ = [
    "SGD",
    "Adam",
    "InnerOptimizer",
    "LearnedRates",
    "Parameters",
    "State",
    "adapt_network",
    "check_inner",
    "descend",
    "fit_network",
    "over_tasks",
    "record_statistics",
    "run_network",
    "split_parameters",
    "stack_states",
    "tasks_together",
]

Parameters = dict[str, Tensor]
State = dict[str, Parameters]
Rate = Callable[[int, str], Tensor | float]


class InnerOptimizer(Protocol):
    """Turns gradients into directions to move against, as `torch.optim` would: `SGD`, `Adam`.

    ``direction(gradients, state, step)`` returns the directions and the next state, which holds
    for each parameter as many numbers as it has; ``step`` counts from 0, where ``state`` is empty.
    """

    def direction(
        self, gradients: Parameters, state: State, step: int
    ) -> tuple[Parameters, State]: ...


@dataclass(frozen=True)
class SGD:
    """Gradient descent, with momentum as `torch.optim.SGD` has it: ``v <- momentum * v + g``."""

    momentum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; expected at least 0 and below 1")

    def direction(self, gradients: Parameters, state: State, step: int) -> tuple[Parameters, State]:
        if not self.momentum:
            return gradients, {}
        if not step:
            return gradients, {"velocity": gradients}
        before = state["velocity"]
        velocity = {k: self.momentum * before[k] + g for k, g in gradients.items()}
        return velocity, {"velocity": velocity}


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1), as `torch.optim.Adam` has it.

    A gradient of exactly zero (a dead unit) gets a direction and a derivative of zero, where the
    formula's square root would give an infinite derivative. Reptile uses ``beta1=0``.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0):
            raise ValueError(f"{self}: expected betas of at least 0 and below 1, and eps above 0")

    def direction(self, gradients: Parameters, state: State, step: int) -> tuple[Parameters, State]:
        first, second, directions = {}, {}, {}
        root = 1 / math.sqrt(1 - self.beta2 ** (step + 1))
        scale = 1 / ((1 - self.beta1 ** (step + 1)) * root)
        for k, g in gradients.items():
            first[k] = g if not self.beta1 else (1 - self.beta1) * g
            if step and self.beta1:
                first[k] = torch.add(first[k], state["first"][k], alpha=self.beta1)
            before = self.beta2 * state["second"][k] if step else torch.zeros_like(g)
            second[k] = torch.addcmul(before, g, g, value=1 - self.beta2)
            deviation = second[k].clamp_min(torch.finfo(g.dtype).tiny).sqrt()
            directions[k] = scale * first[k] / (deviation + self.eps / root)
        return directions, {"first": first, "second": second} if self.beta1 else {"second": second}


def check_inner(
    inner_lr: float, inner_steps: int, inner_optimizer: InnerOptimizer | None = None
) -> None:
    """Raise ``ValueError`` for a rate, a number of steps or an optimiser that makes no sense."""
    if not inner_lr > 0:
        raise ValueError(f"inner_lr is {inner_lr}; expected a positive number")
    if inner_steps < 0:
        raise ValueError(f"inner_steps is {inner_steps}; expected 0 or more")
    if inner_optimizer is not None and not hasattr(inner_optimizer, "direction"):
        raise ValueError(
            f"inner_optimizer is {inner_optimizer!r}; expected an InnerOptimizer such as SGD()"
        )


class LearnedRates(nn.Module):
    """Inner learning rates that are parameters themselves, found by the outer loop.

    Args:
        parameters: the parameters they are for, by name.
        initial: where every rate starts.
        per: ``"parameter"``, a rate for every single number, sign included (Meta-SGD), or
            ``"tensor"``, one for each weight tensor (MAML++).
        steps: different rates for each of so many steps; later steps repeat the last.
            Default: the same at every step.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        initial: float,
        *,
        per: str,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        if per not in ("parameter", "tensor"):
            raise ValueError(f"per is {per!r}; expected 'parameter' or 'tensor'")
        self.index = {name: i for i, name in enumerate(parameters)}
        self.rates = nn.ParameterList(
            nn.Parameter(
                p.new_full((steps or 1, *(p.shape if per == "parameter" else ())), initial)
            )
            for p in parameters.values()
        )

    def forward(self, step: int, name: str) -> Tensor:
        rates: Tensor = self.rates[self.index[name]]
        return rates[min(step, len(rates) - 1)]


def descend(
    loss: Callable[[Parameters, int], Tensor],
    phi: Parameters,
    *,
    steps: int,
    rate: float | Rate,
    optimizer: InnerOptimizer,
    first_order: bool = False,
    graphs: int | None = None,
) -> list[Parameters]:
    """``phi_{l+1} = phi_l - rate_l * direction(grad loss(phi_l))`` for ``l = 0 .. steps-1``.

    Args:
        loss: a scalar, from the parameters and the number ``l`` of the step.
        phi: where to start.
        steps: how many.
        rate: a number, or a function of step and name.
        optimizer: makes directions of gradients.
        first_order: treat the gradients as constants in the outer derivative.
        graphs: hold the graphs of so many steps at a time. Those of the last are kept; earlier
            ones are taken again in the backward pass, as many together, and leave only the
            parameters between. What else ``loss`` uses is then a constant. ``None``: of all.

    Returns:
        ``phi_0 .. phi_steps``, without those inside of steps that are taken again. Where gradients
        are enabled outside, they carry the graph of all steps; under `torch.no_grad` they are
        plain values and no step's graph outlives it.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("this adapts by gradients: use torch.no_grad(), not inference_mode")

    def move(
        step: int, phi: Parameters, state: State, rates: Mapping[str, Tensor | float]
    ) -> tuple[Parameters, State]:
        outer = torch.is_grad_enabled()
        with torch.enable_grad():
            if not outer:
                phi = {k: p.detach().requires_grad_() for k, p in phi.items()}
            gradients = torch.autograd.grad(
                loss(phi, step),
                list(phi.values()),
                create_graph=outer and not first_order,
                materialize_grads=True,
            )
        directions, state = optimizer.direction(dict(zip(phi, gradients, strict=True)), state, step)
        return {k: _moved(p, directions[k], rates[k]) for k, p in phi.items()}, state

    def moves(
        first: int, phi: Parameters, state: State, rates: Sequence[Mapping[str, Tensor | float]]
    ) -> tuple[Parameters, State]:
        for step, own in enumerate(rates, first):
            phi, state = move(step, phi, state, own)
        return phi, state

    outer = torch.is_grad_enabled()
    path, state, step = [phi], dict[str, Parameters](), 0
    again = 0 if graphs is None or not outer else steps - graphs
    while step < steps:
        count = min(graphs, again - step) if graphs and step < again else 1
        rates = [
            {k: rate(s, k) if callable(rate) else rate for k in phi}
            for s in range(step, step + count)
        ]
        if step < again:
            phi, state = _checkpointed(partial(moves, step), phi, state, rates)
        else:
            phi, state = moves(step, phi, state, rates)
        path.append(phi)
        step += count
    return path if outer else [{k: p.detach() for k, p in phi.items()} for phi in path]


def _moved(p: Tensor, direction: Tensor, rate: Tensor | float) -> Tensor:
    if isinstance(rate, Tensor):
        return torch.addcmul(p, direction, rate, value=-1)
    return torch.add(p, direction, alpha=-rate)


def _checkpointed(move: Callable[..., Any], *arguments: Any) -> Any:
    """``move(*arguments)`` without its graph: the backward pass calls it again."""
    leaves, spec = tree_flatten(arguments)
    shape: list[TreeSpec] = []
    outputs = _Again.apply(move, spec, shape, *leaves)  # type: ignore[no-untyped-call]
    return tree_unflatten(outputs, shape[0])


class _Again(Function):
    @staticmethod
    def forward(
        ctx: Any,
        move: Callable[..., Any],
        spec: TreeSpec,
        shape: list[TreeSpec],
        *leaves: Tensor | float,
    ) -> tuple[Tensor, ...]:
        outputs, found = tree_flatten(move(*tree_unflatten(leaves, spec)))
        shape.append(found)
        ctx.move, ctx.spec = move, spec
        ctx.leaves = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        ctx.save_for_backward(*(leaf for leaf in leaves if isinstance(leaf, Tensor)))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        saved, needed = iter(ctx.saved_tensors), ctx.needs_input_grad[3:]
        leaves = [
            next(saved).detach().requires_grad_(need) if leaf is None else leaf
            for leaf, need in zip(ctx.leaves, needed, strict=True)
        ]
        with torch.enable_grad():
            outputs = tree_leaves(ctx.move(*tree_unflatten(leaves, ctx.spec)))
        reached = [pair for pair in zip(outputs, gradients, strict=True) if pair[0].requires_grad]
        inputs = [leaf for leaf, need in zip(leaves, needed, strict=True) if need]
        ends, outer = zip(*reached, strict=True)
        found = iter(torch.autograd.grad(ends, inputs, outer, allow_unused=True))
        return None, None, None, *(next(found) if need else None for need in needed)


def fit_network(
    network: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    n_way: int | None,
    *,
    steps: int,
    rate: float | Rate,
    optimizer: InnerOptimizer,
    first_order: bool = False,
    batch: int | None = None,
    frozen: bool = False,
) -> list[Parameters]:
    """Adapt all trainable parameters of a network to each task: its states after each step.

    Support images are normalised by their own batch.

    Args:
        network: ``[n,...] -> [n,outputs]``.
        support_x: ``[T,S,...]``.
        support_y: ``[T,S]`` or ``[T,S,d]``.
        n_way: outputs that count, ``None`` for regression.
        steps: see `descend`, as the other arguments.
        rate: see there.
        optimizer: see there.
        first_order: see there.
        batch: examples of each step, taken in turn from the support; default all of it.
        frozen: adapt parameters that do not require a gradient, too.

    Returns:
        Parameters and buffers by name, each ``[T,...]``, for the steps that `descend` returns.
    """
    T, S = support_y.shape[:2]
    phi, fixed = (
        {name: p.expand(T, *p.shape) for name, p in part.items()}
        for part in split_parameters(network, frozen=frozen)
    )

    def loss(phi: Parameters, step: int) -> Tensor:
        """The sum over tasks, so that each task's gradient is its own."""
        x, y = support_x, support_y
        if batch is not None and batch < S:
            rows = torch.arange(step * batch, (step + 1) * batch, device=y.device) % S
            x, y = x[:, rows], y[:, rows]
        output, _ = _run(network, {**phi, **fixed}, x, "batch")
        return T * example_loss(output[..., :n_way], y)

    path = descend(
        loss,
        phi,
        steps=steps,
        rate=rate,
        optimizer=optimizer,
        first_order=first_order,
        graphs=None if first_order or support_x.requires_grad else execution().graphs,
    )
    return [{**phi, **fixed} for phi in path]


def adapt_network(
    network: nn.Module,
    support_x: Tensor,
    support_y: Tensor,
    n_way: int | None,
    **how: Any,
) -> Phi:
    """Adapt a network to each task, ``[T,S,...]`` and ``[T,S]``; ``how`` is as in `fit_network`.

    If the policy is inductive, the states hold the support's statistics under the adapted
    parameters, for the queries.

    Returns:
        ``{"network": {name: [T,...]}, "classes": [T,N]}``, for `run_network`.
    """
    states = []
    size = _at_once(network, support_x[:, : how.get("batch")])
    for x, y in zip(torch.split(support_x, size), torch.split(support_y, size), strict=True):
        state = fit_network(network, x, y, n_way, **how)[-1]
        states.append(record_statistics(network, state, x))
    joined = states[0]
    if len(states) > 1:
        joined = {name: torch.cat([state[name] for state in states]) for name in joined}
    return {"network": joined, **class_labels(support_y, n_way)}


def over_tasks(
    loss: Callable[[Task], Tensor], task: Task, learner: nn.Module, network: nn.Module
) -> Tensor:
    """``loss(task)``, a mean over tasks, with its derivative found part by part of the batch.

    No part's graph outlives it, so memory does not grow with the number of tasks. The result can
    be differentiated once.

    Args:
        loss: of some tasks; what it says of each does not depend on the others.
        task: the batch.
        learner: by whose parameters to differentiate.
        network: what adapts to each task.
    """
    parameters = [p for p in learner.parameters() if p.requires_grad]
    size = tasks_together(network, task)
    parts = [task[i : i + size] for i in range(0, len(task), size)]
    if len(parts) == 1 or not torch.is_grad_enabled() or not parameters:
        return loss(task)
    total: Tensor = _PartByPart.apply(loss, parts, *parameters)  # type: ignore[no-untyped-call]
    return total


def tasks_together(network: nn.Module, task: Task) -> int:
    """How many tasks `over_tasks` has in memory at the same time."""
    return _at_once(network, task.support_x, task.query_x)


class _PartByPart(Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: Callable[[Task], Tensor],
        parts: list[Task],
        *parameters: Tensor,
    ) -> Tensor:
        tasks = sum(len(part) for part in parts)
        total = parameters[0].new_zeros(())
        sums = [torch.zeros_like(p) for p in parameters]
        for part in parts:
            with torch.enable_grad():
                share = loss(part) * (len(part) / tasks)
                gradients = torch.autograd.grad(share, parameters, materialize_grads=True)
            total += share.detach()
            torch._foreach_add_(sums, gradients)
        ctx.save_for_backward(*sums)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> Any:
        return None, None, *(outer * gradient for gradient in ctx.saved_tensors)


def split_parameters(network: nn.Module, *, frozen: bool = False) -> tuple[Parameters, Parameters]:
    """What the inner loop adapts, and the rest of the network's state.

    Adapted are the parameters that require a gradient, or all of them with ``frozen``.
    """
    fixed: Parameters = dict(network.named_buffers())
    phi: Parameters = {}
    for name, p in network.named_parameters():
        (phi if frozen or p.requires_grad else fixed)[name] = p
    if not phi:
        raise ValueError("the network has no parameter to adapt: none, or all of them frozen")
    return phi, fixed


def record_statistics(network: nn.Module, state: Parameters, support_x: Tensor) -> Parameters:
    """The states ``[T,...]`` with each support's batch statistics, if the policy is inductive."""
    if batch_norm_policy(network) != "inductive":
        return state
    return {**state, **_run(network, state, support_x, "record")[1]}


def stack_states(states: Sequence[Parameters], support_y: Tensor, n_way: int | None) -> Phi:
    """``phi`` of several tasks: ``{"network": {name: [T,...]}, "classes": [T,N]}``."""
    network = {name: torch.stack([s[name] for s in states]) for name in states[0]}
    return {"network": network, **class_labels(support_y, n_way)}


def run_network(
    network: nn.Module, phi: Phi, query_x: Tensor, source: Source | None = None
) -> Tensor:
    """Answer each task's queries ``[T,Q,...]`` with its own adapted network: ``[T,Q,N]``.

    Args:
        network: the one that was adapted.
        phi: from `stack_states`.
        query_x: the queries.
        source: whose statistics normalise; default by policy: the batch's own if transductive,
            else those in ``phi``.
    """
    if source is None:
        source = "batch" if batch_norm_policy(network) == "transductive" else "stored"
    size = _at_once(network, query_x)
    if size >= len(query_x):
        return _run(network, phi["network"], query_x, source)[0][..., : ways(phi)]
    parts = {name: torch.split(p, size) for name, p in phi["network"].items()}
    outputs = [
        _run(network, {name: part[i] for name, part in parts.items()}, x, source)[0]
        for i, x in enumerate(torch.split(query_x, size))
    ]
    return torch.cat(outputs)[..., : ways(phi)]


def _run(
    network: nn.Module, state: Parameters, x: Tensor, source: Source
) -> tuple[Tensor, Parameters]:
    """Each task's network on its own examples: ``[T,n,...] -> [T,n,outputs]``.

    Also the statistics, by name, if ``source`` is ``"record"``.
    """
    if _stacks(network, x):
        return run_stacked(network, state, x, source)
    buffers = [name for name, _ in network.named_buffers()] if source == "record" else []

    def run(own: Parameters, x: Tensor) -> tuple[Tensor, Parameters]:
        own = dict(own)
        output: Tensor = functional_call(network, own, (x,))
        return output, {name: own[name] for name in buffers}

    with statistics_from(network, source):
        if len(x) > 1:
            several: tuple[Tensor, Parameters] = vmap(run, randomness="different")(state, x)
            return several
        output, recorded = run({name: p[0] for name, p in state.items()}, x[0])
    return output.unsqueeze(0), {name: value.unsqueeze(0) for name, value in recorded.items()}


def _stacks(network: nn.Module, x: Tensor) -> bool:
    exported = torch.compiler.is_compiling()
    return execution().stacked and x.device.type == "cpu" and not exported and can_stack(network)


def _at_once(network: nn.Module, *x: Tensor) -> int:
    """How many tasks to put through the network together, with the examples ``x`` of each.

    Many small tasks at once save time, large ones have none to save. Layers that change
    themselves when they run, or that vmap does not know, go task by task.
    """
    T, stacks = len(x[0]), _stacks(network, x[0])
    alone = (nn.modules.batchnorm._BatchNorm, nn.RNNBase)
    if T == 1 or (not stacks and any(isinstance(part, alone) for part in network.modules())):
        return 1
    if (chosen := execution().tasks_at_once) is not None:
        return chosen
    most = 1 << (19 if stacks else 16)
    size = most // max(1, sum(part[0].numel() for part in x))
    return math.ceil(T / math.ceil(T / size)) if size > 2 else 1
