"""Measure what the head "photo" subtracts: the mean feature of many photos.

    python tools/average_photo.py DATA_FOLDER

takes the first 60 photos of each of the first 50 classes, by name, of
``tiny-imagenet-dev100x150.zip`` and writes ``src/quickstudy/average_photo.json``: the mean of their
EfficientNet-Lite0 features, each made a unit vector. The other 50 classes are kept for tests.
"""

import json
import sys
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from quickstudy.checkpoint import write_atomically
from quickstudy.encoders import FeatureCache, encode, load_encoder
from quickstudy.examples import read_examples

OUT = Path(__file__).parents[1] / "src/quickstudy/average_photo.json"
PHOTOS, CLASSES = 60, 50


def main(root: str) -> None:
    data = Path(root) / "tiny-imagenet-dev100x150.zip"
    by_class = groupby(sorted(read_examples(data), key=lambda e: e.label or ""), lambda e: e.label)
    photos = [e for _, group in islice(by_class, CLASSES) for e in islice(group, PHOTOS)]
    z = np.stack(
        [z for _, z in encode(load_encoder("efficientnet-lite0"), photos, cache=FeatureCache())]
    )
    mean = (z / np.linalg.norm(z, axis=1, keepdims=True)).mean(0)
    about = {
        "what": "mean unit feature of photos by EfficientNet-Lite0, 224x224",
        "data": f"Tiny-ImageNet, {len(photos)} photos of {CLASSES} classes",
        "command": "python tools/average_photo.py DATA_FOLDER",
        "mean": [round(float(v), 5) for v in mean],
    }
    write_atomically(OUT, json.dumps(about) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
