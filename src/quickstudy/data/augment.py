"""Small random changes of the images of training tasks."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from quickstudy.data.sampler import TaskSource, task_rng
from quickstudy.task import Task

__all__ = ["Augmented"]

_TURN, _SCALE, _SHEAR, _SHIFT = math.radians(15), 0.15, 0.15, 0.1


class Augmented:
    """The tasks of another source with every image slightly turned, scaled, sheared and shifted.

    Each image of support and query has its own affine map, so that no two drawings of a task are
    distorted alike; drawings may have a pen of their own, too. ``augmented[i]`` is a pure function
    of the seed and ``i``, as its source is.

    Args:
        source: tasks of square images ``[T,n,C,H,W]``, 0 outside the picture.
        strength: 1 for at most 15 degrees, 15% of scale and shear, and a tenth of the side.
        pens: of drawings, ink 1 on 0: how often each is drawn with a pen that is broader or finer,
            softer or harder, 0..1.
        seed: any non-negative integer.
    """

    def __init__(
        self, source: TaskSource, *, strength: float = 1.0, pens: float = 0.0, seed: int = 0
    ) -> None:
        if not strength >= 0:
            raise ValueError(f"strength is {strength}; expected at least 0")
        if not 0 <= pens <= 1:
            raise ValueError(f"pens is {pens}; expected 0 to 1")
        self.source, self.strength, self.pens, self.seed = source, strength, pens, seed

    def __getitem__(self, index: int) -> Task:
        task = self.source[index]
        generator = torch.Generator().manual_seed(int(task_rng(self.seed, index).integers(2**62)))
        return Task.trusted(
            self._distort(task.support_x, generator),
            task.support_y,
            self._distort(task.query_x, generator),
            task.query_y,
            n_way=task.n_way,
            classes=task.classes,
        )

    def _distort(self, x: Tensor, generator: torch.Generator) -> Tensor:
        images = x.flatten(0, 1)
        if images.dim() != 4:
            raise ValueError(f"only images can be distorted; these are {list(x.shape[2:])}")
        n = len(images)
        turn, scale, shear, right, down = (
            (torch.rand(5, n, generator=generator) * 2 - 1)
            * self.strength
            * torch.tensor([_TURN, _SCALE, _SHEAR, 2 * _SHIFT, 2 * _SHIFT]).unsqueeze(1)
        )
        cos, sin, size = turn.cos(), turn.sin(), 1 + scale
        maps = torch.stack(
            [
                torch.stack([cos * size, shear - sin, right], 1),
                torch.stack([sin, cos * size, down], 1),
            ],
            1,
        )
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)
        drawn = F.grid_sample(images, grid, align_corners=False)
        if self.pens:
            drawn = _with_pens(drawn, self.pens, generator)
        return drawn.view_as(x)


def _with_pens(x: Tensor, part: float, generator: torch.Generator) -> Tensor:
    """Part of the drawings ``[n,1,H,W]`` broader or finer by up to 2 pixels, softer or harder."""
    share, width, edge = torch.rand(3, len(x), 1, 1, 1, generator=generator)
    broad, broader = (F.max_pool2d(x, size, 1, size // 2) for size in (3, 5))
    fine = -F.max_pool2d(-x, 3, 1, 1)
    pens = [torch.lerp(x, broad, share), torch.lerp(broad, broader, share)]
    pens.append(torch.lerp(x, fine, 0.6 * share))
    for k, drawn in enumerate(pens):
        x = torch.where((width * 3 / part).floor() == k, drawn, x)
    soft, hard = F.avg_pool2d(x, 3, 1, 1), ((x - 0.25) / 0.4).clamp(0, 1)
    x = torch.where(edge < part / 3, torch.lerp(x, soft, share), x)
    return torch.where(edge > 1 - part / 3, hard, x)
