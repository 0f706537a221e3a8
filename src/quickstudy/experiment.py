"""From plain values to a run: what the command line, ``run.json`` and the demo share.

Names become objects here and nowhere else; the library itself is configured by passing modules.
"""

import dataclasses
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim.lr_scheduler import LRScheduler

    from quickstudy.data import EpisodeSampler, Split
    from quickstudy.learner import MetaLearner

__all__ = ["Experiment"]

LearnerName = Literal["nearest", "protonet", "maml", "lstm"]
DataName = Literal["omniglot", "alphabets", "digits", "folder"]
SplitName = Literal["published", "vinyals", "maml", "group", "random"]
Part = Literal["train", "validation", "test"]
Schedule = Literal["constant", "cosine", "halve"]
Backbone = Literal["conv4", "mlp"]
Downsample = Literal["pool", "stride"]
Policy = Literal["inductive", "transductive"]
Queries = Literal["alone", "sequence"]


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the outcome of a run, as plain values.

    Raises:
        ValueError: a value is not one of those allowed; names the field.
    """

    learner: LearnerName
    data: DataName = "omniglot"
    root: str | None = None
    split: SplitName = "published"
    rotations: bool = True
    validation_groups: int = 0
    size: int = 28
    channels: int = 1
    invert: bool = False
    skip_corrupt: bool = False
    classes: int = 1000
    way: int = 5
    shot: int = 1
    query: int = 5
    tasks: int = 1
    within_group: bool = False
    steps: int = 1000
    lr: float = 1e-3
    schedule: Schedule = "cosine"
    halve_every: int = 2000
    backbone: Backbone = "conv4"
    downsample: Downsample = "pool"
    batch_norm: Policy = "inductive"
    inner_lr: float = 0.4
    inner_steps: int = 1
    first_order: bool = False
    hidden: int = 256
    queries: Queries = "alone"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            allowed = get_args(kind)
            if kind in (int, float, bool, str):
                if type(value) is not kind and not (kind is float and type(value) is int):
                    raise ValueError(f"{name} is {value!r}; expected {kind.__name__}")
            elif str not in allowed and value not in allowed:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(allowed)}")
        for name in ("way", "shot", "query", "tasks", "steps", "classes", "hidden"):
            if getattr(self, name) < (2 if name == "way" else 1):
                raise ValueError(f"{name} is {getattr(self, name)}; it is too small")

    @classmethod
    def load(cls, run: str | os.PathLike[str]) -> "Experiment":
        """The experiment of a run folder.

        Raises:
            FileNotFoundError: the folder holds no run.
            ValueError: its ``run.json`` is damaged.
        """
        path = Path(run) / "run.json"
        if not path.is_file():
            raise FileNotFoundError(f"{run} is not a run folder: it has no run.json")
        try:
            return cls(**json.loads(path.read_text())["experiment"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path} does not describe a run: {error!r}") from error

    def about(self) -> dict[str, Any]:
        """What goes into ``run.json``: enough to build this run again."""
        return {
            "experiment": dataclasses.asdict(self),
            "split": self.splits.name,
            "split_fingerprint": self.splits.fingerprint,
        }

    @cached_property
    def splits(self) -> "Split":
        """The classes to train on, to choose by and to report on."""
        from quickstudy import data

        split: Split
        if self.data == "alphabets":
            parts = [
                data.alphabets(n, size=self.size, seed=self.seed, first_class=first)
                for n, first in ((self.classes, 0), (100, self.classes), (200, self.classes + 100))
            ]
            name = f"synthetic alphabets, {self.classes} training classes"
            split = data.Split(parts[0], parts[1], parts[2], name)
        elif self.data == "omniglot":
            split = self._deal(data.omniglot(self.root, size=self.size))
        elif self.data == "digits":
            split = self._deal(data.digits(size=self.size))
        else:
            if self.root is None:
                raise ValueError("data=folder needs a root: a folder with a folder a class")
            channels: Any = self.channels
            images = data.image_folder(
                self.root,
                size=self.size,
                channels=channels,
                corrupt="skip" if self.skip_corrupt else "refuse",
                invert=self.invert,
            )
            split = self._deal(images)
        return split.rotated() if self.rotations else split

    def sampler(self, part: Part, **changes: Any) -> "EpisodeSampler":
        """Tasks from one part of the split; ``changes`` are arguments of `EpisodeSampler`."""
        from quickstudy.data import EpisodeSampler

        dataset = self.splits.parts().get(part)
        if dataset is None:
            raise ValueError(f"the split {self.splits.name!r} has no {part} classes")
        settings = {
            "way": self.way,
            "shot": self.shot,
            "query": self.query,
            "tasks": self.tasks,
            "within_group": self.within_group,
            "seed": self.seed,
        }
        return EpisodeSampler(dataset, **{**settings, **changes})

    def build_learner(self) -> "MetaLearner":
        """A new, untrained learner for these images; its weights depend on ``seed`` alone."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self._learner()

    def build_optimizer(
        self, learner: "MetaLearner"
    ) -> tuple["torch.optim.Optimizer", "LRScheduler | None"]:
        """Adam and the outer learning rate's schedule."""
        import torch
        from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

        optimizer = torch.optim.Adam(learner.parameters(), lr=self.lr)
        if self.schedule == "cosine":
            return optimizer, CosineAnnealingLR(optimizer, self.steps)
        if self.schedule == "halve":
            return optimizer, StepLR(optimizer, self.halve_every, gamma=0.5)
        return optimizer, None

    def _learner(self) -> "MetaLearner":
        from torch import nn

        from quickstudy import learners

        if self.learner == "nearest":
            return learners.NearestNeighbour()
        encoder = self._encoder()
        if self.learner == "protonet":
            return learners.ProtoNet(encoder)
        if self.learner == "lstm":
            return learners.BlackBoxLSTM(
                encoder, outputs=self.way, hidden=self.hidden, queries=self.queries
            )
        features: Any = encoder.out_features
        return learners.MAML(
            nn.Sequential(encoder, nn.Linear(features, self.way)),
            inner_lr=self.inner_lr,
            inner_steps=self.inner_steps,
            first_order=self.first_order,
        )

    def _encoder(self) -> "nn.Module":
        from quickstudy.nn import MLP, Conv4

        if self.backbone == "mlp":
            return MLP(self.channels * self.size**2, [256, 128], 64)
        return Conv4(
            self.channels,
            image_size=self.size,
            downsample=self.downsample,
            batch_norm=self.batch_norm,
        )

    def _deal(self, dataset: Any) -> "Split":
        from quickstudy import data

        if self.split == "published":
            return data.published(
                dataset, validation_alphabets=self.validation_groups, seed=self.seed
            )
        if self.split == "vinyals":
            return data.vinyals(dataset)
        if self.split == "maml":
            return data.maml(dataset, seed=self.seed)
        if self.split == "group":
            return data.by_group(dataset, seed=self.seed)
        return data.random_split(dataset, 0.15, 0.2, seed=self.seed)
