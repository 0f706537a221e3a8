"""mini-ImageNet's loader, on made folders of its two layouts (the data itself is not ours)."""

import csv
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.data import Split, mini_imagenet
from quickstudy.experiments.recipe import load_recipe

LISTS: dict[str, list[str]] = json.loads(
    resources.files("quickstudy.data").joinpath("miniimagenet.json").read_text()
)
STEMS = {"train": "train", "validation": "val", "test": "test"}
EACH = 3


def image(path: Path, colour: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 16, 3), colour, np.uint8)).save(path)


def class_folders(root: Path) -> None:
    for part, names in LISTS.items():
        for name in names:
            for i in range(EACH):
                image(root / STEMS[part] / name / f"{name}{i:08}.png", 2 * i)


def csv_lists(root: Path) -> None:
    for part, names in LISTS.items():
        root.mkdir(exist_ok=True)
        with (root / f"{STEMS[part]}.csv").open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["filename", "label"])
            for name in names:
                for i in range(EACH):
                    image(root / "images" / f"{name}{i:08}.png", 2 * i)
                    lines.writerow([f"{name}{i:08}.png", name])


LAYOUTS = [class_folders, csv_lists]


def test_the_lists_are_ravis() -> None:
    assert {part: len(names) for part, names in LISTS.items()} == {
        "train": 64,
        "validation": 16,
        "test": 20,
    }
    assert len({name for names in LISTS.values() for name in names}) == 100


@pytest.mark.parametrize("make", LAYOUTS)
def test_both_layouts_give_the_same_split(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "mini")
    split = mini_imagenet(tmp_path / "mini", size=8)
    assert isinstance(split, Split)
    for part, dataset in split.parts().items():
        assert set(dataset.names) == set(LISTS[part])
        assert dataset.shape == (3, 8, 8)
        assert (dataset.sizes == EACH).all()
        assert [int(dataset.read(c, e).max()) for c, e in ((0, 0), (1, 2))] == [0, 4]  # type: ignore[arg-type]


def test_a_flat_folder_of_classes_will_do(tmp_path: Path) -> None:
    for name in (n for names in LISTS.values() for n in names):
        image(tmp_path / name / "0.png", 1)
    assert mini_imagenet(tmp_path, size=8).test.n_classes == 20


def test_what_is_missing_or_misplaced_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        mini_imagenet(tmp_path / "nowhere")
    for name in LISTS["train"]:
        image(tmp_path / "part" / name / "0.png", 1)
    with pytest.raises(ValueError, match="36 of its 100 classes are missing, such as n01855672"):
        mini_imagenet(tmp_path / "part", size=8)
    csv_lists(tmp_path / "mini")
    wrong = tmp_path / "mini" / "train.csv"
    wrong.write_text(wrong.read_text().replace(LISTS["train"][0], LISTS["test"][0]))
    with pytest.raises(ValueError, match="'n01930112' into train, where Ravi & Larochelle's"):
        mini_imagenet(tmp_path / "mini", size=8)


def test_a_recipe_trains_on_it(tmp_path: Path) -> None:
    class_folders(tmp_path / "mini")
    recipe = load_recipe("maml-miniimagenet-5w1s")
    experiment = recipe.experiment(str(tmp_path / "mini"))
    task = experiment.sampler("train", shot=1, query=1, tasks=1)[0]
    assert task.support_x.shape == (1, 5, 3, 84, 84)
    assert experiment.build_learner()(task).shape == (1, 5, 5)
    assert "Ravi" in str(experiment.about_data()["split"])
