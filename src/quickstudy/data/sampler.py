"""From classes of examples to batches of tasks."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.dataset import ClassDataset
from quickstudy.task import Task

__all__ = ["EpisodeSampler", "TaskSource", "prefetch", "task_generator", "to_float"]

Range = int | tuple[int, int]


class TaskSource(Protocol):
    """An endless, indexed supply of task batches: ``source[i]`` depends on ``i`` alone.

    That makes the position of a training run a single number: resuming, prefetching and giving
    each process of many its own tasks need nothing else.
    """

    def __getitem__(self, index: int, /) -> Task: ...


class EpisodeSampler:
    """Random N-way K-shot tasks from the classes of a dataset.

    ``sampler[i]`` is a pure function of ``(seed, i)``. Classes are drawn without replacement,
    then examples of each without replacement; labels, support and query come in random order.

    Args:
        dataset: the classes to draw from.
        way: classes of a task ``N``, or an inclusive range drawn anew for every batch.
        shot: support examples of each class ``K``, or an inclusive range.
        query: query examples of each class.
        tasks: tasks in a batch ``T``.
        seed: any non-negative integer.
        imbalanced: draw the shot of each *class* from the range, instead of one a batch.
        within_group: draw all classes of a task from one group (one alphabet), chosen uniformly:
            the harder, finer-grained problem.

    Raises:
        ValueError: the dataset cannot give such tasks; the message names the class or group.

    Example:
        >>> import numpy as np
        >>> x = np.zeros((60, 1, 28, 28), np.uint8)
        >>> dataset = ClassDataset.from_arrays(x, np.repeat(np.arange(6), 10))
        >>> EpisodeSampler(dataset, way=5, shot=1, query=3, tasks=2)[0]
        Task(T=2, N=5, S=5, Q=15, x=[1, 28, 28])
    """

    def __init__(
        self,
        dataset: ClassDataset,
        *,
        way: Range,
        shot: Range,
        query: int,
        tasks: int = 1,
        seed: int = 0,
        imbalanced: bool = False,
        within_group: bool = False,
    ) -> None:
        self.dataset = dataset
        self.way = _as_range("way", way, 2)
        self.shot = _as_range("shot", shot, 1)
        self.query = _as_range("query", query, 1)[0]
        self.tasks = _as_range("tasks", tasks, 1)[0]
        self.seed = _as_range("seed", seed, 0)[0]
        self.imbalanced = imbalanced
        self._groups = self._usable_groups() if within_group else None
        if self.way[1] > dataset.n_classes:
            raise ValueError(
                f"way={self.way[1]} classes a task, but the dataset has only {dataset.n_classes}"
            )
        need = self.shot[1] + self.query
        smallest = int(dataset.sizes.argmin())
        if int(dataset.sizes[smallest]) < need:
            raise ValueError(
                f"shot {self.shot[1]} + query {self.query} needs {need} examples of a class, but "
                f"{dataset.names[smallest]!r} has {int(dataset.sizes[smallest])}"
            )

    def __getitem__(self, index: int) -> Task:
        rng = task_generator(self.seed, index)
        N = _draw(self.way, rng)
        counts = self._shots(N, rng)
        classes = self._classes(N, rng)
        examples = self._examples(classes, int(counts.max()) + self.query, rng)

        rank = torch.arange(examples.shape[2])
        is_query = (rank < self.query).expand(examples.shape)
        is_support = (rank >= self.query) & (rank < self.query + counts.unsqueeze(-1))
        label = torch.arange(N).view(1, N, 1).expand(examples.shape)
        owner = classes.unsqueeze(-1).expand(examples.shape)

        def part(mask: Tensor) -> tuple[Tensor, Tensor]:
            shuffle = torch.rand(self.tasks, int(mask[0].sum()), generator=rng).argsort(1)
            c, e, y = (
                v[mask].view(shuffle.shape).gather(1, shuffle) for v in (owner, examples, label)
            )
            return to_float(self.dataset.read(c, e)), y

        return Task(*part(is_support), *part(is_query), n_way=N)

    def __iter__(self) -> Iterator[Task]:
        index = 0
        while True:
            yield self[index]
            index += 1

    def _shots(self, N: int, rng: torch.Generator) -> Tensor:
        """Support examples of each class ``[T,N]``; every task has the same total."""
        if not self.imbalanced:
            return torch.full((self.tasks, N), _draw(self.shot, rng))
        counts = torch.randint(self.shot[0], self.shot[1] + 1, (N,), generator=rng)
        return counts[torch.rand(self.tasks, N, generator=rng).argsort(1)]

    def _classes(self, N: int, rng: torch.Generator) -> Tensor:
        """Distinct classes of each task ``[T,N]``, in random order."""
        score = torch.rand(self.tasks, self.dataset.n_classes, generator=rng)
        if self._groups is not None:
            chosen = torch.randint(len(self._groups), (self.tasks,), generator=rng)
            score = score.masked_fill(~self._groups[chosen], -1.0)
        return score.topk(N, dim=1).indices

    def _examples(self, classes: Tensor, n: int, rng: torch.Generator) -> Tensor:
        """``n`` distinct examples of each class ``[T,N,n]``, in random order."""
        sizes = self.dataset.sizes[classes].unsqueeze(-1)
        score = torch.rand(*classes.shape, int(sizes.max()), generator=rng)
        score = score.masked_fill(torch.arange(score.shape[-1]) >= sizes, -1.0)
        return score.topk(n, dim=-1).indices

    def _usable_groups(self) -> Tensor:
        """Which classes each group has, bool ``[groups,C]``; groups too small are left out."""
        groups = self.dataset.groups
        if groups is None:
            raise ValueError("within_group needs a dataset whose classes have groups")
        names = sorted(set(groups))
        index = torch.tensor([names.index(group) for group in groups])
        member = torch.arange(len(names)).unsqueeze(1) == index
        usable = member[member.sum(1) >= self.way[1]]
        if not len(usable):
            raise ValueError(
                f"within_group: no group has {self.way[1]} classes; the largest has "
                f"{int(member.sum(1).max())}"
            )
        return usable


def task_generator(seed: int, index: int) -> torch.Generator:
    """The random numbers of batch ``index``: independent of every other batch."""
    words = np.random.SeedSequence((seed, index)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0] >> 1))


def to_float(x: Tensor) -> Tensor:
    """Images uint8 0..255 as float32 0..1; anything else unchanged."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


def prefetch(source: TaskSource, start: int, *, step: int = 1, depth: int = 4) -> Generator[Task]:
    """``source[start], source[start+step], ...``, made ahead of need on another thread."""
    ready: queue.Queue[Task | BaseException] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: Task | BaseException) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        index = start
        try:
            while put(source[index]):
                index += step
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="quickstudy-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _as_range(name: str, value: Range, least: int) -> tuple[int, int]:
    low, high = value if isinstance(value, tuple) else (value, value)
    if not (isinstance(low, int) and isinstance(high, int)) or low > high or low < least:
        raise ValueError(
            f"{name} is {value!r}; expected an integer of at least {least}, or a range (low, high)"
        )
    return low, high


def _draw(bounds: tuple[int, int], rng: torch.Generator) -> int:
    return int(torch.randint(bounds[0], bounds[1] + 1, (), generator=rng))
