"""Scikit-learn's handwritten digits, and other drawings as their scanner would see them."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from quickstudy.data.dataset import ClassDataset

__all__ = ["digits", "scanned"]

_PAPER, _INK = 0.3, 0.6  # greys that become white and black when an image is enlarged
_DARK = 0.35  # grey above which the scanner sees ink


def digits(*, size: int = 28, margin: float = 4 / 28, crisp: bool = True) -> ClassDataset:
    """The 1797 handwritten digits that come with scikit-learn, uint8 ``[1797,1,size,size]``.

    Alpaydin & Kaynak (1998), UCI Optical Recognition of Handwritten Digits, test part: the
    originals are 8x8 with 17 grey levels. They are enlarged smoothly and stand centred, with ink
    255 on paper 0.

    Args:
        size: side of the images.
        margin: blank part on each side; the default is that of MNIST and of Omniglot.
        crisp: raise the contrast, so that strokes are as sharp as a pen's.

    Raises:
        ValueError: ``size`` is below 8, or ``margin`` is not in 0..0.4.

    Example:
        >>> digits()
        ClassDataset(10 classes, 1797 examples [1, 28, 28] uint8)
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    counts = torch.from_numpy(images).float().view(-1, 8, 8)
    return ClassDataset.from_arrays(_enlarge(counts, size, margin, crisp), labels)


def scanned(
    dataset: ClassDataset, *, size: int = 28, margin: float = 4 / 28, crisp: bool = True
) -> ClassDataset:
    """Other drawings, made as small and grey as the digits are: the same classes.

    What was done to the digits is done to ``dataset``: each drawing is fitted to 32x32, made
    black and white, its ink is counted in blocks of 4x4, and the 8x8 counts are enlarged as
    `digits` enlarges them. A learner trained on these meets nothing new in the digits but the
    digits.

    Args:
        dataset: grey images uint8 ``[1,H,W]``, ink 255, none of them turned (`rotated` later).
        size: side of the images.
        margin: blank part on each side.
        crisp: raise the contrast.

    Raises:
        ValueError: the examples are not such images.
    """
    if len(dataset.shape) != 3 or dataset.shape[0] != 1 or dataset.storage.dtype != torch.uint8:
        raise ValueError(f"only grey uint8 images can be scanned, not {dataset}")
    if dataset.turns is not None:
        raise ValueError("scan the classes before they are rotated")
    rows = [
        slice(int(first), int(first + n))
        for first, n in zip(dataset.first, dataset.sizes, strict=True)
    ]
    storage = torch.cat([dataset.storage[r] for r in rows])
    counts = torch.cat([_scan(chunk.float() / 255) for chunk in torch.split(storage, 2048)])
    return ClassDataset.from_sizes(
        _enlarge(counts, size, margin, crisp), dataset.sizes, dataset.names, dataset.groups
    )


def _scan(x: Tensor) -> Tensor:
    """Ink counts 0..16 ``[M,8,8]`` of images 0..1 ``[M,1,H,W]``, each fitted to its frame."""
    H, W = x.shape[2:]
    ink = x[:, 0] > _DARK
    ink[:, H // 2, W // 2] |= ~ink.flatten(1).any(1)
    boxes = []
    for seen, n in ((ink.any(1), W), (ink.any(2), H)):
        low = seen.float().argmax(1)
        high = n - seen.flip(1).float().argmax(1)
        boxes.append((low, high))
    side = torch.maximum(*(high - low for low, high in boxes))
    theta = x.new_zeros(len(x), 2, 3)
    for axis, ((low, high), n) in enumerate(zip(boxes, (W, H), strict=True)):
        theta[:, axis, axis] = side / n
        theta[:, axis, 2] = (low + high) / n - 1
    grid = F.affine_grid(theta, [len(x), 1, 32, 32], align_corners=False)
    fitted = F.grid_sample(x, grid, align_corners=False)
    return 16 * F.avg_pool2d((fitted > _DARK).float(), 4)[:, 0]


def _enlarge(counts: Tensor, size: int, margin: float, crisp: bool) -> Tensor:
    """Counts 0..16 ``[M,8,8]`` as images uint8 ``[M,1,size,size]``."""
    if size < 8:
        raise ValueError(f"size is {size}; expected at least 8, the size of the originals")
    if not 0 <= margin <= 0.4:
        raise ValueError(f"margin is {margin}; expected 0 to 0.4 of the size")
    edge = 4 / (1 - 2 * margin)
    pad = int(np.ceil(edge - 4))
    low, high = 4 + pad - edge, 4 + pad + edge
    paper, ink = (_PAPER, _INK) if crisp else (0, 1)
    padded = np.pad(counts.numpy() / 16, ((0, 0), (pad, pad), (pad, pad)))
    out = np.empty((len(padded), 1, size, size), np.uint8)
    for i, image in enumerate(padded.astype(np.float32)):
        large = Image.fromarray(image).resize(
            (size, size), Image.Resampling.BICUBIC, (low, low, high, high)
        )
        out[i, 0] = (255 * ((np.asarray(large) - paper) / (ink - paper)).clip(0, 1)).round()
    return torch.from_numpy(out)
