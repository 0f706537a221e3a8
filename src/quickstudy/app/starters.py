"""Photos to start from: parts of the two that scikit-learn carries."""

import base64
import io
from functools import cache
from typing import Any

from PIL import Image

__all__ = ["photos"]

_CREDIT = (
    "Parts of china.jpg by danielbuechele and flower.jpg by vultilion, both flickr.com, CC BY 2.0; "
    "they come with scikit-learn."
)
_PARTS = {
    "palace": ("china.jpg", ((40, 10, 340, 310), (60, 130, 350, 420))),
    "flower": ("flower.jpg", ((150, 70, 460, 380), (210, 130, 430, 350))),
}
_ASKED = ("china.jpg", (70, 60, 340, 330))
_SIDE = 224


@cache
def photos() -> dict[str, Any]:
    """``examples``, of a ``label`` and an ``image`` each; one to ``ask``; and their ``credit``."""
    examples = [
        {"label": label, "image": _part(file, box)}
        for label, (file, boxes) in _PARTS.items()
        for box in boxes
    ]
    return {"examples": examples, "ask": {"image": _part(*_ASKED)}, "credit": _CREDIT}


def _part(name: str, box: tuple[int, int, int, int]) -> str:
    from sklearn.datasets import load_sample_image

    file, image = io.BytesIO(), Image.fromarray(load_sample_image(name)).crop(box)
    image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
