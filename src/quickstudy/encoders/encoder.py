"""What every encoder is: raw examples to numbers, and what its answers are known by."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quickstudy.columns import Row
from quickstudy.examples import Example

__all__ = [
    "Array",
    "Encoder",
    "Fingerprint",
    "Kind",
    "bytes_of",
    "fingerprint_of",
    "row_of",
    "text_of",
]

Array = NDArray[np.float32]
Kind = Literal["image", "text", "table"]


class Encoder(Protocol):
    """Raw examples to numbers.

    Attributes:
        name: what `load_encoder` finds it by.
        kind: what it takes: ``"image"`` (the bytes of an image file), ``"text"``, or ``"table"``
            (a row of one).
    """

    name: str
    kind: Kind

    @property
    def fingerprint(self) -> str:
        """Changes whenever its answers would."""

    def __call__(self, examples: Sequence[Example]) -> Array:
        """Numbers ``[n,...]`` of ``n`` examples."""
        ...


class Fingerprint:
    """Of a module's weights as they are now, and of what is said of it.

    It is worked out again when one of them has been changed or replaced.

    Args:
        module: what has the weights.
    """

    def __init__(self, module: Any) -> None:
        self._module = module
        self._last: tuple[object, str] = None, ""

    def __call__(self, about: str) -> str:
        state: dict[str, Tensor] = getattr(self._module, "state_dict", dict)()
        now = (
            about,
            [
                (name, z.data_ptr(), None if z.is_inference() else z._version)
                for name, z in state.items()
            ],
        )
        if now != self._last[0]:
            self._last = now, fingerprint_of(self._module, about)
        return self._last[1]


def fingerprint_of(module: Any, about: str) -> str:
    """SHA-256 of what is said of a module, and of its weights."""
    digest = hashlib.sha256(about.encode())
    for name, value in getattr(module, "state_dict", dict)().items():
        digest.update(f"{name} {list(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def bytes_of(example: Example) -> bytes:
    """The image file that an example is; raises ``ValueError`` if it is something else."""
    if isinstance(example.item, str):
        raise ValueError(
            f"{example.where} is a text, or an image that is not there; this encoder takes images"
        )
    if isinstance(example.item, bytes):
        return example.item
    raise ValueError(f"{example.where} is a row of a table; this encoder takes images")


def text_of(example: Example) -> str:
    """The text that an example is; raises ``ValueError`` if it is something else."""
    if isinstance(example.item, str):
        return example.item
    what = "an image" if isinstance(example.item, bytes) else "a row of a table"
    raise ValueError(f"{example.where} is {what}; this encoder takes sentences")


def row_of(example: Example) -> Row:
    """The row that an example is; raises ``ValueError`` if it is something else."""
    if isinstance(example.item, Mapping):
        return example.item
    what = "an image" if isinstance(example.item, bytes) else "a text"
    raise ValueError(f"{example.where} is {what}; this model takes rows of a table")
