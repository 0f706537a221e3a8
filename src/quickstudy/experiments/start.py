"""Learners made of others that are trained: that begin with an encoder, or ask several.

The first is the ``start`` of an `Experiment`, the second the ``members`` of a recipe.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from quickstudy.embedding import NormedEncoder
from quickstudy.experiments.run import changed_data
from quickstudy.experiments.spec import Experiment
from quickstudy.experiments.targets import find_target, trained_by
from quickstudy.nn.norm import batch_norm_policy

if TYPE_CHECKING:
    from quickstudy.data import TaskSource
    from quickstudy.learner import MetaLearner
    from quickstudy.learners import Ensemble

__all__ = [
    "ask_together",
    "build_started",
    "check_unseen",
    "keep_encoder",
    "look_once",
    "looking_once_pays",
]

_ENCODER = ("backbone", "size", "channels", "filters", "downsample", "norm_scale", "fit_ink")


def build_started(experiment: Experiment, start: str) -> "MetaLearner":
    """A new learner as `Experiment.build_learner` makes it, but for its encoder's first weights.

    MAML and its like begin with them in their network below its last layer, matching networks with
    two encoders in both.

    Args:
        experiment: to build the learner of.
        start: a run folder, or weights that come with quickstudy.

    Raises:
        FileNotFoundError: ``start`` is neither; lists the names there are.
        ValueError: it has learned no encoder, or one that does not fit; or it has seen classes
            that the experiment validates or tests on.
    """
    source, trained = find_target(start)
    if not (experiment.has_classes and source.has_classes):
        raise ValueError("start is an encoder of images; sinusoids and tables have none")
    if experiment.init != "torch":
        raise ValueError(f"start brings the first weights, and init={experiment.init} others")
    weights = _encoder(trained, start).state_dict()
    for name in _ENCODER:
        theirs, ours = getattr(source, name), getattr(experiment, name)
        if theirs != ours:
            raise ValueError(
                f"the encoder of {start} does not fit: its {name} is {theirs!r}, and here it is "
                f"{ours!r}"
            )
    check_unseen(experiment, start)
    learner = experiment.learner_spec().build(experiment.seed, encoder=weights)
    if not _learns(learner):
        raise ValueError(f"{experiment.learner} trains nothing that could begin with {start}")
    return learner


def ask_together(
    experiment: Experiment,
    found: Iterable[tuple[str, Experiment, "MetaLearner"]],
    *,
    unseen: bool = True,
) -> "Ensemble":
    """Trained learners as one, to be tested on the data of an experiment.

    Args:
        experiment: on whose data.
        found: names of targets, each with what `find_target` finds of it.
        unseen: make sure that none of them was trained on classes that the experiment holds out.

    Raises:
        ValueError: one is named twice, takes other images, or has seen classes that are held out.
    """
    from quickstudy.learners import Ensemble

    members = dict[str, "MetaLearner"]()
    for name, source, learner in found:
        if name in members:
            raise ValueError(f"{name} is named twice")
        for field in ("inputs", "size", "channels", "invert"):
            its, expected = getattr(source, field), getattr(experiment, field)
            if its != expected:
                raise ValueError(f"{name} does not fit: {field} is {its!r}, and here {expected!r}")
        if unseen and experiment.has_classes:
            check_unseen(experiment, name)
        members[name] = learner
    return Ensemble(members.values())


def keep_encoder(learner: "MetaLearner") -> nn.Module:
    """From now on all of a learner is trained but its encoder, which answers as in evaluation.

    Examples may come as the vectors that it makes of them (`quickstudy.data.embedded`), and are
    then taken as they are.

    Returns:
        The encoder; where the learner has two, the support's.

    Raises:
        ValueError: it adapts its encoder to each task, or has nothing else to train.
    """
    own = (getattr(learner, name, None) for name in ("encoder", "query_encoder"))
    encoders = [e[0] if isinstance(e, NormedEncoder) else e for e in own if e is not None]
    for encoder in encoders:
        encoder.requires_grad_(False)
        encoder.register_forward_pre_hook(lambda module, _: module.eval() and None)
        _take_vectors(encoder)
    if not encoders or not _learns(learner):
        name = type(learner).__name__
        raise ValueError(f"keep_encoder: a {name} has no encoder with more to train beside it")
    return encoders[0]


def looking_once_pays(experiment: Experiment, encoder: nn.Module, tasks: "TaskSource") -> bool:
    """Whether a training has less work with the vectors of an encoder that is kept (`look_once`).

    Not where an image's vector is another each time, or most images are never drawn.
    """
    from quickstudy.data import EpisodeSampler

    if batch_norm_policy(encoder) == "transductive" or not isinstance(tasks, EpisodeSampler):
        return False
    a_task = experiment.way * (experiment.shot + experiment.query)
    return experiment.steps * experiment.tasks * a_task >= tasks.dataset.n_examples


def look_once(
    encoder: nn.Module, *tasks: "TaskSource | None", say: Callable[[str], object]
) -> None:
    """Put the vectors of an encoder that is kept in the place of images.

    Args:
        encoder: what `keep_encoder` returned.
        tasks: changed in place, where they are dealt from images.
        say: told of it.
    """
    from quickstudy.data import EpisodeSampler, embedded

    samplers = [sampler for sampler in tasks if isinstance(sampler, EpisodeSampler)]
    images = sum(sampler.dataset.n_examples for sampler in samplers)
    say(f"the encoder that is kept sees {images} images, once")
    for sampler in samplers:
        sampler.dataset = embedded(sampler.dataset, encoder)


def _take_vectors(encoder: nn.Module) -> None:
    """Let an encoder return vectors ``[n,D]`` unchanged; its weights keep their names."""
    kind = type(encoder)

    def forward(self: nn.Module, x: Tensor) -> Tensor:
        return x if x.dim() == 2 else kind.forward(self, x)

    encoder.__class__ = type(kind.__name__, (kind,), {"forward": forward})


def _encoder(learner: "MetaLearner", name: str) -> nn.Module:
    """What the learner has learned to see with."""
    encoder, network = getattr(learner, "encoder", None), getattr(learner, "network", None)
    if getattr(learner, "norms", None):
        raise ValueError(f"{name} has a batch norm for every inner step, and no one encoder")
    if isinstance(encoder, NormedEncoder):
        encoder = encoder[0]
    elif isinstance(network, nn.Sequential):
        encoder = network[0]
    if not isinstance(encoder, nn.Module) or not _learns(learner):
        raise ValueError(f"{name} has learned no encoder to begin with")
    return encoder


def _learns(learner: "MetaLearner") -> bool:
    return any(p.requires_grad for p in learner.parameters())


def check_unseen(experiment: Experiment, start: str | None) -> None:
    """Raise ``ValueError`` if ``start``, or what it began with, was trained on classes held out."""
    parts = experiment.splits.parts().items()
    held_out = {root for part, classes in parts if part != "train" for root in classes.roots}
    while start is not None:
        source = trained_by(start)
        if source is None:
            return
        if source.invented and experiment.data == "alphabets":
            _refuse(held_out & {*_invented(source)}, start, experiment)
        if source.data == experiment.data:
            if source.data == "omniglot":
                source = source.replace(root=experiment.root)
            if Path(start).exists() and (difference := changed_data(source, start)):
                raise ValueError(f"{difference}; what it has seen cannot be told")
            _refuse(held_out & {*source.splits.train.roots}, start, experiment)
        start = source.start


def _invented(source: Experiment) -> tuple[str, ...]:
    """The synthetic characters that were added to what it was trained on."""
    from quickstudy.data import alphabets

    return alphabets(source.invented, n_examples=1, size=8, seed=source.seed).roots


def _refuse(seen: set[str], start: str, experiment: Experiment) -> None:
    if seen:
        raise ValueError(
            f"{start} was trained on {len(seen)} of the classes that this split "
            f"({experiment.splits.name}) holds out, such as {min(seen)!r}: take one that was "
            "trained on the same split"
        )
