"""A task that was put together live as a file, for `quickstudy predict` and for ONNX Runtime."""

import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from quickstudy.app.unknown import FALSE_REJECT
from quickstudy.encoders import Encoder
from quickstudy.estimator import Classifier
from quickstudy.export import export_onnx
from quickstudy.model import Model

__all__ = ["Format", "model_file"]

Format = Literal["qs", "onnx"]


def model_file(encoder: Encoder, head: str, x: Any, labels: list[str], form: Format) -> bytes:
    """A `Model` of these examples, calibrated, as a file's content.

    Args:
        encoder: what gave the numbers.
        head: see `Model.learn`.
        x: numbers of each example ``[n,...]``.
        labels: of each.
        form: ``"qs"``, what `Model.save` writes; ``"onnx"``, what `export_onnx` does.

    Raises:
        ValueError: there are fewer than two classes.
        ModuleNotFoundError: a package for ONNX is not installed.
    """
    if len({*labels}) < 2:
        raise ValueError("a model needs examples of two classes")
    classifier = Classifier(head).fit(x, labels).calibrate(FALSE_REJECT)
    model = Model(encoder, classifier, FALSE_REJECT)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{form}"
        if form == "qs":
            model.save(path)
        else:
            export_onnx(deepcopy(model), path)  # others use the network while it is traced
        return path.read_bytes()
