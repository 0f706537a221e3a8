"""A run's folder: the names of its files, and that no other run is written over."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from quickstudy.checkpoint import load_state, save_weights, write_atomically
from quickstudy.learner import MetaLearner
from quickstudy.plain import to_json

__all__ = [
    "BEST",
    "CHECKPOINT",
    "FINAL",
    "check_free",
    "describe",
    "save_untrained",
    "saved_state",
    "write_run",
]

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
FINAL = "final.safetensors"


def saved_state(folder: Path | None, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from; ``None`` where a run is to begin.

    Raises:
        ValueError: there is no folder to resume from, or its checkpoint is damaged.
        FileExistsError: there is a run in the folder, and it is not to be resumed.
    """
    if folder is None:
        if resume:
            raise ValueError("resume=True needs a run_dir")
        return None
    check_free(folder, resume)
    path = folder / CHECKPOINT
    return load_state(path) if resume and path.exists() else None


def check_free(folder: Path, resume: bool) -> None:
    """Raise ``FileExistsError`` if a folder holds a run that is not to be resumed."""
    if not resume and any((folder / file).exists() for file in (CHECKPOINT, "run.json")):
        raise FileExistsError(f"{folder} already holds a run; resume it, or choose another folder")


def describe(about: dict[str, Any] | None, steps: int, fabric: Any = None) -> dict[str, Any]:
    """What ``run.json`` and the loggers receive about a run.

    Args:
        about: whatever the caller says of it.
        steps: of the whole run.
        fabric: what it runs on; ``None`` for the CPU.
    """
    return {
        **(about or {}),
        "steps": steps,
        "processes": 1 if fabric is None else fabric.world_size,
        "device": "cpu" if fabric is None else str(fabric.device),
        "torch_threads": torch.get_num_threads(),
        "seed": torch.initial_seed(),
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name) for name in ("quickstudy", "torch", "numpy", "lightning-fabric")
            },
        },
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
    }


def write_run(folder: Path, run: dict[str, Any]) -> None:
    """Write ``run.json``, with which a folder holds a run."""
    write_atomically(folder / "run.json", to_json(run, indent=2) + "\n")


def save_untrained(
    learner: MetaLearner, run_dir: str | os.PathLike[str], about: dict[str, Any] | None = None
) -> None:
    """The run folder of a learner that has nothing to train, with its present weights.

    Raises:
        FileExistsError: ``run_dir`` holds a run.
    """
    folder = Path(run_dir)
    saved_state(folder, resume=False)
    write_run(folder, describe(about, steps=0))
    save_weights(folder / FINAL, learner, about=(about or {}).get("learner"))
