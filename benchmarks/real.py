"""Learners on data that people have: icons, photos, sentences.

    python benchmarks/real.py DATA_FOLDER

writes ``benchmarks/results/real.json``, from which ``tools/results.py`` makes the section of
docs/results.md. In DATA_FOLDER: ``icons64.zip`` (icon names, drawn by many designers),
``tiny-imagenet-dev100x150.zip`` (photos, 64x64) and ``clinc150/clinc150.jsonl`` (sentences by
intent). No learner has been trained on any of it; the encoders have been on ImageNet (whose classes
the photos are of) and on pairs of sentences. Every learner answers the same tasks, and is compared
with the first of its table task by task.
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

import quickstudy
from quickstudy.checkpoint import write_atomically
from quickstudy.data import ClassDataset, EpisodeSampler
from quickstudy.encoders import FeatureCache, encode, load_encoder
from quickstudy.evaluation import compare, evaluate
from quickstudy.examples import Example, read_examples
from quickstudy.heads import load_head
from quickstudy.learner import MetaLearner
from quickstudy.learners import NearestNeighbour, ProtoNet
from quickstudy.nn import set_batch_norm_policy
from quickstudy.pretrained import shipped as names
from quickstudy.reproduce import _commit

OUT = Path(__file__).parent / "results" / "real.json"
TASKS = 600
PHOTOS = 60


def main(root: Path) -> None:
    torch.set_num_threads(1)
    parts = []
    drawn = {
        "nearest neighbour on pixels": NearestNeighbour(),
        **{name: shipped(name) for name in names()},
    }
    icons = features(read_examples(root / "icons64.zip"), "drawing")
    for way, shot in ((5, 1), (5, 5), (20, 1), (20, 5)):
        parts.append(table("icons64, drawn by many designers", icons, drawn, way, shot))
    photos = features(
        few(read_examples(root / "tiny-imagenet-dev100x150.zip"), PHOTOS), "efficientnet-lite0"
    )
    heads = {
        "nearest centroid": ProtoNet(nn.Flatten()),
        **{n: head(n) for n in ("centroid", "ridge")},
    }
    for shot in (1, 5):
        title = f"Tiny-ImageNet, {PHOTOS} photos a class, EfficientNet-Lite0 features"
        parts.append(table(title, photos, heads, 5, shot))
    sentences = features(read_examples(root / "clinc150" / "clinc150.jsonl"), "minilm")
    for way, shot, tasks in ((5, 1, TASKS), (5, 5, TASKS), (150, 5, 20)):
        parts.append(table("CLINC150, MiniLM features", sentences, heads, way, shot, tasks))
    about = {"date": time.strftime("%Y-%m-%d"), "commit": _commit(), "seed": 0}
    OUT.parent.mkdir(exist_ok=True)
    write_atomically(OUT, json.dumps({**about, "parts": parts}, indent=1) + "\n")


def shipped(name: str) -> MetaLearner:
    """Weights that come along, each query answered for itself."""
    learner = quickstudy.load(name)
    set_batch_norm_policy(learner, "inductive")
    return learner


def head(name: str) -> MetaLearner:
    found = load_head(name)
    assert found is not None
    return found


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
    main(Path(sys.argv[1]))
