"""The regression tasks of the MAML paper: sine waves of random amplitude and phase."""

from collections.abc import Iterator

import numpy as np
import torch

from quickstudy.data.sampler import task_rng
from quickstudy.task import Task

__all__ = ["SinusoidSampler"]


class SinusoidSampler:
    """``y = a sin(x - p)`` with ``a`` in 0.1..5, ``p`` in 0..pi, ``x`` in -5..5, all uniform.

    Finn et al. (2017), section 5.1. ``sampler[i]`` is a pure function of ``(seed, i)``.

    Args:
        shot: support points of each task.
        query: query points.
        tasks: tasks in a batch.
        seed: any non-negative integer.

    Example:
        >>> SinusoidSampler(shot=10, query=20, tasks=4)[0]
        Task(T=4, regression, S=10, Q=20, x=[1])
    """

    def __init__(self, *, shot: int, query: int, tasks: int = 1, seed: int = 0) -> None:
        if min(shot, query, tasks) < 1:
            raise ValueError("shot, query and tasks must each be at least 1")
        self.shot, self.query, self.tasks, self.seed = shot, query, tasks, seed

    def __getitem__(self, index: int) -> Task:
        rng = task_rng(self.seed, index)
        amplitude = rng.uniform(0.1, 5, (self.tasks, 1, 1))
        phase = rng.uniform(0, np.pi, (self.tasks, 1, 1))
        x = rng.uniform(-5, 5, (self.tasks, self.shot + self.query, 1))
        y = amplitude * np.sin(x - phase)
        support_x, query_x = torch.from_numpy(x).float().split([self.shot, self.query], 1)  # type: ignore[no-untyped-call]
        support_y, query_y = torch.from_numpy(y).float().split([self.shot, self.query], 1)  # type: ignore[no-untyped-call]
        return Task.trusted(support_x, support_y, query_x, query_y, n_way=None)

    def __iter__(self) -> Iterator[Task]:
        index = 0
        while True:
            yield self[index]
            index += 1
