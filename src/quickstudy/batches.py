"""A model for engines that hand out batches of a table, such as Ray Data."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quickstudy.columns import Row
from quickstudy.examples import Example
from quickstudy.model import Model

__all__ = ["Predictor"]

Array = NDArray[Any]


class Predictor:
    """Batches of examples to batches of answers, row by row; the model is loaded once.

    Args:
        model: a file that `quickstudy learn` wrote, where each worker finds it.
        device: where to compute, see `quickstudy.devices.find_device`.

    A batch is a dict of columns ``[n]``: ``path``, and ``bytes`` of images or ``text``, or the
    columns of a table (``path`` then only says what to call each row). Its answer
    has the columns ``path``, ``label`` (empty for "unknown"), ``probability``, and ``fault``: what
    is wrong with an example that cannot be read, which then has no label.
    """

    def __init__(self, model: str | os.PathLike[str], device: str = "cpu") -> None:
        self.model = Model.load(model, device=device)

    def __call__(self, batch: dict[str, Array]) -> dict[str, Array]:
        rows = zip(batch["path"], self._items(batch), strict=True)
        examples = [Example(item, None, str(path)) for path, item in rows]
        failed: list[str] = []
        found = [*self.model.predict(examples, failed=failed)]
        if failed:  # one by one, to know which
            each = [self._alone(example) for example in examples]
        else:
            each = [(answer.label or "", answer.probability, "") for answer in found]
        labels, probabilities, faults = zip(*each, strict=True) if each else ((), (), ())
        return {
            "path": batch["path"],
            "label": np.array(labels, dtype=object),
            "probability": np.array(probabilities, dtype=np.float64),
            "fault": np.array(faults, dtype=object),
        }

    def _items(self, batch: dict[str, Array]) -> Iterable[bytes | str | Row]:
        if self.model.encoder.kind != "table":
            return batch["bytes" if self.model.encoder.kind == "image" else "text"]
        names = [name for name in batch if name != "path"]
        each = zip(*(batch[name] for name in names), strict=True)
        return [dict(zip(names, values, strict=True)) for values in each]

    def _alone(self, example: Example) -> tuple[str, float, str]:
        failed: list[str] = []
        for answer in self.model.predict([example], failed=failed):
            return answer.label or "", answer.probability, ""
        return "", 0.0, failed[0]
