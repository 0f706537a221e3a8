"""Handwritten digits that come with scikit-learn: a first dataset that needs no download."""

import numpy as np
from PIL import Image

from quickstudy.data.dataset import ClassDataset

__all__ = ["digits"]


_PAPER, _INK = 0.3, 0.6  # greys that become white and black


def digits(*, size: int = 28) -> ClassDataset:
    """Load 1797 handwritten digits as uint8 ``[1797,1,size,size]``, ink bright on 0.

    Classes are named ``"0"`` to ``"9"``. The originals are 8x8 with 17 grey levels (UCI "Optical
    Recognition of Handwritten Digits"); they are enlarged (bicubic) to 20/28 of ``size`` and
    centred, the margin MNIST and Omniglot have.

    The originals are blurred to grey; contrast is raised so that strokes are as crisp as a pen's.

    Args:
        size: side of the images.

    Raises:
        ValueError: ``size`` is below 8.

    Example:
        >>> digits()
        ClassDataset(10 classes, 1797 examples [1, 28, 28] uint8)
    """
    from sklearn.datasets import load_digits

    if size < 8:
        raise ValueError(f"size is {size}; expected at least 8, the size of the originals")
    images, labels = load_digits(return_X_y=True)
    padded = np.pad(images.reshape(-1, 8, 8) * (255 / 16), ((0, 0), (2, 2), (2, 2)))
    edge = 6 - 4 * 28 / 20
    box = (edge, edge, 12 - edge, 12 - edge)
    out = np.empty((len(images), 1, size, size), np.uint8)
    for i, image in enumerate(padded.astype(np.float32)):
        large = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box)
        ink = (np.asarray(large) / 255 - _PAPER) / (_INK - _PAPER)
        out[i, 0] = (255 * ink.clip(0, 1)).round()
    return ClassDataset.from_arrays(out, labels)
