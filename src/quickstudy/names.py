"""What a user may name: told from what nobody may, before anything heavy is imported."""

import os
import re
from typing import Literal

__all__ = ["HEAD_NAMES", "Prior", "absent_encoder", "check_names", "is_built_in"]

HEAD_NAMES = ("logistic", "ridge", "centroid", "proto-maml", "photo", "sentence")
"""Of heads that learn from features, with weights of their own or without."""

Prior = Literal["alike", "examples"]
"""How frequent classes are in what is to be answered: alike, or as among the examples."""

_FOREIGN = ("timm", "hf", "sentence")
_PIXELS = ("drawing", "pixels", "grey", "inverted")
_LARGEST = 2048  # side of an image


def is_built_in(encoder: str) -> bool:
    """Whether an encoder of that name is part of quickstudy."""
    source, _, size = encoder.partition(":")
    if source in _PIXELS and size.isdecimal():
        return 0 < int(size) <= _LARGEST
    return encoder in ("drawing", "efficientnet-lite0", "minilm")


def absent_encoder(name: str) -> ValueError:
    """That there is no encoder of that name."""
    return ValueError(
        f"there is no encoder {name!r}; there are: drawing, efficientnet-lite0, minilm, "
        "timm:MODEL, hf:MODEL, sentence:MODEL, pixels:SIZE, and what you trained, by its path"
    )


def check_names(
    *, encoder: str | None = None, head: str | None = None, device: str | None = None
) -> None:
    """Refuse what cannot be, whatever is installed; what can be may still not be here.

    Raises:
        ValueError: there is no such encoder or device.
        FileNotFoundError: there is no such head.
    """
    if encoder is not None and not is_built_in(encoder) and not os.path.exists(encoder):
        source, _, model = encoder.partition(":")
        if source not in _FOREIGN or not model:
            raise absent_encoder(encoder)
    if head is not None and head not in HEAD_NAMES and not os.path.exists(head):
        from quickstudy.experiments.recipe import shipped

        if head not in shipped():
            raise FileNotFoundError(
                f"there is no head {head!r}; there are: {', '.join((*HEAD_NAMES, *shipped()))}, "
                "and what you trained, by its path"
            )
    if device is not None and not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise ValueError(
            f"there is no device {device!r} here; expected auto, cpu, cuda, cuda:1 or mps"
        )
