"""What a model has learned, read from its file alone: without torch, the encoder or the learner."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from quickstudy.columns import Columns
from quickstudy.plain import check_there, reading, unpack

__all__ = ["FORMAT", "Summary", "read_summary"]

FORMAT = 2
"""Of what estimators save."""


@dataclass(frozen=True)
class Summary:
    """What a model's file says.

    Attributes:
        kind: of its examples: ``"image"``, ``"text"`` or ``"table"``.
        about: what `quickstudy.model.Model.about` says; ``None`` of a file of an earlier version,
            which is learned anew as it is loaded.
        by_hand: how many examples were added or removed after it was learned.
        label: of a table, the column of labels, if it has another name than usual.
    """

    kind: str
    about: dict[str, Any] | None
    by_hand: int
    label: str | None = None


def read_summary(path: str | os.PathLike[str]) -> Summary:
    """The summary of a file that `quickstudy.model.Model.save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else.
    """
    if Path(path, "run.json").is_file():
        learn = f"quickstudy learn EXAMPLES --head {path}"
        raise ValueError(f"{path} is the folder of a run, and no model: {learn} makes one")
    check_there(path)
    with (
        reading(path, "a safetensors file"),
        open(path, "rb"),  # a folder or a lack of rights is said by its own name
        safe_open(path, framework="np") as file,
    ):
        if (layout := (file.metadata() or {}).get("layout")) is None:
            raise ValueError(f"{path} was not written by quickstudy: it has no layout")
        with reading(path, "a model"):
            state = unpack(json.loads(layout), str)
            if not isinstance(state, dict) or state.get("estimator") != "FewShotClassifier":
                raise ValueError(f"{path} does not hold a FewShotClassifier")
            if (model := state["about"].get("model")) is None:
                raise ValueError(f"{path} holds a classifier without an encoder; expected a model")
            kind = model["kind"] if model.get("kind") in ("text", "table") else "image"
            by_hand, label = model.get("by_hand", 0), model.get("table", {}).get("label")
            if state.get("format") != FORMAT:
                return Summary(kind, None, by_hand, label)
            labels = file.get_tensor(state["support_y"])
            return Summary(kind, _about(model, state, labels), by_hand, label)


def _about(model: dict[str, Any], state: dict[str, Any], labels: Any) -> dict[str, Any]:
    if np.unique(labels).tolist() != [*range(len(state["classes"]))]:
        raise ValueError("support_y does not have an example of each class")
    counts = np.bincount(labels).tolist()
    calibration = state["calibration"]
    for name, value in {**calibration, "false_reject": model["false_reject"]}.items():
        if type(value) not in (int, float, type(None)) or not math.isfinite(value or 0):
            raise ValueError(f"{name} is {value!r}; expected a number")
    table = model.get("table")
    return {
        **({} if table is None else {"columns": Columns.of_plain(table["columns"]).summary()}),
        "encoder": model["encoder"],
        "head": str(state["learner"]),
        "classes": dict(zip(map(str, state["classes"]), counts, strict=True)),
        "prior": state.get("settings", {}).get("prior", "alike"),
        "temperature": calibration["temperature_"],
        "held_out": calibration["held_out_"],
        "expected_calibration_error": calibration["calibration_error_"],
        "held_out_accuracy": calibration["held_out_accuracy_"],
        "false_reject": model["false_reject"],
        "threshold": calibration["threshold_"],
    }
