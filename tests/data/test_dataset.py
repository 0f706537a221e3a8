from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from quickstudy.data import EpisodeSampler
from quickstudy.data.dataset import ClassDataset, atomic_folder


def images(sizes: tuple[int, ...] = (3, 1, 2), side: int = 4) -> ClassDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(256, (sum(sizes), 1, side, side), dtype=torch.uint8, generator=generator)
    return ClassDataset.from_sizes(x, sizes, [f"c{i}" for i in range(len(sizes))])


def rows(data: ClassDataset, c: int) -> torch.Tensor:
    n = int(data.sizes[c])
    return data.read(torch.full((n,), c), torch.arange(n))


@given(st.lists(st.integers(-3, 12), min_size=1, max_size=30))
def test_from_arrays_groups_by_label_in_order(labels: list[int]) -> None:
    x = np.arange(len(labels), dtype=np.float32)[:, None]
    data = ClassDataset.from_arrays(x, labels)
    assert data.names == tuple(str(label) for label in sorted(set(labels)))
    for c, name in enumerate(data.names):
        expected = [float(i) for i, label in enumerate(labels) if str(label) == name]
        assert rows(data, c)[:, 0].tolist() == expected


def test_from_arrays_dtypes_strings_and_groups() -> None:
    assert (
        ClassDataset.from_arrays(np.zeros((2, 3), np.uint8), [*"ab"]).storage.dtype == torch.uint8
    )
    data = ClassDataset.from_arrays(
        np.zeros((2, 3), np.int64), ["b", "a"], groups={"a": "A", "b": "B"}
    )
    assert data.storage.dtype == torch.float32
    assert data.groups == ("A", "B")
    assert data.roots == data.names == ("a", "b")


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([[1.0], [float("nan")]], [0, 1], "NaN or infinite value in example 1"),
        ([[1.0], [2.0]], [0], r"y has shape \[1\]; expected one label for each of the 2"),
        ([[1.0], [2.0]], [[0], [1]], r"y has shape \[2, 1\]"),
        (np.zeros((0, 2)), np.zeros(0), "at least one class"),
    ],
)
def test_from_arrays_refuses(x: object, y: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassDataset.from_arrays(x, y)  # type: ignore[arg-type]


def test_bad_classes_are_named() -> None:
    x = torch.zeros(2, 1)
    with pytest.raises(ValueError, match="'a' stands twice"):
        ClassDataset.from_sizes(x, [1, 1], ["a", "a"])
    with pytest.raises(ValueError, match="class 'b' has no examples"):
        ClassDataset.from_sizes(x, [2, 0], ["a", "b"])
    with pytest.raises(ValueError, match="sizes add up to 3, storage has 2"):
        ClassDataset.from_sizes(x, [2, 1], ["a", "b"])
    with pytest.raises(ValueError, match="groups has 1 entries for 2 classes"):
        ClassDataset.from_sizes(x, [1, 1], ["a", "b"], ["g"])
    with pytest.raises(ValueError, match="no group for class 'b'"):
        ClassDataset.from_arrays(x, ["a", "b"], groups={"a": "g"})


def test_subset_keeps_order_names_groups_and_storage() -> None:
    data = replace(images(), groups=("g", "h", "g"))
    part = data.subset([2, 0])
    assert part.names == ("c2", "c0")
    assert part.groups == ("g", "g")
    assert part.storage.data_ptr() == data.storage.data_ptr()
    assert torch.equal(rows(part, 0), rows(data, 2))
    assert data.where(lambda g: g == "h", by="groups").names == ("c1",)
    with pytest.raises(ValueError, match="no groups"):
        images().where(bool, by="groups")


@given(st.permutations([0, 1, 2, 3]), st.integers(1, 4))
def test_rotated_is_rot90_of_each_class(order: list[int], n: int) -> None:
    data = images()
    turned = data.rotated(order[:n])
    assert turned.storage.data_ptr() == data.storage.data_ptr()
    assert len(turned) == 3 * n
    assert len(set(turned.names)) == 3 * n
    for c in range(len(turned)):
        original, k = divmod(c, n)
        assert turned.roots[c] == data.names[original]
        expected = torch.rot90(rows(data, original), order[k], (-2, -1))
        assert torch.equal(rows(turned, c), expected)
    with pytest.raises(ValueError, match="rotated already"):
        turned.rotated()


def test_read_turns_each_class_its_own_way_in_any_shape() -> None:
    data = images((4, 4)).rotated()
    classes = torch.tensor([[7, 0, 2], [5, 5, 1]])
    examples = torch.tensor([[3, 0, 1], [2, 1, 0]])
    batch = data.read(classes, examples)
    assert batch.shape == (2, 3, 1, 4, 4)
    for i in range(2):
        for j in range(3):
            assert torch.equal(batch[i, j], rows(data, int(classes[i, j]))[examples[i, j]])


def test_rotated_refuses_what_cannot_turn() -> None:
    flat = ClassDataset.from_sizes(torch.zeros(2, 5), [1, 1], ["a", "b"])
    wide = ClassDataset.from_sizes(torch.zeros(2, 1, 4, 5), [1, 1], ["a", "b"])
    for data in (flat, wide):
        with pytest.raises(ValueError, match="only square images can be rotated"):
            data.rotated()
    for turn in (4, -1):
        with pytest.raises(ValueError, match=f"turns holds {turn}; expected quarter turns"):
            images().rotated([0, turn])


def test_fingerprint_knows_content_names_groups_and_turns_but_not_order() -> None:
    data = images()
    turned = data.rotated()
    other = data.storage.clone()
    other[0, 0, 0, 0] += 1
    different = [
        data,
        turned,
        turned.subset(range(8)),
        data.subset([0, 1]),
        replace(data, storage=other),
        replace(data, names=("c0", "c1", "x")),
        replace(data, groups=("g", "g", "g")),
        replace(data, turns=torch.tensor([0, 1, 0])),
    ]
    assert len({d.fingerprint for d in different}) == len(different)
    assert data.subset([2, 0, 1]).fingerprint == data.fingerprint
    assert turned.subset(list(range(12))[::-1]).fingerprint == turned.fingerprint
    moved = ClassDataset.from_sizes(data.storage.roll(1, 0), (1, 3, 2), ["z", "c0", "c12"])
    assert moved.subset([1]).fingerprint == data.subset([0]).fingerprint


@pytest.mark.parametrize("mmap", [True, False])
def test_save_and_open_keep_everything(tmp_path: Path, mmap: bool) -> None:
    data = replace(images(), groups=("g", "h", "é")).rotated().subset([3, 1, 8])
    data.save(tmp_path / "a" / "b")
    again = ClassDataset.open(tmp_path / "a" / "b", mmap=mmap)
    assert again.names == data.names
    assert again.groups == data.groups
    assert again.roots == data.roots
    assert again.fingerprint == data.fingerprint
    for c in range(3):
        assert torch.equal(rows(again, c), rows(data, c))
    again.storage[0] = 0
    assert ClassDataset.open(tmp_path / "a" / "b").fingerprint == data.fingerprint


def test_save_replaces_a_dataset_and_nothing_else(tmp_path: Path) -> None:
    first, second = images(), images((2, 2))
    first.save(tmp_path / "data")
    second.save(tmp_path / "data")
    assert ClassDataset.open(tmp_path / "data").fingerprint == second.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="precious exists and is no saved ClassDataset"):
        first.save(precious)
    with pytest.raises(FileExistsError, match="thesis"):
        first.save(precious / "thesis.tex")
    assert (precious / "thesis.tex").exists()


def test_atomic_folder_leaves_nothing_when_it_fails(tmp_path: Path) -> None:
    images().save(tmp_path / "data")

    def fail() -> None:
        with atomic_folder(tmp_path / "data") as folder:
            (folder / "storage.npy").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert ClassDataset.open(tmp_path / "data").fingerprint == images().fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_atomic_folder_gives_way_to_a_folder_that_came_meanwhile(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "data") as outer:
        (outer / "classes.json").write_text("outer")
        with atomic_folder(tmp_path / "data") as inner:
            (inner / "classes.json").write_text("inner")
        assert (tmp_path / "data" / "classes.json").read_text() == "inner"
    assert (tmp_path / "data" / "classes.json").read_text() == "outer"


class Pictures:
    """A map-style data set of three classes, as people write them."""

    classes = ("cat", "dog", "eel")

    def __init__(self, turn: Callable[[Any], Any], targets: bool) -> None:
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
        self.labels = [2, 0, 1] * 4
        self.turn, self.reads = turn, 0
        if targets:
            self.targets = self.labels

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Any, int]:
        self.reads += 1
        return self.turn(self.pixels[index]), self.labels[index]


def channels_first(pixels: Any) -> Any:
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("turn", [channels_first, Image.fromarray], ids=["tensor", "PIL"])
def test_any_map_style_data_set_is_a_source(turn: Any, targets: bool, lazy: bool) -> None:
    pictures = Pictures(turn, targets)
    ours = ClassDataset.from_dataset(pictures, lazy=lazy)
    pixels = pictures.pixels.transpose(0, 3, 1, 2)
    plain = ClassDataset.from_arrays(pixels, [pictures.classes[n] for n in pictures.labels])
    assert ours.names == ("cat", "dog", "eel")
    assert ours.fingerprint == plain.fingerprint
    before = pictures.reads
    task = EpisodeSampler(ours, way=2, shot=1, query=1, seed=3)[0]
    expected = EpisodeSampler(plain, way=2, shot=1, query=1, seed=3)[0]
    assert torch.equal(task.support_x, expected.support_x)
    assert (pictures.reads > before) == lazy
    assert ours.rotated().n_classes == 12


@pytest.mark.parametrize("lazy", [False, True])
def test_labels_are_those_that_examples_come_with(lazy: bool) -> None:
    class Animals(Pictures):
        """Cats and dogs are one class: 0 and 1 are no numbers of ``classes`` any more."""

        def __getitem__(self, index: int) -> tuple[Any, int]:
            x, label = super().__getitem__(index)
            return x, label // 2

    ours = ClassDataset.from_dataset(Animals(channels_first, targets=True), lazy=lazy)
    assert (ours.names, ours.sizes.tolist()) == (("0", "1"), [8, 4])


def test_several_processes_read_a_data_set() -> None:
    pictures = Pictures(channels_first, targets=True)
    ours = ClassDataset.from_dataset(pictures, workers=2)
    assert ours.fingerprint == ClassDataset.from_dataset(pictures).fingerprint


def test_images_with_their_channels_last_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[8, 8, 3\], its channels last; .*\[3, 8, 8\]"):
        ClassDataset.from_dataset(Pictures(np.asarray, targets=True))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1.0, np.nan, 2.0, 1.0], "example 1 has no label: it is nan"),
        (np.array([1.0, 2.0, np.nan, 1.0]), "example 2 has no label: it is nan"),
        (["a", "b", "a", None], "example 3 has no label: it is None"),
        (["a", " ", "b", "a"], "example 1 has no label: it is ' '"),
        (np.array(["a", 1, "b", 2], object), "labels of the types int, str; expected one type"),
    ],
)
def test_an_example_without_a_label_is_named(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassDataset.from_arrays(torch.zeros(4, 2), labels)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [(torch.zeros(3, 8, 8), 0), (torch.zeros(3, 9, 8), 1)],
            r"1 has shape \[3, 9, 8\]",
        ),
        (
            [(torch.zeros(2), 0), (torch.zeros(2), 1, 2)],
            "example 1 is a tuple of 3; expected",
        ),
        ([{"x": 1}, {"x": 2}], "example 0 is a dict; expected a pair"),
        ([(torch.zeros(2), 0), (torch.zeros(2), None)], "example 1 has no label: it is None"),
    ],
)
def test_what_is_wrong_in_a_data_set_is_named_by_its_number(items: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassDataset.from_dataset(items)


def test_two_data_sets_are_put_together() -> None:
    a = ClassDataset.from_arrays(torch.arange(6.0).view(6, 1), ["x", "x", "y", "y", "z", "z"])
    b = ClassDataset.from_arrays(torch.arange(10.0, 13).view(3, 1), ["p", "q", "q"])
    both = a.subset([2, 0]) + b
    assert both.names == ("z", "x", "p", "q")
    assert both.sizes.tolist() == [2, 2, 1, 2]
    found = [both.read(torch.tensor([c]), torch.tensor([0])).item() for c in range(4)]
    assert found == [4.0, 0.0, 10.0, 11.0]
    with pytest.raises(ValueError, match="cannot be put together"):
        a + ClassDataset.from_arrays(torch.zeros(2, 3), ["r", "s"])
    with pytest.raises(ValueError, match="both need groups, or neither"):
        a + ClassDataset.from_arrays(torch.zeros(2, 1), ["r", "s"], groups={"r": "g", "s": "g"})
    with pytest.raises(ValueError, match="class names must differ; 'x' stands twice"):
        a + a
