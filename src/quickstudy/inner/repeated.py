"""Steps without a graph: the backward pass repeats them, and never gets a gradient wrong."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

__all__ = ["check_reached", "constant_leaf", "differentiable_once", "leaves", "repeated"]


def repeated(call: Callable[..., Any], *arguments: Any, parameters: Sequence[Tensor] = ()) -> Any:
    """``call(*arguments)`` without its graph, which the backward pass makes by repeating the call.

    The repeated call sees the same random numbers and the same autocast as the first.

    Args:
        call: from a nesting of tensors to a nesting of tensors.
        arguments: the nesting; gradients flow to its tensors.
        parameters: what ``call`` uses besides that requires a gradient, which it gets too. They
            are leaves and must not change before the backward pass.

    Raises:
        RuntimeError: in the backward pass, if ``call`` uses another tensor that requires a
            gradient: it would get none.
    """
    leaves, spec = tree_flatten(arguments)
    output_specs: list[TreeSpec] = []
    outputs = _Repeated.apply(call, spec, output_specs, len(leaves), *leaves, *parameters)  # type: ignore[no-untyped-call]
    return tree_unflatten(outputs, output_specs[0])


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass without a graph, which says so where one is asked for.

    (`torch.autograd.function.once_differentiable` says so only where the gradient that comes in
    has a graph, and is silently wrong elsewhere.)
    """

    @wraps(backward)
    def checked(ctx: Any, *gradients: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "this loss can be differentiated once, and a graph of its gradient is asked for "
                "(create_graph=True): keep all graphs, of whole batches, with "
                "quickstudy.execution.executing(graphs=None, tasks_at_once=..., stacked=False)"
            )
        return backward(ctx, *gradients)

    return checked


class _Repeated(Function):
    @staticmethod
    def forward(
        ctx: Any,
        call: Callable[..., Any],
        spec: TreeSpec,
        output_specs: list[TreeSpec],
        count: int,
        *inputs: Any,
    ) -> tuple[Tensor, ...]:
        ctx.conditions = _Conditions(inputs)
        outputs, output_spec = tree_flatten(call(*tree_unflatten(inputs[:count], spec)))
        output_specs.append(output_spec)
        ctx.call, ctx.spec, ctx.count = call, spec, count
        ctx.plain = [None if isinstance(value, Tensor) else value for value in inputs]
        ctx.save_for_backward(
            *(value for value in (*inputs, *outputs) if isinstance(value, Tensor))
        )
        return tuple(outputs)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        saved, needed, count = iter(ctx.saved_tensors), ctx.needs_input_grad[4:], ctx.count
        inputs = [next(saved) if value is None else value for value in ctx.plain]
        before = list(saved)
        for i in range(count):  # parameters are not copied: `call` uses them directly
            if isinstance(inputs[i], Tensor):
                inputs[i] = inputs[i].detach().requires_grad_(needed[i])
        with torch.enable_grad(), ctx.conditions.restored():
            outputs = tree_leaves(ctx.call(*tree_unflatten(inputs[:count], ctx.spec)))
        _check_same(outputs, before, inputs[:count])
        pairs = [
            (end, outer)
            for end, outer in zip(outputs, gradients, strict=True)
            if isinstance(end, Tensor) and end.requires_grad
        ]
        ends, outers = [end for end, _ in pairs], [outer for _, outer in pairs]
        wanted = [value for value, need in zip(inputs, needed, strict=True) if need]
        check_reached(ends, wanted)
        reached = iter(torch.autograd.grad(ends, wanted, outers, allow_unused=True))
        return None, None, None, None, *(next(reached) if need else None for need in needed)


def _check_same(outputs: list[Any], before: list[Tensor], inputs: list[Any]) -> None:
    """Raise ``RuntimeError`` if the repeated call came to another end, by more than rounding.

    More is a hundredth of the way from an input to the output that stands in its place.
    """
    again = [value.detach() for value in outputs if isinstance(value, Tensor)]
    starts = [value for value in inputs if isinstance(value, Tensor)]
    for i, (new, old) in enumerate(zip(again, before, strict=True)):
        if old.is_meta or torch.equal(new, old):
            continue
        moved = old - starts[i] if i < len(starts) and starts[i].shape == old.shape else old
        rounding = 100 * torch.finfo(old.dtype).eps * old.abs().max()
        if not bool((new - old).abs().max() <= 0.01 * moved.abs().max() + rounding):
            raise RuntimeError(
                "an inner step that the backward pass repeats came to another result than before: "
                "a setting, a mode, an input or a buffer has changed since the loss was computed, "
                "or the network is random by other means than torch. Call backward first, or keep "
                "all graphs with quickstudy.execution.executing(graphs=None)"
            )


class _Conditions:
    """What a call depends on besides its arguments: random numbers and autocast."""

    def __init__(self, inputs: Iterable[Any]) -> None:
        kinds = {value.device.type for value in inputs if isinstance(value, Tensor)} - {"meta"}
        self.kind = next(iter(kinds), "cpu")
        self.dtype = torch.get_autocast_dtype(self.kind)
        self.autocast = torch.is_autocast_enabled(self.kind)
        self.random = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if self.kind == "cuda" else []

    @contextmanager
    def restored(self) -> Iterator[None]:
        autocast = torch.autocast(self.kind, dtype=self.dtype, enabled=self.autocast)
        with torch.random.fork_rng(range(len(self.cuda))), autocast:
            torch.set_rng_state(self.random)
            if self.cuda:
                torch.cuda.set_rng_state_all(self.cuda)
            yield


def leaves(state: Any) -> list[Tensor]:
    """The leaves of the graph, those that a gradient could be asked for, under a nesting."""
    nodes = [v.grad_fn for v in tree_leaves(state) if isinstance(v, Tensor) and v.grad_fn]
    found = [v for v in tree_leaves(state) if isinstance(v, Tensor) and v.is_leaf]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.append(leaf)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
    return [leaf for leaf in found if leaf.requires_grad and not hasattr(leaf, "is_constant")]


def constant_leaf(x: Tensor) -> Tensor:
    """A tensor to differentiate by, although it is a constant to everybody else."""
    leaf = x.detach().requires_grad_()
    leaf.is_constant = True  # type: ignore[attr-defined]
    return leaf


def check_reached(outputs: Any, inputs: Iterable[Tensor]) -> None:
    """Raise ``RuntimeError`` if ``outputs`` depend on a leaf that is not among ``inputs``."""
    known = {id(value) for value in inputs}
    for leaf in leaves(outputs):
        if id(leaf) not in known:
            raise RuntimeError(
                f"a tensor of shape {list(leaf.shape)} that requires a gradient is used in the "
                "inner loop and would get none: make it a parameter of the learner (for instance, "
                "an inner optimiser an nn.Module with nn.Parameter), or keep all graphs with "
                "quickstudy.execution.executing(graphs=None, tasks_at_once=...) for whole batches"
            )
