"""Photos, sentences and drawings that people have: our heads beside scikit-learn.

    python benchmarks/real.py DATA_FOLDER [photos] [sentences] [icons]

measures those named, or all, and writes them into ``benchmarks/results/real.json``, from which
``tools/results.py`` makes docs/results/real.md. In DATA_FOLDER:
``tiny-imagenet-dev100x150.zip`` (photos of ImageNet's classes, 64x64), ``photos-other20x60.zip``
(flowers, textures, materials), ``clinc150/clinc150.jsonl`` and ``snips7.jsonl`` (sentences by
intent), and ``icons64.zip``. Of the first, third and last, those classes that ``tools/heads.py``
does not use: the last 50, 75 and 157 by name.

Every classifier answers the same tasks from the same features, and is compared with the first of
its table task by task. Balanced tasks have 1, 5 or 20 examples of each class; in the others one
class in five has 10 and the rest have 1, or each has 1 to 5. A score is the mean over classes.
Twice as many classes are drawn as a task has: what is said of the others tells how well a class
that was never shown is recognised as unknown.
"""

import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from quickstudy.calibration import expected_calibration_error
from quickstudy.checkpoint import write_atomically
from quickstudy.encoders import FeatureCache, encode, load_encoder
from quickstudy.estimator import FewShotClassifier
from quickstudy.evaluation import Evaluation, compare
from quickstudy.examples import read_examples
from quickstudy.experiments.reproduce import code_commit

OUT = Path(__file__).parent / "results" / "real.json"
TASKS = {5: 200, 20: 50}
PER_CLASS, QUERIES, RATE, SLOW = 60, 10, 0.05, 15
SIZES: dict[str, Callable[[int, np.random.Generator], list[int]]] = {
    "1": lambda way, rng: [1] * way,
    "5": lambda way, rng: [5] * way,
    "20": lambda way, rng: [20] * way,
    "10 and ones": lambda way, rng: [10] * (way // 5) + [1] * (way - way // 5),
    "1 to 5": lambda way, rng: rng.integers(1, 6, way).tolist(),
}
DATA = {
    "photos": (
        ("Tiny-ImageNet", "tiny-imagenet-dev100x150.zip", "efficientnet-lite0", 50, (5, 20)),
        ("Flowers, textures, materials", "photos-other20x60.zip", "efficientnet-lite0", 0, (5, 10)),
    ),
    "sentences": (
        ("CLINC150", "clinc150/clinc150.jsonl", "minilm", 75, (5, 20)),
        ("SNIPS", "snips7.jsonl", "minilm", 0, (3,)),
    ),
    "icons": (("Icons", "icons64.zip", "drawing", 157, (5, 20)),),
}
HEADS = {
    "efficientnet-lite0": ("photo", "logistic", "ridge", "centroid", "proto-maml"),
    "minilm": ("sentence", "logistic", "ridge", "centroid", "proto-maml"),
    "drawing": (
        "protonet-drawings",
        "protonet-omniglot",
        "matching-omniglot",
        "r2d2-omniglot",
        "maml-omniglot-5w1s",
    ),
}
RIVALS: dict[str, Callable[[], Any]] = {
    "LogisticRegression(C=1)": lambda: LogisticRegression(C=1, max_iter=300),
    "LogisticRegression(C=10)": lambda: LogisticRegression(C=10, max_iter=300),
    "LinearSVC()": lambda: LinearSVC(),
    "LDA(shrinkage='auto')": lambda: LinearDiscriminantAnalysis("lsqr", shrinkage="auto"),
    "KNeighbors(1)": lambda: KNeighborsClassifier(1),
}

Floats = NDArray[np.float32]
Drawn = tuple[Floats, NDArray[np.int64], Floats, NDArray[np.int64], list[int]]


def main(root: Path, *chosen: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for kind in chosen or DATA:
        parts = []
        for title, path, encoder, first, ways in DATA[kind]:
            classes = features(root / path, encoder, first)
            for way in ways:
                for sizes in SIZES:
                    if encoder == "drawing" and sizes == "20":
                        continue  # too few of each
                    print(title, flush=True)
                    parts.append({"data": title, **table(classes, encoder, way, sizes)})
        about = {"date": time.strftime("%Y-%m-%d"), "commit": code_commit(), "seed": 0}
        kept = json.loads(OUT.read_text()) if OUT.exists() else {}
        kept[kind] = {**about, "parts": parts}
        found = {name: kept[name] for name in DATA if name in kept}
        write_atomically(OUT, json.dumps(found, indent=1) + "\n")


def features(path: Path, encoder: str, first: int) -> list[Floats]:
    """Of each class from the ``first`` on, by name."""
    count: dict[str, int] = {}
    some = []
    for example in read_examples(path):
        label = str(example.label)
        count[label] = count.get(label, 0) + 1
        if count[label] <= PER_CLASS:
            some.append(example)
    by_class: dict[str, list[Floats]] = {}
    for example, z in encode(load_encoder(encoder), some, cache=FeatureCache()):
        by_class.setdefault(str(example.label), []).append(z)
    print(f"{path.name}: {len(by_class)} classes", flush=True)
    needed = QUERIES + (10 if encoder == "drawing" else 20)
    return [np.stack(z) for _, z in sorted(by_class.items())[first:] if len(z) >= needed]


def draw(classes: list[Floats], way: int, sizes: str, seed: int) -> Iterator[Drawn]:
    """Support and queries; queries of classes ``way, way + 1, ...`` are foreign."""
    rng = np.random.default_rng(seed)
    both = min(2 * way, len(classes))
    for _ in range(TASKS.get(way, 200)):
        shots = SIZES[sizes](way, rng)
        x, y, q, labels = [], [], [], []
        for label, c in enumerate(rng.choice(len(classes), both, replace=False)):
            order = rng.permutation(len(classes[c]))
            q.append(classes[c][order[:QUERIES]])
            labels += [label] * QUERIES
            if label < way:
                x.append(classes[c][order[QUERIES : QUERIES + shots[label]]])
                y += [label] * shots[label]
        yield np.concatenate(x), np.array(y), np.concatenate(q), np.array(labels), shots


def table(classes: list[Floats], encoder: str, way: int, sizes: str) -> dict[str, Any]:
    scores: dict[str, list[float]] = defaultdict(list)
    small: dict[str, list[float]] = {}
    sure: dict[str, list[Any]] = {}
    for x, y, q, labels, shots in draw(classes, way, sizes, 0):
        known = labels < way
        one = np.array(shots)[labels[known]] == 1

        def score(name: str, answers: Any, labels: Any = labels[known], one: Any = one) -> None:
            right = answers == labels
            scores[name].append(float(right.mean()))
            if one.any() and not one.all():
                small.setdefault(name, []).append(float(right[one].mean()))

        for i, name in enumerate(HEADS[encoder]):
            if encoder == "drawing" and way > 5 and "maml" in name:
                continue
            model = FewShotClassifier(name).fit(x, y)
            if i == 0:
                judge(model.calibrate(RATE), q, labels, known, one, sure)
            score(name, model.predict(q[known]))
        a, b = (normalize(z.reshape(len(z), -1)) for z in (x, q[known]))
        for name, rival in RIVALS.items():
            if name.startswith("LDA") and (len(y) == way or len(scores[name]) == SLOW):
                continue  # it needs more examples than classes, and seconds
            score(name, rival().fit(a, y).predict(b))
    results = {
        name: Evaluation(tuple(values), about={"tasks": sizes}) for name, values in scores.items()
    }
    first = next(iter(results.values()))
    rows = []
    for name, result in results.items():
        row: dict[str, Any] = {"learner": name, "mean": result.mean, "ci95": result.ci95}
        if name in small:
            row["one"] = float(np.mean(small[name]))
        if result is not first:
            same = Evaluation(first.scores[: len(result.scores)], about=first.about)
            paired = compare(result, same)
            row |= {"difference": paired.difference, "p": paired.p_value}
        rows.append(row)
        print(f"{way}-way, {sizes}: {name} {result} {row.get('one', '')}", flush=True)
    figures = {name: float(np.mean(values)) for name, values in sure.items() if name != "p"}
    p, right = (np.concatenate(part) for part in zip(*sure["p"], strict=True))
    figures["ece"] = expected_calibration_error(p, right)
    print(f"  {figures}", flush=True)
    tasks = len(first.scores)
    return {"way": way, "sizes": sizes, "tasks": tasks, "rows": rows, "sure": figures}


def judge(
    model: FewShotClassifier,
    q: Floats,
    labels: NDArray[np.int64],
    known: NDArray[np.bool_],
    one: NDArray[np.bool_],
    sure: dict[str, list[Any]],
) -> None:
    """How sure a model is, and how rightly."""
    p, familiar = model.judge(q)
    right = p[known].argmax(1) == labels[known]
    found: dict[str, Any] = {"p": (p[known], labels[known])}
    if model.held_out_accuracy_ is not None:
        found["held out"] = model.held_out_accuracy_ - right.mean()
    if not known.all():
        found["by largest probability"] = roc_auc_score(known, p.max(1))
        found["by familiarity"] = roc_auc_score(known, model.familiarity(q))
    if model.threshold_ is not None:
        found["known rejected"] = 1 - familiar[known].mean()
        if one.any():
            found["known of one rejected"] = 1 - familiar[known][one].mean()
        if not known.all():
            found["foreign accepted"] = familiar[~known].mean()
    for name, value in found.items():
        sure.setdefault(name, []).append(value)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
