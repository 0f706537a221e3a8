"""What decides a run, as plain values: what the command line, recipes and ``run.json`` share.

Each field is declared once, with what it means, its bounds and its default. The flags of
`quickstudy train`, `quickstudy.experiments.recipe.TrainingProtocol` and ``run.json`` follow.
"""

import dataclasses
import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from quickstudy.experiments.architecture import (
    LEARNERS,
    Architecture,
    LearnerName,
    LearnerSpec,
    learner_options,
)
from quickstudy.experiments.schema import Schema
from quickstudy.plain import read_file

if TYPE_CHECKING:
    import torch
    from torch.optim.lr_scheduler import LRScheduler

    from quickstudy.data import Split, TaskSource
    from quickstudy.learner import MetaLearner

__all__ = [
    "LEARNERS",
    "OF_TABLES",
    "Experiment",
    "LearnerName",
    "LearnerSpec",
    "Setup",
    "learner_options",
]

DataName = Literal[
    "omniglot", "miniimagenet", "alphabets", "digits", "folder", "sinusoid", "tables"
]
SplitName = Literal["published", "vinyals", "vinyals-trainval", "maml", "group", "random"]
PartName = Literal["train", "validation", "test"]
Schedule = Literal["constant", "cosine", "linear", "halve"]
Weights = Literal["auto", "best", "final", "checkpoint"]

_SUITED: dict[str, dict[str, Any]] = {
    "reptile": {
        "optimizer": "sgd",
        "lr": 1.0,
        "schedule": "linear",
        "shot": 10,
        "query": 1,
        "tasks": 5,
    },
    "baseline": {"way": 64, "query": 1},
    "simpleshot": {"way": 64, "query": 1},
    "sinusoid": {"shot": 10, "query": 10, "tasks": 25},
    "tables": {"way": 10, "most_shot": 32, "query": 32, "tasks": 16, "lr": 1e-2},
    "table-transformer": {"lr": 1e-3},
    "folder": {"rotations": False},
    "miniimagenet": {"size": 84, "channels": 3, "rotations": False},
}
# 98 and 95% in minutes, see benchmarks/time_to_accuracy.py
_DRAWINGS: dict[str, dict[str, Any]] = {
    "protonet": {"way": 20, "lr": 2e-3, "steps": 2000},
    "maml": {
        "downsample": "stride",
        "options": {"inner_lr": 2.0},
        "tasks": 16,
        "lr": 3e-3,
        "steps": 2000,
    },
}
_TEST_SEED = 1 << 32
_VALIDATION_SEED = 1 << 33
OF_TABLES = ("tables", "table-transformer")
_CELLS = 3000  # of a table, where a batch has as many tasks as it may
_GROW = 1500  # steps, over which they go from easy tables to all

# What `TrainingProtocol` declares again, with another default or with none.
Rotations = Annotated[bool, Field(description="Rotations as classes (of drawings, not of photos).")]
Shot = Annotated[int, Field(ge=1, description="Support examples per class.")]
Query = Annotated[int, Field(ge=1, description="Query examples per class.")]
Tasks = Annotated[int, Field(ge=1, description="Tasks in a batch.")]
RateSchedule = Annotated[Schedule, Field(description="Of the learning rate.")]


class Setup(Architecture):
    """What is learned, from what and how: all that a recipe and a run have in common."""

    start: Annotated[
        str | None,
        Field(description="Begin with the encoder of a run folder, or of shipped weights."),
    ] = None
    keep_encoder: Annotated[
        bool, Field(description="Train all but the encoder, which stays as it began.")
    ] = False
    data: Annotated[DataName, Field(description="Where the classes come from.")] = "omniglot"
    rotations: Rotations = True
    validation_groups: Annotated[
        int,
        Field(ge=0, description="Training alphabets to hold out for choosing the best weights."),
    ] = 0
    one_turn: Annotated[
        bool, Field(description="No task holds two rotations of one character.")
    ] = False
    invert: Annotated[
        bool,
        Field(description="Swap black and white: of folders with dark drawings, of Omniglot."),
    ] = False
    resample: Annotated[
        Literal["lanczos", "nearest"],
        Field(description="Omniglot: shrink smoothly, or take single pixels as papers did."),
    ] = "lanczos"
    frequency_spread: Annotated[
        float, Field(ge=0, lt=1, description="Sinusoids: frequencies from 1 - this to 1 + this.")
    ] = 0.0
    columns: Annotated[int, Field(ge=1, le=1000, description="Tables: most columns.")] = 30
    numbers: Annotated[
        float, Field(ge=0, le=1, description="Tables: share of batches that ask for a number.")
    ] = 0.2
    classes: Annotated[int, Field(ge=1, description="Synthetic characters.")] = 1000
    shot: Shot = 1
    most_shot: Annotated[
        int | None, Field(ge=1, description="Draw the shot of each batch from --shot up to this.")
    ] = None
    first_way: Annotated[
        int | None,
        Field(
            ge=2,
            description="Begin with so few classes; --way is reached at half of the steps (sooner "
            "with several devices).",
        ),
    ] = None
    query: Query = 5
    tasks: Tasks = 1
    within_group: Annotated[bool, Field(description="Tasks within one alphabet.")] = False
    augment: Annotated[
        float,
        Field(ge=0, description="Distort training images; 1 for up to 15 degrees, 15% of size."),
    ] = 0.0
    pens: Annotated[
        float,
        Field(ge=0, le=1, description="How often a training drawing gets another pen."),
    ] = 0.0
    invented: Annotated[
        int, Field(ge=0, description="Omniglot: add so many synthetic characters to train on.")
    ] = 0
    steps: Annotated[int, Field(ge=1, description="Outer steps.")] = 1000
    lr: Annotated[float, Field(gt=0, description="Outer learning rate.")] = 1e-3
    optimizer: Annotated[Literal["adam", "sgd"], Field(description="Of the outer loop.")] = "adam"
    schedule: RateSchedule = "cosine"
    halve_every: Annotated[
        int, Field(ge=1, description="Steps between halvings, with --schedule halve.")
    ] = 2000
    average: Annotated[
        float,
        Field(ge=0, lt=1, description="Keep a moving average of the weights, with this decay."),
    ] = 0.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.most_shot is not None and self.most_shot < self.shot:
            raise ValueError(f"most_shot is {self.most_shot}, less than shot, {self.shot}")
        if self.first_way is not None and self.first_way > self.way:
            raise ValueError(f"first_way is {self.first_way}, more than way, {self.way}")
        of_tables = self.learner in OF_TABLES
        if self.data == "tables" and not of_tables:
            do = " and ".join(OF_TABLES)
            raise ValueError(f"{self.learner} does not learn tables; the learners that do: {do}")
        if of_tables and self.data not in ("tables", "sinusoid"):
            raise ValueError(f"the learner {self.learner} learns tables, not {self.data}")
        if self.keep_encoder and self.start is None:
            raise ValueError("keep_encoder keeps an encoder that has learned: name its start")
        return self


class Experiment(Setup, Schema):
    """Everything that decides the outcome of a run, as plain values.

    Args:
        learner: a name of `LEARNERS`.
        values: the other fields.

    Raises:
        ValueError: a value is not one of those allowed; names the field and what was expected.
    """

    root: Annotated[str | None, Field(description="Folder or zip with the data.")] = None
    split: Annotated[SplitName, Field(description="How classes are split into train and test.")] = (
        "published"
    )
    skip_corrupt: Annotated[
        bool, Field(description="Folders: leave out images that cannot be read, and name them.")
    ] = False
    seed: Annotated[int, Field(description="Decides weights and tasks.")] = 0

    def __init__(self, learner: LearnerName, **values: Any) -> None:
        super().__init__(learner=learner, **values)

    @classmethod
    def suited(cls, learner: LearnerName, **chosen: Any) -> "Experiment":
        """The experiment with the values chosen; the others are those that suit the learner."""
        data = chosen.get("data", "omniglot")
        suited = {**_SUITED.get(data, {}), **_SUITED.get(learner, {})}
        if data in ("omniglot", "alphabets"):
            suited |= _DRAWINGS.get(learner, {})
        options = {**suited.get("options", {}), **chosen.get("options", {})}
        return cls(learner, **{**suited, **chosen, "options": options})

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
            own = cls(**json.loads(read_file(path))["experiment"])
            if own.is_foreign and not own.backbone_config:
                raise ValueError(f"it names {own.backbone} and does not say how it is built")
            return own
        except KeyError as error:
            raise ValueError(
                f"{path} does not say which learner was trained (it has no {error}): build it, and "
                "give it the weights by quickstudy.checkpoint.load_weights"
            ) from error
        except (RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{path} does not describe a run: {error}") from error

    @property
    def step_in_words(self) -> str:
        """Of what a step is made, and how many are taken at which rate."""
        shots = f"{self.shot} to {self.most_shot}" if self.most_shot else f"{self.shot}"
        queries = f"{self.query} {'query' if self.query == 1 else 'queries'}"
        if self.regression:
            task = f"{_several(self.shot, 'support point')}, {_several(self.query, 'query point')}"
        elif self.data == "tables":
            task = f"up to {self.way}-way {shots}-shot, {queries} in all"
        else:
            first = f"{self.first_way}- to " if self.first_way else ""
            task = f"{first}{self.way}-way {shots}-shot, {queries} a class"
        rate = f"{self.optimizer} at {self.lr:g}, {self.schedule}"
        network = {"downsample": "stride"} if self.downsample == "stride" else {}
        own = "".join(f", {name} {value}" for name, value in {**self.options, **network}.items())
        tasks, steps = _several(self.tasks, "task"), _several(self.steps, "step")
        return f"{tasks}, {task}; {steps} of {rate}{own}"

    def about(self) -> dict[str, Any]:
        """What goes into ``run.json``: enough to build this run again, and its learner alone."""
        experiment, learner = self.with_details().model_dump(), self.learner_spec().model_dump()
        return {"experiment": experiment, "learner": learner, **self.about_data()}

    def about_data(self) -> dict[str, Any]:
        """Which split of which data."""
        if not self.has_classes:
            return {"data": self.data}
        split = self.splits
        return {"data": self.data, "split": split.name, "split_fingerprint": split.fingerprint}

    @property
    def regression(self) -> bool:
        """Whether its tasks ask for numbers: sinusoids, which have no classes."""
        return self.data == "sinusoid"

    @property
    def has_classes(self) -> bool:
        """Whether its tasks are dealt from classes that there are, and not invented."""
        return self.data not in ("sinusoid", "tables")

    @property
    def inputs(self) -> str:
        """What its learner takes: images, or what is invented."""
        return "images" if self.has_classes else self.data

    @property
    def has_validation(self) -> bool:
        """Whether there are tasks to choose weights by."""
        return self.data == "tables" or (self.has_classes and self.splits.validation is not None)

    @cached_property
    def splits(self) -> "Split":
        """The classes to train on, to choose by and to report on."""
        from quickstudy import data

        split: Split
        if not self.has_classes:
            raise ValueError(f"{self.data} are invented: there are no classes to split")
        if self.data == "alphabets":
            parts = [
                data.alphabets(n, size=self.size, seed=self.seed, first_class=first)
                for n, first in ((self.classes, 0), (100, self.classes), (200, self.classes + 100))
            ]
            name = f"synthetic alphabets, {self.classes} training classes"
            split = data.Split(parts[0], parts[1], parts[2], name)
        elif self.data == "omniglot":
            look: Any = {"size": self.size, "resample": self.resample, "invert": self.invert}
            split = self._deal(data.omniglot(self.root, **look))
            if self.invented:
                synthetic = data.alphabets(self.invented, size=self.size, seed=self.seed)
                name = f"{split.name} and {self.invented} synthetic characters"
                split = dataclasses.replace(split, train=split.train + synthetic, name=name)
        elif self.data == "digits":
            split = self._deal(data.digits(size=self.size))
        elif self.root is None:
            holds = (
                "one folder per class" if self.data == "folder" else "the images and their lists"
            )
            raise ValueError(f"data={self.data} needs a root (--root): a folder with {holds}")
        elif self.data == "miniimagenet":
            split = data.mini_imagenet(self.root, size=self.size)
        else:
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

    def sampler(self, part: PartName, **changes: Any) -> "TaskSource":
        """Tasks from one part of the data; ``changes`` are arguments of `EpisodeSampler`."""
        from quickstudy.data import Augmented, EpisodeSampler, SinusoidSampler

        if self.data == "tables":
            return self._tables(part, **changes)
        if self.regression:
            names = ("shot", "query", "tasks", "seed", "frequency_spread")
            chosen = {name: changes.get(name, getattr(self, name)) for name in names}
            if part == "test":
                chosen["seed"] += _TEST_SEED
            return SinusoidSampler(**chosen)
        dataset = self.splits.parts().get(part)
        if dataset is None:
            raise ValueError(f"the split {self.splits.name!r} has no {part} classes")
        settings = {
            "way": self.way,
            "shot": (self.shot, self.most_shot or self.shot),
            "query": self.query,
            "tasks": self.tasks,
            "within_group": self.within_group,
            "one_per_root": self.one_turn,
            "seed": self.seed,
        }
        if part == "train" and self.first_way is not None:
            settings |= {"way": (self.first_way, self.way), "grow": max(1, self.steps // 2)}
        try:
            sampler = EpisodeSampler(dataset, **{**settings, **changes})
        except ValueError as error:
            raise ValueError(f"tasks of the {part} classes: {error}") from None
        if part == "train" and (self.augment or self.pens):
            return Augmented(sampler, strength=self.augment, pens=self.pens, seed=self.seed)
        return sampler

    def _tables(self, part: PartName, **changes: Any) -> "TaskSource":
        """Invented tables: to train on, of all sizes; else of those that ``changes`` give."""
        from quickstudy.data import TableSampler

        seed = {"train": 0, "validation": _VALIDATION_SEED, "test": _TEST_SEED}[part]
        settings = {
            "way": (2, self.way),
            "shot": (self.shot, self.most_shot or self.shot),
            "query": self.query,
            "tasks": self.tasks,
            "seed": self.seed,
        }
        chosen = {name: changes.get(name, value) for name, value in settings.items()}
        chosen["seed"] += seed
        return TableSampler(
            **chosen,
            features=(1, self.columns),
            cells=_CELLS * self.tasks,
            numbers=self.numbers if part == "train" else 0.0,
            grow=_GROW if part == "train" and self.learner == "table-transformer" else 0,
        )

    def build_learner(self, *, at_most: int | None = None) -> "MetaLearner":
        """A new, untrained learner for these images; its weights depend on ``seed`` alone.

        Args:
            at_most: how many numbers it may have, see `LearnerSpec.build`.
        """
        own = self.with_details() if at_most is None else self
        return own._spec().build(self.seed, at_most=at_most)

    def learner_spec(self) -> LearnerSpec:
        """The learner alone, without what it is trained on."""
        return self.with_details()._spec()

    def _spec(self) -> LearnerSpec:
        fields = self.model_dump(include={*Architecture.model_fields})
        inputs: Any = self.inputs
        return LearnerSpec(**fields, inputs=inputs)

    def build_optimizer(
        self, learner: "MetaLearner"
    ) -> tuple["torch.optim.Optimizer", "LRScheduler | None"]:
        """The outer optimiser, and its rate's schedule."""
        import torch
        from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, StepLR

        kind = torch.optim.Adam if self.optimizer == "adam" else torch.optim.SGD
        parameters = [p for p in learner.parameters() if p.requires_grad]
        optimizer = kind(parameters, lr=self.lr)
        if self.schedule == "linear":
            return optimizer, LinearLR(optimizer, 1.0, 0.0, self.steps)
        if self.schedule == "cosine":
            return optimizer, CosineAnnealingLR(optimizer, self.steps)
        if self.schedule == "halve":
            return optimizer, StepLR(optimizer, self.halve_every, gamma=0.5)
        return optimizer, None

    def with_details(self) -> "Experiment":
        """The same, with what its learner needs to be built again written down.

        The number of training classes, and the description of another library's network.
        """
        own = self
        if self.is_foreign and not self.backbone_config:
            from quickstudy.foreign import describe

            own = own.replace(backbone_config=describe(self.backbone))
        if self.counts_classes and "classes" not in self.options:
            classes = self.splits.train.n_classes if not self.regression else 2
            own = own.replace(options={**self.options, "classes": classes})
        return own

    def _deal(self, dataset: Any) -> "Split":
        from quickstudy import data

        if self.split == "published":
            return data.published(
                dataset, validation_alphabets=self.validation_groups, seed=self.seed
            )
        if self.split in ("vinyals", "vinyals-trainval"):
            return data.vinyals(dataset, validation=self.split == "vinyals")
        if self.split == "maml":
            return data.maml(dataset, seed=self.seed)
        if self.split == "group":
            return data.by_group(dataset, seed=self.seed)
        return data.random_split(dataset, 0.15, 0.2, seed=self.seed)


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
