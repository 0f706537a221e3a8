"""Answers to many examples together, beside answers to each alone.

    python benchmarks/together.py DATA_FOLDER

writes ``benchmarks/results/together.json``, from which ``tools/results.py`` makes a table of
docs/results/real.md. The data, their classes and features are those of ``benchmarks/real.py``: of
photos, sentences and icons, classes by which nothing was chosen. A task has 1 or 5 examples of each
class. To be answered are 10 of each; or as many in all, of classes as frequent as a Dirichlet
distribution of concentration 2 says, as far as there are so many (Veilleux et al. 2021,
arXiv:2204.11181); or 10 that are all of one class; or 10 of each, and as many of classes that the
task does not have, which are not counted.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quickstudy.calibration import expected_calibration_error
from quickstudy.checkpoint import write_atomically
from quickstudy.estimator import Classifier
from quickstudy.evaluation import Evaluation
from quickstudy.experiments.reproduce import code_commit
from real import DATA, HEADS, TASKS, Floats, features

OUT = Path(__file__).parent / "results" / "together.json"
EACH = 10
Numbers = NDArray[np.int64]


def dirichlet(way: int, rng: np.random.Generator) -> Numbers:
    return rng.multinomial(EACH * way, rng.dirichlet([2.0] * way))


MIXES: dict[str, Callable[[int, np.random.Generator], Numbers]] = {
    "alike": lambda way, rng: np.full(way, EACH),
    "Dirichlet": dirichlet,
    "one class": lambda way, rng: np.eye(way, dtype=np.int64)[0] * EACH,
    "half foreign": lambda way, rng: np.full(2 * way, EACH),
}


def compared(classes: list[Floats], head: str, way: int, shot: int, mix: str) -> dict[str, Any]:
    """Both ways of answering, on the same tasks."""
    rng = np.random.default_rng(0)
    right: tuple[list[float], list[float]] = ([], [])
    sure: tuple[list[Floats], list[Floats]] = ([], [])
    truth = []
    for _ in range(TASKS.get(way, 200)):
        x, y, q, labels = [], [], [], []
        counts = MIXES[mix](way, rng)
        chosen = rng.choice(len(classes), min(len(counts), len(classes)), replace=False)
        for label, (number, count) in enumerate(zip(chosen, counts, strict=False)):
            order = rng.permutation(len(classes[number]))
            new = order[shot : shot + count]
            q.append(classes[number][new])
            labels += [label] * len(new)
            if label < way:
                x.append(classes[number][order[:shot]])
                y += [label] * shot
        classifier = Classifier(head).fit(np.concatenate(x), np.array(y)).calibrate()
        known = np.array(labels) < way
        truth.append(np.array(labels)[known])
        for together in (False, True):
            p = classifier.judge(np.concatenate(q), together=together)[0][known]
            right[together].append(float((p.argmax(1) == truth[-1]).mean()))
            sure[together].append(p)
    gains = Evaluation(tuple(b - a for a, b in zip(*right, strict=True)))
    found = {"way": way, "shot": shot, "mix": mix, "tasks": len(truth)}
    for name, scores, p in zip(("alone", "together"), right, sure, strict=True):
        error = expected_calibration_error(np.concatenate(p), np.concatenate(truth))
        found[name] = {"mean": float(np.mean(scores)), "ece": error}
    return {**found, "gain": gains.mean, "ci95": gains.ci95}


def main(root: Path) -> None:
    torch.set_num_threads(1)
    parts = []
    for kind in DATA.values():
        for title, path, encoder, first, ways in kind:
            classes = features(root / path, encoder, first)
            for way in ways:
                for shot in (1, 5):
                    for mix in MIXES:
                        head = HEADS[encoder][0]
                        part = compared(classes, head, way, shot, mix)
                        parts.append({"data": title, "head": head, **part})
                        print(parts[-1], flush=True)
    about = {"date": time.strftime("%Y-%m-%d"), "commit": code_commit(), "seed": 0}
    write_atomically(OUT, json.dumps({**about, "parts": parts}, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
