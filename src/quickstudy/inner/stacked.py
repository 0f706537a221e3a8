"""One network with a stack of weights, one set for each task: all tasks in one pass.

Channels of ``T`` tasks lie side by side: images are ``[n, T*C, H, W]``, vectors ``[n, T*D]``. A
convolution is then one grouped convolution, and most layers need not know of tasks at all.
`torch.func.vmap` gives the same numbers for any network; this is faster for layers it knows,
because each derivative of theirs, the second one too, is one call where autograd composes dozens.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from quickstudy.inner.operations import cancelled, convolve, normalise
from quickstudy.nn.conv4 import Conv4
from quickstudy.nn.folding import ConvolutionGeometry, first_block, folds, is_plain
from quickstudy.nn.mlp import MLP
from quickstudy.nn.norm import BatchNorm, Source

__all__ = ["can_stack", "run_stacked"]

_LAST = torch.channels_last


def can_stack(network: nn.Module) -> bool:
    """Whether `run_stacked` knows every layer of the network, and each weight has one place."""
    return _knows(network, set())


def _knows(network: nn.Module, seen: set[int]) -> bool:
    weights = {id(p) for p in network._parameters.values() if p is not None}
    once = seen.isdisjoint(weights)
    seen |= weights
    return (
        once
        and type(network) in _RUN
        and "forward" not in vars(network)
        and not (network._forward_hooks or network._forward_pre_hooks or network._backward_hooks)
        and not (isinstance(network, nn.Conv2d) and not is_plain(network))
        and not (
            isinstance(network, nn.Flatten) and (network.start_dim, network.end_dim) != (1, -1)
        )
        and all(_knows(part, seen) for part in network._modules.values() if part is not None)
    )


def run_stacked(
    network: nn.Module, state: dict[str, Tensor], x: Tensor, source: Source
) -> tuple[Tensor, dict[str, Tensor]]:
    """Each task's network on its own examples.

    Args:
        network: one for which `can_stack` is true; its own parameters are not used.
        state: parameters and buffers by name, each ``[T,...]``.
        x: ``[T,n,...]``.
        source: whose statistics normalise, see `statistics_from`.

    Returns:
        The outputs ``[T,n,outputs]``, and the statistics by name if ``source`` is ``"record"``.
    """
    stack = _Stack(state, len(x), source, {})
    side_by_side = x.transpose(0, 1).flatten(1, 2)
    if x.dim() == 5:
        side_by_side = side_by_side.contiguous(memory_format=_LAST)
    y = stack.run(network, "", side_by_side)
    return torch.unflatten(y, 1, (stack.tasks, -1)).transpose(0, 1), stack.recorded


class _Stack(NamedTuple):
    state: dict[str, Tensor]
    tasks: int
    source: Source
    recorded: dict[str, Tensor]

    def run(self, layer: nn.Module, name: str, x: Tensor) -> Tensor:
        return _RUN[type(layer)](self, layer, name, x)

    def flat(self, name: str) -> Tensor:
        """``[T,C,...]`` to ``[T*C,...]``."""
        return self.state[name].flatten(0, 1)


def _without_parameters(stack: _Stack, layer: nn.Module, name: str, x: Tensor) -> Tensor:
    """A layer without parameters that treats every channel alike."""
    y: Tensor = layer(x)
    return y


def _sequence(stack: _Stack, layer: nn.Module, name: str, x: Tensor) -> Tensor:
    """Children in order. Before batch statistics a bias cancels out; a ReLU after them is fused."""
    parts = [(part, f"{name}{key}.") for key, part in layer._modules.items() if part is not None]
    while parts:
        (part, key), *others = parts
        kinds, batch = [type(part) for part, _ in parts[:3]], stack.source == "batch"
        known = isinstance(part, nn.Conv2d) and folds(part, x)
        if known and kinds[1:] == [BatchNorm, nn.ReLU]:
            x, parts = _first_block(stack, *parts[0], *parts[1], x), parts[3:]
        elif batch and kinds[:2] == [nn.Conv2d, BatchNorm]:
            x, parts = _convolve(stack, part, key, x, bias=False), others
        elif batch and kinds[:2] == [BatchNorm, nn.ReLU]:
            x, parts = _normalise(stack, part, key, x, relu=True), others[1:]
        else:
            x, parts = stack.run(part, key, x), others
    return x


def _conv4(stack: _Stack, layer: nn.Module, name: str, x: Tensor) -> Tensor:
    assert isinstance(layer, Conv4)
    layer.check(torch.unflatten(x, 1, (stack.tasks, -1))[:, 0])
    return layer.pooled(stack.run(layer.blocks, f"{name}blocks.", x))


def _mlp(stack: _Stack, layer: nn.Module, name: str, x: Tensor) -> Tensor:
    assert isinstance(layer, MLP)
    flat = x.flatten(1)
    layer.check(torch.unflatten(x, 1, (stack.tasks, -1))[:, 0])
    return stack.run(layer.layers, f"{name}layers.", flat)


def _linear(stack: _Stack, layer: nn.Module, name: str, x: Tensor) -> Tensor:
    z = torch.unflatten(x, 1, (stack.tasks, -1)).transpose(0, 1)
    weight = stack.state[f"{name}weight"].mT
    bias = stack.state.get(f"{name}bias")
    y = torch.bmm(z, weight) if bias is None else torch.baddbmm(bias.unsqueeze(1), z, weight)
    return y.transpose(0, 1).flatten(1)


def _convolve(
    stack: _Stack, layer: nn.Module, name: str, x: Tensor, *, bias: bool = True
) -> Tensor:
    assert isinstance(layer, nn.Conv2d)
    w = stack.state[f"{name}weight"]
    w = w.permute(0, 1, 3, 4, 2).flatten(0, 1).permute(0, 3, 1, 2)  # channels last, one copy
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        x, w = x.to(dtype), w.to(dtype)
    y = convolve(x, w, ConvolutionGeometry.of(layer, x, stack.tasks))
    if f"{name}bias" not in stack.state:
        return y
    b = stack.flat(f"{name}bias")
    return y + b.view(-1, 1, 1) if bias else cancelled(y, b)


def _first_block(
    stack: _Stack, conv: nn.Module, conv_name: str, norm: nn.Module, norm_name: str, x: Tensor
) -> Tensor:
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, BatchNorm)
    names = ["weight", "bias", "running_mean", "running_var"]
    weight, bias, *stored = (stack.state[norm_name + part] for part in names)
    filters, filter_bias = (stack.state.get(conv_name + part) for part in ("weight", "bias"))
    assert filters is not None
    geometry = ConvolutionGeometry.of(conv, x, stack.tasks)
    statistics = (stored[0], stored[1]) if stack.source == "stored" else None
    y, *used = first_block(x, geometry, filters, filter_bias, weight, bias, norm.eps, statistics)
    if stack.source == "batch":
        norm.check(y)
    elif stack.source == "record":
        stack.recorded.update(zip((norm_name + part for part in names[2:]), used, strict=True))
    return y


def _normalise(
    stack: _Stack, layer: nn.Module, name: str, x: Tensor, *, relu: bool = False
) -> Tensor:
    assert isinstance(layer, BatchNorm)
    weight, bias = stack.flat(f"{name}weight"), stack.flat(f"{name}bias")
    if stack.source == "batch":
        layer.check(x)
        return normalise(x, weight, bias, layer.eps, relu=relu)
    if stack.source == "record":
        mean, var = layer.statistics(x)
        for key, value in (("running_mean", mean), ("running_var", var)):
            stack.recorded[name + key] = torch.unflatten(value, 0, (stack.tasks, -1))
    else:
        mean, var = stack.flat(f"{name}running_mean"), stack.flat(f"{name}running_var")
    return layer.normalise(x, mean, var, weight, bias)


_RUN: dict[type[nn.Module], Callable[[_Stack, nn.Module, str, Tensor], Tensor]] = {
    nn.Sequential: _sequence,
    Conv4: _conv4,
    MLP: _mlp,
    nn.Linear: _linear,
    nn.Conv2d: _convolve,
    BatchNorm: _normalise,
    **dict.fromkeys(
        (nn.ReLU, nn.Tanh, nn.GELU, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten),
        _without_parameters,
    ),
}
