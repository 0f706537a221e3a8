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
    distorted alike. ``augmented[i]`` is a pure function of the seed and ``i``, as its source is.

    Args:
        source: tasks of square images ``[T,n,C,H,W]``, 0 outside the picture.
        strength: 1 for at most 15 degrees, 15% of scale and shear, and a tenth of the side.
        seed: any non-negative integer.
    """

    def __init__(self, source: TaskSource, *, strength: float = 1.0, seed: int = 0) -> None:
        if not strength > 0:
            raise ValueError(f"strength is {strength}; expected a positive number")
        self.source, self.strength, self.seed = source, strength, seed

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
        return F.grid_sample(images, grid, align_corners=False).view_as(x)
