"""Predictions by one process and by two, each with one core: ``python benchmarks/shards.py``.

``quickstudy predict`` over a folder of invented photos, whole and in two shares, and, where Ray is
installed, Ray Data with one worker and with two. All take turns. A rate is of the photos alone: the
time without that of the same command on two photos, which is its start. With Ray and from 1,000
photos on it writes ``benchmarks/results/shards.json``, which docs/scale.md shows.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from invented import photo
from results_file import keep

OUT = Path(__file__).parent / "results" / "shards.json"
COMMAND = "python benchmarks/shards.py"
ENOUGH = 1000
"""Photos, for figures worth keeping."""
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
FEW = 2
"""Photos of the command whose time is its start."""
RAY = """
import sys
import ray
from quickstudy.batches import Predictor
folder, workers = sys.argv[1], int(sys.argv[2])
ray.init(num_cpus=workers + 1, include_dashboard=False, log_to_driver=False)
photos = ray.data.read_binary_files(folder, include_paths=True, override_num_blocks=8)
how = {"fn_constructor_args": ("model.qs",), "concurrency": workers, "batch_size": 32}
print(photos.map_batches(Predictor, **how).materialize().count())
"""


def prepare(photos: int) -> None:
    """A model, and the folders ``many`` and ``few``."""
    rng = np.random.default_rng(0)
    for label in "abcd":
        Path("examples", label).mkdir(parents=True)
        for i in range(5):
            photo(rng, Path("examples", label, f"{i}.jpg"))
    for folder, n in (("many", photos), ("few", FEW)):
        Path(folder).mkdir()
        for i in range(n):
            photo(rng, Path(folder, f"{i:05}.jpg"))
    words = (sys.executable, "-m", "quickstudy", "learn", "examples", "-o", "model.qs")
    subprocess.run(words, check=True, capture_output=True)


def shares(count: int, folder: str) -> int:
    """``quickstudy predict`` in so many processes at once: how many answers they gave."""
    words = [sys.executable, "-m", "quickstudy", "predict", "model.qs", folder]
    words += ["--json", "--no-cache", "--shard"]

    def share(i: int) -> int:
        said = subprocess.run(
            [*words, f"{i}/{count}"], env=ONE_THREAD, check=True, stdout=subprocess.PIPE
        )
        return len(said.stdout.splitlines())

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(share, range(1, count + 1)))


def by_ray(workers: int, folder: str) -> int:
    words = (sys.executable, "-c", RAY, folder, str(workers))
    done = subprocess.run(words, check=True, env=ONE_THREAD, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    ways = {f"--shard, {n}": partial(shares, n) for n in (1, 2)}
    if importlib.util.find_spec("ray"):
        ways |= {f"Ray Data, {n}": partial(by_ray, n) for n in (1, 2)}
    else:
        print(
            "Ray Data is left out, and nothing is kept: pip install 'ray[data]' pandas", flush=True
        )
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        prepare(options.photos)
        for _ in range(options.runs):
            for name, way in ways.items():
                print(f"{name} ...", flush=True)
                spent = {}
                for place, n in (("few", FEW), ("many", options.photos)):
                    began = time.perf_counter()
                    found = way(place)
                    spent[place] = time.perf_counter() - began
                    assert found == n, f"{name}: {found} answers to {n} photos"
                if spent["many"] <= spent["few"]:
                    raise SystemExit(f"{options.photos} photos are too few to measure by")
                seconds[name].append(spent["many"] - spent["few"])
        os.chdir("/")
    rates: dict[str, Any] = {
        name: [round((options.photos - FEW) / each, 1) for each in runs]
        for name, runs in seconds.items()
    }
    for name, each in rates.items():
        one = statistics.median(rates[name.split(",")[0] + ", 1"])
        print(
            f"{name}: {statistics.median(each):.0f} photos/s, {statistics.median(each) / one:.2f}"
        )
    result = {
        "command": COMMAND,
        "photos": options.photos,
        "photos_a_second": rates,
    }
    if options.photos >= ENOUGH and "Ray Data, 1" in rates:
        keep(OUT, result)


if __name__ == "__main__":
    main()
