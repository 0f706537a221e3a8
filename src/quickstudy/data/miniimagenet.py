"""mini-ImageNet with the split of Ravi & Larochelle, from the folder that a user has."""

import csv
import json
import os
from importlib import resources
from pathlib import Path

import torch

from quickstudy.data.dataset import ClassDataset
from quickstudy.data.folder import image_folder, read_image
from quickstudy.data.splits import Split, by_lists

__all__ = ["mini_imagenet"]

_PARTS = {"train": "train", "validation": "val", "test": "test"}


def mini_imagenet(root: str | os.PathLike[str], *, size: int = 84) -> Split:
    """mini-ImageNet: 100 classes of ImageNet with 600 images each, split 64/16/20.

    The classes are those of Ravi & Larochelle (2017), which most papers since have used; Vinyals
    et al. (2016) chose others. ImageNet's licence lets nobody pass the images on, so this takes
    the folder (or zip) that you have, in either of its two common layouts:

    - ``images/*.jpg`` beside ``train.csv``, ``val.csv`` and ``test.csv``, each with the columns
      ``filename`` and ``label`` (the authors');
    - a folder for each class, named by its WordNet id (``n01532829``), at any depth: below
      ``train``, ``val`` and ``test`` or not.

    Args:
        root: the folder.
        size: side of the images, resized on the short side and cut around the centre.

    Raises:
        FileNotFoundError: there is no ``root``, or an image that a list names is missing.
        ValueError: classes are missing or in another part than Ravi's; names them.
    """
    text = resources.files("quickstudy.data").joinpath("miniimagenet.json").read_text("utf-8")
    lists: dict[str, list[str]] = json.loads(text)
    folder = Path(root)
    if not folder.exists():
        raise FileNotFoundError(f"no such folder: {folder}")
    listed = (folder / "train.csv").is_file()
    dataset = _by_csv(folder, size, lists) if listed else _by_folder(folder, size)
    expected = {name for names in lists.values() for name in names}
    if missing := sorted(expected - {*dataset.names}):
        raise ValueError(
            f"{folder} is not the whole of mini-ImageNet: {len(missing)} of its 100 classes are "
            f"missing, such as {', '.join(missing[:3])}"
        )
    split = by_lists(dataset, lists["train"], lists["validation"], lists["test"])
    return Split(split.train, split.validation, split.test, "mini-ImageNet, Ravi & Larochelle")


def _by_folder(folder: Path, size: int) -> ClassDataset:
    images = image_folder(folder, size=size)
    names = [name.rpartition("/")[2] for name in images.names]
    sizes = images.sizes.tolist()
    return ClassDataset.from_sizes(images.storage, sizes, names)


def _by_csv(folder: Path, size: int, lists: dict[str, list[str]]) -> ClassDataset:
    files: dict[str, list[str]] = {}
    for part, stem in _PARTS.items():
        with (folder / f"{stem}.csv").open(newline="") as lines:
            for row in csv.DictReader(lines):
                label = row.get("label")
                if label not in lists[part]:
                    raise ValueError(
                        f"{folder / stem}.csv puts the class {label!r} into {part}, where Ravi & "
                        "Larochelle's split has no such class"
                    )
                files.setdefault(label, []).append(row["filename"])
    names = sorted(files)
    storage = torch.empty(sum(map(len, files.values())), 3, size, size, dtype=torch.uint8)
    paths = (folder / "images" / file for name in names for file in files[name])
    for i, path in enumerate(paths):
        storage[i] = read_image(path, size=size)
    return ClassDataset.from_sizes(storage, [len(files[name]) for name in names], names)
