"""From plain values to a run: what the command line, ``run.json`` and the demo share.

Names become objects here and nowhere else; the library itself is configured by passing modules.
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim.lr_scheduler import LRScheduler

    from quickstudy.data import Split, TaskSource
    from quickstudy.learner import MetaLearner

__all__ = ["LEARNERS", "Experiment", "learner_options"]

LearnerName = Literal[
    "scratch",
    "baseline",
    "simpleshot",
    "nearest",
    "soft-nearest",
    "protonet",
    "pmf",
    "matching",
    "r2d2",
    "maml",
    "fomaml",
    "reptile",
    "anil",
    "meta-sgd",
    "maml++",
    "lstm",
    "mann",
    "transformer",
    "cnp",
]
DataName = Literal["omniglot", "miniimagenet", "alphabets", "digits", "folder", "sinusoid"]
SplitName = Literal["published", "vinyals", "vinyals-trainval", "maml", "group", "random"]
Part = Literal["train", "validation", "test"]
Schedule = Literal["constant", "cosine", "linear", "halve"]
Optimizer = Literal["adam", "sgd"]
InnerName = Literal["sgd", "momentum", "adam"]
Backbone = Literal["conv4", "mlp", "efficientnet-lite0"]
Downsample = Literal["pool", "stride", "stride-flatten"]
Policy = Literal["inductive", "transductive"]
Weights = Literal["auto", "best", "final", "checkpoint"]

LEARNERS: dict[LearnerName, tuple[str, dict[str, Any]]] = {
    "scratch": ("Scratch", {}),
    "baseline": ("Baseline", {}),
    "simpleshot": ("SimpleShot", {}),
    "nearest": ("NearestNeighbour", {}),
    "soft-nearest": ("SoftNearestNeighbour", {}),
    "protonet": ("ProtoNet", {}),
    "pmf": ("PMF", {}),
    "matching": ("MatchingNetwork", {}),
    "r2d2": ("R2D2", {}),
    "maml": ("MAML", {}),
    "fomaml": ("MAML", {"first_order": True}),
    "reptile": ("Reptile", {}),
    "anil": ("ANIL", {}),
    "meta-sgd": ("MetaSGD", {}),
    "maml++": ("MAMLPlusPlus", {}),
    "lstm": ("BlackBoxLSTM", {}),
    "mann": ("MANN", {}),
    "transformer": ("InContextTransformer", {}),
    "cnp": ("ConditionalNeuralProcess", {}),
}
"""The class of each name, and the options that the name stands for."""

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
    "miniimagenet": {"size": 84, "channels": 3, "rotations": False},
}
_BY_CONTEXT = ("outputs", "classes", "regression")
_TEST_SEED = 1 << 32


@dataclass(frozen=True)
class Experiment:
    """Everything that decides the outcome of a run, as plain values.

    ``options`` are keywords of the learner's class, see `learner_options`.

    Raises:
        ValueError: a value is not one of those allowed; names the field.
    """

    learner: LearnerName
    options: dict[str, Any] = field(default_factory=dict)
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
    most_shot: int | None = None
    query: int = 5
    tasks: int = 1
    within_group: bool = False
    augment: float = 0.0
    steps: int = 1000
    lr: float = 1e-3
    optimizer: Optimizer = "adam"
    schedule: Schedule = "cosine"
    halve_every: int = 2000
    average: float = 0.0
    backbone: Backbone = "conv4"
    filters: int = 64
    downsample: Downsample = "pool"
    batch_norm: Policy = "inductive"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            if name != "options":
                _check(name, getattr(self, name), kind)
        for name in ("way", "shot", "query", "tasks", "steps", "classes", "filters"):
            if getattr(self, name) < (2 if name == "way" else 1):
                raise ValueError(f"{name} is {getattr(self, name)}; it is too small")
        if self.most_shot is not None and self.most_shot < self.shot:
            raise ValueError(f"most_shot is {self.most_shot}, less than shot, {self.shot}")
        if self.backbone == "efficientnet-lite0" and self.channels != 3:
            raise ValueError(f"channels is {self.channels}; {self.backbone} takes photos, of 3")
        known = learner_options(self.learner) | {"classes": int} if self.options else {}
        for name, value in self.options.items():
            if name not in known:
                raise ValueError(
                    f"{self.learner} has no option {name!r}; it has: "
                    f"{', '.join(learner_options(self.learner)) or 'none'}"
                )
            _check(name, value, known[name])

    @classmethod
    def suited(cls, learner: LearnerName, **given: Any) -> "Experiment":
        """The experiment with the values given, and for the rest those that suit the learner."""
        suited = {**_SUITED.get(given.get("data", ""), {}), **_SUITED.get(learner, {})}
        return cls(learner, **{**suited, **given})

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
        return {"experiment": dataclasses.asdict(self), **self.about_data()}

    def about_data(self) -> dict[str, Any]:
        """Which split of which data."""
        if self.data == "sinusoid":
            return {"data": self.data}
        split = self.splits
        return {"data": self.data, "split": split.name, "split_fingerprint": split.fingerprint}

    @property
    def regression(self) -> bool:
        """Whether its tasks ask for numbers: sinusoids, which have no classes."""
        return self.data == "sinusoid"

    @property
    def has_validation(self) -> bool:
        """Whether there are classes to choose weights by."""
        return self.data != "sinusoid" and self.splits.validation is not None

    @cached_property
    def splits(self) -> "Split":
        """The classes to train on, to choose by and to report on."""
        from quickstudy import data

        split: Split
        if self.data == "sinusoid":
            raise ValueError("sinusoid tasks have no classes to split")
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
        elif self.root is None:
            raise ValueError(f"data={self.data} needs a root: a folder with a folder a class")
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

    def sampler(self, part: Part, **changes: Any) -> "TaskSource":
        """Tasks from one part of the data; ``changes`` are arguments of `EpisodeSampler`."""
        from quickstudy.data import Augmented, EpisodeSampler, SinusoidSampler

        if self.data == "sinusoid":
            names = ("shot", "query", "tasks", "seed")
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
            "seed": self.seed,
        }
        sampler = EpisodeSampler(dataset, **{**settings, **changes})
        if part == "train" and self.augment:
            return Augmented(sampler, strength=self.augment, seed=self.seed)
        return sampler

    def build_learner(self) -> "MetaLearner":
        """A new, untrained learner for these images; its weights depend on ``seed`` alone."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return self._learner()

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

    def with_classes(self) -> "Experiment":
        """The same, with the number of training classes written down if the learner needs it."""
        if "classes" not in _signature(self.learner) or "classes" in self.options:
            return self
        classes = self.splits.train.n_classes if self.data != "sinusoid" else 2
        return dataclasses.replace(self, options={**self.options, "classes": classes})

    def _learner(self) -> "MetaLearner":
        from quickstudy import learners

        regression = self.data == "sinusoid"
        outputs = 1 if regression else self.way
        name, preset = LEARNERS[self.learner]
        parameters = _signature(self.learner)
        options = {**preset, **self.with_classes().options}
        context = {"outputs": outputs, "regression": regression}
        options |= {k: v for k, v in context.items() if k in parameters}
        for k, kind in learner_options(self.learner).items():
            if kind is bool and parameters[k] is not bool:  # a module, asked for by a flag
                options[k] = self._encoder() if options.get(k) else None
            elif kind is InnerName and k in options:
                options[k] = _inner_optimizer(options[k], self.learner)
        if "network" in parameters:
            options["network"] = self._network(outputs)
        elif "encoder" in parameters and "encoder" not in options:
            options["encoder"] = self._encoder()
        learner: MetaLearner = getattr(learners, name)(**options)
        return learner

    def _network(self, outputs: int) -> "nn.Module":
        from torch import nn

        from quickstudy.nn import MLP

        if self.data == "sinusoid":
            return MLP(1, [40, 40], outputs)
        encoder = self._encoder()
        features: Any = encoder.out_features
        return nn.Sequential(encoder, nn.Linear(features, outputs))

    def _encoder(self) -> "nn.Module":
        from quickstudy.nn import MLP, Conv4

        if self.data == "sinusoid":
            return MLP(1, [40], 40)
        if self.backbone == "mlp":
            return MLP(self.channels * self.size**2, [256, 128], 64)
        if self.backbone == "efficientnet-lite0":
            from quickstudy.encoders import efficientnet

            return efficientnet(self.size)
        return Conv4(
            self.channels,
            self.filters,
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
        if self.split in ("vinyals", "vinyals-trainval"):
            return data.vinyals(dataset, validation=self.split == "vinyals")
        if self.split == "maml":
            return data.maml(dataset, seed=self.seed)
        if self.split == "group":
            return data.by_group(dataset, seed=self.seed)
        return data.random_split(dataset, 0.15, 0.2, seed=self.seed)


def learner_options(name: LearnerName) -> dict[str, Any]:
    """The options of a learner, by name, with their types: keywords of its class.

    A network that may be given (Matching's second encoder) is asked for by a flag.
    """
    from torch import nn

    from quickstudy.inner import InnerOptimizer

    _, preset = LEARNERS[name]
    options = {}
    for option, kind in _signature(name).items():
        if option in preset or option in _BY_CONTEXT or kind is nn.Module:
            continue
        if kind is InnerOptimizer:
            kind = InnerName
        options[option] = bool if nn.Module in get_args(kind) else kind
    return options


def _inner_optimizer(name: InnerName, learner: LearnerName) -> Any:
    """SGD, SGD with momentum 0.9, or Adam: Reptile's without first moment, as its paper has it."""
    from quickstudy.inner import SGD, Adam

    if name == "adam":
        return Adam(beta1=0.0 if learner == "reptile" else 0.9)
    return SGD(0.9 if name == "momentum" else 0.0)


def _signature(name: LearnerName) -> dict[str, Any]:
    """The parameters of the learner's class, with their types."""
    from quickstudy import learners

    hints = get_type_hints(getattr(learners, LEARNERS[name][0]).__init__)
    hints.pop("return", None)
    return hints


def _check(name: str, value: Any, kind: Any) -> None:
    """Raise ``ValueError`` unless ``value`` is of ``kind``: a type, a ``Literal``, or a union."""
    allowed = get_args(kind)
    if kind in (int, float, bool, str):
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise ValueError(f"{name} is {value!r}; expected {kind.__name__}")
    elif value is None and type(None) in allowed:
        pass
    elif type(value) not in allowed and value not in allowed:
        expected = (getattr(a, "__name__", a) for a in allowed)
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(str, expected))}")
