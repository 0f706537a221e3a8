"""What a cell of a table tells: its value and its rank, among those of a support."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["describe", "read_columns"]


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
        mean and standard deviation of each, and its values in order, infinite where missing.
    """
    here = ~x.isnan()
    count = here.sum(1).clamp_min(1)
    mean = x.nan_to_num().sum(1) / count
    gap = torch.where(here, x - mean.unsqueeze(1), 0.0)
    spread = (gap.square().sum(1) / count).sqrt()
    columns = torch.arange(x.shape[2], device=x.device).expand(len(x), -1)
    if most is not None and x.shape[2] > most:
        scaled = gap / spread.unsqueeze(1).clamp_min(1e-12)
        if n_way is None:
            told = (scaled.unsqueeze(-1) * (y - y.mean(1, keepdim=True)).unsqueeze(2)).sum(1)
            worth = told.abs().sum(-1)
        else:
            of = F.one_hot(y, n_way).to(x.dtype)
            means = of.mT @ scaled / of.sum(1).unsqueeze(-1)
            worth = means.square().sum(1)
        columns = worth.topk(most, dim=1).indices
        mean, spread, x = mean.gather(1, columns), spread.gather(1, columns), _take(x, columns)
    in_order = x.nan_to_num(nan=math.inf).sort(dim=1).values.mT.contiguous()
    return {"columns": columns, "mean": mean, "spread": spread, "sorted": in_order}


def _take(x: Tensor, columns: Tensor) -> Tensor:
    return x.gather(2, columns.unsqueeze(1).expand(-1, x.shape[1], -1))


def describe(x: Tensor, phi: dict[str, Tensor]) -> Tensor:
    """``[T,n,F]`` to what a cell tells of its value, ``[T,F,n,3]``: distance, rank, missing."""
    if phi["columns"].shape[1] < x.shape[2]:
        x = _take(x, phi["columns"])
    x, in_order = x.mT.contiguous(), phi["sorted"]
    missing = x.isnan()
    x = torch.where(missing, phi["mean"].unsqueeze(-1), x)
    spread = phi["spread"].unsqueeze(-1)
    z = torch.where(spread > 0, (x - phi["mean"].unsqueeze(-1)) / spread.clamp_min(1e-12), 0.0)
    below = torch.searchsorted(in_order, x) + torch.searchsorted(in_order, x, right=True)
    rank = below / in_order.isfinite().sum(-1, keepdim=True).clamp_min(1) - 1
    rank = torch.where(missing, 0.0, rank)
    return torch.stack([3 * torch.tanh(z / 3), rank.to(x.dtype), missing.to(x.dtype)], dim=-1)
