"""What builds a learner, as plain values: enough for a file of weights to be opened by itself.

Names become objects here and nowhere else; the library itself is configured by passing modules.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args, get_type_hints

from pydantic import BeforeValidator, Field, model_validator

from quickstudy.experiments.schema import Fields, Schema
from quickstudy.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from quickstudy.learner import MetaLearner

__all__ = ["LEARNERS", "Architecture", "LearnerName", "LearnerSpec", "learner_options"]

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
    "tables",
    "table-transformer",
]
InnerName = Literal["sgd", "momentum", "adam"]
BACKBONES = ("conv4", "r2d2", "resnet12", "wrn-28-10", "mlp", "efficientnet-lite0")
Init = Literal["torch", "glorot", "maml"]
Downsample = Literal["pool", "stride", "stride-flatten"]

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
    "tables": ("TableKernels", {}),
    "table-transformer": ("TableTransformer", {}),
}
"""The class of each name, and the options that the name stands for."""

_BY_CONTEXT = ("outputs", "classes", "regression")


_MOST = {
    "layers": 100,
    "row_layers": 100,
    "inner_steps": 10_000,
    "reading_steps": 100,
    "reads": 1000,
}
"""Of options; 100,000 of any other. A file from a stranger may ask for what no machine can do."""
_MOST_OTHERS = 20
_LITE0 = 4_000_000  # numbers, and some


class Architecture(Fields):
    """What decides how a learner is built, whatever it is trained on.

    ``options`` are keywords of the learner's class, see `learner_options`.
    """

    learner: Annotated[LearnerName, Field(description="What to train.")]
    options: dict[str, Any] = Field(default_factory=dict, description="Of the learner's class.")
    way: Annotated[int, Field(ge=2, le=10_000, description="Classes of a training task.")] = 5
    size: Annotated[int, Field(ge=1, le=2048, description="Height and width of images.")] = 28
    channels: Annotated[Literal[1, 3], Field(description="1 grey, 3 colour.")] = 1
    backbone: Annotated[
        str, Field(description=f"{', '.join(BACKBONES)}, timm:MODEL or hf:MODEL.")
    ] = "conv4"
    backbone_config: dict[str, Any] = Field(
        default_factory=dict, description="What builds timm:MODEL or hf:MODEL again."
    )
    filters: Annotated[
        int, Field(ge=1, le=8192, description="Of each block of Conv4; of ResNet-12's first.")
    ] = 64
    downsample: Annotated[Downsample, Field(description="How Conv4 halves.")] = "pool"
    fit_ink: Annotated[
        bool, Field(description="Drawings: move the ink to the middle, and scale it, first of all.")
    ] = False
    batch_norm: Annotated[
        Policy, Field(description="inductive, or transductive: queries see each other.")
    ] = "inductive"
    norm_scale: Annotated[bool, Field(description="Batch norm learns a scale, too.")] = True
    init: Annotated[
        Init, Field(description="First weights: torch's, Glorot's, or as in MAML's code.")
    ] = "torch"

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if self.backbone not in BACKBONES and not self.is_foreign:
            raise ValueError(
                f"backbone is {self.backbone!r}; expected one of {', '.join(BACKBONES)}, "
                "timm:MODEL, hf:MODEL"
            )
        if (self.backbone == "efficientnet-lite0" or self.is_foreign) and self.channels != 3:
            raise ValueError(f"channels is {self.channels}; {self.backbone} takes photos, of 3")
        if self.fit_ink and self.channels != 1:
            raise ValueError(f"fit_ink is for grey drawings; channels is {self.channels}")
        known = learner_options(self.learner) if self.options else {}
        if self.options and self.counts_classes:
            known["classes"] = int
        for name, value in self.options.items():
            most = _MOST.get(name, 100_000)
            if isinstance(value, int) and value > most:
                raise ValueError(f"{name} is {value}; expected at most {most:,}")
            if name not in known:
                raise ValueError(
                    f"{self.learner} has no option {name!r}; it has: "
                    f"{', '.join(learner_options(self.learner)) or 'none'}"
                )
            _check(name, value, known[name])
        return self

    @property
    def is_foreign(self) -> bool:
        """Whether the network is another library's: ``timm:MODEL`` or ``hf:MODEL``."""
        source, _, model = self.backbone.partition(":")
        return source in ("timm", "hf") and bool(model)

    @property
    def counts_classes(self) -> bool:
        """Whether the learner has an option for the number of training classes."""
        return "classes" in _signature(self.learner)


class LearnerSpec(Architecture, Schema):
    """A learner described: what `build` needs and nothing else, so that any file can carry it.

    Raises:
        ValueError: a value is not one of those allowed; names the field and what was expected.

    Example:
        >>> LearnerSpec(learner="protonet", backbone="mlp").build().max_way is None
        True
    """

    inputs: Annotated[
        Literal["images", "sinusoid", "tables"],
        Field(description="Images, numbers to regress on, or the columns of tables."),
    ] = "images"
    others: Annotated["list[LearnerSpec]", BeforeValidator(lambda value: _described(value))] = (
        Field(
            default_factory=list,
            description="Asked together with it: what is built is an `Ensemble`.",
        )
    )

    @model_validator(mode="after")
    def _one_kind_of_input(self) -> Self:
        for other in self.others:
            for name in ("inputs", "size", "channels"):
                own, its = getattr(self, name), getattr(other, name)
                if own != its:
                    raise ValueError(f"{name} is {own!r} of one member and {its!r} of another")
        return self

    def build(
        self,
        seed: int = 0,
        *,
        at_most: int | None = None,
        encoder: "Mapping[str, Tensor] | None" = None,
    ) -> "MetaLearner":
        """A new, untrained learner; its weights depend on the seed alone.

        Args:
            seed: of the weights.
            at_most: how many numbers it may have. What a file describes has no more than the file
                holds weights; it is counted before any memory is taken. The file has the weights,
                so those of a backbone of timm or Hugging Face are not looked for.
            encoder: weights that its encoder begins with instead, or the body of its network.

        Raises:
            ValueError: it has more.
        """
        import torch

        alone = self.replace(others=[]) if self.others else self
        if at_most is not None:
            count = 0
            for member in (alone, *self.others):
                count += member._count()
                if count > at_most:
                    raise ValueError(
                        f"its description is of a {member.learner} with {count:,} numbers"
                        f"{' in all' if self.others else ''}, and it has weights for {at_most:,}"
                    )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            learner = self._learner(encoder, pretrained=at_most is None)
        learner.described = alone
        if not self.others:
            return learner
        from quickstudy.learners import Ensemble

        several = (other.build(seed + i, at_most=at_most) for i, other in enumerate(self.others, 1))
        return Ensemble([learner, *several])

    def _count(self) -> int:
        """How many numbers its learner has."""
        import torch

        if self.backbone == "efficientnet-lite0":  # which is read from a file, not built
            return _LITE0
        with torch.device("meta"):
            empty = self._learner(pretrained=False)
        return sum(value.numel() for value in empty.state_dict().values())

    def _learner(
        self, weights: "Mapping[str, Tensor] | None" = None, *, pretrained: bool
    ) -> "MetaLearner":
        from quickstudy import learners
        from quickstudy.nn import glorot_

        regression = self.inputs == "sinusoid"
        outputs = 1 if regression else self.way
        name, preset = LEARNERS[self.learner]
        parameters = _signature(self.learner)
        options = {**preset, **self.options}
        if self.counts_classes and "classes" not in options:
            raise ValueError(
                f"{self.learner} needs the option 'classes', the number of training classes"
            )
        context = {"outputs": outputs, "regression": regression}
        options |= {k: v for k, v in context.items() if k in parameters}
        for k, kind in learner_options(self.learner).items():
            if kind is bool and parameters[k] is not bool:  # a module, asked for by a flag
                options[k] = self._encoder(weights, pretrained) if options.get(k) else None
            elif kind is InnerName and k in options:
                options[k] = _inner_optimizer(options[k], self.learner)
        if "network" in parameters:
            options["network"] = self._network(outputs, weights, pretrained)
        elif "encoder" in parameters and "encoder" not in options:
            options["encoder"] = self._encoder(weights, pretrained)
        learner: MetaLearner = getattr(learners, name)(**options)
        if self.init != "torch":
            glorot_(learner, last_normal=self.init == "maml")
        return learner

    def _network(
        self, outputs: int, weights: "Mapping[str, Tensor] | None", pretrained: bool
    ) -> "nn.Module":
        from torch import nn

        from quickstudy.nn import MLP

        if self.inputs == "sinusoid":
            return MLP(1, [40, 40], outputs)
        encoder = self._encoder(weights, pretrained)
        features: Any = encoder.out_features
        return nn.Sequential(encoder, nn.Linear(features, outputs))

    def _encoder(self, weights: "Mapping[str, Tensor] | None", pretrained: bool) -> "nn.Module":
        from torch import nn

        from quickstudy.nn import FitInk

        encoder = network = self._backbone(pretrained)
        if self.fit_ink:
            encoder = nn.Sequential(FitInk(), network)
            encoder.out_features = network.out_features
        if weights is not None:
            encoder.load_state_dict(weights)
        return encoder

    def _backbone(self, pretrained: bool) -> "nn.Module":
        from quickstudy.nn import MLP, Conv4, R2D2Encoder, ResNet12, WideResNet

        if self.inputs == "sinusoid":
            return MLP(1, [40], 40)
        if self.backbone == "mlp":
            return MLP(self.channels * self.size**2, [256, 128], 64)
        if self.backbone == "efficientnet-lite0":
            from quickstudy.encoders import efficientnet

            return efficientnet(self.size)
        if self.is_foreign:
            from quickstudy.foreign import describe, foreign

            about = self.backbone_config
            if pretrained and not about:
                about = describe(self.backbone)
            return foreign(self.backbone, self.size, about, pretrained=pretrained)
        if self.backbone == "resnet12":
            one = self.filters
            widths = (one, 5 * one // 2, 5 * one, 10 * one)
            return ResNet12(self.channels, widths, image_size=self.size, batch_norm=self.batch_norm)
        if self.backbone == "wrn-28-10":
            return WideResNet(self.channels, image_size=self.size, batch_norm=self.batch_norm)
        if self.backbone == "r2d2":
            return R2D2Encoder(
                self.channels, self.filters, image_size=self.size, batch_norm=self.batch_norm
            )
        return Conv4(
            self.channels,
            self.filters,
            image_size=self.size,
            downsample=self.downsample,
            batch_norm=self.batch_norm,
            norm_scale=self.norm_scale,
        )


def _described(members: Any) -> Any:
    """Members of an ensemble, from plain values."""
    if not isinstance(members, list) or len(members) > _MOST_OTHERS:
        raise ValueError(f"others is {members!r:.80}; expected at most {_MOST_OTHERS} learners")
    members = [m.model_dump() if isinstance(m, LearnerSpec) else m for m in members]
    if any(not isinstance(m, dict) or m.get("others") for m in members):
        raise ValueError("others has what is no learner, or is an ensemble itself")
    return [LearnerSpec(**m) for m in members]


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


def _signature(name: LearnerName) -> dict[str, Any]:
    """The parameters of the learner's class, with their types."""
    from quickstudy import learners

    hints = get_type_hints(getattr(learners, LEARNERS[name][0]).__init__)
    hints.pop("return", None)
    return hints


def _inner_optimizer(name: InnerName, learner: LearnerName) -> Any:
    """SGD, SGD with momentum 0.9, or Adam: Reptile's without first moment, as in its paper."""
    from quickstudy.inner import SGD, Adam

    if name == "adam":
        return Adam(beta1=0.0 if learner == "reptile" else 0.9)
    return SGD(0.9 if name == "momentum" else 0.0)


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
