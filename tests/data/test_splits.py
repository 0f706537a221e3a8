from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.data.dataset import ClassDataset
from quickstudy.data.omniglot import ALPHABETS, omniglot
from quickstudy.data.splits import (
    Split,
    by_group,
    by_lists,
    maml,
    published,
    random_split,
    vinyals,
)

OMNIGLOT = {name: n for part in ALPHABETS.values() for name, n in part.items()}


def classes(groups: dict[str, int]) -> ClassDataset:
    """A dataset of these groups, each with so many characters of two blank images."""
    names = [f"{g}/character{i:02d}" for g, n in groups.items() for i in range(1, n + 1)]
    storage = torch.zeros(2 * len(names), 1, 2, 2, dtype=torch.uint8)
    return ClassDataset.from_sizes(
        storage, [2] * len(names), names, [name.split("/")[0] for name in names]
    )


@pytest.fixture(scope="module")
def blank_omniglot() -> ClassDataset:
    return classes(OMNIGLOT)


@st.composite
def datasets(draw: st.DrawFn) -> ClassDataset:
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=6))
    data = classes({f"g{i}": n for i, n in enumerate(sizes)})
    if draw(st.booleans()):
        data = data.rotated(draw(st.permutations([0, 1, 2, 3]))[: draw(st.integers(1, 4))])
    return data.subset(draw(st.permutations(range(len(data)))))


def check(split: Split, data: ClassDataset, by: str) -> None:
    """Every class stands in one part, and all classes of a root (or group) in the same."""
    names = [name for part in split.parts().values() for name in part.names]
    assert sorted(names) == sorted(data.names)
    homes: dict[str, set[str]] = {}
    for name, part in split.parts().items():
        for value in getattr(part, by):
            homes.setdefault(value, set()).add(name)
    assert all(len(home) == 1 for home in homes.values())


@given(st.data(), datasets(), st.integers(), st.sampled_from(["roots", "groups"]))
def test_random_splits_never_leak_and_follow_the_seed(
    draw: st.DataObject, data: ClassDataset, seed: int, by: str
) -> None:
    deal = random_split if by == "roots" else by_group
    total = len(set(getattr(data, by)))
    n_test = draw.draw(st.integers(1, total - 1), "test")
    n_validation = draw.draw(st.integers(0, total - 1 - n_test), "validation")
    split = deal(data, n_validation, n_test, seed)
    check(split, data, "roots")
    check(split, data, by)
    assert len(set(getattr(split.test, by))) == n_test
    assert (0 if split.validation is None else len(set(getattr(split.validation, by)))) == (
        n_validation
    )
    backwards = data.subset(list(range(len(data)))[::-1])
    again = deal(backwards, n_validation / total, n_test / total, seed)
    assert again.fingerprint == split.fingerprint
    assert again.test.names == split.test.names[::-1]


@given(datasets(), st.data())
def test_lists_never_leak(data: ClassDataset, draw: st.DataObject) -> None:
    assert data.groups is not None
    names = st.lists(st.sampled_from(sorted({*data.roots, *data.groups})), max_size=4)
    lists = {part: draw.draw(names, part) for part in ("train", "validation", "test")}
    wanted = {
        part: {
            name
            for name, root, group in zip(data.names, data.roots, data.groups, strict=True)
            if root in listed or group in listed
        }
        for part, listed in lists.items()
    }
    leaks = sum(map(len, wanted.values())) > len(set().union(*wanted.values()))
    if leaks or not wanted["train"] or not wanted["test"]:
        with pytest.raises(ValueError, match=r"leaks|leaves no class"):
            by_lists(data, **lists)
    else:
        parts = by_lists(data, **lists).parts()
        wanted = {part: names for part, names in wanted.items() if names}
        assert {part: {*these.names} for part, these in parts.items()} == wanted
    if wanted["test"] and not leaks and len(wanted["test"]) < len(data):
        check(by_lists(data, None, None, lists["test"]), data, "roots")


def test_seeds_differ() -> None:
    data = classes({f"g{i}": 4 for i in range(8)})
    assert len({random_split(data, 4, 8, seed).fingerprint for seed in range(20)}) == 20
    assert len({by_group(data, 1, 3, seed).fingerprint for seed in range(20)}) > 15


def test_a_seed_means_the_same_split_for_ever() -> None:
    split = random_split(classes({"a": 2, "b": 2, "c": 2}), 1, 2, seed=0)
    assert split.test.names == ("b/character01", "b/character02")


def test_split_refuses_leaks() -> None:
    data = classes({"a": 9})
    with pytest.raises(ValueError, match=r"7 classes are both in train and in test: .*and 2 more"):
        Split(data.subset(range(8)), None, data.subset(range(1, 8)), "bad")
    turned = data.rotated()
    with pytest.raises(ValueError, match="'bad' leaks: 1 classes are both in validation and in"):
        Split(data.subset([0]), turned.subset([4]), turned.subset([5]), "bad")


def test_rotated_and_describe() -> None:
    split = random_split(classes({"a": 10}), 2, 3, seed=1)
    turned = split.rotated(["train"])
    assert (len(turned.train), len(turned.test)) == (20, 3)
    assert turned.validation is split.validation
    assert turned.name == "random, seed 1, rotated train"
    everything = split.rotated()
    assert everything.validation is not None
    assert len(everything.validation) == 8
    assert everything.name == "random, seed 1, rotated"
    assert len({split.fingerprint, turned.fingerprint, everything.fingerprint}) == 3
    assert str(turned).splitlines() == [
        f"split random, seed 1, rotated train ({turned.fingerprint})",
        "  train         20 classes (rotations of 5), 40 examples",
        "  validation     2 classes, 4 examples",
        "  test           3 classes, 6 examples",
    ]
    assert len(turned.fingerprint) == 16
    without = random_split(classes({"a": 10}), 0, 3).rotated(["validation", "test"])
    assert without.validation is None
    assert split.rotated([]) is split
    with pytest.raises(ValueError, match="'val' is no part"):
        split.rotated(["val"])  # type: ignore[list-item]


def test_fingerprint_knows_which_part_is_which() -> None:
    data = classes({"a": 2, "b": 2})
    a, b = data.subset([0, 1]), data.subset([2, 3])
    prints = {
        Split(a, None, b, "").fingerprint,
        Split(b, None, a, "").fingerprint,
        Split(a, b.subset([0]), b.subset([1]), "").fingerprint,
        Split(a.subset([0]), a.subset([1]), b, "").fingerprint,
    }
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (5, 5, "5 for validation and 5 for test, of 10 roots"),
        (0, 0, "training and test need at least one"),
        (0.0, 0.01, "0 for test, of 10 roots"),
        (1.5, 1, "validation is 1.5; expected a whole number, or a fraction below 1"),
        (0, 1.0, "test is 1.0; expected"),
        (-1, 2, "validation is -1; expected at least 0"),
        (float("nan"), 2, "validation is nan"),
    ],
)
def test_random_split_refuses(validation: float, test: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_split(classes({"a": 10}), validation, test)


def test_lists_refuse() -> None:
    data = classes({"a": 3, "b": 3})
    with pytest.raises(ValueError, match="test names classes that do not exist: A, c/character01"):
        by_lists(data, ["a"], None, ["b", "A", "c/character01"])
    with pytest.raises(ValueError, match="train is the string 'a'; expected a list"):
        by_lists(data, "a", None, ["b"])
    with pytest.raises(ValueError, match=r"leaks: 1 classes .*: a/character01"):
        by_lists(data, ["a"], ["a/character01"], ["b"])
    with pytest.raises(ValueError, match="leaves no class for train"):
        by_lists(data, None, ["a"], ["b"])
    with pytest.raises(ValueError, match="leaves no class for test"):
        by_lists(data, ["a"], None, [])


@pytest.mark.parametrize("split", [published, by_group])
def test_groups_are_needed(split: Callable[[ClassDataset], Split]) -> None:
    plain = ClassDataset.from_sizes(torch.zeros(2, 1), [1, 1], ["a", "b"])
    with pytest.raises(ValueError, match="have no groups"):
        split(plain)


def test_published(blank_omniglot: ClassDataset) -> None:
    split = published(blank_omniglot)
    check(split, blank_omniglot, "groups")
    assert (len(split.train), split.validation, len(split.test)) == (964, None, 659)
    held_out = published(blank_omniglot.rotated(), validation_alphabets=5, seed=3)
    assert held_out.validation is not None
    assert len(set(held_out.train.groups or ())) == 25
    assert len(set(held_out.validation.groups or ())) == 5
    assert len(held_out.test) == 4 * 659
    assert held_out.name == "published, 5 alphabets held out, seed 3"
    with pytest.raises(ValueError, match="validation_alphabets is 30, of 30"):
        published(blank_omniglot, validation_alphabets=30)
    with pytest.raises(ValueError, match="no alphabets of Omniglot: Klingon"):
        published(classes({"Greek": 2, "Klingon": 3}))
    with pytest.raises(ValueError, match="leaves no class for test"):
        published(classes({"Greek": 2}))


def test_vinyals(blank_omniglot: ClassDataset) -> None:
    split = vinyals(blank_omniglot)
    check(split, blank_omniglot, "roots")
    assert split.validation is not None
    assert [len(p) for p in split.parts().values()] == [1028, 172, 423]
    assert set(split.validation.groups or ()) == {
        "Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)",
    }  # fmt: skip
    assert "Gurmukhi/character41" in split.train.names
    assert "Gurmukhi/character42" in split.test.names
    assert [len(p) for p in vinyals(blank_omniglot.rotated()).parts().values()] == [4112, 688, 1692]
    merged = vinyals(blank_omniglot, validation=False)
    assert merged.validation is None
    assert set(merged.train.names) == {*split.train.names, *split.validation.names}
    assert merged.test.fingerprint == split.test.fingerprint


@pytest.mark.parametrize("split", [vinyals, maml])
def test_character_splits_need_the_whole_of_omniglot(
    split: Callable[[ClassDataset], Split], blank_omniglot: ClassDataset
) -> None:
    with pytest.raises(ValueError, match=r"2 characters are missing: Angelic/character01, Ti"):
        split(
            blank_omniglot.where(
                lambda root: root not in ("Angelic/character01", "Tifinagh/character55")
            )
        )
    with pytest.raises(ValueError, match="no characters of Omniglot: Klingon/character01"):
        split(classes({**OMNIGLOT, "Klingon": 1}))


def test_maml(blank_omniglot: ClassDataset) -> None:
    splits = [maml(blank_omniglot, seed) for seed in (0, 0, 1)]
    for split in splits:
        check(split, blank_omniglot, "roots")
        assert [len(p) for p in split.parts().values()] == [1100, 100, 423]
    assert splits[0].fingerprint == splits[1].fingerprint != splits[2].fingerprint


def test_real_omniglot_splits(omniglot_root: Path) -> None:
    data = omniglot(omniglot_root)
    assert vinyals(data).fingerprint == "e6968c081bfee7a7"
    assert len(published(data, validation_alphabets=5).train) == 826
