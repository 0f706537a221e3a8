"""Trained learners: those that come with quickstudy, of run folders, and of files of weights."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from quickstudy.checkpoint import count_weights, load_weights, weights_about
from quickstudy.experiments.card import load_cards
from quickstudy.experiments.recipe import shipped, weights_file
from quickstudy.experiments.run import load_run
from quickstudy.experiments.spec import Experiment, LearnerSpec
from quickstudy.hub import WEIGHTS

if TYPE_CHECKING:
    from quickstudy.learner import MetaLearner

__all__ = ["load", "load_described", "shipped", "taken_images"]


def load(source: str | os.PathLike[str]) -> "MetaLearner":
    """A trained learner, ready to adapt: ``quickstudy.load("protonet-omniglot")``.

    Shipped weights were trained by the recipe of their name, and evaluated as its card says. They
    are for drawings of characters: grey, 28x28, ink 1 on paper 0.

    Args:
        source: one of `shipped`, a run folder, a folder of `MetaLearner.save_pretrained`, or a file
            of weights (of a run or of `quickstudy reproduce`), which says itself what learner they
            belong to.

    Returns:
        The learner in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: there is nothing of that name; lists what is shipped.
        ValueError: the file is damaged, does not describe its learner, or is not the one that the
            card was written for.

    Example:
        >>> import torch, quickstudy
        >>> learner = quickstudy.load("protonet-omniglot")
        >>> drawings = torch.rand(1, 5, 1, 28, 28)  # one task: an example of each of 5 classes
        >>> phi = learner.adapt(drawings, torch.arange(5)[None], 5)
        >>> learner.predict(phi, drawings).argmax(-1)
        tensor([[0, 1, 2, 3, 4]])
    """
    return load_described(source)[1]


def load_described(source: str | os.PathLike[str]) -> tuple[LearnerSpec, "MetaLearner"]:
    """What `load` gives, with the description from which it was built."""
    path = Path(source)
    if (path / WEIGHTS).is_file():
        return _opened(path / WEIGHTS)
    name = os.fspath(source)
    hidden = name in shipped() and not (path / "run.json").is_file()  # of that name, and no run
    if path.is_dir() and not hidden:
        experiment, learner = load_run(path)
        return experiment.learner_spec(), learner.eval()
    if path.is_file() and not hidden:
        return _opened(path)
    path = weights_file(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"{name} is neither a run folder nor a file, and no weights of {name!r} come with "
            f"quickstudy; there are: {', '.join(shipped())}"
        )
    card = load_cards().get(name)
    if card is None or hashlib.sha256(path.read_bytes()).hexdigest() != card.weights:
        raise ValueError(f"{path} is not the file its result card was written for; install again")
    return _opened(path)


def taken_images(source: str | os.PathLike[str]) -> str | None:
    """The name of the encoder (`quickstudy.encoders.load_encoder`) that gives what a learner takes.

    Args:
        source: as for `load`.

    Returns:
        ``None`` if it takes no images.
    """
    spec = load_described(source)[0]
    if spec.inputs != "images":
        return None
    if spec.channels == 3:
        return f"pixels:{spec.size}"
    if Path(source).is_dir() and not Path(source, WEIGHTS).is_file():
        experiment = Experiment.load(source)
        if experiment.data == "folder":
            return f"{'inverted' if experiment.invert else 'grey'}:{spec.size}"
    return "drawing" if spec.size == 28 else f"drawing:{spec.size}"


def _opened(path: Path) -> tuple[LearnerSpec, "MetaLearner"]:
    """The learner that a file of weights describes; nothing but that file is read."""
    about = weights_about(path)
    if about is None and path.suffix == ".qs":
        raise ValueError(f"{path} holds a task that was learned: use FewShotClassifier.load")
    if about is None:
        raise ValueError(
            f"{path} does not say what learner its weights belong to: load the run folder, or "
            "build the learner and give it the weights by quickstudy.checkpoint.load_weights"
        )
    try:
        spec = LearnerSpec(**about)
        learner = spec.build(at_most=count_weights(path))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} describes no learner that can be built: {error}") from error
    load_weights(path, learner)
    return spec, learner.eval()
