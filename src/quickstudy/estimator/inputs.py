"""Examples in arrays to what a learner takes."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quickstudy.learner import MetaLearner

__all__ = ["Array", "as_floats", "image_shape", "inputs_of", "plain", "scale_of", "white_of"]

Array = NDArray[Any]


def image_shape(learner: nn.Module) -> tuple[int, ...] | None:
    """The shape of the images that a learner was built for; ``None`` if it takes features."""
    shapes = (getattr(module, "input_shape", None) for module in learner.modules())
    return next((tuple(shape) for shape in shapes if shape), None)


def plain(x: Array) -> Array:
    """Numbers as torch takes them: contiguous, of this machine's byte order, 64 bits at most."""
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        x = x.astype(np.float64)
    return np.ascontiguousarray(x, x.dtype.newbyteorder("="))


def as_floats(x: Array) -> Array:
    """Raise ``ValueError`` for what is no number; ``None`` is one that is missing."""
    try:
        return x.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{error}; this was fitted with numbers alone") from error


def scale_of(x: Array) -> tuple[Array, Array]:
    """The mean and standard deviation of each column ``[1,F]``, 1 where all are alike."""
    here = np.isfinite(x)
    count = np.maximum(here.sum(0, keepdims=True), 1)
    largest = np.where(here, np.abs(x), 0).max(0, keepdims=True)
    largest = np.where(largest > 0, largest, 1.0)  # whatever the unit: no square overflows
    z = np.where(here, x / largest, 0.0)
    mean = z.sum(0, keepdims=True) / count
    spread = np.sqrt((np.where(here, z - mean, 0.0) ** 2).sum(0, keepdims=True) / count)
    return mean * largest, np.where(spread > 1e-12, spread, 1.0) * largest


def white_of(learner: MetaLearner, x: Array) -> float:
    """What is white in these images: 255 in whole numbers, else 1; 1 for features, too.

    Raises:
        ValueError: the learner takes images, and these go beyond.
    """
    if image_shape(learner) is None:
        return 1.0
    low, high = float(x.min()), float(x.max())
    white = 255.0 if x.dtype.kind in "iu" and high > 1 else 1.0
    if low < 0 or high > white * (1 + 1e-6):
        raise ValueError(
            f"these images go from {low:g} to {high:g}; this {type(learner).__name__} takes 0 to 1 "
            "(or whole numbers from 0 to 255)"
        )
    return white


def inputs_of(learner: MetaLearner, x: Array, white: float, device: torch.device) -> Tensor:
    """Examples as the learner takes them: its type of number, and the shape of its images."""
    exact = torch.float32 if device.type == "mps" else torch.float64  # mps has no other
    numbers = next((p.dtype for p in learner.parameters() if p.is_floating_point()), exact)
    if learner.takes_missing:  # values as they are, in any unit
        numbers = exact
    inputs = torch.tensor(x, dtype=numbers).div_(white).to(device)
    shape = image_shape(learner)
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        if int(np.prod(x.shape[1:])) != int(np.prod(shape)):
            raise ValueError(
                f"this {type(learner).__name__} takes images of shape {list(shape)} (channels, "
                f"height, width), or flat; these examples are {list(x.shape[1:])}"
            )
        inputs = inputs.reshape(len(x), *shape)
    return inputs
