"""What a run is told by, so that it goes on with the learner and the tasks it began with."""

import hashlib
import math
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from quickstudy.learner import MetaLearner
from quickstudy.task import Task

__all__ = ["check_same", "identity"]


def identity(
    learner: MetaLearner, optimizer: Optimizer, first: Task, again: Task
) -> dict[str, Any]:
    """The kinds of a learner and its optimiser, and the first of its tasks in a few numbers.

    A source that gives another first task when asked ``again`` cannot be told by it, and is not.
    """
    known: dict[str, Any] = {
        "learner": type(learner).__name__,
        "optimizer": type(optimizer).__name__,
    }
    values = _values(first)
    pairs = zip(values, _values(again), strict=True)
    if all(a.shape == b.shape and a.equal(b) for a, b in pairs):
        digest = hashlib.sha256()
        for x in values:
            digest.update(str([*x.shape]).encode())
            if not x.is_floating_point():
                digest.update(x.contiguous().numpy().tobytes())
        known["labels"] = digest.hexdigest()[:16]
        known["examples"] = [float(x.double().mean()) for x in values if x.is_floating_point()]
    return known


def check_same(
    saved: dict[str, Any] | None, now: dict[str, Any] | None, folder: Path | None
) -> None:
    """Raise ``ValueError`` unless both `identity` are of one run, as far as can be told.

    Older checkpoints have none.
    """
    if saved is None or now is None:
        return
    for kind in ("learner", "optimizer"):
        if saved[kind] != now[kind]:
            raise ValueError(
                f"{folder} holds a run with the {kind} {saved[kind]}, and this one has "
                f"{now[kind]}: choose another folder"
            )
    if "labels" not in saved or "labels" not in now:
        return
    pairs = [*zip(saved["examples"], now["examples"], strict=False)]
    if saved["labels"] != now["labels"]:
        differ = "seed, way, shot, number or classes"
    elif not all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) for a, b in pairs):
        differ = "examples"
    else:
        return
    raise ValueError(
        f"{folder} holds a run on tasks of other {differ} than these: give those it began with, or "
        "choose another folder"
    )


def _values(task: Task) -> list[Tensor]:
    values = (*task.tensors(), *(() if task.classes is None else (task.classes,)))
    return [x.cpu().nan_to_num() if x.is_floating_point() else x.cpu() for x in values]
