"""The episode sampler: what it promises, on data where every example tells where it is from."""

import math
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.data import (
    ClassDataset,
    EpisodeSampler,
    SinusoidSampler,
    alphabets,
    prefetch,
    to_float,
)
from quickstudy.task import Task


def tagged(sizes: list[int], groups: list[str] | None = None) -> ClassDataset:
    """Example ``e`` of class ``c`` is the vector ``[c, e]``."""
    x = torch.tensor([[c, e] for c, n in enumerate(sizes) for e in range(n)], dtype=torch.float32)
    return ClassDataset.from_sizes(x, sizes, [f"c{c:03}" for c in range(len(sizes))], groups)


def numbered(n: int, groups: list[str] | None = None) -> ClassDataset:
    """Square images of classes ``"0", "1", ...``, which can be rotated."""
    x = torch.zeros(3 * n, 1, 2, 2, dtype=torch.uint8)
    return ClassDataset.from_sizes(x, [3] * n, [str(i) for i in range(n)], groups)


def same(a: Task, b: Task) -> bool:
    return a.n_way == b.n_way and all(
        torch.equal(x, y) for x, y in zip(a.tensors(), b.tensors(), strict=True)
    )


@given(
    way=st.integers(2, 6),
    shot=st.integers(1, 4),
    query=st.integers(1, 4),
    tasks=st.integers(1, 4),
    imbalanced=st.booleans(),
    index=st.integers(0, 10**6),
)
def test_episodes_are_what_they_say(
    way: int, shot: int, query: int, tasks: int, imbalanced: bool, index: int
) -> None:
    sampler = EpisodeSampler(
        tagged([8, 9, 12, 8, 30, 10]),
        way=way,
        shot=(1, shot) if imbalanced else shot,
        query=query,
        tasks=tasks,
        imbalanced=imbalanced,
    )
    task = sampler[index]
    assert (len(task), task.n_way, task.query_x.shape[1]) == (tasks, way, way * query)
    for t in range(tasks):
        owner: dict[int, int] = {}
        seen: set[tuple[int, int]] = set()
        for x, y in (
            (task.support_x[t], task.support_y[t]),
            (task.query_x[t], task.query_y[t]),
        ):
            for (c, e), label in zip(x.int().tolist(), y.tolist(), strict=True):
                assert owner.setdefault(label, c) == c, "one label, two classes"
                assert (c, e) not in seen, "an example is drawn twice"
                seen.add((c, e))
        assert len(set(owner.values())) == way, "two labels, one class"
        counts = task.support_y[t].bincount(minlength=way)
        assert counts.min() >= 1
        assert counts.max() <= shot
        if not imbalanced:
            assert counts.tolist() == [shot] * way
        assert task.query_y[t].bincount().tolist() == [query] * way


def test_index_decides_the_tasks() -> None:
    dataset = tagged([10] * 12)
    a = EpisodeSampler(dataset, way=5, shot=1, query=2, tasks=3, seed=4)
    b = EpisodeSampler(dataset, way=5, shot=1, query=2, tasks=3, seed=4)
    c = EpisodeSampler(dataset, way=5, shot=1, query=2, tasks=3, seed=5)
    assert same(a[7], b[7])
    assert not same(a[7], a[8])
    assert not same(a[7], c[7])
    assert same(next(iter(a)), a[0])


def test_class_names_tell_what_labels_mean() -> None:
    sampler = EpisodeSampler(tagged([5] * 9), way=4, shot=1, query=2, tasks=3)
    task, names = sampler[6], sampler.class_names(6)
    for t in range(3):
        for x, label in zip(task.query_x[t], task.query_y[t].tolist(), strict=True):
            assert names[t][label] == f"c{int(x[0]):03}"
        assert task.classes is not None
        assert [sampler.dataset.names[c] for c in task.classes[t]] == names[t]


def test_every_class_and_example_comes_equally_often() -> None:
    sampler = EpisodeSampler(tagged([4] * 8), way=2, shot=1, query=1, tasks=4000)
    task = sampler[0]
    x = torch.cat([task.support_x, task.query_x], 1).int().flatten(0, 1)
    counts = (x[:, 0] * 4 + x[:, 1]).bincount(minlength=32).numpy()
    expected = 4000 * 4 / 32
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < 31 + 6 * math.sqrt(2 * 31), "far beyond chance"
    first = task.support_y[:, 0].float().mean()
    assert 0.45 < first < 0.55, "the support is not shuffled"


def test_ranges_vary_by_batch() -> None:
    sampler = EpisodeSampler(tagged([20] * 10), way=(3, 6), shot=(1, 4), query=2)
    seen = {
        (t.n_way, t.support_y.shape[1] // (t.n_way or 1)) for t in (sampler[i] for i in range(200))
    }
    assert seen == {(n, k) for n in range(3, 7) for k in range(1, 5)}


def test_ways_that_grow() -> None:
    """Each way of the range for as many batches, and the last from then on."""
    settings: dict[str, Any] = {"way": (2, 5), "shot": 1, "query": 1, "seed": 3}
    sampler = EpisodeSampler(tagged([4] * 9), **settings, grow=8)
    assert [sampler[i].n_way for i in range(11)] == [2, 2, 3, 3, 4, 4, 5, 5, 5, 5, 5]
    assert len(sampler.class_names(2)[0]) == 3
    with pytest.raises(ValueError, match="way=5 classes a task, but the dataset has only 4"):
        EpisodeSampler(tagged([4] * 4), **settings, grow=8)


def test_within_group() -> None:
    groups = ["a"] * 6 + ["b"] * 5 + ["c"] * 2
    sampler = EpisodeSampler(
        tagged([5] * 13, groups), way=5, shot=1, query=1, tasks=200, within_group=True
    )
    classes = sampler[0].support_x[..., 0].long()
    group = torch.tensor([0] * 6 + [1] * 5 + [2] * 2)[classes]
    assert (group == group[:, :1]).all()
    assert set(group[:, 0].tolist()) == {0, 1}, "groups too small are left out, others are not"


def test_rotated_classes_are_turned_as_a_whole() -> None:
    images = torch.arange(2 * 3 * 16, dtype=torch.uint8).view(6, 1, 4, 4)
    dataset = ClassDataset.from_sizes(images, [3, 3], ["a", "b"]).rotated()
    task = EpisodeSampler(dataset, way=8, shot=1, query=2)[0]
    plain = {to_float(images[i]).numpy().tobytes(): i for i in range(6)}
    for label in range(8):
        x = torch.cat(
            [task.support_x[task.support_y == label], task.query_x[task.query_y == label]]
        )
        fits = [
            k
            for k in range(4)
            if all(torch.rot90(i, -k, (-2, -1)).contiguous().numpy().tobytes() in plain for i in x)
        ]
        assert len(fits) == 1, "the examples of a rotated class do not share one rotation"


def test_images_become_floats_in_0_1() -> None:
    images = np.full((4, 1, 2, 2), 255, np.uint8)
    task = EpisodeSampler(ClassDataset.from_arrays(images, [0, 0, 1, 1]), way=2, shot=1, query=1)[0]
    assert task.support_x.dtype == torch.float32
    assert float(task.support_x.max()) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"way": 11}, "way=11 classes a task, but the dataset has only 10"),
        ({"way": 1}, "way is 1; expected an integer of at least 2"),
        ({"way": (5, 3)}, r"way is \(5, 3\)"),
        ({"shot": 0}, "shot is 0"),
        ({"shot": 4, "query": 2}, "needs 6 examples of a class, but 'c000' has 5"),
        ({"query": 0}, "query is 0"),
        ({"tasks": 0}, "tasks is 0"),
        ({"within_group": True}, "classes have groups"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EpisodeSampler(tagged([5] * 10), **{"way": 3, "shot": 1, "query": 1, **arguments})


def test_group_too_small() -> None:
    with pytest.raises(ValueError, match="no group has 3 classes; the largest has 2"):
        EpisodeSampler(
            tagged([5] * 4, ["a", "a", "b", "b"]), way=3, shot=1, query=1, within_group=True
        )


def test_prefetch_gives_the_same_tasks_in_order() -> None:
    sampler = EpisodeSampler(tagged([5] * 10), way=3, shot=1, query=1)
    batches = prefetch(sampler, 5, step=2)
    for i in range(6):
        assert same(next(batches), sampler[5 + 2 * i])
    batches.close()
    assert not any(t.name == "quickstudy-prefetch" for t in threading.enumerate())


def test_prefetch_takes_one_thread_and_leaves_the_others_as_they_are() -> None:
    """Two pools of threads would wait for each other; one that is set for all would be as slow."""
    seen: list[int] = []

    class Source:
        def __getitem__(self, i: int) -> Any:
            time.sleep(0.1)  # until all threads are on their way
            seen.append(torch.get_num_threads())
            return i

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        batches = prefetch(Source(), 0)
        assert [next(batches) for _ in range(3)] == [0, 1, 2]
        assert torch.get_num_threads() == 3
        later = threading.Thread(target=lambda: seen.append(-torch.get_num_threads()))
        later.start()
        later.join()
        batches.close()
    finally:
        torch.set_num_threads(before)
    assert {n for n in seen if n > 0} == {1}
    assert min(seen) == -3


def test_prefetch_passes_errors_on() -> None:
    class Broken:
        def __getitem__(self, index: int) -> Task:
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        next(prefetch(Broken(), 0))


def test_one_per_root() -> None:
    dataset = numbered(8).rotated()
    plain = EpisodeSampler(dataset, way=6, shot=1, query=1, tasks=50, seed=3)
    apart = EpisodeSampler(dataset, way=6, shot=1, query=1, tasks=50, seed=3, one_per_root=True)

    def repeated(sampler: EpisodeSampler) -> int:
        tasks = [sampler.class_names(i) for i in range(4)]
        roots = [[name.partition("@")[0] for name in task] for batch in tasks for task in batch]
        return sum(len({*task}) < len(task) for task in roots)

    assert repeated(plain) > 50
    assert repeated(apart) == 0
    names = [name for i in range(40) for task in apart.class_names(i) for name in task]
    counts = [names.count(name) for name in dataset.names]
    assert len(counts) == 32
    assert min(counts) > 0.8 * np.mean(counts), "every turn comes equally often"
    with pytest.raises(ValueError, match=r"way=9 .* has only 8 of different roots"):
        EpisodeSampler(dataset, way=9, shot=1, query=1, one_per_root=True)


def test_one_per_root_within_a_group() -> None:
    dataset = numbered(8, groups=["a", "a", "a", "b", "b", "b", "b", "b"]).rotated()
    options = {"shot": 1, "query": 1, "within_group": True, "one_per_root": True}
    sampler = EpisodeSampler(dataset, way=4, tasks=30, **options)  # type: ignore[arg-type]
    for task in sampler.class_names(0):
        roots = {name.partition("@")[0] for name in task}
        assert len(roots) == 4
        assert roots <= {"3", "4", "5", "6", "7"}, "alphabet a has three characters only"
    with pytest.raises(ValueError, match="no group has 6 classes; the largest has 5"):
        EpisodeSampler(dataset, way=6, **options)  # type: ignore[arg-type]


def test_frequencies_vary_when_asked() -> None:
    """A task's points lie on ``a sin(f x - p)`` for one ``f`` within the range, not for 1."""
    from scipy.optimize import least_squares

    same = SinusoidSampler(shot=5, query=40, tasks=4, seed=1)
    varied = SinusoidSampler(shot=5, query=40, tasks=4, seed=1, frequency_spread=0.2)
    assert torch.equal(same[0].query_x, varied[0].query_x)
    found = []
    for x, y in zip(varied[0].query_x.numpy(), varied[0].query_y.numpy(), strict=True):

        def error(v: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
            return (v[0] * np.sin(v[1] * x - v[2]) - y)[:, 0]

        starts = [(a, f, p) for a in (1, 3) for f in (0.85, 1, 1.15) for p in (0.5, 1.5, 2.5)]
        best = min((least_squares(error, start) for start in starts), key=lambda fit: fit.cost)
        assert best.cost < 1e-8
        found.append(abs(best.x[1]))
    assert all(0.8 <= f <= 1.2 for f in found)
    assert max(abs(f - 1) for f in found) > 0.05
    with pytest.raises(ValueError, match="frequency_spread is 1"):
        SinusoidSampler(shot=1, query=1, frequency_spread=1)


def test_sinusoids_are_sinusoids() -> None:
    task = SinusoidSampler(shot=60, query=60, tasks=50)[0]
    assert task.support_x.min() >= -5
    assert task.support_x.max() <= 5
    for t in range(50):
        x = torch.cat([task.support_x[t], task.query_x[t]]).double()
        y = torch.cat([task.support_y[t], task.query_y[t]]).double()
        basis = torch.cat([x.sin(), x.cos()], 1)
        weights = torch.linalg.lstsq(basis, y).solution
        assert torch.allclose(basis @ weights, y, atol=1e-4)
        amplitude = float(weights.norm())
        phase = math.atan2(-float(weights[1]), float(weights[0]))
        assert 0.1 - 1e-3 <= amplitude <= 5 + 1e-3
        assert -1e-3 <= phase <= math.pi + 1e-3


def test_batches_are_numbered_from_0() -> None:
    sampler = EpisodeSampler(alphabets(4, 4, size=8), way=2, shot=1, query=1)
    with pytest.raises(IndexError, match="there is no batch -1: batches are numbered from 0"):
        sampler[-1]
