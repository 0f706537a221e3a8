"""Training, validation and test classes that share no class, checked when they are made.

Every function here deals out *roots*: the rotations of one character stay together. What a seed
chooses depends on the seed and on the names alone, not on their order or on the machine.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from itertools import combinations
from typing import Literal

from quickstudy.data.dataset import ClassDataset
from quickstudy.data.omniglot import ALPHABETS

__all__ = [
    "Split",
    "by_group",
    "by_lists",
    "maml",
    "published",
    "random_split",
    "vinyals",
]

PartName = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class Split:
    """Classes to meta-train on, to choose by, and to report on.

    Args:
        train: classes the learner is trained on.
        validation: classes to choose hyper-parameters and stopping by, or ``None``.
        test: classes to report on.
        name: what the split is called in reports.

    Raises:
        ValueError: two parts share a root; names the roots.

    Example:
        >>> from quickstudy.data.digits import digits
        >>> split = random_split(digits(), validation=2, test=3)
        >>> len(split.train), len(split.validation), len(split.test)
        (5, 2, 3)
    """

    train: ClassDataset
    validation: ClassDataset | None
    test: ClassDataset
    name: str

    def __post_init__(self) -> None:
        for (a, first), (b, second) in combinations(self.parts().items(), 2):
            if shared := sorted({*first.roots} & {*second.roots}):
                raise ValueError(
                    f"split {self.name!r} leaks: {len(shared)} classes are both in {a} and in "
                    f"{b}: {_some(shared)}"
                )

    def parts(self) -> dict[PartName, ClassDataset]:
        """The existing parts, by name."""
        parts: dict[PartName, ClassDataset] = {"train": self.train}
        if self.validation is not None:
            parts["validation"] = self.validation
        return {**parts, "test": self.test}

    def rotated(self, parts: Sequence[PartName] = ("train", "validation", "test")) -> "Split":
        """Every class of these parts in four rotations, each a class (`ClassDataset.rotated`)."""
        existing = self.parts()
        if unknown := [part for part in parts if part not in ("train", "validation", "test")]:
            raise ValueError(f"{unknown[0]!r} is no part; expected train, validation or test")
        turned = {part: existing[part].rotated() for part in parts if part in existing}
        if not turned:
            return self
        change = "rotated" if len(turned) == len(existing) else f"rotated {', '.join(turned)}"
        return replace(self, name=f"{self.name}, {change}", **turned)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any class or example of any part."""
        text = "\0".join(f"{part} {data.fingerprint}" for part, data in self.parts().items())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """Sizes and fingerprint, a line for each part."""
        lines = [f"split {self.name} ({self.fingerprint})"]
        for part, data in self.parts().items():
            roots = len(set(data.roots))
            turned = "" if roots == data.n_classes else f" (rotations of {roots})"
            lines.append(
                f"  {part:<10} {data.n_classes:>5} classes{turned}, {data.n_examples} examples"
            )
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.describe()


def published(dataset: ClassDataset, *, validation_alphabets: int = 0, seed: int = 0) -> Split:
    """Omniglot as published: train on the background alphabets, test on the evaluation ones.

    Lake et al. (2015): 30 alphabets with 964 characters, then 20 other alphabets with 659.

    Args:
        dataset: what `omniglot` returned, rotated or not.
        validation_alphabets: how many background alphabets to hold out for validation.
        seed: chooses which.
    """
    groups = _groups(dataset)
    background, evaluation = ({*ALPHABETS[part]} for part in ("background", "evaluation"))
    if unknown := sorted({*groups} - background - evaluation):
        raise ValueError(f"no alphabets of Omniglot: {_some(unknown)}")
    train = _shuffled({*groups} & background, seed)
    if not 0 <= validation_alphabets < max(len(train), 1):
        raise ValueError(
            f"validation_alphabets is {validation_alphabets}, of {len(train)} background alphabets"
        )
    held_out, trained = train[:validation_alphabets], train[validation_alphabets:]
    name = "published"
    if held_out:
        name += f", {validation_alphabets} alphabets held out, seed {seed}"
    return _split(dataset, name, trained, held_out, evaluation, by="groups")


def vinyals(dataset: ClassDataset, *, validation: bool = True) -> Split:
    """Omniglot's characters split 1028/172/423, as most few-shot papers do.

    The lists are those of Vinyals et al. (2016), published with Snell et al. (2017). Validation
    is five whole alphabets. Test is twelve alphabets and the last four characters of Gurmukhi,
    whose other 41 are training classes.

    Args:
        dataset: what `omniglot` returned, rotated or not.
        validation: with ``False`` its characters are trained on too, 1200 in all, as papers do
            once the number of steps is chosen.
    """
    _check_whole(dataset)
    text = resources.files("quickstudy.data").joinpath("omniglot_vinyals.json").read_text("utf-8")
    lists = {
        part: [
            f"{alphabet}/character{i:02d}"
            for alphabet, (first, last) in ranges.items()
            for i in range(first, last + 1)
        ]
        for part, ranges in json.loads(text).items()
    }
    held_out = lists["validation"] if validation else None
    split = by_lists(dataset, None, held_out, lists["test"])
    return replace(split, name="vinyals" if validation else "vinyals, validation trained on")


def maml(dataset: ClassDataset, seed: int = 0) -> Split:
    """Omniglot's characters split at random 1100/100/423 (Finn et al. 2017, their code)."""
    _check_whole(dataset)
    return replace(random_split(dataset, 100, 423, seed), name=f"maml, seed {seed}")


def by_group(
    dataset: ClassDataset, validation: int | float = 0.15, test: int | float = 0.2, seed: int = 0
) -> Split:
    """Split whole groups (alphabets, super-classes) at random.

    Args:
        dataset: classes with groups.
        validation: how many groups, or (as a float below 1) which fraction of them, rounded.
        test: likewise.
        seed: chooses which.
    """
    return _deal(dataset, validation, test, seed, by="groups")


def random_split(
    dataset: ClassDataset, validation: int | float, test: int | float, seed: int = 0
) -> Split:
    """Split classes at random, the rotations of one class together.

    Args:
        dataset: any classes.
        validation: how many roots, or (as a float below 1) which fraction of them, rounded.
        test: likewise.
        seed: chooses which.
    """
    return _deal(dataset, validation, test, seed, by="roots")


def by_lists(
    dataset: ClassDataset,
    train: Iterable[str] | None,
    validation: Iterable[str] | None,
    test: Iterable[str],
) -> Split:
    """Split by lists of names, each the name of a root or of a group.

    Args:
        dataset: any classes. Those that no list names are left out.
        train: names, or ``None`` for all classes that the other two leave.
        validation: names, or ``None`` for no such part.
        test: names.

    Raises:
        ValueError: a name is unknown, a class is in two parts, or a part is empty.
    """
    roots = {*dataset.roots}
    members: dict[str, set[str]] = {}
    for root, group in zip(dataset.roots, dataset.groups or (), strict=dataset.groups is not None):
        members.setdefault(group, set()).add(root)

    def resolve(part: PartName, names: Iterable[str]) -> set[str]:
        if isinstance(names, str):
            raise ValueError(f"{part} is the string {names!r}; expected a list of names")
        names = list(names)
        if unknown := [name for name in names if name not in roots and name not in members]:
            raise ValueError(f"{part} names classes that do not exist: {_some(unknown)}")
        return {r for name in names for r in ({name} if name in roots else members[name])}

    held_out = resolve("validation", validation or ())
    tested = resolve("test", test)
    trained = roots - held_out - tested if train is None else resolve("train", train)
    return _split(dataset, "lists", trained, held_out, tested, by="roots")


def _deal(
    dataset: ClassDataset,
    validation: int | float,
    test: int | float,
    seed: int,
    by: Literal["roots", "groups"],
) -> Split:
    values = _shuffled({*(dataset.roots if by == "roots" else _groups(dataset))}, seed)
    n_validation = _count("validation", validation, len(values))
    n_test = _count("test", test, len(values))
    if n_test == 0 or n_validation + n_test >= len(values):
        raise ValueError(
            f"{n_validation} for validation and {n_test} for test, of {len(values)} {by}: "
            "training and test need at least one each"
        )
    first = n_test + n_validation
    return _split(
        dataset,
        f"{'random' if by == 'roots' else 'by group'}, seed {seed}",
        values[first:],
        values[n_test:first],
        values[:n_test],
        by=by,
    )


def _split(
    dataset: ClassDataset,
    name: str,
    train: Iterable[str],
    validation: Iterable[str],
    test: Iterable[str],
    by: Literal["roots", "groups"],
) -> Split:
    def pick(part: PartName, wanted: Iterable[str]) -> ClassDataset:
        values = dataset.roots if by == "roots" else _groups(dataset)
        chosen = {*wanted}
        classes = [i for i, value in enumerate(values) if value in chosen]
        if not classes:
            raise ValueError(f"split {name!r} leaves no class for {part}")
        return dataset.subset(classes)

    validation = list(validation)
    return Split(
        pick("train", train),
        pick("validation", validation) if validation else None,
        pick("test", test),
        name,
    )


def _count(part: str, amount: int | float, total: int) -> int:
    if isinstance(amount, float) and not 0 <= amount < 1:
        raise ValueError(f"{part} is {amount}; expected a whole number, or a fraction below 1")
    if amount < 0:
        raise ValueError(f"{part} is {amount}; expected at least 0")
    return round(amount * total) if isinstance(amount, float) else amount


def _shuffled(values: Iterable[str], seed: int) -> list[str]:
    return sorted(values, key=lambda value: hashlib.sha256(f"{seed}\0{value}".encode()).digest())


def _groups(dataset: ClassDataset) -> tuple[str, ...]:
    if dataset.groups is None:
        raise ValueError("these classes have no groups; random_split needs none")
    return dataset.groups


def _check_whole(dataset: ClassDataset) -> None:
    expected = {
        f"{alphabet}/character{i:02d}"
        for part in ALPHABETS.values()
        for alphabet, n in part.items()
        for i in range(1, n + 1)
    }
    if missing := sorted(expected - {*dataset.roots}):
        raise ValueError(
            f"needs the whole of Omniglot; {len(missing)} characters are missing: {_some(missing)}"
        )
    if unknown := sorted({*dataset.roots} - expected):
        raise ValueError(f"no characters of Omniglot: {_some(unknown)}")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
