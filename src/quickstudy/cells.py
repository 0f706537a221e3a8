"""What a cell of a table tells: its value and its rank, among those of a support."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["describe", "exact", "read_columns", "unit_of"]

_FAR = 10  # median distances from the median, beyond which values are drawn in


def exact(x: Tensor) -> Tensor:
    """In double precision, if the device has it."""
    return x.float() if x.device.type == "mps" else x.double()


def read_columns(
    x: Tensor, y: Tensor, n_way: int | None, *, most: int | None = None
) -> dict[str, Tensor]:
    """What is known of each column from a support: which are read, and how values lie in them.

    Args:
        x: ``[T,S,F]``, ``NaN`` where a value is missing.
        y: classes ``[T,S]``, or targets ``[T,S,d]``.
        n_way: number of classes, ``None`` for targets.
        most: how many columns are read, if not all: those in which classes differ most, or which
            go along with the targets.

    Returns:
        ``{"columns": [T,F], "mean": [T,F], "spread": [T,F], "sorted": [T,F,S]}``: which are read,
        mean and standard deviation of each, outliers drawn in (0 where all are alike), and its
        values in order, infinite where missing.
    """
    here = ~x.isnan()
    count = here.sum(1).clamp_min(1)
    drawn = _drawn_in(x)
    largest = drawn.nan_to_num().abs().amax(1)
    unit = torch.where(largest > 0, largest, 1.0)  # no square of any number overflows
    z = drawn / unit.unsqueeze(1)
    mean = z.nan_to_num().sum(1) / count
    gap = torch.where(here, z - mean.unsqueeze(1), 0.0)
    spread = (gap.square().sum(1) / count).sqrt()
    columns = torch.arange(x.shape[2], device=x.device).expand(len(x), -1)
    if most is not None and x.shape[2] > most:
        scaled = gap / torch.where(spread > 0, spread, 1.0).unsqueeze(1)
        if n_way is None:
            told = (scaled.unsqueeze(-1) * (y - y.mean(1, keepdim=True)).unsqueeze(2)).sum(1)
            worth = told.abs().sum(-1)
        else:
            of = F.one_hot(y, n_way).to(x.dtype)
            means = of.mT @ scaled / of.sum(1).unsqueeze(-1)
            worth = means.square().sum(1)
        columns = worth.topk(most, dim=1).indices
        mean, spread, unit = (each.gather(1, columns) for each in (mean, spread, unit))
        x = _take(x, columns)
    in_order = x.nan_to_num(nan=math.inf).sort(dim=1).values.mT.contiguous()
    return {"columns": columns, "mean": mean * unit, "spread": spread * unit, "sorted": in_order}


def unit_of(y: Tensor) -> Tensor:
    """The standard deviation of targets ``[T,S,d]``, ``[T,1,d]``; 1 where all are alike."""
    largest = y.abs().amax(1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    unit = (y / largest).std(1, keepdim=True, correction=0) * largest
    return torch.where(unit > 0, unit, 1.0)


def _drawn_in(x: Tensor) -> Tensor:
    """``[T,S,F]`` without outliers: one mistyped number would decide mean and deviation."""
    middle = x.nanmedian(1, keepdim=True).values
    usual = (x - middle).abs().nanmedian(1, keepdim=True).values
    most = torch.where(usual > 0, _FAR * usual, math.inf).nan_to_num(nan=math.inf, posinf=math.inf)
    return x.clamp(middle.nan_to_num() - most, middle.nan_to_num() + most)


def _take(x: Tensor, columns: Tensor) -> Tensor:
    return x.gather(2, columns.unsqueeze(1).expand(-1, x.shape[1], -1))


def describe(x: Tensor, phi: dict[str, Tensor]) -> Tensor:
    """``[T,n,F]`` to what a cell tells of its value, ``[T,F,n,3]``: distance, rank, missing."""
    if phi["columns"].shape[1] < x.shape[2]:
        x = _take(x, phi["columns"])
    x, in_order = x.mT.contiguous(), phi["sorted"]
    mean, spread = phi["mean"].unsqueeze(-1), phi["spread"].unsqueeze(-1)
    missing, varies = x.isnan(), spread > 0
    x = torch.where(missing, mean, x)
    z = torch.where(varies, (x - mean) / torch.where(varies, spread, 1.0), 0.0)
    count = in_order.isfinite().sum(-1, keepdim=True)
    below = torch.searchsorted(in_order, x) + torch.searchsorted(in_order, x, right=True)
    rank = below.minimum(2 * count) / count.clamp_min(1) - 1
    rank = torch.where(missing | ~varies, 0.0, rank)
    return torch.stack([3 * torch.tanh(z / 3), rank.to(x.dtype), missing.to(x.dtype)], dim=-1)
