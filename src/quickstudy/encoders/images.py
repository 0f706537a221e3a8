"""Images as the numbers that they hold."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from quickstudy.encoders.encoder import Array, Kind, bytes_of
from quickstudy.examples import Example
from quickstudy.images import decode_image
from quickstudy.names import is_built_in

__all__ = ["DrawingEncoder", "PixelEncoder", "images_as_they_are"]


class DrawingEncoder:
    """Drawings as the learners of characters take them: ``[1,size,size]``, ink 1 on paper 0.

    An image whose border is light on average is taken for dark ink on light paper, and inverted;
    any other is left alone.

    Args:
        size: height and width.
    """

    kind: Kind = "image"

    def __init__(self, size: int = 28) -> None:
        self.size, self.shape = size, (1, size, size)
        self.name = "drawing" if size == 28 else f"drawing:{size}"
        self.fingerprint = f"drawing {size} 1"

    def __call__(self, examples: Sequence[Example]) -> Array:
        size = (self.size, self.size)
        pixels = np.stack([decode_image(bytes_of(e), e.where, size, 1) for e in examples])
        border = np.ones(size, bool)
        border[1:-1, 1:-1] = False
        light = pixels[:, 0, border].mean(1) > 127.5
        pixels[light] = 255 - pixels[light]
        return pixels.astype(np.float32) / np.float32(255)


class PixelEncoder:
    """Images as `quickstudy train` gave them to a network: ``[channels,size,size]``, 0..1.

    Args:
        size: height and width.
        channels: 3 for RGB, 1 for grey.
        invert: black and white are swapped.
    """

    kind: Kind = "image"

    def __init__(self, size: int, channels: Literal[1, 3] = 3, *, invert: bool = False) -> None:
        self.size, self.channels, self.invert = size, channels, invert
        self.shape = (channels, size, size)
        self.name = f"{'pixels' if channels == 3 else 'inverted' if invert else 'grey'}:{size}"
        self.fingerprint = self.name

    def __call__(self, examples: Sequence[Example]) -> Array:
        size = (self.size, self.size)
        pixels = np.stack(
            [decode_image(bytes_of(e), e.where, size, self.channels) for e in examples]
        )
        return (255 - pixels if self.invert else pixels).astype(np.float32) / np.float32(255)


def images_as_they_are(name: str) -> DrawingEncoder | PixelEncoder | None:
    """The one of that name: ``drawing``, ``drawing:SIZE``, ``pixels:SIZE`` and so on, if it is."""
    source, _, size = name.partition(":")
    if not is_built_in(name) or not (size or source == "drawing"):
        return None
    if source == "drawing":
        return DrawingEncoder(int(size or 28))
    return PixelEncoder(int(size), 3 if source == "pixels" else 1, invert=source == "inverted")
