"""Invented tables: an endless supply of small classification and regression problems."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from quickstudy.data.sampler import Range, as_range, task_rng
from quickstudy.task import Task

__all__ = ["TableSampler", "invent"]

Array = NDArray[np.float64]


class TableSampler:
    """Tasks from invented tables, for a learner of tables to be meta-trained on.

    After the priors of TabPFN (Hollmann et al. 2023, arXiv:2207.01848; 2025, Nature 637) and TabICL
    (Qu et al. 2025, arXiv:2502.05564): each table comes from a mechanism of its own, see `invent`.
    ``sampler[i]`` is a pure function of ``(seed, i)``; all tasks of a batch have one shape, drawn
    from the ranges, small ones oftener than large ones. Of several tables that were invented, one
    is taken whose classes its columns tell: most tables that people keep are of that kind (as in
    TabICLv2, Qu et al. 2026, which leaves out tables that nothing can be learned from).

    Args:
        way: classes ``N``, or an inclusive range.
        shot: support rows for each class, or a range. Half the batches have as many of each class;
            in a quarter classes are as frequent as the mechanism makes them, and in another, of any
            tables, some have many times as many rows as others; one row at least.
        features: columns, or a range.
        query: query rows of a task.
        tasks: most tasks in a batch ``T``.
        cells: most cells in a batch: of large tables, a batch has fewer.
        rows: most support rows.
        grow: batches over which tasks go from easy ones, with 8 rows or more of each class and at
            most 8 columns, to what the ranges say.
        numbers: share of the batches that ask for a number, from as many rows: regression.
        seed: any non-negative integer.

    Missing values are ``NaN`` in ``support_x`` and ``query_x``.

    Example:
        >>> TableSampler(way=3, shot=4, features=5, query=10, tasks=2)[0]
        Task(T=2, N=3, S=12, Q=10, x=[5])
    """

    def __init__(
        self,
        *,
        way: Range = (2, 10),
        shot: Range = (1, 32),
        features: Range = (1, 30),
        query: int = 32,
        tasks: int = 16,
        cells: int = 16_000,
        rows: int = 320,
        grow: int = 0,
        numbers: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.way = as_range("way", way, 2)
        self.shot = as_range("shot", shot, 1)
        self.features = as_range("features", features, 1)
        self.query = as_range("query", query, 1)[0]
        self.tasks = as_range("tasks", tasks, 1)[0]
        if not 0 <= numbers <= 1:
            raise ValueError(f"numbers is {numbers}; expected 0 to 1")
        self.cells, self.rows, self.grow, self.numbers = cells, rows, grow, numbers
        self.seed = seed
        if rows < self.way[1] * self.shot[0]:
            raise ValueError(f"rows is {rows}; expected at least {self.way[1] * self.shot[0]}")

    def __getitem__(self, index: int) -> Task:
        rng = task_rng(self.seed, index)
        easy = max(0.0, 1 - index / self.grow) if self.grow else 0.0
        way = _log_uniform(rng, *self.way)
        n_way = None if rng.random() < self.numbers else way
        least, most = _towards(self.shot, (8, 32), easy)
        shot = _log_uniform(rng, least, max(least, min(most, self.rows // way)))
        features = _log_uniform(rng, *_towards(self.features, (2, 8), easy))
        support = way * shot
        size = (support + self.query) * (features + 1)
        dealt = rng.choice(["alike", "natural", "skewed"], p=[0.5, 0.25, 0.25])
        xs, ys = [], []
        for _ in range(max(1, min(self.tasks, self.cells // size))):
            draw = invent if dealt == "skewed" else _worth_reading
            x, y = draw(rng, 2 * (support + self.query), features, n_way)
            wanted = np.full(way, shot if dealt == "alike" else 1)
            if dealt == "skewed":
                wanted = _skewed(rng, way, support)
            order = _deal(rng, y, n_way, wanted, support, self.query)
            xs.append(x[order])
            ys.append(y[order])
        x_all = torch.from_numpy(np.stack(xs)).float()
        y_all = torch.from_numpy(np.stack(ys))
        y_all = y_all.float().unsqueeze(-1) if n_way is None else y_all.long()
        sizes = [support, self.query]
        support_x, query_x = x_all.split(sizes, 1)  # type: ignore[no-untyped-call]
        support_y, query_y = y_all.split(sizes, 1)  # type: ignore[no-untyped-call]
        return Task.trusted(support_x, support_y, query_x, query_y, n_way=n_way)

    def __iter__(self) -> Iterator[Task]:
        index = 0
        while True:
            yield self[index]
            index += 1


def invent(rng: Generator, rows: int, features: int, n_way: int | None) -> tuple[Array, Array]:
    """One table of a mechanism drawn at random.

    One of three: a network of causes and effects, whose nodes are columns and one of whose nodes
    (or the largest of several) is the label; classes that are clusters, of a covariance each; or a
    tree of questions about the columns. Then columns are bent, cut into categories, shuffled (so
    that they are useless), given outliers and holes, and some labels are wrong.

    Args:
        rng: decides everything.
        rows: of the table.
        features: columns.
        n_way: classes; ``None`` for a number as label.

    Returns:
        ``[rows,features]`` with ``NaN`` where a value is missing, and ``[rows]``, the classes
        ``0..n_way-1``, each at least twice where there are enough rows, or numbers.

    Example:
        >>> x, y = invent(np.random.default_rng(0), 100, 4, 3)
        >>> x.shape, sorted(set(y.tolist()))
        ((100, 4), [0.0, 1.0, 2.0])
    """
    with np.errstate(all="ignore"):
        kind = rng.choice(3, p=(0.7, 0.0, 0.3) if n_way is None else (0.4, 0.4, 0.2))
        if kind == 1 and n_way is not None:
            x, label = _clusters(rng, rows, features, n_way)
        else:
            nodes = _network(rng, rows, features + 1 + int(rng.integers(0, features + 6)))
            chosen = rng.permutation(nodes.shape[1])
            x = nodes[:, chosen[:features]].copy()
            score = nodes[:, chosen[features:]] if kind == 0 else _tree(rng, x)
            if n_way is None:
                return _as_measured(rng, x), _standard(score[:, 0])
            label = _classes(rng, score, n_way)
        x = _as_measured(rng, x)
    if rng.random() < 0.3:
        wrong = rng.random(rows) < rng.uniform(0, 0.15)
        label = np.where(wrong, rng.integers(0, n_way, rows), label)
    _fill(rng, label, n_way)
    return x, rng.permutation(n_way)[label].astype(np.float64)


def _worth_reading(
    rng: Generator, rows: int, features: int, n_way: int | None
) -> tuple[Array, Array]:
    """The first of a few tables of which neighbours tell the classes so well, or the best."""
    x, y = invent(rng, rows, features, n_way)
    if n_way is None:
        return x, y
    enough, best = rng.uniform(-0.1, 0.8), _told_by_neighbours(x, y, n_way)
    for _ in range(4):
        if best >= enough:
            break
        other = invent(rng, rows, features, n_way)
        if (told := _told_by_neighbours(*other, n_way)) > best:
            best, (x, y) = told, other
    return x, y


def _told_by_neighbours(x: Array, y: Array, n_way: int, rows: int = 128) -> float:
    """How much of what the largest class leaves unsaid 5 neighbours tell: 1 all, 0 nothing."""
    x, labels = x[:rows], y[:rows].astype(np.int64)
    here = np.isfinite(x)
    count = np.maximum(here.sum(0), 1)
    z = np.where(here, x, 0.0)
    z = np.where(here, z - z.sum(0) / count, 0.0)
    z = np.clip(z / (np.sqrt((z**2).sum(0) / count) + 1e-9), -3, 3)
    square = (z**2).sum(1)
    far = square[:, None] + square - 2 * z @ z.T
    np.fill_diagonal(far, np.inf)
    near = labels[np.argpartition(far, 5, axis=1)[:, :5]]
    votes = (near[:, :, None] == np.arange(n_way)).sum(1)
    largest = np.bincount(labels).max() / len(labels)
    right = float((votes.argmax(1) == labels).mean())
    return (right - largest) / (1 - largest) if largest < 1 else 0.0


def _network(rng: Generator, rows: int, nodes: int) -> Array:
    """Nodes ``[rows,nodes]`` of a random network of causes and effects, each standardised."""
    roots = int(rng.integers(1, max(2, min(nodes, 12)) + 1))
    layer = rng.standard_normal((rows, roots))
    if rng.random() < 0.3:  # roots in clusters
        centres = rng.standard_normal((int(rng.integers(2, 6)), roots)) * rng.uniform(1, 4)
        layer += centres[rng.integers(0, len(centres), rows)]
    if rng.random() < 0.3:
        layer = np.sign(layer) * np.abs(layer) ** rng.uniform(0.5, 2)
    known = [layer]
    noise = rng.choice([0.0, 0.05, 0.3]) * rng.random()
    density = rng.uniform(0.2, 1)
    one_kind = rng.random() < 0.5
    act = _ACTIVATIONS[rng.integers(len(_ACTIVATIONS))]
    depth = int(rng.integers(1, 5))
    width = max(2, math.ceil((nodes - (roots if rng.random() < 0.5 else 0)) / depth))
    for _ in range(depth):
        source = layer if rng.random() < 0.7 else np.concatenate(known, 1)
        weight = rng.standard_normal((source.shape[1], width))
        weight *= rng.random(weight.shape) < density
        dead = ~weight.any(0)
        weight[rng.integers(0, len(weight), dead.sum()), dead] = 1
        z = source @ (weight / np.sqrt((weight**2).sum(0)))
        z = z * np.exp(rng.standard_normal(width) * 0.5) + rng.standard_normal(width) * 0.5
        if one_kind:
            z = act(z)
        else:
            for block in np.array_split(np.arange(width), min(3, width)):
                z[:, block] = _ACTIVATIONS[rng.integers(len(_ACTIVATIONS))](z[:, block])
        layer = _standard(z) + noise * rng.standard_normal(z.shape)
        known.append(layer)
    every = np.concatenate(known if roots + depth * width >= nodes else [*known, layer], 1)
    while every.shape[1] < nodes:
        every = np.concatenate([every, every], 1)
    keep = rng.permutation(every.shape[1])[:nodes]
    return _standard(every[:, keep])


_ACTIVATIONS: tuple[Callable[[Array], Array], ...] = (
    lambda z: z,
    lambda z: z,
    np.tanh,
    lambda z: np.maximum(z, 0),
    np.abs,
    np.square,
    np.sin,
    lambda z: np.exp(-z * z),
    lambda z: np.log1p(np.abs(z)),
    lambda z: np.where(z > 0, 1.0, 0.0) + 0.1 * z,
    lambda z: np.floor(2 * z),
)


def _clusters(
    rng: Generator, rows: int, features: int, n_way: int
) -> tuple[Array, NDArray[np.int64]]:
    """Classes of one to three clusters, of a shape that is shared, or each one's own."""
    latent = int(rng.integers(1, features + 1)) if rng.random() < 0.5 else features
    each = 1 if rng.random() < 0.6 else int(rng.integers(2, 4))
    share = rng.dirichlet(np.full(n_way, rng.choice([1.5, 5.0, 30.0])))
    y = rng.choice(n_way, rows, p=share)
    kind = y * each + rng.integers(0, each, rows)
    apart = np.exp(rng.uniform(np.log(0.3), np.log(4))) / math.sqrt(max(1, latent) ** 0.5)
    centres = rng.standard_normal((n_way * each, latent)) * apart
    useful = rng.random(latent) < rng.uniform(0.3, 1)
    useful[rng.integers(latent)] = True
    centres *= useful
    noise = rng.standard_normal((rows, latent))
    if rng.random() < 0.3:
        noise /= np.sqrt(rng.chisquare(rng.uniform(2, 8), (rows, 1)) / 4)
    if rng.random() < 0.5:
        scale = np.exp(rng.standard_normal((n_way * each, latent)) * rng.uniform(0, 0.8))
        noise *= scale[kind]
    if rng.random() < 0.6:
        mix = rng.standard_normal((latent, latent)) / math.sqrt(latent)
        noise = noise @ (np.eye(latent) + rng.uniform(0, 2) * mix)
    x = centres[kind] + noise
    if latent < features or rng.random() < 0.3:
        x = x @ (rng.standard_normal((latent, features)) / math.sqrt(latent))
        x = x + rng.uniform(0, 0.5) * rng.standard_normal(x.shape)
    if rng.random() < 0.3:
        x = _ACTIVATIONS[rng.integers(len(_ACTIVATIONS))](_standard(x)) + rng.uniform(0, 1) * x
    return _standard(x), y


def _tree(rng: Generator, x: Array) -> Array:
    """Scores ``[rows,4]``: each the sum of a few trees of questions about the columns."""
    scores = np.zeros((len(x), 4))
    useful = rng.permutation(x.shape[1])[: int(rng.integers(1, min(x.shape[1], 8) + 1))]
    trees, depth = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    for _ in range(trees):
        leaf = np.zeros(len(x), np.int64)
        for level in range(depth):
            column = rng.choice(useful, 1 << level)[leaf]
            at = rng.standard_normal(1 << level)[leaf] * 0.8
            leaf = 2 * leaf + (x[np.arange(len(x)), column] > at)
        scores += rng.standard_normal((1 << depth, 4))[leaf]
    return scores + 1e-3 * rng.standard_normal(scores.shape)


def _classes(rng: Generator, score: Array, n_way: int) -> NDArray[np.int64]:
    """Classes from scores: cuts of the first, or which of several is the largest."""
    if score.shape[1] >= 2 and rng.random() < 0.5:
        weight = rng.standard_normal((score.shape[1], n_way))
        z = score @ weight + rng.standard_normal(n_way) * rng.uniform(0, 1)
        largest: NDArray[np.int64] = z.argmax(1)
        return largest
    share = rng.dirichlet(np.full(n_way, rng.choice([1.5, 5.0, 30.0])))
    cuts = np.quantile(score[:, 0], share.cumsum()[:-1])
    return np.searchsorted(cuts, score[:, 0])


def _as_measured(rng: Generator, x: Array) -> Array:
    """Columns as tables have them: bent, rounded, cut into categories, useless, with holes."""
    rows, features = x.shape
    if rng.random() < 0.3:
        useless = rng.random(features) < rng.uniform(0, 0.6)
        for column in np.flatnonzero(useless):
            x[:, column] = x[rng.permutation(rows), column]
    if rng.random() < 0.5:
        bent = np.flatnonzero(rng.random(features) < rng.random())
        for column in bent:
            z = x[:, column]
            how = rng.integers(4)
            if how == 0:
                z = np.exp(rng.uniform(0.3, 1.5) * z)
            elif how == 1:
                z = np.sign(z) * np.abs(z) ** rng.uniform(0.3, 3)
            elif how == 2:
                z = z + 5 * rng.standard_normal(rows) * (rng.random(rows) < rng.uniform(0, 0.1))
            else:
                z = np.clip(z, *np.sort(rng.uniform(-2, 2, 2)))
            x[:, column] = z
    if rng.random() < 0.5:
        cut = np.flatnonzero(rng.random(features) < rng.random() ** 2)
        for column in cut:
            levels = int(rng.choice([2, 2, 3, 4, 5, 8, 12]))
            edges = np.sort(rng.choice(x[:, column], levels - 1))
            code = np.searchsorted(edges, x[:, column])
            names = rng.random()
            if names < 0.4:  # one category, yes or no
                x[:, column] = code == rng.integers(levels)
            elif names < 0.6:  # names that were numbered anyhow
                x[:, column] = rng.permutation(levels)[code]
            else:
                x[:, column] = code
    x = x * np.exp(rng.standard_normal(features)) + rng.standard_normal(features)
    if rng.random() < 0.15:
        x[:, rng.integers(features)] = 0.0
    if rng.random() < 0.2:
        share = rng.uniform(0, 0.4) * (rng.random(features) < 0.5)
        x[rng.random(x.shape) < share] = np.nan
    x[~np.isfinite(x) & ~np.isnan(x)] = 0.0
    return x


def _standard(z: Array) -> Array:
    """Each column with mean 0 and standard deviation 1, whatever it was."""
    z = np.nan_to_num(np.clip(z, -1e6, 1e6))
    return (z - z.mean(0)) / (z.std(0) + 1e-6)  # type: ignore[no-any-return]


def _fill(rng: Generator, y: NDArray[np.int64], n_way: int) -> None:
    """Give each class two rows, taken from the largest."""
    counts = np.bincount(y, minlength=n_way)
    for label in np.flatnonzero(counts < 2):
        largest = int(counts.argmax())
        rows = rng.choice(np.flatnonzero(y == largest), min(2, counts[largest] // 2), replace=False)
        y[rows] = label
        counts = np.bincount(y, minlength=n_way)


def _deal(
    rng: Generator, y: Array, n_way: int | None, wanted: NDArray[np.int64], support: int, query: int
) -> NDArray[np.int64]:
    """Rows of the support, then of the query.

    The support has as many of each class as are wanted, where there are so many and one more.
    """
    order = rng.permutation(len(y))
    if n_way is not None:
        of_class = [order[y[order] == label] for label in range(n_way)]
        each = zip(of_class, wanted, strict=True)
        taken = np.concatenate([rows[: max(1, min(n, len(rows) - 1))] for rows, n in each])
        order = np.concatenate([taken, order[~np.isin(order, taken)]])
    chosen = order[: support + query]
    return np.concatenate([rng.permutation(chosen[:support]), chosen[support:]])


def _skewed(rng: Generator, way: int, rows: int) -> NDArray[np.int64]:
    """Sizes of classes, one row at least: some have many times as many as others."""
    share = np.exp(rng.uniform(0.5, 2.5) * rng.standard_normal(way))
    more: NDArray[np.int64] = np.floor((rows - way) * share / share.sum()).astype(np.int64)
    return 1 + more


def _towards(given: tuple[int, int], easy: tuple[int, int], share: float) -> tuple[int, int]:
    """A range on the way from the given one to the part of it that is easy."""
    low, high = given
    part = [min(max(bound, low), high) for bound in easy]
    return round(low + share * (part[0] - low)), round(high + share * (part[1] - high))


def _log_uniform(rng: Generator, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``; the larger, the rarer."""
    return int(np.exp(rng.uniform(np.log(low + 2), np.log(high + 3)))) - 2
