"""Photos of nothing, as large as photos are, for benchmarks that have no others."""

from pathlib import Path

import numpy as np
from PIL import Image


def photo(rng: np.random.Generator, path: Path) -> None:
    """A JPEG of 500x375."""
    coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
    coarse.resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
