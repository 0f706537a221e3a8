"""What each command of the command line costs a user who waits: ``python benchmarks/commands.py``.

Each is a process of its own, run several times in turn; CPU is user and system time together, and
what ``import torch`` alone takes on the same machine stands beside it. Writes
``benchmarks/results/commands.json``, which docs/performance.md shows.
"""

import argparse
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from invented import photo
from results_file import keep

OUT = Path(__file__).parent / "results" / "commands.json"
COMMAND = "python benchmarks/commands.py"
CLI = (sys.executable, "-m", "quickstudy")
IMPORT = "python -c 'import torch'"
COMMANDS = {
    IMPORT: (sys.executable, "-c", "import torch"),
    "--help": (*CLI, "--help"),
    "info": (*CLI, "info", "photos.qs"),
    "info of a missing file": (*CLI, "info", "none.qs"),
    "predict of a missing photo": (*CLI, "predict", "photos.qs", "none.jpg"),
    "learn from a missing folder": (*CLI, "learn", "none"),
    "train of an unknown learner": (*CLI, "train", "none"),
    "evaluate of an unknown run": (*CLI, "evaluate", "none"),
    "predict, one photo": (*CLI, "predict", "photos.qs", "photos/a/0.jpg", "--no-cache"),
    "predict, one sentence": (*CLI, "predict", "texts.qs", "--text", "hello", "--no-cache"),
    "learn, 20 photos": (*CLI, "learn", "photos", "--no-cache", "-o", "p.qs"),
    "learn, 20 sentences": (*CLI, "learn", "texts.csv", "--no-cache", "-o", "t.qs"),
    "train, 1 step": (
        *(*CLI, "train", "protonet", "--data", "alphabets", "--classes", "30", "--steps", "1"),
        *("--backbone", "mlp", "--validation-tasks", "1", "--quiet", "--out", "run"),
    ),
    "export --onnx": (*CLI, "export", "photos.qs", "--onnx"),
}


def prepare() -> None:
    """Photos and sentences in the working folder, and a model of each."""
    rng = np.random.default_rng(0)
    for label in "abcd":
        Path("photos", label).mkdir(parents=True)
        for i in range(5):
            photo(rng, Path("photos", label, f"{i}.jpg"))
    with open("texts.csv", "w", newline="") as file:
        rows = [(f"word{rng.integers(99)} of kind {label}", label) for label in "abcd" * 5]
        csv.writer(file).writerows([("text", "label"), *rows])
    for source, model in (("photos", "photos.qs"), ("texts.csv", "texts.qs")):
        subprocess.run((*CLI, "learn", source, "-o", model), check=True, capture_output=True)


def measure(command: tuple[str, ...]) -> tuple[float, float]:
    """CPU and wall seconds."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="", help="part of the command's name")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users have their imports compiled
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        prepare()
        chosen = {name: words for name, words in COMMANDS.items() if options.only in name}
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in chosen}
        for number in range(options.runs):
            print(f"run {number + 1} of {options.runs} ...", flush=True)
            for name, words in chosen.items():
                seconds[name].append(measure(words))
                Path("p.qs").unlink(missing_ok=True)
        os.chdir("/")
    medians = {
        name: [round(statistics.median(column), 3) for column in zip(*runs, strict=True)]
        for name, runs in seconds.items()
    }
    for name, (cpu, wall) in medians.items():
        times = f"{cpu / medians[IMPORT][0]:5.2f} times import" if IMPORT in medians else ""
        print(f"{name:30} CPU {cpu:6.2f} s, wall {wall:6.2f} s {times}")
    if not options.only:
        keep(OUT, {"command": COMMAND, "cpu_and_wall_seconds": medians})


if __name__ == "__main__":
    main()
