"""Convolution and batch norm of many tasks at once, made to be differentiated twice.

Every derivative here, the second one too, is one call or a product of matrices, where autograd
composes dozens of passes over memory. Tasks lie side by side in the channels, ``[n,T*C,H,W]`` with
channels last. `quickstudy.inner.stacked` runs networks with these.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from quickstudy._moved import names_from
from quickstudy.inner.repeated import differentiable_once
from quickstudy.nn.folding import ConvolutionGeometry, maps, patches

__all__ = ["cancelled", "convolve", "normalise"]

__getattr__ = names_from(
    __name__,
    {
        "Shape": "quickstudy.nn.folding:ConvolutionGeometry",
        "first_block": "quickstudy.nn.folding",
        "folds": "quickstudy.nn.folding",
    },
)

_LAST = torch.channels_last


def _rows(y: Tensor, tasks: int) -> Tensor:
    """``[n,T*C,h,w]`` to ``[T, n*h*w, C]``."""
    channels = y.shape[1] // tasks
    return y.permute(0, 2, 3, 1).reshape(-1, tasks, channels).transpose(0, 1)


def _matrix(w: Tensor, tasks: int) -> Tensor:
    """Filters ``[T*O,C,k,k]`` to ``[T,O,k*k*C]``."""
    return w.permute(0, 2, 3, 1).reshape(tasks, len(w) // tasks, -1)


class _Operation(Function):
    apply: Callable[..., Any]


def convolve(x: Tensor, w: Tensor, geometry: ConvolutionGeometry) -> Tensor:
    """``x [n,T*C,H,W]`` with filters ``[T*O,C,k,k]``: ``[n,T*O,h,w]``."""
    seen = patches(x.detach(), geometry) if geometry.small(len(x)) else None
    y: Tensor = _Product.apply(x, w, seen, geometry)
    return y


class _Product(_Operation):
    """Linear in both arguments, so that its derivatives of any order are one of three products::

        y = conv(x, w)      dx = input_gradient(dy, w)      dw = weight_gradient(x, dy)

    If the task is small, the first and the last are products with the patches ``seen`` in ``x``.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, seen: Tensor | None, geometry: ConvolutionGeometry
    ) -> Tensor:
        ctx.save_for_backward(x, w, seen)
        ctx.geometry = geometry
        if seen is None:
            return F.conv2d(x, w, None, geometry.stride, geometry.padding, 1, geometry.groups)
        return maps(torch.bmm(seen, _matrix(w, geometry.groups).mT), geometry.out)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, w, seen = ctx.saved_tensors
        dx = _InputGradient.apply(dy, w, ctx.geometry) if ctx.needs_input_grad[0] else None
        dw = _WeightGradient.apply(x, dy, seen, ctx.geometry) if ctx.needs_input_grad[1] else None
        return dx, dw, None, None


class _InputGradient(_Operation):
    @staticmethod
    def forward(ctx: Any, dy: Tensor, w: Tensor, geometry: ConvolutionGeometry) -> Tensor:
        ctx.save_for_backward(dy, w)
        ctx.geometry = geometry
        x = _blank(dy, len(dy), w.shape[1] * geometry.groups, *geometry.size)
        return _gradients(dy, x, w, geometry, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        dy, w = ctx.saved_tensors
        seen = patches(u.detach(), ctx.geometry) if ctx.geometry.small(len(u)) else None
        ddy = _Product.apply(u, w, seen, ctx.geometry) if ctx.needs_input_grad[0] else None
        dw = _WeightGradient.apply(u, dy, seen, ctx.geometry) if ctx.needs_input_grad[1] else None
        return ddy, dw, None


class _WeightGradient(_Operation):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dy: Tensor, seen: Tensor | None, geometry: ConvolutionGeometry
    ) -> Tensor:
        ctx.save_for_backward(x, dy, seen)
        ctx.geometry = geometry
        if seen is None:
            w = _blank(x, dy.shape[1], x.shape[1] // geometry.groups, *geometry.kernel)
            return _gradients(dy, x, w, geometry, [False, True, False])[1]
        dw = torch.bmm(_rows(dy, geometry.groups).mT, seen)
        return dw.view(dy.shape[1], *geometry.kernel, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, u: Tensor) -> Any:
        x, dy, seen = ctx.saved_tensors
        dx = _InputGradient.apply(dy, u, ctx.geometry) if ctx.needs_input_grad[0] else None
        ddy = _Product.apply(x, u, seen, ctx.geometry) if ctx.needs_input_grad[1] else None
        return dx, ddy, None, None


def _blank(x: Tensor, *shape: int) -> Tensor:
    """A tensor for its shape and layout alone; its values do not matter."""
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_LAST)


def _gradients(
    dy: Tensor, x: Tensor, w: Tensor, geometry: ConvolutionGeometry, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        dy.contiguous(memory_format=_LAST),
        x.contiguous(memory_format=_LAST),
        w.contiguous(memory_format=_LAST),
        None,
        geometry.stride,
        geometry.padding,
        (1, 1),
        False,
        (0, 0),
        geometry.groups,
        wanted,
    )
    return gradients


def cancelled(y: Tensor, bias: Tensor) -> Tensor:
    """A bias that has no effect: its gradient is zero."""
    same: Tensor = _Cancelled.apply(y, bias)
    return same


class _Cancelled(_Operation):
    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(bias)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        return dy, torch.zeros_like(*ctx.saved_tensors)


def _masked(dy: Tensor, y: Tensor) -> Tensor:
    """The derivative through a ReLU that gave ``y``."""
    masked: Tensor = torch.ops.aten.threshold_backward(dy, y, 0)
    return masked


def normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, relu: bool) -> Tensor:
    """``gamma (x - mean) / sigma + beta`` over all dimensions but the second, then ReLU."""
    y: Tensor = _Normalise.apply(x, weight, bias, eps, relu)
    return y


class _Normalise(_Operation):
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
        dz = dy if y is None else _masked(dy, y)
        ctx.save_for_backward(dz, x, weight, mean, rstd, y)
        return torch.ops.aten.native_batch_norm_backward(
            dz, x, weight, None, None, mean, rstd, True, eps, [True, True, True]
        )

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, u: Tensor, a: Tensor, b: Tensor) -> Any:
        """By hand. With ``xhat = (x - mean) rstd`` and ``<.>`` the mean over a channel, the three
        outputs are ``gamma rstd (dz - <dz> - xhat <dz xhat>)``, ``sum(dz xhat)`` and ``sum(dz)``;
        ``u``, ``a``, ``b`` are the derivatives by them. Every term is linear in ``x``, ``u`` and
        ``dz`` with one coefficient a channel.
        """
        dz, x, weight, mean, rstd, y = ctx.saved_tensors
        U, D, X = _flat(u), _flat(dz), _flat(x) - mean
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
        d_dz, d_x = _like(d_dz, x), _like(d_x, x)
        if y is not None:
            d_dz = _masked(d_dz, y)
        return d_dz, d_x, len(X) * rstd * p, None, None, None, None


def _flat(x: Tensor) -> Tensor:
    """``[n,C]`` or ``[n,C,H,W]`` with a row for each value of a channel: ``[n*H*W, C]``."""
    if x.dim() == 4:
        x = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    return x.float() if x.dtype == torch.bfloat16 else x


def _like(rows: Tensor, like: Tensor) -> Tensor:
    if like.dim() == 4:
        n, C, H, W = like.shape
        rows = rows.view(n, H, W, C).permute(0, 3, 1, 2)
    return rows.to(like.dtype)
