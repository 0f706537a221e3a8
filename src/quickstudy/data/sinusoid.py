"""The regression tasks of the MAML paper: sine waves of random amplitude and phase."""

import math
from collections.abc import Iterator

import torch

from quickstudy.data.sampler import task_generator
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
        rng = task_generator(self.seed, index)
        amplitude = 0.1 + 4.9 * torch.rand(self.tasks, 1, 1, generator=rng)
        phase = math.pi * torch.rand(self.tasks, 1, 1, generator=rng)
        x = 10 * torch.rand(self.tasks, self.shot + self.query, 1, generator=rng) - 5
        y = amplitude * torch.sin(x - phase)
        return Task(
            x[:, : self.shot],
            y[:, : self.shot],
            x[:, self.shot :],
            y[:, self.shot :],
            n_way=None,
        )

    def __iter__(self) -> Iterator[Task]:
        index = 0
        while True:
            yield self[index]
            index += 1
