"""Invented tables."""

import numpy as np
import pytest
import torch

from quickstudy.data import TableSampler
from quickstudy.data.tables import _told_by_neighbours, invent


def test_a_batch_is_a_function_of_seed_and_index() -> None:
    one, other = TableSampler(seed=3)[7], TableSampler(seed=3)[7]
    for mine, its in zip(one.tensors(), other.tensors(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, atol=0, equal_nan=True)
    assert one.support_x.shape != TableSampler(seed=4)[7].support_x.shape or not torch.equal(
        one.support_x, TableSampler(seed=4)[7].support_x
    )


def test_tasks_keep_to_their_ranges_and_every_class_has_an_example() -> None:
    tasks = TableSampler(way=(2, 5), shot=(1, 6), features=(2, 7), query=9, tasks=3, rows=20)
    ways, features = set(), set()
    for index in range(60):
        task = tasks[index]
        assert task.n_way is not None
        ways.add(task.n_way)
        features.add(task.support_x.shape[2])
        assert task.query_x.shape[1] == 9
        assert task.support_x.shape[1] <= 20
        for labels in task.support_y:
            assert sorted(set(labels.tolist())) == list(range(task.n_way))
        assert not torch.isinf(task.support_x).any()
    assert ways == {2, 3, 4, 5}
    assert features == {2, 3, 4, 5, 6, 7}


def test_a_class_that_is_drawn_once_is_in_the_support() -> None:
    """Of few rows the largest class has none to give away for a second."""
    tasks = TableSampler(way=10, shot=1, query=1, tasks=8)
    for index in range(40):
        for labels in tasks[index].support_y:
            assert len(set(labels.tolist())) == 10


def test_half_the_batches_are_balanced() -> None:
    tasks = TableSampler(way=3, shot=8, tasks=1, query=4)
    equal = sum(bool((tasks[i].support_y[0].bincount(minlength=3) == 8).all()) for i in range(60))
    assert 15 <= equal <= 45


def test_a_large_table_comes_in_smaller_batches() -> None:
    tasks = TableSampler(way=2, shot=20, features=20, query=20, tasks=50, cells=5000)
    assert len(tasks[0]) == 5000 // (60 * 21)


def test_some_batches_ask_for_a_number() -> None:
    tasks = TableSampler(numbers=0.5, tasks=1)
    kinds = [tasks[i].n_way is None for i in range(40)]
    assert 8 <= sum(kinds) <= 32
    target = next(tasks[i] for i in range(40) if kinds[i])
    assert target.support_y.shape[2] == 1
    assert target.support_y.is_floating_point()


def test_mechanisms_are_of_many_kinds() -> None:
    """Holes, categories, useless columns, classes that a straight line divides and others."""
    rng = np.random.default_rng(0)
    tables = [invent(rng, 120, 6, 3) for _ in range(150)]
    holes = sum(bool(np.isnan(x).any()) for x, _ in tables)
    levels = sum(any(len(np.unique(c[~np.isnan(c)])) <= 3 for c in x.T) for x, _ in tables)
    assert 5 < holes < 60
    assert 20 < levels < 140
    assert all(len(np.unique(y)) == 3 for _, y in tables)
    assert not any(np.isinf(x).any() for x, _ in tables)


def test_labels_depend_on_the_columns() -> None:
    """What nearest neighbours answer is right clearly more often than the largest class is."""
    rng = np.random.default_rng(1)
    gain = []
    for _ in range(60):
        x, y = invent(rng, 200, 5, 2)
        x = np.nan_to_num((x - np.nanmean(x, 0)) / (np.nanstd(x, 0) + 1e-9))
        far = ((x[100:, None] - x[None, :100]) ** 2).sum(-1)
        votes = y[:100][np.argsort(far, 1)[:, :5]].mean(1) > 0.5
        gain.append((votes == y[100:]).mean() - max(y[100:].mean(), 1 - y[100:].mean()))
    assert np.mean(gain) > 0.05


def test_what_neighbours_tell_is_all_of_some_tables_and_nothing_of_others() -> None:
    rng = np.random.default_rng(2)
    y = np.arange(120) % 3
    x = rng.standard_normal((120, 2)) + 20 * np.eye(3)[y][:, :2]
    x[5, 1] = np.nan
    assert _told_by_neighbours(x, y, 3) > 0.95
    assert abs(_told_by_neighbours(rng.standard_normal((120, 2)), y, 3)) < 0.2


def test_of_several_tables_one_is_taken_that_tells_its_classes() -> None:
    rng, tasks = np.random.default_rng(3), TableSampler(way=6, features=6, shot=10, tasks=1)
    any_table = [_told_by_neighbours(*invent(rng, 120, 6, 6), 6) for _ in range(60)]
    taken = []
    for index in range(60):
        parts = [part[0].numpy() for part in tasks[index].tensors()]
        x, y = np.concatenate(parts[::2]), np.concatenate(parts[1::2])
        taken.append(_told_by_neighbours(x, y, 6))
    assert np.mean(taken) > np.mean(any_table) + 0.1
    assert min(taken) < 0.2  # some tell little


def test_tasks_grow_from_easy_ones() -> None:
    ranges = {"way": (2, 10), "shot": (1, 40), "features": (1, 30), "rows": 400}
    tasks = TableSampler(**ranges, grow=1000, tasks=1, query=4)  # type: ignore[arg-type]
    for task in [tasks[i] for i in range(20)]:
        assert task.n_way is not None
        assert task.support_x.shape[1] >= 8 * task.n_way
        assert task.support_x.shape[2] <= 8
    later = [tasks[i] for i in range(1000, 1060)]
    assert min(task.support_x.shape[1] / (task.n_way or 1) for task in later) < 4
    assert max(task.support_x.shape[2] for task in later) > 15
    narrow = TableSampler(way=7, shot=2, features=20, grow=1000, tasks=1, query=4)[0]
    assert (narrow.n_way, narrow.support_x.shape[1:]) == (7, (14, 20))


def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="numbers is 2; expected 0 to 1"):
        TableSampler(numbers=2)
    with pytest.raises(ValueError, match="rows is 5; expected at least 30"):
        TableSampler(way=10, shot=3, rows=5)
