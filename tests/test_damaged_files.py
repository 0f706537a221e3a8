"""Files that were cut, flipped or edited: every function that reads says what is wrong, and where.

2,000 of them, with fixed seeds. Whatever is wrong with a file, the documented errors are the only
ones: a ``ValueError`` (or a file that is not there) that names it.
"""

import json
import random
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from quickstudy.checkpoint import load_state, load_weights, save_state, save_weights, weights_about
from quickstudy.data import ClassDataset, EpisodeSampler, image_folder, read_image
from quickstudy.estimator import FewShotClassifier
from quickstudy.evaluation import Evaluation, FrozenTasks
from quickstudy.examples import read_examples
from quickstudy.experiments.card import Card, load_cards
from quickstudy.experiments.pretrained import load
from quickstudy.experiments.recipe import load_recipe
from quickstudy.experiments.run import Machine, load_run
from quickstudy.experiments.spec import Experiment
from quickstudy.model import Model
from quickstudy.training import CHECKPOINT

EACH = 100


def _folder_of_images(path: Path) -> Path:
    for label in "ab":
        (path / label).mkdir(parents=True, exist_ok=True)
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 255, (12, 12, 3), np.uint8)
            Image.fromarray(pixels).save(path / label / f"{i}.png")
    return path


def _numbers() -> ClassDataset:
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    return ClassDataset.from_arrays(x, np.repeat(["a", "b", "c"], 4))


def _write_state(path: Path) -> None:
    save_state(path, {"a": [torch.ones(3), 1, None], 5: ({"b": torch.zeros(2, 2)},)})


def _write_weights(path: Path) -> None:
    spec = Experiment("protonet", data="alphabets", classes=4, size=8, backbone="mlp")
    save_weights(path, spec.build_learner(), about=spec.learner_spec().model_dump())


def _write_run(path: Path) -> None:
    experiment = Experiment("protonet", data="alphabets", classes=4, size=8, backbone="mlp")
    about = {"experiment": experiment.model_dump(), "machine_options": vars(Machine())}
    path.write_text(json.dumps(about))
    learner = dict(experiment.build_learner().state_dict())
    save_state(path.parent / CHECKPOINT, {"learner": learner, "averaged": None})


def _write_classifier(path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(8, 3))
    FewShotClassifier("logistic").fit(x, [*"abababab"]).calibrate(0.2).save(path)


def _write_model(path: Path) -> None:
    images = read_examples(_folder_of_images(path.parent / "images"))
    Model.learn(images, encoder="grey:4", head="centroid").save(path)


def _write_zip(path: Path) -> None:
    root = _folder_of_images(path.parent / "images")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*.png")):
            archive.write(file, file.relative_to(root))


def _write_dataset(path: Path) -> None:
    _numbers().save(path.parent)


def _write_recipe(path: Path) -> None:
    from importlib import resources

    name = "protonet-omniglot.toml"
    path.write_text((resources.files("quickstudy.experiments.recipes") / name).read_text())


def _write_card(path: Path) -> None:
    path.write_text(next(iter(load_cards().values())).model_dump_json(indent=1))


def _write_text(text: str) -> Callable[[Path], None]:
    return lambda path: Path.write_text(path, text) and None


KINDS: dict[str, tuple[str, Callable[[Path], Any], Callable[[Path], Any]]] = {
    "state": ("x.safetensors", _write_state, load_state),
    "weights": (
        "w.safetensors",
        lambda path: save_weights(path, nn.Linear(2, 3), about={"learner": "x"}),
        lambda path: (weights_about(path), load_weights(path, nn.Linear(2, 3))),
    ),
    "learner": ("l.safetensors", _write_weights, load),
    "checkpoint": (
        CHECKPOINT,
        lambda p: _write_run(p.with_name("run.json")),
        lambda p: load_run(p.parent),
    ),
    "run": (
        "run.json",
        _write_run,
        lambda path: (load_run(path.parent), Machine.load(path.parent)),
    ),
    "classifier": ("c.qs", _write_classifier, FewShotClassifier.load),
    "model": ("m.qs", _write_model, Model.load),
    "evaluation": (
        "e.json",
        lambda path: Evaluation((0.5, 1.0), about={"way": 5}).save(path),
        Evaluation.load,
    ),
    "tasks": (
        "t.safetensors",
        lambda p: FrozenTasks.freeze(EpisodeSampler(_numbers(), way=2, shot=1, query=1), 3).save(p),
        FrozenTasks.load,
    ),
    "card": ("card.json", _write_card, Card.load),
    "recipe": ("r.toml", _write_recipe, lambda path: load_recipe(str(path))),
    "classes": ("classes.json", _write_dataset, lambda path: ClassDataset.open(path.parent)),
    "storage": ("storage.npy", _write_dataset, lambda path: ClassDataset.open(path.parent)),
    "image": (
        "i.png",
        lambda path: Image.effect_noise((20, 20), 50).save(path),
        lambda path: read_image(path, size=8),
    ),
    "tiff": (
        "i.tif",
        lambda path: Image.effect_noise((20, 20), 50).save(path, compression="tiff_lzw"),
        lambda path: read_image(path, size=8),
    ),
    "zip": ("z.zip", _write_zip, lambda path: image_folder(path, size=8)),
    "examples": ("e.zip", _write_zip, lambda path: list(read_examples(path))),
    "csv": (
        "t.csv",
        _write_text('text,label\n"one, two",a\nthree,b\n"fo""ur",a\n'),
        lambda path: list(read_examples(path)),
    ),
    "jsonl": (
        "t.jsonl",
        _write_text('{"text": "one", "label": "a"}\n{"text": "two", "label": 1}\n'),
        lambda path: list(read_examples(path)),
    ),
    "json": (
        "t.json",
        _write_text('[{"text": "one", "label": "a"}, {"text": "two", "label": 1.5}]'),
        lambda path: list(read_examples(path)),
    ),
}


def damaged(whole: bytes, seed: int) -> Iterator[bytes]:
    """The same file, damaged as disks, transfers and editors do it."""
    rng = random.Random(seed)
    for _ in range(EACH):
        data, at = bytearray(whole), rng.randrange(len(whole))
        kind = rng.randrange(6)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            for _ in range(rng.choice([1, 1, 8, 64])):
                data[rng.randrange(len(data))] = rng.randrange(256)
        elif kind == 2:
            data[at : at + rng.randrange(64)] = rng.randbytes(rng.randrange(64))
        elif kind == 3:
            words = [b"null", b"{}", b"[]", b"-1", b"1e999", b"NaN", b'"x"', b"\xff", b"[" * 9000]
            data[at : at + rng.randrange(12)] = rng.choice(words)
        elif kind == 4:  # another value, where there was one
            parts = bytes(data).split(b":")
            k = rng.randrange(len(parts))
            parts[k] = rng.choice([b"null", b"[]", b"true", b"7", b'"x"']) + parts[k][-3:]
            data = bytearray(b":".join(parts))
        else:
            other = rng.randrange(len(whole))
            data[at : at + 32], data[other : other + 32] = (
                data[other : other + 32],
                data[at : at + 32],
            )
        yield bytes(data)


def _error_of(read: Callable[[Path], Any], path: Path) -> Exception | None:
    try:
        read(path)
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_named_and_nothing_else_is_raised(kind: str, tmp_path: Path) -> None:
    name, write, read = KINDS[kind]
    path = tmp_path / name
    write(path)
    read(path)
    whole, refused = path.read_bytes(), 0
    for i, data in enumerate(damaged(whole, seed=len(kind))):
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            error = _error_of(read, path)
        if error is not None:
            refused += 1
            assert isinstance(error, OSError | ValueError), f"{i}: {error!r} is not documented"
            assert str(tmp_path) in str(error), f"{i}: {error!r} does not say which file"
    assert refused > EACH / 4, "most of this is no damage"
