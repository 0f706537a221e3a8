"""From classes of examples to batches of tasks."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quickstudy.data.dataset import ClassDataset
from quickstudy.task import Task

__all__ = ["EpisodeSampler", "TaskSource", "prefetch", "task_rng", "to_float"]

Range = int | tuple[int, int]
Ints = NDArray[np.int64]


class TaskSource(Protocol):
    """An endless, indexed supply of task batches: ``source[i]`` depends on ``i`` alone.

    That makes the position of a training run a single number: resuming, prefetching and sharing
    tasks out among processes need nothing else.
    """

    def __getitem__(self, index: int, /) -> Task: ...


def batch_of(tasks: TaskSource, index: int) -> Task:
    """``tasks[index]``.

    Raises:
        TypeError: ``tasks`` cannot be asked so, or what it gives is no `Task`.
    """
    if not hasattr(tasks, "__getitem__"):
        raise TypeError(
            f"tasks is a {type(tasks).__name__}; expected a sampler or a list, whose tasks[i] is "
            "the i-th batch of tasks"
        )
    batch = tasks[index]
    if not isinstance(batch, Task):
        raise TypeError(
            f"tasks[{index}] is a {type(batch).__name__}; expected a quickstudy.Task of support_x, "
            "support_y, query_x, query_y and n_way"
        )
    return batch


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
        imbalanced: draw the shot of each *class* from the range, instead of one per batch.
        within_group: draw all classes of a task from one group (one alphabet), chosen uniformly:
            the harder, finer-grained problem.
        grow: batches over which the way rises from the first to the last of its range, instead of
            being drawn: easy tasks first.
        one_per_root: at most one class of each root in a task, so that it never holds two rotations
            of one character. That is how the code of MAML samples: characters first, then a random
            turn of each.

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
        one_per_root: bool = False,
        grow: int = 0,
    ) -> None:
        self.dataset = dataset
        self.way = as_range("way", way, 2)
        self.shot = as_range("shot", shot, 1)
        self.query = as_range("query", query, 1)[0]
        self.tasks = as_range("tasks", tasks, 1)[0]
        self.seed = as_range("seed", seed, 0)[0]
        self.imbalanced = imbalanced
        self.grow = as_range("grow", grow, 0)[0]
        self._sizes = dataset.sizes.numpy()
        names = {root: i for i, root in enumerate(dict.fromkeys(dataset.roots))}
        self._roots = np.array([names[root] for root in dataset.roots]) if one_per_root else None
        self._groups = self._usable_groups() if within_group else None
        available = len(names) if one_per_root else dataset.n_classes
        if self.way[1] > available:
            of = " of different roots" * one_per_root
            raise ValueError(
                f"way={self.way[1]} classes a task, but the dataset has only {available}{of}: "
                "choose a smaller way"
            )
        needed = self.shot[1] + self.query
        smallest = int(dataset.sizes.argmin())
        if int(dataset.sizes[smallest]) < needed:
            raise ValueError(
                f"shot {self.shot[1]} + query {self.query} needs {needed} examples of a class, but "
                f"{dataset.names[smallest]!r} has {int(dataset.sizes[smallest])}"
            )

    def __getitem__(self, index: int) -> Task:
        if index < 0:
            raise IndexError(f"there is no batch {index}: batches are numbered from 0, without end")
        counts, classes, rng = self._choose(index)
        examples = self._examples(classes, int(counts.max()) + self.query, rng)
        rank = np.arange(examples.shape[2])
        is_query = np.broadcast_to(rank < self.query, examples.shape)
        is_support = (rank >= self.query) & (rank < self.query + counts[..., None])
        label = np.broadcast_to(np.arange(classes.shape[1])[:, None], examples.shape)
        owner = np.broadcast_to(classes[..., None], examples.shape)

        def part(mask: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
            order = rng.random((self.tasks, int(mask[0].sum()))).argsort(1)
            shuffle = _flat(order, order.shape[1])
            c, e, y = (torch.from_numpy(v[mask][shuffle]) for v in (owner, examples, label))
            return to_float(self.dataset.read(c, e)), y

        return Task.trusted(
            *part(is_support),
            *part(is_query),
            n_way=classes.shape[1],
            classes=torch.from_numpy(classes),
        )

    def __iter__(self) -> Iterator[Task]:
        index = 0
        while True:
            yield self[index]
            index += 1

    def class_names(self, index: int) -> list[list[str]]:
        """The class that each label stands for, in each task of batch ``index``."""
        _, classes, _ = self._choose(index)
        return [[self.dataset.names[c] for c in task] for task in classes]

    def _choose(self, index: int) -> tuple[Ints, Ints, np.random.Generator]:
        """Shots and classes of each task ``[T,N]``, and the random numbers that come next."""
        rng = task_rng(self.seed, index)
        N = self._grown(index) if self.grow else _draw(self.way, rng)
        if self.imbalanced:
            counts = rng.integers(self.shot[0], self.shot[1] + 1, N)
            counts = rng.permuted(np.tile(counts, (self.tasks, 1)), axis=1)
        else:
            counts = np.full((self.tasks, N), _draw(self.shot, rng))
        score = rng.random((self.tasks, self.dataset.n_classes))
        if self._groups is not None:
            score[~self._groups[rng.integers(len(self._groups), size=self.tasks)]] = 2
        if self._roots is not None:
            best = np.full((self._roots.max() + 1, self.tasks), 2.0)
            np.minimum.at(best, self._roots, score.T)
            score[score > best[self._roots].T] = 2
        return counts, _smallest(score, N), rng

    def _grown(self, index: int) -> int:
        first, last = self.way
        return min(last, first + (last - first + 1) * index // self.grow)

    def _examples(self, classes: Ints, n: int, rng: np.random.Generator) -> Ints:
        """``n`` distinct examples of each class ``[T,N,n]``, in random order."""
        sizes = self._sizes[classes][..., None]
        score = rng.random((*classes.shape, int(sizes.max())))
        score[np.arange(score.shape[-1]) >= sizes] = 2
        return _smallest(score, n)

    def _usable_groups(self) -> NDArray[np.bool_]:
        """Which classes each group has, bool ``[groups,C]``; groups too small are left out."""
        groups = self.dataset.groups
        if groups is None:
            raise ValueError("within_group needs a dataset whose classes have groups")
        names = sorted(set(groups))
        index = np.array([names.index(group) for group in groups])
        member: NDArray[np.bool_] = np.arange(len(names))[:, None] == index
        kinds = range(len(groups)) if self._roots is None else self._roots
        sizes = np.array([len({kinds[c] for c in np.flatnonzero(row)}) for row in member])
        usable: NDArray[np.bool_] = member[sizes >= self.way[1]]
        if not len(usable):
            raise ValueError(
                f"within_group: no group has {self.way[1]} classes; the largest has {sizes.max()}"
            )
        return usable


def task_rng(seed: int, index: int) -> np.random.Generator:
    """The random numbers of batch ``index``: a counter-based generator, keyed by both."""
    return np.random.Generator(np.random.Philox(key=(seed << 64) + index))


def to_float(x: Tensor) -> Tensor:
    """Images uint8 0..255 as float32 0..1; anything else unchanged."""
    return x.float().mul_(1 / 255) if x.dtype == torch.uint8 else x


def prefetch(source: TaskSource, start: int, *, step: int = 1, depth: int = 4) -> Generator[Task]:
    """``source[start], source[start+step], ...``, made ahead of need on another thread.

    There torch's operations take one thread each: with a second pool of threads beside it, those of
    the training wait for each other, and a step takes up to twice as long.
    """
    ready: queue.Queue[Task | BaseException] = queue.Queue(depth)
    stop, begun, threads = threading.Event(), threading.Event(), torch.get_num_threads()

    def put(item: Task | BaseException) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # each thread keeps the number it finds when it first looks
        begun.set()
        index = start
        try:
            while put(source[index]):
                index += step
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="quickstudy-prefetch", daemon=True)
    thread.start()
    begun.wait()
    torch.set_num_threads(threads)  # what threads that are yet to come begin with
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def as_range(name: str, value: Range, least: int) -> tuple[int, int]:
    low, high = value if isinstance(value, tuple) else (value, value)
    if not (isinstance(low, int) and isinstance(high, int)) or low > high or low < least:
        raise ValueError(
            f"{name} is {value!r}; expected an integer of at least {least}, or a range (low, high)"
        )
    return low, high


def _draw(bounds: tuple[int, int], rng: np.random.Generator) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _smallest(score: NDArray[np.float64], n: int) -> Ints:
    """Positions of the ``n`` smallest of each last row, in order: a draw without replacement."""
    if n < score.shape[-1]:
        smallest = score.argpartition(n - 1, axis=-1)[..., :n]
        order = score.reshape(-1)[_flat(smallest, score.shape[-1])].argsort(-1)
        return smallest.reshape(-1)[_flat(order, n)]
    return score.argsort(-1)


def _flat(index: Ints, width: int) -> Ints:
    """Positions within the last rows, ``width`` wide, of an array as positions in all of it."""
    rows: Ints = np.arange(index.size // index.shape[-1]).reshape(*index.shape[:-1], 1)
    return rows * width + index
