"""Drawings of any size and place, as if all had been drawn alike."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FitInk"]

_INK = 0.35  # of the darkest: above it there is ink


class FitInk(nn.Module):
    """Moves the ink of each drawing to the middle, and scales it to a part of the image.

    Nothing is learned. The smallest box that holds all ink keeps its proportions; a box of less
    than 4 pixels is taken for one of 4, so that a dot stays small.

    Args:
        part: of the image's side, that the longer side of the box gets.

    Shapes: ``[n,1,H,H] -> [n,1,H,H]``, ink near 1 on 0.
    """

    def __init__(self, part: float = 20 / 28) -> None:
        super().__init__()
        if not 0 < part <= 1:
            raise ValueError(f"part is {part}; expected above 0 and at most 1")
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        side = x.shape[-1]
        ink = x[:, 0] > _INK * x.amax((1, 2, 3)).clamp_min(1e-6).view(-1, 1, 1)
        at = torch.arange(side, device=x.device, dtype=x.dtype)
        low, high = [], []
        for seen in (ink.any(1), ink.any(2)):  # the columns with ink, and the rows
            low.append(torch.where(seen, at, float(side)).amin(1))
            high.append(torch.where(seen, at + 1, 0.0).amax(1))
        start, end = torch.stack(low, 1), torch.stack(high, 1)
        blank = end <= start  # without any ink, it is left as it is
        start, end = start.masked_fill(blank, 0.0), end.masked_fill(blank, float(side))
        scale = (end - start).amax(1).clamp_min(4.0) / (side * self.part)
        scale = torch.where(blank.any(1), torch.ones_like(scale), scale)
        middle = (start + end) / side - 1
        turn = torch.eye(2, dtype=x.dtype, device=x.device) * scale.view(-1, 1, 1)
        grid = F.affine_grid(
            torch.cat([turn, middle.unsqueeze(2)], 2), list(x.shape), align_corners=False
        )
        return F.grid_sample(x, grid, align_corners=False)
