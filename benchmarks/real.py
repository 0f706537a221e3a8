"""Learners on data that people have: icons, photos, sentences.

    python benchmarks/real.py DATA_FOLDER [icons] [photos] [sentences]

measures those named. If none is, it measures all and writes ``benchmarks/results/real.json``, from
which ``tools/results.py`` makes the section of docs/results.md. In DATA_FOLDER: ``icons64.zip``
(icon names, drawn by many designers), ``tiny-imagenet-dev100x150.zip`` (photos, 64x64) and
``clinc150/clinc150.jsonl`` (sentences by intent). No learner has been trained on any of it; the
encoders have been on ImageNet (whose classes the photos are of) and on pairs of sentences. Every
learner answers the same tasks, and is compared with the first of its table task by task.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quickstudy.checkpoint import write_atomically
from quickstudy.data import ClassDataset, EpisodeSampler
from quickstudy.encoders import FeatureCache, encode, load_encoder
from quickstudy.evaluation import compare, evaluate
from quickstudy.examples import Example, read_examples
from quickstudy.experiments.pretrained import shipped as names
from quickstudy.experiments.reproduce import code_commit
from quickstudy.heads import HEADS, load_learner
from quickstudy.learner import MetaLearner
from quickstudy.learners import NearestNeighbour, ProtoNet

OUT = Path(__file__).parent / "results" / "real.json"
TASKS = 600
PHOTOS = 60


def main(root: Path, *chosen: str) -> None:
    torch.set_num_threads(1)
    kinds = {"icons": icons, "photos": photos, "sentences": sentences}
    parts = [part for name in chosen or kinds for part in kinds[name](root)]
    if not chosen:
        about = {"date": time.strftime("%Y-%m-%d"), "commit": code_commit(), "seed": 0}
        OUT.parent.mkdir(exist_ok=True)
        write_atomically(OUT, json.dumps({**about, "parts": parts}, indent=1) + "\n")


def icons(root: Path) -> Iterator[dict[str, Any]]:
    drawn = {
        "nearest neighbour on pixels": NearestNeighbour(),
        **{name: load_learner(name) for name in names()},
    }
    examples = features(read_examples(root / "icons64.zip"), "drawing")
    for way, shot in ((5, 1), (5, 5), (20, 1), (20, 5)):
        yield table("icons64, drawn by many designers", examples, drawn, way, shot)


def photos(root: Path) -> Iterator[dict[str, Any]]:
    some = few(read_examples(root / "tiny-imagenet-dev100x150.zip"), PHOTOS)
    examples = features(some, "efficientnet-lite0")
    for shot in (1, 5):
        title = f"Tiny-ImageNet, {PHOTOS} photos a class, EfficientNet-Lite0 features"
        yield table(title, examples, heads(), 5, shot)


def sentences(root: Path) -> Iterator[dict[str, Any]]:
    examples = features(read_examples(root / "clinc150" / "clinc150.jsonl"), "minilm")
    for way, shot, tasks in ((5, 1, TASKS), (5, 5, TASKS), (150, 5, 20)):
        yield table("CLINC150, MiniLM features", examples, heads(), way, shot, tasks)


def heads() -> dict[str, MetaLearner]:
    return {"nearest centroid": ProtoNet(nn.Flatten()), **{n: load_learner(n) for n in HEADS}}


def few(examples: Iterable[Example], n: int) -> Iterator[Example]:
    """The first ``n`` of each class."""
    seen: Counter[str | None] = Counter()
    for example in examples:
        seen[example.label] += 1
        if seen[example.label] <= n:
            yield example


def features(examples: Iterable[Example], encoder: str) -> ClassDataset:
    x, y = [], []
    for example, z in encode(load_encoder(encoder), examples, cache=FeatureCache()):
        x.append(torch.from_numpy(z.copy()))
        y.append(example.label)
    print(f"{len(y)} examples of {len({*y})} classes as {encoder}", flush=True)
    return ClassDataset.from_arrays(torch.stack(x), y)


def table(
    data: str, examples: ClassDataset, learners: dict[str, Any], way: int, shot: int, n: int = TASKS
) -> dict[str, Any]:
    tasks = EpisodeSampler(examples, way=way, shot=shot, query=15, tasks=1, seed=0)
    rows: list[dict[str, Any]] = []
    first = None
    for name, learner in learners.items():
        most = getattr(learner, "max_way", None)
        if most is not None and way > most:
            continue
        scores = evaluate(learner, tasks, n_tasks=n, about={"tasks": f"{data} {way} {shot}"})
        first = first or scores
        row: dict[str, Any] = {
            "learner": name,
            "mean": 100 * scores.mean,
            "ci95": 100 * scores.ci95,
        }
        if scores is not first:
            paired = compare(scores, first)
            row |= {"difference": 100 * paired.difference, "p": paired.p_value}
        rows.append(row)
        print(f"{data} {way}w{shot}s {name}: {scores}", flush=True)
    return {"data": data, "way": way, "shot": shot, "tasks": n, "rows": rows}


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
