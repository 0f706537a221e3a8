"""Features of many photos, beside what one would write: ``benchmarks/photos.py [--root ROOT]``.

``ROOT`` is a folder or zip of images, enlarged to JPEGs of 500x375 in a temporary folder; without,
photos of that size are invented. All use
the same encoder, EfficientNet-Lite0, and the same preparation. Each candidate is a process of its
own, and they take turns; times are from the first photo asked for to the last vector, on as many
threads as torch takes. Where the machine does other work too, go by CPU time and by ratios. From
1,000 photos on it writes ``benchmarks/results/photos.json``, which docs/performance.md shows.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent))
from invented import photo
from quickstudy.encoders import FeatureCache, efficientnet, encode, load_encoder
from quickstudy.encoders.folded import by_onnx_runtime, by_torch, convolutions
from quickstudy.examples import read_item
from quickstudy.files import Files
from quickstudy.images import is_image, open_image
from results_file import keep

SCRIPT = os.path.abspath(__file__)
OUT = Path(__file__).parent / "results" / "photos.json"
ENOUGH = 1000
"""Photos, for figures worth keeping."""
Vectors = Iterator[np.ndarray[Any, Any]]


def ours(files: list[Path], *, runtime: bool = True, cache: FeatureCache | None = None) -> Vectors:
    """What `learn` and `predict` do."""
    encoder = load_encoder("efficientnet-lite0")
    if not runtime:
        encoder._fast.module = by_torch(convolutions(encoder.network.module))  # type: ignore[attr-defined]
    yield np.zeros(0)  # ready
    for _, z in encode(encoder, map(read_item, files), cache=cache):
        yield z


class Photos(torch.utils.data.Dataset[Any]):
    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Any:
        image = Image.open(self.files[i]).convert("RGB")
        fitted = ImageOps.fit(image, (224, 224), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1).float() / 127.5 - 1


def loader(files: list[Path], *, runtime: bool) -> Vectors:
    """A DataLoader with a process a core, and batches of 32."""
    network = efficientnet().module
    run: Callable[[Any], Any] = network  # type: ignore[assignment]
    if runtime:
        fast = by_onnx_runtime(convolutions(network), threads=torch.get_num_threads())  # type: ignore[arg-type]
        assert fast is not None, "onnx and onnxruntime are needed"
        run = fast
    batches = torch.utils.data.DataLoader(Photos(files), 32, num_workers=os.cpu_count() or 1)
    yield np.zeros(0)
    with torch.no_grad():
        for x in batches:
            yield from run(x).mean((2, 3)).numpy()


CANDIDATES: dict[str, Callable[[list[Path]], Vectors]] = {
    "quickstudy": ours,
    "quickstudy without ONNX Runtime": lambda files: ours(files, runtime=False),
    "quickstudy, from the cache": lambda files: ours(files, cache=FeatureCache("features.sqlite")),
    "DataLoader, PyTorch": lambda files: loader(files, runtime=False),
    "DataLoader, ONNX Runtime": lambda files: loader(files, runtime=True),
}


def prepare(root: Path | None, n: int) -> None:
    """Photos in the working folder."""
    if root is None:
        rng = np.random.default_rng(0)
        for i in range(n):
            photo(rng, Path(f"{i:05}.jpg"))
        return
    with Files(root) as inside:
        for i, name in enumerate(islice(filter(is_image, inside.names), n)):
            image = open_image(inside.read(name), name, "RGB")
            image.resize((500, 375), Image.Resampling.BICUBIC).save(f"{i:05}.jpg", quality=90)


def run(name: str, share: int) -> None:
    """One candidate, in this process: seconds, CPU seconds, MiB at the peak; writes vectors.

    Of the photos, the first ``1/share``.
    """
    files = sorted(Path().glob("*.jpg"))
    files = files[: max(1, len(files) // share)]
    vectors = CANDIDATES[name](files)
    next(vectors)
    began, cpu = time.perf_counter(), _cpu()
    kept = np.stack(list(vectors))
    seconds, cpu = time.perf_counter() - began, _cpu() - cpu
    np.save("vectors.npy", kept)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{seconds} {cpu} {peak}")


def measured(name: str, share: int = 1) -> list[float]:
    """What `run` finds in a process of its own."""
    words = (sys.executable, SCRIPT, "--candidate", name, "--share", str(share))
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [float(word) for word in printed.split()]


def _cpu() -> float:
    both = (resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--candidate", help=argparse.SUPPRESS)
    parser.add_argument("--share", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.candidate:
        run(options.candidate, options.share)
        return
    root = options.root and options.root.resolve()
    found: dict[str, list[list[float]]] = {name: [] for name in CANDIDATES}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(f"preparing {options.photos} photos ...", flush=True)
        prepare(root, options.photos)
        first: Any = None
        fill = "quickstudy, from the cache"
        for name in [fill, *list(CANDIDATES) * options.runs]:
            print(f"{name} ...", flush=True)
            figures = measured(name)
            vectors = np.load("vectors.npy")
            first = vectors if first is None else first
            assert np.abs(vectors - first).max() < 1e-4 * np.abs(first).max(), name
            found[name].append(figures)
        found[fill].pop(0)
        peak_of_a_tenth = round(measured("quickstudy", share=10)[2])
        os.chdir("/")
    rates = {
        name: len(first) / statistics.median(r[0] for r in rows) for name, rows in found.items()
    }
    best = max(rate for name, rate in rates.items() if name.startswith("DataLoader"))
    rows = {
        name: {
            "photos_a_second": round(rates[name], 1),
            "times_the_best_peer": round(rates[name] / best, 2),
            "cpu_ms": round(1e3 * statistics.median(row[1] for row in runs) / len(first), 2),
            "peak_mib": round(statistics.median(row[2] for row in runs)),
        }
        for name, runs in found.items()
    }
    for name, row in rows.items():
        print(f"{name:32}", ", ".join(f"{what} {value}" for what, value in row.items()))
    kind = f" --root {options.root.name}" if options.root else ""
    result = {
        "command": f"python benchmarks/photos.py{kind} --photos {len(first)} --runs {options.runs}",
        "photos": len(first),
        "rows": rows,
        "peak_mib_of_a_tenth": peak_of_a_tenth,
    }
    if options.photos >= ENOUGH:
        keep(OUT, result)


if __name__ == "__main__":
    main()
