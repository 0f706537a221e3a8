"""Examples grouped by class: what every data source returns and every sampler reads."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from quickstudy.checkpoint import reading
from quickstudy.plain import read_file

__all__ = ["ClassDataset", "atomic_folder"]


class Examples(Protocol):
    """A map-style data set: of `torch.utils.data`, of torchvision, or your own."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class ClassDataset:
    """A pool of examples, of which class ``c`` owns rows ``first[c] .. first[c]+sizes[c]-1``.

    Choosing classes, splitting and rotating make new views of the same ``storage``, so they cost
    nothing and work on a memory map that is larger than memory.

    Args:
        storage: all examples, ``[M, ...]``. Images are uint8 ``[M,C,H,W]`` and become floats in
            0..1 when sampled; any other data is float and sampled as it is.
        first: the row of each class's first example, int64 ``[n_classes]``.
        sizes: how many examples each class has, int64 ``[n_classes]``.
        names: the name of each class, all different.
        groups: the group of each class (an alphabet, a super-class), or ``None``.
        roots: the class each one was made from: rotations of one character share their root and
            never stand on two sides of a split. Default: ``names``.
        turns: quarter turns (counter-clockwise) applied to each class when read, int64
            ``[n_classes]``. Default: none.
    """

    storage: Tensor
    first: Tensor
    sizes: Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    roots: tuple[str, ...] = ()
    turns: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.roots:
            object.__setattr__(self, "roots", self.names)
        n = len(self.names)
        if n == 0:
            raise ValueError("a ClassDataset needs at least one class")
        if len(set(self.names)) != n:
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"class names must differ; {twice!r} stands twice")
        for field in ("first", "sizes", "roots", "groups", "turns"):
            value = getattr(self, field)
            if value is not None and len(value) != n:
                raise ValueError(f"{field} has {len(value)} entries for {n} classes")
        if int(self.sizes.min()) < 1:
            empty = self.names[int(self.sizes.argmin())]
            raise ValueError(f"class {empty!r} has no examples")
        if int(self.first.min()) < 0 or int((self.first + self.sizes).max()) > len(self.storage):
            raise ValueError(f"classes reach beyond the {len(self.storage)} examples in storage")

    @classmethod
    def from_arrays(
        cls,
        x: ArrayLike | Tensor,
        y: Sequence[object] | ArrayLike,
        *,
        groups: dict[str, str] | None = None,
    ) -> "ClassDataset":
        """Group ``x`` ``[M, ...]`` by the labels ``y`` ``[M]`` (any type; names are ``str(y)``).

        Classes stand in sorted order of their labels, examples in the order given. Integer
        arrays that are not uint8 become float32.

        Args:
            groups: the group of each class, by class name.

        Raises:
            ValueError: lengths differ, a value is NaN or infinite, an example has no label or one
                that the others cannot be sorted with, or a group is missing.
        """
        data = x if isinstance(x, Tensor) else torch.from_numpy(np.ascontiguousarray(x))
        if data.dtype != torch.uint8 and data.dtype != torch.float32:
            data = data.float()
        labels = _labels(y)
        if labels.ndim != 1 or len(labels) != len(data):
            raise ValueError(
                f"y has shape {list(labels.shape)}; expected one label for each of the "
                f"{len(data)} examples"
            )
        if data.is_floating_point() and not bool(torch.isfinite(data).all()):
            row = (~torch.isfinite(data)).nonzero()[0, 0].item()
            raise ValueError(f"x has a NaN or infinite value in example {row}")
        try:
            values, inverse = np.unique(labels, return_inverse=True)
        except TypeError as error:
            kinds = sorted({type(label).__name__ for label in labels})
            raise ValueError(
                f"y has labels of the types {', '.join(kinds)}; expected one type"
            ) from error
        order = torch.from_numpy(np.argsort(inverse, kind="stable"))
        names = tuple(str(value) for value in values)
        if groups is not None and (missing := [name for name in names if name not in groups]):
            raise ValueError(f"groups names no group for class {missing[0]!r}")
        return cls.from_sizes(
            data[order],
            torch.from_numpy(np.bincount(inverse)),
            names,
            None if groups is None else tuple(groups[name] for name in names),
        )

    @classmethod
    def from_dataset(
        cls,
        dataset: "Examples",
        *,
        groups: dict[str, str] | None = None,
        lazy: bool = False,
        workers: int = 0,
    ) -> "ClassDataset":
        """Take any map-style `torch.utils.data.Dataset` of ``(x, label)``, torchvision's included.

        Args:
            dataset: its transform is kept. ``x`` is a tensor or array, an image with its channels
                first, or a PIL image. Labels of a lazy one are read from its ``targets``, if those
                are what its examples come with. Names of classes come from ``classes``, where
                labels number them as ``targets`` do.
            groups: as for `from_arrays`.
            lazy: read an example whenever it is sampled, and transform it anew; else all are read
                once, and kept in memory.
            workers: processes that read them, as of `torch.utils.data.DataLoader`.

        Raises:
            ValueError: it is empty; or an example is no pair, has its channels last, another shape
                than the first or no label. It is named by its number.
        """
        if len(dataset) == 0:
            raise ValueError("the data set is empty")
        targets = labels = _targets(dataset)
        x: Tensor | _Lazy = _Lazy(dataset)
        if not lazy or labels is None:
            loader: DataLoader[Any] = DataLoader(
                _Items(dataset), batch_size=None, num_workers=workers
            )
            read = [(_example(item), label) for item, label in loader]
            labels = [label for _, label in read]
            if not lazy:
                for i, (item, _) in enumerate(read):
                    if item.shape != read[0][0].shape:
                        raise ValueError(
                            f"example {i} has shape {[*item.shape]}, and example 0 "
                            f"{[*read[0][0].shape]}: add a transform that makes them alike, such "
                            "as torchvision's Resize"
                        )
                x = torch.stack([item for item, _ in read])
        labels = _labels([v.item() if isinstance(v, Tensor) else v for v in labels])
        own = targets is None and hasattr(dataset, "targets")  # not those that `classes` names
        names = None if own else getattr(dataset, "classes", None)
        if names is not None and labels.dtype.kind in "iu" and labels.max() < len(names):
            labels = np.asarray([str(names[label]) for label in labels])
        if isinstance(x, Tensor):
            return cls.from_arrays(x, labels, groups=groups)
        order = np.argsort(labels, kind="stable")
        empty = cls.from_arrays(torch.zeros(len(labels)), labels, groups=groups)
        return replace(empty, storage=x.ordered(order))  # type: ignore[arg-type]

    @classmethod
    def from_sizes(
        cls,
        storage: Tensor,
        sizes: Tensor | Sequence[int],
        names: Sequence[str],
        groups: Sequence[str] | None = None,
    ) -> "ClassDataset":
        """A dataset whose ``storage`` holds the classes one after another."""
        counts = torch.as_tensor(sizes, dtype=torch.int64)
        if int(counts.sum()) != len(storage):
            raise ValueError(
                f"sizes add up to {int(counts.sum())}, storage has {len(storage)} rows"
            )
        return cls(
            storage,
            counts.cumsum(0) - counts,
            counts,
            tuple(names),
            None if groups is None else tuple(groups),
        )

    @property
    def n_classes(self) -> int:
        return len(self.names)

    @property
    def n_examples(self) -> int:
        return int(self.sizes.sum())

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.storage.shape[1:])

    def __len__(self) -> int:
        return self.n_classes

    def __repr__(self) -> str:
        return (
            f"ClassDataset({self.n_classes} classes, {self.n_examples} examples "
            f"{list(self.shape)} {str(self.storage.dtype).removeprefix('torch.')})"
        )

    def read(self, classes: Tensor, examples: Tensor) -> Tensor:
        """The ``examples``-th example of each of ``classes`` (int64, one shape), turned."""
        rows = self.first[classes] + examples
        x = self.storage.index_select(0, rows.flatten()).view(*rows.shape, *self.shape)
        if self.turns is None:
            return x
        turns = self.turns[classes]
        for k in (1, 2, 3):
            mask = turns == k
            x[mask] = torch.rot90(x[mask], k, (-2, -1))
        return x

    def subset(self, classes: Sequence[int] | Tensor) -> "ClassDataset":
        """The classes at these positions, in this order."""
        index = torch.as_tensor(classes, dtype=torch.int64)
        pick = index.tolist()
        return replace(
            self,
            first=self.first[index],
            sizes=self.sizes[index],
            names=tuple(self.names[i] for i in pick),
            groups=None if self.groups is None else tuple(self.groups[i] for i in pick),
            roots=tuple(self.roots[i] for i in pick),
            turns=None if self.turns is None else self.turns[index],
        )

    def __add__(self, other: "ClassDataset") -> "ClassDataset":
        """The classes of both, these first.

        Raises:
            ValueError: they differ in shape or type, share a name, or only one has groups, or is
                rotated.
        """
        if (self.shape, self.storage.dtype) != (other.shape, other.storage.dtype):
            raise ValueError(f"{self} and {other} cannot be put together")
        if (self.groups is None) != (other.groups is None) or self.turns is not other.turns:
            raise ValueError("both need groups, or neither; put them together before rotating them")
        return replace(
            self,
            storage=torch.cat([self.storage, other.storage]),
            first=torch.cat([self.first, other.first + len(self.storage)]),
            sizes=torch.cat([self.sizes, other.sizes]),
            names=self.names + other.names,
            groups=None if self.groups is None else self.groups + (other.groups or ()),
            roots=self.roots + other.roots,
        )

    def where(self, keep: Callable[[str], bool], *, by: str = "roots") -> "ClassDataset":
        """The classes whose ``by`` (``"names"``, ``"roots"`` or ``"groups"``) ``keep`` accepts."""
        values = getattr(self, by)
        if values is None:
            raise ValueError("these classes have no groups")
        return self.subset([i for i, value in enumerate(values) if keep(value)])

    def rotated(self, turns: Sequence[int] = (0, 1, 2, 3)) -> "ClassDataset":
        """Each class once for each number of quarter turns, as a class of its own.

        Santoro et al. (2016), section 4.2, and most work since: 964 characters make 3856 classes.
        Names gain ``@90``, ``@180`` or ``@270``; roots stay.

        Args:
            turns: the numbers of quarter turns, each 0..3.

        Raises:
            ValueError: a turn is not 0..3, or the examples are not square images, or are rotated
                already.
        """
        if bad := [k for k in turns if k not in (0, 1, 2, 3)]:
            raise ValueError(f"turns holds {bad[0]!r}; expected quarter turns 0, 1, 2 or 3")
        if len(self.shape) < 2 or self.shape[-1] != self.shape[-2]:
            raise ValueError(f"only square images can be rotated; examples are {list(self.shape)}")
        if self.turns is not None:
            raise ValueError("these classes are rotated already")
        n = len(turns)
        degrees = [f"@{90 * k}" if k else "" for k in turns]
        index = torch.arange(self.n_classes).repeat_interleave(n)
        return replace(
            self,
            first=self.first[index],
            sizes=self.sizes[index],
            names=tuple(name + d for name in self.names for d in degrees),
            groups=None if self.groups is None else tuple(g for g in self.groups for _ in turns),
            roots=tuple(root for root in self.roots for _ in turns),
            turns=torch.tensor(turns).repeat(self.n_classes),
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) of every class name, group, turn and example."""
        digest = hashlib.sha256(f"{self.storage.dtype} {self.shape}".encode())
        storage = self.storage.numpy()
        for c in sorted(range(self.n_classes), key=self.names.__getitem__):
            group = "" if self.groups is None else self.groups[c]
            turn = 0 if self.turns is None else int(self.turns[c])
            digest.update(f"\0{self.names[c]}\0{group}\0{turn}\0{int(self.sizes[c])}\0".encode())
            start = int(self.first[c])
            digest.update(np.ascontiguousarray(storage[start : start + int(self.sizes[c])]).data)
        return digest.hexdigest()[:16]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a folder ``path`` that `open` can read, or memory-map (atomically).

        An earlier dataset at ``path`` is replaced; see `atomic_folder`.
        """
        with atomic_folder(path) as folder:
            np.save(folder / "storage.npy", self.storage.numpy())
            self.save_classes(folder)

    def save_classes(self, folder: Path) -> None:
        """Write all that `save` writes but the examples, into a folder that exists."""
        meta = {
            "first": self.first.tolist(),
            "sizes": self.sizes.tolist(),
            "names": self.names,
            "groups": self.groups,
            "roots": self.roots,
            "turns": None if self.turns is None else self.turns.tolist(),
        }
        (folder / "classes.json").write_text(json.dumps(meta), encoding="utf-8")

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, mmap: bool = True) -> "ClassDataset":
        """Read what `save` wrote; with ``mmap`` only the examples that are sampled are loaded.

        Raises:
            FileNotFoundError: there is no such folder, or not all of its files.
            ValueError: a file is damaged; names the folder.
        """
        path = Path(path)
        with reading(path, "a saved ClassDataset"):
            meta = json.loads(read_file(path / "classes.json"))
            if not (path / "storage.npy").is_file():
                raise FileNotFoundError(f"{path} holds no file storage.npy")
            mode: Literal["c"] | None = "c" if mmap else None
            array = np.load(path / "storage.npy", mmap_mode=mode, allow_pickle=False)
            first, sizes = torch.tensor(meta["first"]), torch.tensor(meta["sizes"])
            turns = None if meta["turns"] is None else torch.tensor(meta["turns"])
            texts = [*meta["names"], *(meta["groups"] or ())]
            if not isinstance(meta["names"], list) or not all(isinstance(t, str) for t in texts):
                raise ValueError("names and groups should be lists of texts")
            numbers = [first, sizes] if turns is None else [first, sizes, turns]
            if any(number.is_floating_point() or (number < 0).any() for number in numbers):
                raise ValueError("first, sizes and turns should be whole numbers")
            if len(sizes) and int((first + sizes).max()) > len(array):
                raise ValueError(f"its classes go beyond its {len(array)} examples")
            if turns is not None and (turns > 3).any():
                raise ValueError("turns should be 0 to 3 quarters")
            return cls(
                torch.from_numpy(array),
                first,
                sizes,
                tuple(meta["names"]),
                None if meta["groups"] is None else tuple(meta["groups"]),
                tuple(meta["roots"]),
                turns,
            )


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder to fill, which takes the place of ``path`` at the end of the block.

    Nobody sees it half written, and it is gone if the block raises. Of several processes that
    write one path, the last one's folder stays.

    Raises:
        FileExistsError: ``path`` is something other than an empty folder or one that
            `ClassDataset.save` wrote.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and _replaceable(path)):
        raise FileExistsError(f"{path} exists and is no saved ClassDataset; it is left as it is")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as temporary:
        folder = Path(temporary) / "new"
        folder.mkdir()
        yield folder
        for attempt in range(100):
            with contextlib.suppress(FileNotFoundError):
                path.rename(Path(temporary) / f"old{attempt}")
            try:
                folder.rename(path)
            except OSError:  # another process put its folder there since the line above
                if attempt == 99 or not path.exists():
                    raise
            else:
                return


def _replaceable(folder: Path) -> bool:
    return {entry.name for entry in folder.iterdir()} <= {"storage.npy", "classes.json"}


def _labels(y: Any) -> NDArray[Any]:
    """As an array.

    Raises:
        ValueError: an example has none: it is None, NaN or an empty text.
    """
    given = np.asarray(y)
    if given.ndim == 1 and (given.dtype.kind not in "biu"):
        for i, label in enumerate(y if isinstance(y, list | tuple) else given.tolist()):
            if label is None or label != label or (isinstance(label, str) and not label.strip()):
                raise ValueError(f"example {i} has no label: it is {label!r}")
    return given


def _example(x: Any) -> Tensor:
    """An example as a tensor: images have their channels first, PIL images are turned."""
    if hasattr(x, "convert"):
        pixels = np.array(x if x.mode in ("L", "RGB") else x.convert("RGB"))
        return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()
    found = x if isinstance(x, Tensor) else torch.as_tensor(np.asarray(x))
    shape = found.shape
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4):
        raise ValueError(
            f"an example has shape {list(shape)}, its channels last; expected them first, "
            f"{[shape[2], shape[0], shape[1]]}: add a transform such as torchvision's ToTensor"
        )
    return found if found.dtype == torch.uint8 else found.float()


def _targets(dataset: Examples) -> Any:
    """What ``targets`` says of all examples, if it is so of some; one may have other labels."""
    targets = getattr(dataset, "targets", None)
    if targets is None or len(targets) != len(dataset):
        return None
    some = np.linspace(0, len(dataset) - 1, 16, dtype=int).tolist()
    items = _Items(dataset)
    return targets if all(bool(items[i][1] == targets[i]) for i in some) else None


class _Items(Dataset[Any]):
    """A data set with its PIL images made tensors, so that a `DataLoader` can pass them on."""

    def __init__(self, dataset: Examples) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        pair = self.dataset[index]
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            holds = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
            raise ValueError(
                f"example {index} is a {type(pair).__name__}{holds}; expected a pair, (x, label)"
            )
        return _example(pair[0]), pair[1]


class _Lazy:
    """What `ClassDataset` asks of its storage, read from a data set when it is asked for."""

    def __init__(self, dataset: Examples, rows: Sequence[int] | None = None) -> None:
        self.dataset = dataset
        self.rows = range(len(dataset)) if rows is None else rows
        first = _Items(dataset)[0][0]
        self.shape, self.dtype = torch.Size((len(self.rows), *first.shape)), first.dtype

    def ordered(self, rows: Sequence[int]) -> "_Lazy":
        return _Lazy(self.dataset, rows)

    def __len__(self) -> int:
        return len(self.rows)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        return torch.stack([_example(self.dataset[int(self.rows[i])][0]) for i in index.tolist()])

    def numpy(self) -> Any:
        return self.index_select(0, torch.arange(len(self))).numpy()
