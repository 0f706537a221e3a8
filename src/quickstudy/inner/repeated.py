"""Steps without a graph: the backward pass repeats them, and never gets a gradient wrong."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

__all__ = ["check_reached", "repeated"]


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
        ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        saved, needed, count = iter(ctx.saved_tensors), ctx.needs_input_grad[4:], ctx.count
        inputs = [next(saved) if value is None else value for value in ctx.plain]
        for i in range(count):  # parameters are not copied: `call` uses them directly
            if isinstance(inputs[i], Tensor):
                inputs[i] = inputs[i].detach().requires_grad_(needed[i])
        with torch.enable_grad(), ctx.conditions.restored():
            outputs = tree_leaves(ctx.call(*tree_unflatten(inputs[:count], ctx.spec)))
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


def check_reached(outputs: Iterable[Tensor], inputs: Iterable[Tensor]) -> None:
    """Raise ``RuntimeError`` if ``outputs`` depend on a leaf that is not among ``inputs``."""
    known = {id(value) for value in inputs}
    nodes = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            raise RuntimeError(
                f"a tensor of shape {list(leaf.shape)} that requires a gradient is used in the "
                "inner loop and would get none: make it a parameter of the learner (for instance, "
                "an inner optimiser an nn.Module with nn.Parameter), or keep all graphs with "
                "quickstudy.execution.executing(graphs=None, tasks_at_once=...) for whole batches"
            )
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                nodes.append(following)
