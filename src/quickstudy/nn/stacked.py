"""One network with a stack of weights: every task's own, and all tasks in one pass.

Channels of ``T`` tasks lie side by side: images are ``[n, T*C, H, W]``, vectors ``[n, T*D]``. A
convolution is then one grouped convolution, and most layers need not know of tasks at all.
`torch.func.vmap` gives the same numbers for any network; this is faster for layers it knows,
because each derivative of theirs, the second one too, is one call where autograd composes dozens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from quickstudy.nn.conv4 import Conv4
from quickstudy.nn.mlp import MLP
from quickstudy.nn.norm import BatchNorm, Source

__all__ = ["can_stack", "run_stacked"]

_LAST = torch.channels_last


def can_stack(network: nn.Module) -> bool:
    """Whether `run_stacked` knows every layer of the network."""
    return all(
        type(layer) in _RUN
        and not (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
        and not (isinstance(layer, nn.Conv2d) and not _is_plain(layer))
        and not (isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) != (1, -1))
        for layer in network.modules()
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


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def _alone(stack: _Stack, layer: nn.Module, name: str, x: Tensor) -> Tensor:
    """A layer without parameters that treats every channel alike."""
    y: Tensor = layer(x)
    return y


def _sequence(stack: _Stack, layer: nn.Module, name: str, x: Tensor) -> Tensor:
    """Children in order. Before batch statistics a bias cancels out; a ReLU after them is fused."""
    parts = [(f"{name}{key}", part) for key, part in layer.named_children()]
    done = False
    for i, (key, part) in enumerate(parts):
        after = type(parts[i + 1][1]) if i + 1 < len(parts) else None
        batch = stack.source == "batch"
        if done:
            done = False
        elif batch and isinstance(part, nn.Conv2d) and after is BatchNorm:
            x = _convolve(stack, part, key + ".", x, bias=False)
        elif batch and isinstance(part, BatchNorm) and after is nn.ReLU:
            x, done = _normalise(stack, part, key + ".", x, relu=True), True
        else:
            x = stack.run(part, key + ".", x)
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
    y = z @ weight if bias is None else torch.baddbmm(bias.unsqueeze(1), z, weight)
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
    shape = _Shape(layer.stride, layer.padding, x.shape[-2:], layer.kernel_size, stack.tasks)
    y: Tensor = (_Product.apply if torch.is_grad_enabled() else _product)(x, w, shape)
    if f"{name}bias" not in stack.state:
        return y
    b = stack.flat(f"{name}bias")
    return y + b.view(-1, 1, 1) if bias else _Cancelled.apply(y, b)


def _normalise(
    stack: _Stack, layer: nn.Module, name: str, x: Tensor, *, relu: bool = False
) -> Tensor:
    assert isinstance(layer, BatchNorm)
    weight, bias = stack.flat(f"{name}weight"), stack.flat(f"{name}bias")
    if stack.source == "batch":
        layer.check(x)
        y: Tensor = _Normalise.apply(x, weight, bias, layer.eps, relu)
        return y
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
        (nn.ReLU, nn.Tanh, nn.GELU, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.Flatten), _alone
    ),
}


class _Shape(NamedTuple):
    stride: Any
    padding: Any
    size: Any
    kernel: Any
    tasks: int


class _Operation(Function):
    apply: Callable[..., Any]


class _Product(_Operation):
    """Convolution. Linear in both arguments, so that its derivatives of any order are one of three
    such products, each a single call::

        y = conv(x, w)      dx = input_gradient(dy, w)      dw = weight_gradient(x, dy)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, shape: _Shape) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.shape = shape
        return _product(x, w, shape)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, w = ctx.saved_tensors
        dx = _InputGradient.apply(dy, w, ctx.shape) if ctx.needs_input_grad[0] else None
        dw = _WeightGradient.apply(x, dy, ctx.shape) if ctx.needs_input_grad[1] else None
        return dx, dw, None


class _InputGradient(_Operation):
    @staticmethod
    def forward(ctx: Any, dy: Tensor, w: Tensor, shape: _Shape) -> Tensor:
        ctx.save_for_backward(dy, w)
        ctx.shape = shape
        x = dy.new_empty(()).expand(len(dy), w.shape[1] * shape.tasks, *shape.size)
        return _gradients(dy, x, w, shape, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        dy, w = ctx.saved_tensors
        ddy = _Product.apply(u, w, ctx.shape) if ctx.needs_input_grad[0] else None
        dw = _WeightGradient.apply(u, dy, ctx.shape) if ctx.needs_input_grad[1] else None
        return ddy, dw, None


class _WeightGradient(_Operation):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dy: Tensor, shape: _Shape) -> Tensor:
        ctx.save_for_backward(x, dy)
        ctx.shape = shape
        w = x.new_empty(()).expand(dy.shape[1], x.shape[1] // shape.tasks, *shape.kernel)
        return _gradients(dy, x, w, shape, [False, True, False])[1]

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        x, dy = ctx.saved_tensors
        dx = _InputGradient.apply(dy, u, ctx.shape) if ctx.needs_input_grad[0] else None
        ddy = _Product.apply(x, u, ctx.shape) if ctx.needs_input_grad[1] else None
        return dx, ddy, None


def _product(x: Tensor, w: Tensor, shape: _Shape) -> Tensor:
    return F.conv2d(x, w, None, shape.stride, shape.padding, 1, shape.tasks)


def _gradients(
    dy: Tensor, x: Tensor, w: Tensor, shape: _Shape, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        dy.contiguous(memory_format=_LAST),
        x.contiguous(memory_format=_LAST),
        w.contiguous(memory_format=_LAST),
        None,
        shape.stride,
        shape.padding,
        (1, 1),
        False,
        (0, 0),
        shape.tasks,
        wanted,
    )
    return found


class _Cancelled(_Operation):
    """A bias that has no effect: its gradient is zero."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(bias)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return dy, torch.zeros_like(*ctx.saved_tensors)


class _Normalise(_Operation):
    """``y = gamma (x - mean) / sigma + beta`` over all dimensions but the second, then ReLU."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool
    ) -> Tensor:
        y, mean, rstd = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, rstd, y.relu_() if relu else None)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return *_NormaliseGradient.apply(dy, *ctx.saved_tensors, ctx.eps), None, None


class _NormaliseGradient(_Operation):
    @staticmethod
    def forward(
        ctx: Any,
        dy: Tensor,
        x: Tensor,
        weight: Tensor,
        mean: Tensor,
        rstd: Tensor,
        y: Tensor | None,
        eps: float,
    ) -> Any:
        dz = dy if y is None else torch.ops.aten.threshold_backward(dy, y, 0)
        ctx.save_for_backward(dz, x, weight, mean, rstd, y)
        return torch.ops.aten.native_batch_norm_backward(
            dz, x, weight, None, None, mean, rstd, True, eps, [True, True, True]
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, u: Tensor, a: Tensor, b: Tensor) -> Any:
        """By hand. With ``xhat = (x - mean) rstd`` and ``<.>`` the mean over a channel, the three
        outputs are ``gamma rstd (dz - <dz> - xhat <dz xhat>)``, ``sum(dz xhat)`` and ``sum(dz)``;
        ``u``, ``a``, ``b`` are the derivatives by them. Every term is linear in ``x``, ``u`` and
        ``dz`` with one coefficient a channel.
        """
        dz, x, weight, mean, rstd, y = ctx.saved_tensors
        U, D, X = _rows(u), _rows(dz), _rows(x) - mean
        mean_u, mean_d = U.mean(0), D.mean(0)
        t = (U * X).mean(0) * rstd  # <u xhat>
        s = (D * X).mean(0) * rstd  # <dz xhat>
        p = (U * D).mean(0) - mean_u * mean_d - t * s
        scale = weight * rstd
        k, m = a - scale * t, -scale * s  # dL/dxhat = k dz + m u, but for mean and rstd
        d_dz = torch.addcmul(b - scale * mean_u, X, k * rstd).addcmul_(U, scale)
        slope = -rstd * rstd * (k * s + m * t + scale * p)
        shift = -rstd * (k * mean_d + m * mean_u)
        d_x = torch.addcmul(shift, X, slope).addcmul_(D, k * rstd).addcmul_(U, m * rstd)
        d_dz, d_x = _images(d_dz, x), _images(d_x, x)
        if y is not None:
            d_dz = torch.ops.aten.threshold_backward(d_dz, y, 0)
        return d_dz, d_x, len(X) * rstd * p, None, None, None, None


def _rows(x: Tensor) -> Tensor:
    """``[n,C]`` or ``[n,C,H,W]`` with a row for each value of a channel: ``[n*H*W, C]``."""
    if x.dim() == 4:
        x = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    return x.float() if x.dtype == torch.bfloat16 else x


def _images(rows: Tensor, like: Tensor) -> Tensor:
    if like.dim() == 4:
        n, C, H, W = like.shape
        rows = rows.view(n, H, W, C).permute(0, 3, 1, 2)
    return rows.to(like.dtype)
