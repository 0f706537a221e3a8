"""Trained learners that come with quickstudy: no training, no download."""

import hashlib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from quickstudy.checkpoint import load_weights
from quickstudy.experiments.card import load_cards
from quickstudy.experiments.recipe import load_recipe, recipe_names

if TYPE_CHECKING:
    from quickstudy.learner import MetaLearner

__all__ = ["load", "shipped"]


def shipped() -> list[str]:
    """The names that `load` knows."""
    return [name for name in recipe_names() if _file(name).is_file()]


def load(name: str) -> "MetaLearner":
    """A trained learner, ready to adapt: ``quickstudy.load("protonet-omniglot")``.

    Each was trained by the recipe of its name and evaluated as its card says, with these very
    weights. They are for drawings of characters: grey, 28x28, ink 1 on paper 0.

    Args:
        name: one of `shipped`.

    Returns:
        The learner in evaluation mode, on the CPU.

    Raises:
        FileNotFoundError: there are no such weights; says which there are.
        ValueError: the file is not the one that the card was written for.

    Example:
        >>> import torch, quickstudy
        >>> learner = quickstudy.load("protonet-omniglot")
        >>> drawings = torch.rand(1, 5, 1, 28, 28)  # one task: an example of each of 5 classes
        >>> phi = learner.adapt(drawings, torch.arange(5)[None], 5)
        >>> learner.predict(phi, drawings).argmax(-1)
        tensor([[0, 1, 2, 3, 4]])
    """
    path = _file(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights of {name!r} come with quickstudy; there are: {', '.join(shipped())}"
        )
    card = load_cards().get(name)
    if card is None or hashlib.sha256(path.read_bytes()).hexdigest() != card.weights:
        raise ValueError(f"{path} is not the file its result card was written for; install again")
    learner = load_recipe(name).experiment().build_learner()
    load_weights(path, learner)
    return learner.eval()


def _file(name: str) -> Path:
    return Path(
        str(resources.files("quickstudy.experiments.recipes") / "weights" / f"{name}.safetensors")
    )
