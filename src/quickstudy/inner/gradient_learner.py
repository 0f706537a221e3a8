"""What learners that adapt by gradient steps share: the inner loop, and the learner around it."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from quickstudy.embedding import output_size
from quickstudy.functional import class_weights, example_loss
from quickstudy.inner.graphs import graphs_at_once
from quickstudy.inner.networks import in_turn, run_tasks
from quickstudy.inner.optimizers import Parameters, State
from quickstudy.inner.parts import part_by_part, split_tasks, tasks_at_once
from quickstudy.inner.repeated import check_reached, constant_leaf, leaves, repeated
from quickstudy.learner import MetaLearner, Phi, class_labels, ways
from quickstudy.nn.norm import Source, batch_norm_policy
from quickstudy.task import Task

__all__ = [
    "GradientLearner",
    "InnerStep",
    "StepLoss",
    "SupportLoss",
    "grad",
    "trajectory",
    "unroll",
]

StepLoss = Callable[[Parameters], Tensor]
"""``L(phi, D_tr)`` at one step, a sum over tasks: the gradient of each is independent of others."""


class SupportLoss(Protocol):
    """`StepLoss` at any step: the number of the step may decide which examples are looked at."""

    def __call__(self, phi: Parameters, step: int) -> Tensor: ...


class InnerStep(Protocol):
    """One step of an algorithm, see `GradientLearner.inner_step`."""

    def __call__(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]: ...


def grad(loss: StepLoss, phi: Parameters, *, first_order: bool = False) -> Parameters:
    """``grad_phi loss(phi)`` by name, with a graph of its own for the exact second derivative.

    Args:
        loss: a scalar, from the parameters; those it does not use have a gradient of zero.
        phi: where to take the gradient.
        first_order: treat the gradient as a constant in the outer derivative.
    """
    outer = torch.is_grad_enabled()
    with torch.enable_grad():
        at = phi
        if not outer or not all(p.requires_grad for p in phi.values()):
            at = {k: p if outer and p.requires_grad else constant_leaf(p) for k, p in phi.items()}
        value = loss(at)
        wanted = outer and not first_order and bool(at is phi or leaves(value))
        gradients = torch.autograd.grad(
            value, list(at.values()), create_graph=wanted, allow_unused=True
        )
    return {
        k: torch.zeros_like(p) if gradient is None else gradient
        for (k, p), gradient in zip(phi.items(), gradients, strict=True)
    }


def unroll(
    inner_step: InnerStep,
    support_loss: SupportLoss,
    phi: Parameters,
    state: State | None = None,
    *,
    steps: int,
    first: int = 0,
    parameters: Sequence[Tensor] = (),
    graphs: int | None = None,
) -> tuple[Parameters, State]:
    """The inner loop: from ``phi_0`` to ``phi_L`` by ``L`` inner steps.

    Where gradients are enabled outside, the result carries the graph of all steps; under
    `torch.no_grad` it is a plain value, and no step's graph outlives it.

    Args:
        inner_step: of the algorithm.
        support_loss: what it descends.
        phi: where to start.
        state: of the inner optimiser at the start.
        steps: ``L``.
        first: the number of the first step.
        graphs: how many steps' graphs are held at a time: those of the last steps; the backward
            pass repeats earlier ones, as many together. ``None`` keeps all graphs.
        parameters: all that steps use besides ``phi`` and that requires a gradient, which only
            steps that are repeated have to know.

    Returns:
        ``phi_L``, and the inner optimiser's state.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("this adapts by gradients: use torch.no_grad(), not inference_mode")
    phi, state = _plain(phi), state or {}
    start = [phi, state]
    end, with_graph = first + steps, first + _without_graph(steps, graphs)
    some_without = first < with_graph
    while first < with_graph:
        count = min(graphs or 1, with_graph - first)
        some = partial(unroll, inner_step, support_loss, steps=count, first=first)
        phi, state = repeated(some, phi, state, parameters=parameters)
        first += count
    for step in range(first, end):
        phi, state = inner_step(phi, state, step, partial(support_loss, step=step))
    if some_without:
        check_reached([phi, state], [*parameters, *leaves(start)])
    return phi, state


def trajectory(
    inner_step: InnerStep,
    support_loss: SupportLoss,
    phi: Parameters,
    state: State | None = None,
    *,
    steps: int,
    parameters: Sequence[Tensor] = (),
    graphs: int | None = None,
) -> list[Parameters]:
    """The whole way of `unroll`, whose arguments these are: ``phi_0 .. phi_L``."""
    path, state = [_plain(phi)], state or {}
    without_graph = _without_graph(steps, graphs)
    for step in range(steps):
        one = partial(unroll, inner_step, support_loss, steps=1, first=step)
        if step < without_graph:
            phi, state = repeated(one, path[-1], state, parameters=parameters)
        else:
            phi, state = one(path[-1], state)
        path.append(phi)
    if without_graph:
        check_reached(path[-1], [*parameters, *leaves(path[0])])
    return path


def _without_graph(steps: int, graphs: int | None) -> int:
    """How many steps, from the first on, keep no graph."""
    return 0 if graphs is None or not torch.is_grad_enabled() else max(0, steps - graphs)


def _plain(phi: Parameters) -> Parameters:
    return phi if torch.is_grad_enabled() else {k: p.detach() for k, p in phi.items()}


class GradientLearner(MetaLearner):
    """A learner whose ``phi`` is a network's parameters after gradient steps on the support::

        phi_0     = theta                                                       `start`
        phi_{l+1} = phi_l, a step down grad L(phi_l, D_tr)    l = 0 .. L-1      `inner_step`
        loss      = L(phi_L, D_ts), a mean over tasks                           `loss`

    A subclass sets ``network`` and ``inner_steps``, which is ``L``, and writes `inner_step`: that
    is the algorithm. Anything else it learns (rates, an inner optimiser) must be a parameter of the
    learner.

    ``L(., .)`` is the mean over examples; in a support with classes of unequal size, the mean over
    classes of that. ``phi`` is ``{"network": adapted parameters and
    statistics by name, each [T,...], "classes": [T,N]}``.

    Batch norm: support images are normalised by their own batch. Queries too when the policy is
    ``"transductive"``; when ``"inductive"``, by the support set's statistics under the adapted
    parameters, so that a query never sees another. Running averages, which belong to no task, are
    not used.

    Attributes:
        network: ``f``, a module ``[n,...] -> [n,outputs]``.
        inner_steps: ``L``; may be changed afterwards.
        first_order: whether the outer derivative takes inner gradients for constants.
        kept: names of the network's parameters that inner steps leave alone; the outer loop
            learns them like the start of the others.
    """

    label_equivariant = False
    network: nn.Module
    inner_steps: int
    first_order: bool = False
    kept: frozenset[str] = frozenset()

    @abstractmethod
    def inner_step(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        """From ``phi_l`` to ``phi_{l+1}``, for all tasks of a batch at once.

        Args:
            phi: ``phi_l``, each ``[T,...]``; new values are made of these, none is changed.
            state: what the step before returned; empty at first.
            step: ``l``, from 0.
            support_loss: ``L(., D_tr)``, for `grad`.

        Returns:
            ``phi_{l+1}``, and what the next step has to know besides.
        """

    @property
    def max_way(self) -> int | None:
        return output_size(self.network)

    @in_turn
    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        found, parts = [], split_tasks(self.network, support_x, support_y)
        for x, y in parts:
            support_loss = self.support_loss(x, y, n_way)
            phi, _ = unroll(
                self.inner_step,
                support_loss,
                self.start(len(x)),
                self.start_state(),
                steps=self.inner_steps,
                **self.repeating(support_loss, x, y, parts=len(parts)),
            )
            found.append(self.network_state(phi, x, self.inner_steps))
        # A copy of even one part: some of its tensors are views of the learner's own.
        network = {name: torch.cat([state[name] for state in found]) for name in found[0]}
        return {"network": network, **class_labels(support_y, n_way)}

    @in_turn
    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        transductive = batch_norm_policy(self.network) == "transductive"
        return self.answer(phi, query_x, "batch" if transductive else "stored")

    @part_by_part
    def loss(self, task: Task) -> Tensor:
        """The outer loss, a scalar: ``L(phi_L, D_ts)``, a mean over tasks and queries."""
        self.check_task(task.support_x, task.support_y, task.n_way, regression=True)
        support_loss = self.support_loss(task.support_x, task.support_y, task.n_way)
        phi, _ = unroll(
            self.inner_step,
            support_loss,
            self.start(len(task)),
            self.start_state(),
            steps=self.inner_steps,
            **self.repeating(support_loss, task.support_x, task.support_y),
        )
        return self.query_loss(phi, task, self.inner_steps)

    def tasks_in_memory(self, task: Task) -> int:
        return tasks_at_once(self.network, task.support_x, task.query_x)

    def start(self, tasks: int) -> Parameters:
        """``phi_0``, each ``[T,...]``: the network's parameters that steps move."""
        own = self.network.named_parameters()
        theta = {k: p for k, p in own if p.requires_grad and k not in self.kept}
        if not theta:
            raise ValueError("the network has no parameter to adapt: none, or all of them frozen")
        return {k: p.expand(tasks, *p.shape) for k, p in theta.items()}

    def start_state(self) -> State:
        """The inner optimiser's state before the first step: none."""
        return {}

    def step_parameters(self, step: int, tasks: int) -> Parameters:
        """What else the network has at a step, each ``[T,...]``: nothing, unless steps differ."""
        return {}

    def support_loss(
        self, x: Tensor, y: Tensor, n_way: int | None, weight: Tensor | None = None
    ) -> SupportLoss:
        """``L(., D_tr)`` of some tasks, ``[T,S,...]`` and ``[T,S]``.

        Unless a ``weight [T,S]`` of each example is given, all classes count alike.
        """
        rest = self.rest(len(x))
        weight = class_weights(y, n_way) if weight is None else weight

        def loss(phi: Parameters, step: int) -> Tensor:
            state = {**rest, **phi, **self.step_parameters(step, len(x))}
            output, _ = run_tasks(self.network, state, x, "batch")
            if n_way is not None and output.shape[-1] < n_way:
                raise ValueError(
                    f"the network has {output.shape[-1]} outputs, and the task {n_way} classes"
                )
            return len(x) * example_loss(output[..., :n_way], y, weight)

        return loss

    def query_loss(self, phi: Parameters, task: Task, step: int) -> Tensor:
        """``L(phi, D_ts)`` after so many steps."""
        network = self.network_state(phi, task.support_x, step)
        answer = self.predict(
            {"network": network, **class_labels(task.support_y, task.n_way)}, task.query_x
        )
        return example_loss(answer, task.query_y)

    def network_state(self, phi: Parameters, support_x: Tensor, step: int) -> Parameters:
        """What the network needs for queries, which is the support's statistics if inductive."""
        state = self.whole_state(phi, step)
        if batch_norm_policy(self.network) == "inductive":
            state |= run_tasks(self.network, state, support_x, "record")[1]
        return state

    def whole_state(self, phi: Parameters, step: int) -> Parameters:
        """``phi`` and the rest of the network's parameters and buffers, each ``[T,...]``."""
        tasks = len(next(iter(phi.values())))
        return {**self.rest(tasks), **phi, **self.step_parameters(step, tasks)}

    def rest(self, tasks: int) -> Parameters:
        """The network's parameters and buffers as they are, each ``[T,...]``; `phi` goes on top."""
        own = (*self.network.named_parameters(), *self.network.named_buffers())
        if unsized := next((k for k, p in own if is_lazy(p)), None):
            raise ValueError(
                f"{unsized} has no size yet: let the network see one example before it is adapted"
            )
        return {k: p.expand(tasks, *p.shape) for k, p in own}

    def answer(self, phi: Phi, query_x: Tensor, source: Source) -> Tensor:
        """`predict`, normalising by the statistics of ``source``: see `statistics_from`."""
        names = list(phi["network"])
        outputs = [
            run_tasks(self.network, dict(zip(names, state, strict=True)), x, source)[0]
            for x, *state in split_tasks(self.network, query_x, *phi["network"].values())
        ]
        return torch.cat(outputs)[..., : ways(phi)]

    def repeating(
        self, support_loss: SupportLoss, *support: Tensor, parts: int = 1
    ) -> dict[str, Any]:
        """The ``parameters`` and ``graphs`` of `unroll`, if so many parts are to be held."""
        parameters = self.outer_parameters(*support) if torch.is_grad_enabled() else None
        if parameters is None:
            return {}

        def step() -> tuple[Parameters, State]:
            start = {k: p.clone() for k, p in self.start(len(support[0])).items()}
            return self.inner_step(start, self.start_state(), 0, partial(support_loss, step=0))

        graphs = graphs_at_once(self, support[0], self.inner_steps, step, parts)
        return {"parameters": parameters, "graphs": graphs}

    def outer_parameters(self, *support: Tensor) -> list[Tensor] | None:
        """What `unroll` uses besides ``phi``; ``None`` where all graphs must be kept.

        That is where the support is to get a gradient, too, and where a layer of the network
        changes itself when it runs, which must not happen twice.
        """
        changing = any(
            isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
            for layer in self.network.modules()
        )
        if self.first_order or changing or any(x.requires_grad for x in support):
            return None
        return [p for p in self.parameters() if p.requires_grad]
