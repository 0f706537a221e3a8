"""How fast tasks and synthetic characters are made: ``python benchmarks/data.py``.

Episodes are timed against per-item sampling as learn2learn's documentation shows it (an index of
each label's examples, a chain of transforms, one ``dataset[i]`` an example, collated into a
batch), written here in plain Python because learn2learn 0.2.0 does not build on Python 3.11.
Twice: ``decoded``, its documented Omniglot, where ``dataset[i]`` decodes a 105x105 PNG and shrinks
it to 28x28 (from memory here, from disk there); and ``in memory``, where the images already lie
there as tensors, so that only the method's own cost remains. All alternate, and medians are
printed with their spread. One thread.
"""

import io
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from quickstudy.data import EpisodeSampler, alphabets, to_float

WAY, SHOT, QUERY = 20, 1, 5
REPEATS, EPISODES = 15, 20


class Images(Dataset[tuple[Tensor, int]]):
    """One example at a time, as torch data sets give them."""

    def __init__(self, x: Tensor, y: list[int]) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return to_float(self.x[index]), self.y[index]


class Decoded(Dataset[tuple[Tensor, int]]):
    """The same as PNG files of 105x105 that are decoded and shrunk when asked for."""

    def __init__(self, x: Tensor, y: list[int]) -> None:
        self.y = y
        self.files = []
        for image in x[:, 0].numpy():
            file = io.BytesIO()
            Image.fromarray(image).resize((105, 105)).point(lambda v: 255 * (v > 127)).save(
                file, "png", bits=1
            )
            self.files.append(file.getvalue())

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.open(io.BytesIO(self.files[index])).convert("L")
        small = np.asarray(image.resize((28, 28), Image.Resampling.LANCZOS), np.float32)
        return torch.from_numpy(1 - small / 255).unsqueeze(0), self.y[index]


class PerItem:
    """N ways, K shots, load each item, relabel, collate."""

    def __init__(self, dataset: Images | Decoded) -> None:
        self.dataset = dataset
        self.indices = defaultdict(list)
        for index, label in enumerate(dataset.y):
            self.indices[label].append(index)
        self.labels = list(self.indices)

    def episode(self) -> tuple[Tensor, Tensor]:
        chosen = random.sample(self.labels, WAY)
        description = [
            (index, label)
            for label in chosen
            for index in random.sample(self.indices[label], SHOT + QUERY)
        ]
        new = {label: i for i, label in enumerate(chosen)}
        items = [(self.dataset[index][0], new[label]) for index, label in description]
        x, y = default_collate(items)
        return x, y


def rate(make: Callable[[], object], n: int) -> float:
    began = time.perf_counter()
    for _ in range(n):
        make()
    return n / (time.perf_counter() - began)


def show(name: str, values: list[float], unit: str) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:34} {middle:9.0f} {unit} (from {low:.0f} to {high:.0f})")


def episode_rates() -> dict[str, list[float]]:
    """Episodes a second, by way of sampling: 20-way, 6 images a class, in turn."""
    dataset = alphabets(1000)
    y = torch.arange(1000).repeat_interleave(20).tolist()
    memory = PerItem(Images(dataset.storage, y))
    decoded = PerItem(Decoded(dataset.storage, y))
    ours = EpisodeSampler(dataset, way=WAY, shot=SHOT, query=QUERY)
    batch = EpisodeSampler(dataset, way=WAY, shot=SHOT, query=QUERY, tasks=16)
    counter = iter(range(10**9))
    rates: dict[str, list[float]] = {
        "decoded": [],
        "in memory": [],
        "ours": [],
        "ours, 16 tasks a batch": [],
    }
    for repeat in range(REPEATS + 1):
        found = (
            rate(decoded.episode, EPISODES // 4),
            rate(memory.episode, EPISODES),
            rate(lambda: ours[next(counter)], EPISODES),
            rate(lambda: batch[next(counter)], EPISODES // 4) * 16,
        )
        if repeat:  # the first warms up
            for values, value in zip(rates.values(), found, strict=True):
                values.append(value)
    return rates


def main() -> None:
    torch.set_num_threads(1)
    alphabets(8)
    drawn = [rate(lambda: alphabets(200, 20), 1) * 4000 for _ in range(5)]
    show("synthetic characters, 28x28", drawn, "images/s")
    rates = episode_rates()
    print(f"episodes, {WAY}-way, {SHOT + QUERY} images a class:")
    for name, values in rates.items():
        show(f"  {name}", values, "episodes/s")
    for name in list(rates)[2:]:
        for peer in ("decoded", "in memory"):
            pairs = zip(rates[name], rates[peer], strict=True)
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"  {name}: {ratio:.1f}x {peer} (median of {REPEATS} pairs)")


if __name__ == "__main__":
    main()
