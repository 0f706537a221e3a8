"""Meta-learn the heads "photo" and "sentence": up to eight numbers, on cached features.

    python tools/heads.py DATA_FOLDER [photo] [sentence]

writes ``src/quickstudy/heads_NAME.safetensors``. Photos are the first 60 of each of the first 50
classes, by name, of ``tiny-imagenet-dev100x150.zip``; sentences those of the first 75 intents of
``clinc150/clinc150.jsonl``. What is left of both is for tests.

A head makes features alike from one task to the next: their mean over all classes is subtracted,
and directions in which examples of *one* class differ are made shorter. Such statistics would be
too good to be true for the very classes they come from, so tasks of each half of the classes see
the other half's. Learned by the outer loop, from tasks of 2 to 25 ways with 1 to 15 examples of
each class: how much shorter, the head's penalty, prior and offset for small classes, and the
temperature with its dependence on ways and shots. Weights are those of the best validation where
there are data of another domain (icons, the first half of ``icons64.zip``, which therefore say
nothing of photos any more); in the file are all classes' statistics.
"""

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from quickstudy import Task, evaluate, train
from quickstudy.checkpoint import save_weights
from quickstudy.data import ClassDataset, EpisodeSampler
from quickstudy.encoders import FeatureCache, encode, load_encoder
from quickstudy.examples import read_examples
from quickstudy.functional import class_sizes
from quickstudy.heads import UnitVectors
from quickstudy.learner import MetaLearner, Phi
from quickstudy.learners import Logistic

OUT = Path(__file__).parents[1] / "src/quickstudy"
HEADS: dict[str, dict[str, Any]] = {
    "photo": {
        "features_of": "efficientnet-lite0",
        "data": ("tiny-imagenet-dev100x150.zip", 50),
        "validation": ("icons64.zip", 157),
        "power": 0.5,
        "rank": 64,
        "said": "Tiny-ImageNet, 3000 photos of the first 50 of 100 classes",
    },
    "sentence": {
        "features_of": "minilm",
        "data": ("clinc150/clinc150.jsonl", 75),
        "power": 1.0,
        "rank": 0,
        "fixed": ("debias",),  # sentences of one source say little of how those of another vary
        "said": "CLINC150, 4500 sentences of the first 75 of 150 intents",
    },
}
PER_CLASS, STEPS, RATE = 60, 100, 0.05
START = {
    "penalty": 0.1,
    "prior": 3.0,
    "debias": 2.0,
    "shorter": 0.1,
    "floor": 1.0,
    "one": 0.2,
    "way": 1.1,
    "shot": 1.2,
}


class Statistics:
    """Of the features of some classes ``[M,D]`` each: their mean, and how those of one class vary.

    Attributes:
        centre: ``[D]``, of unit vectors.
        basis: ``[D,D]``, directions in which examples of one class differ, most first.
        variances: ``[D]``, along them, in shares of their mean; beyond the ``rank`` all alike.
    """

    def __init__(self, classes: list[Tensor], power: float, rank: int) -> None:
        self.power = power
        units = [UnitVectors(power=power)(z) for z in classes]
        self.centre = torch.cat(units).mean(0)
        within = [z - z.mean(0) for z in map(UnitVectors(self.centre), units)]
        rest = torch.cat(within)
        variances, basis = torch.linalg.eigh(rest.T @ rest)
        self.basis, variances = basis.flip(1), variances.flip(0).clamp_min(0)
        variances[rank:] = variances[rank:].mean()
        self.variances = variances / variances.mean()

    def turned(self, classes: list[Tensor]) -> ClassDataset:
        """Features as a head sees them, in the coordinates of the basis."""
        z = UnitVectors(self.centre, power=self.power)(torch.cat(classes)) @ self.basis
        return ClassDataset.from_arrays(
            z, np.repeat(np.arange(len(classes)), [len(c) for c in classes])
        )


class Learned(MetaLearner):
    """`Logistic` on features that are made shorter along some directions, all of it learnable."""

    def __init__(self, variances: Tensor) -> None:
        super().__init__()
        self.register_buffer("variances", variances)
        self.log = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(math.log(value))) for name, value in START.items()}
        )

    def number(self, name: str) -> Tensor:
        """Learned in its logarithm, for it is positive."""
        return self.log[name].exp()

    def lengths(self) -> Tensor:
        """What the component along each direction is multiplied by, ``[D]``."""
        variances = torch.as_tensor(self.variances)
        return (variances + self.number("floor")) ** -self.number("shorter")

    def head(self) -> Logistic:
        """As the numbers are now."""
        numbers: Any = {name: self.number(name) for name in ("penalty", "prior", "debias")}
        return Logistic(_Shorter(self.lengths()), **numbers)

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        phi = self.head().adapt(support_x, support_y, n_way)
        sizes = class_sizes(support_y, n_way or 0).to(support_x.dtype)
        shot = 1 / (1 / sizes).mean(1)
        law = self.log["one"] + (self.number("way") - 1) * math.log(n_way or 0)
        temperature = (law + (self.number("shot") - 1) * shot.log()).exp()
        return {"weight": phi["weight"] / temperature[:, None, None]}

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return self.head().predict(phi, query_x)


class _Shorter(nn.Module):
    def __init__(self, lengths: Tensor) -> None:
        super().__init__()
        self.lengths = lengths

    def forward(self, z: Tensor) -> Tensor:
        return F.normalize(z.flatten(1) * self.lengths, dim=-1)


class InTurn:
    """Tasks of several sources, one after another."""

    def __init__(self, *sources: EpisodeSampler) -> None:
        self.sources = sources

    def __getitem__(self, index: int) -> Task:
        return self.sources[index % len(self.sources)][index // len(self.sources)]


def samplers(dataset: ClassDataset, seed: int) -> list[EpisodeSampler]:
    """Tasks of one example of each class, of few, of any number, and of as many of each."""
    shots: Sequence[tuple[int, int]] = ((1, 1), (1, 5), (1, 15), (2, 10))
    way = (2, min(25, dataset.n_classes))
    return [
        EpisodeSampler(
            dataset, way=way, shot=shot, query=5, tasks=2, seed=seed + i, imbalanced=i in (1, 2)
        )
        for i, shot in enumerate(shots)
    ]


def main(root: Path, *chosen: str) -> None:
    torch.set_num_threads(1)
    for name in chosen or HEADS:
        learn(root, name, **HEADS[name])


def learn(
    root: Path,
    name: str,
    *,
    features_of: str,
    data: tuple[str, int],
    power: float,
    rank: int,
    said: str,
    validation: tuple[str, int] | None = None,
    fixed: tuple[str, ...] = (),
) -> None:
    classes = features(root / data[0], data[1], features_of)
    halves = classes[::2], classes[1::2]
    known = [Statistics(half, power, rank) for half in halves]
    whole = Statistics(classes, power, rank)
    folds = [samplers(known[1 - i].turned(halves[i]), 10 * i) for i in range(2)]
    learner = Learned((known[0].variances + known[1].variances) / 2)
    for key in fixed:
        learner.log[key].requires_grad_(False)
    optimizer = torch.optim.Adam([w for w in learner.parameters() if w.requires_grad], RATE)
    fade = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    other = None
    if validation is not None:
        other = InTurn(
            *samplers(whole.turned(features(root / validation[0], validation[1], features_of)), 99)
        )
    with tempfile.TemporaryDirectory() as run:
        train(
            learner,
            InTurn(*(source for pair in zip(*folds, strict=True) for source in pair)),
            steps=STEPS,
            optimizer=optimizer,
            scheduler=fade,
            run_dir=run,
            validation=other,
            validate_every=25,
        )
        best = Path(run) / ("final" if other is None else "best")
        learner.load_state_dict(load_file(best.with_suffix(".safetensors")))
    if other is not None:
        print(f"{name}: {evaluate(learner, other, n_tasks=200)} on {validation}", flush=True)
    learner.variances = whole.variances
    lengths = learner.lengths().detach()
    numbers = {key: round(learner.number(key).item(), 4) for key in START}
    about = {
        "what": f"the head {name!r} for features of {features_of}",
        "data": said,
        "command": f"python tools/heads.py DATA_FOLDER {name}",
        "power": power,
        **{key: numbers[key] for key in ("penalty", "prior", "debias")},
        "temperature": [numbers["one"], *(round(numbers[key] - 1, 4) for key in ("way", "shot"))],
    }
    print(json.dumps({**about, **numbers}, indent=1), flush=True)
    short = (whole.basis[:, :rank].half(), lengths[:rank] / lengths[-1]) if rank else ()
    encoder = UnitVectors(whole.centre, *short, power=power)
    save_weights(OUT / f"heads_{name}.safetensors", encoder, about=about)


def features(path: Path, first: int, encoder: str) -> list[Tensor]:
    """Of the first classes by name."""
    by_class = groupby(sorted(read_examples(path), key=lambda e: e.label or ""), lambda e: e.label)
    some = [list(islice(group, PER_CLASS)) for _, group in islice(by_class, first)]
    flat = [example for group in some for example in group]
    found = [z for _, z in encode(load_encoder(encoder), flat, cache=FeatureCache())]
    return list(torch.from_numpy(np.stack(found)).float().split([len(group) for group in some]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
