"""The regression tasks of the MAML paper: sine waves of random amplitude and phase."""

from collections.abc import Iterator

import numpy as np
import torch

from quickstudy.data.sampler import task_rng
from quickstudy.task import Task

__all__ = ["SinusoidSampler"]


class SinusoidSampler:
    """``y = a sin(f x - p)`` with ``a`` in 0.1..5, ``p`` in 0..pi, ``x`` in -5..5, all uniform.

    Finn et al. (2017), section 5.1, where ``f`` is 1. Li et al. (2017, Meta-SGD), section 4.1, draw
    it too, from 0.8 to 1.2: ``frequency_spread=0.2``. The errors that the two papers' methods are
    compared by are those of the latter. ``sampler[i]`` is a pure function of ``(seed, i)``.

    Args:
        shot: support points of each task.
        query: query points.
        tasks: tasks in a batch.
        seed: any non-negative integer.
        frequency_spread: ``f`` is drawn uniformly from 1 minus this to 1 plus this.

    Example:
        >>> SinusoidSampler(shot=10, query=20, tasks=4)[0]
        Task(T=4, regression, S=10, Q=20, x=[1])
    """

    def __init__(
        self,
        *,
        shot: int,
        query: int,
        tasks: int = 1,
        seed: int = 0,
        frequency_spread: float = 0.0,
    ) -> None:
        if min(shot, query, tasks) < 1:
            raise ValueError("shot, query and tasks must each be at least 1")
        if not 0 <= frequency_spread < 1:
            raise ValueError(f"frequency_spread is {frequency_spread}; expected 0 to below 1")
        self.shot, self.query, self.tasks, self.seed = shot, query, tasks, seed
        self.frequency_spread = frequency_spread

    def __getitem__(self, index: int) -> Task:
        rng = task_rng(self.seed, index)
        amplitude = rng.uniform(0.1, 5, (self.tasks, 1, 1))
        phase = rng.uniform(0, np.pi, (self.tasks, 1, 1))
        x = rng.uniform(-5, 5, (self.tasks, self.shot + self.query, 1))
        spread = self.frequency_spread
        frequency = 1 + spread * rng.uniform(-1, 1, (self.tasks, 1, 1)) if spread else 1.0
        y = amplitude * np.sin(frequency * x - phase)
        support_x, query_x = torch.from_numpy(x).float().split([self.shot, self.query], 1)  # type: ignore[no-untyped-call]
        support_y, query_y = torch.from_numpy(y).float().split([self.shot, self.query], 1)  # type: ignore[no-untyped-call]
        return Task.trusted(support_x, support_y, query_x, query_y, n_way=None)

    def __iter__(self) -> Iterator[Task]:
        index = 0
        while True:
            yield self[index]
            index += 1
