"""State on disk: any nesting of tensors and plain values in one safetensors file, atomically.

Nothing here uses pickle, so a file from a stranger can hold wrong numbers but never code.
"""

import json
import math
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load as deserialise
from safetensors.torch import save as serialise
from torch import Tensor, nn

from quickstudy.plain import check_there, clear_temporaries, reading, unpack, write_atomically

__all__ = [
    "check_finite",
    "clear_temporaries",
    "count_weights",
    "load_state",
    "load_weights",
    "map_tensors",
    "reading",
    "restore_rng",
    "rng_state",
    "save_state",
    "save_weights",
    "weights_about",
    "write_atomically",
]

Pathlike = str | os.PathLike[str]
_ABOUT = "learner"


def save_state(path: Pathlike, state: Any) -> None:
    """Save a nesting of dicts, lists, tuples, tensors, numbers, strings, booleans and ``None``.

    Raises:
        TypeError: the state holds something else, naming where.
    """
    tensors: dict[str, Tensor] = {}
    layout = json.dumps(_pack(state, tensors, ""))
    write_atomically(path, serialise(tensors, metadata={"layout": layout}))


def load_state(path: Pathlike) -> Any:
    """Read what `save_state` wrote, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or not one of ours.
    """
    tensors, metadata = _read(Path(path))
    layout = metadata.get("layout")
    if layout is None:
        raise ValueError(f"{path} was not written by quickstudy: it has no layout")
    with reading(path, "a file of quickstudy"):
        return unpack(json.loads(layout), tensors.__getitem__)


def save_weights(
    path: Pathlike, module: nn.Module, *, half: bool = False, about: dict[str, Any] | None = None
) -> None:
    """Save a module's parameters and buffers under their own names (plain safetensors).

    Args:
        path: the file.
        module: the one whose weights are saved.
        half: round them to 16 bits, for a file half as large.
        about: plain values from which the module can be built again, such as those of a
            `quickstudy.experiments.spec.LearnerSpec`; kept in the file, see `weights_about`.
    """
    state = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    metadata = None if about is None else {_ABOUT: json.dumps(about)}
    write_atomically(path, serialise(state, metadata=metadata))


def weights_about(path: Pathlike) -> dict[str, Any] | None:
    """What `save_weights` was told about the module; ``None`` if it was told nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    _, metadata = _read(Path(path), tensors=False)
    text = metadata.get(_ABOUT)
    if text is None:
        return None
    try:
        about = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path}: what it says of its weights is not JSON: {error}") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path}: what it says of its weights is {about!r}; expected a table")
    return about


def count_weights(path: Pathlike) -> int:
    """How many numbers a file of weights holds; they are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    check_there(path)
    with reading(path, "a safetensors file"), safe_open(path, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def check_finite(tensors: Mapping[str, Any], what: str) -> None:
    """Raise ``ValueError`` if one of these tensors has a number that is none."""
    for name, value in tensors.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{what}: {name} has numbers that are infinite or none at all (NaN)")


def load_weights(path: Pathlike, module: nn.Module) -> None:
    """Load what `save_weights` wrote into a module of the same architecture.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or of another architecture, or a weight is no finite
            number; names what is wrong.
    """
    state, _ = _read(Path(path))
    current = module.state_dict()
    for name in sorted(current.keys() | state.keys()):
        expected, saved = (
            list(d[name].shape) if name in d else "nothing" for d in (current, state)
        )
        if expected != saved:
            raise ValueError(
                f"{path} does not fit this {type(module).__name__}: it has {saved} for "
                f"{name!r}, where {expected} is expected"
            )
    check_finite(state, str(path))
    with reading(path, "a file of weights"):
        module.load_state_dict(state)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A nesting of dicts, lists and tuples with each of its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: map_tensors(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(each, change) for each in value)
    return value


def rng_state() -> dict[str, Any]:
    """The state of every random number generator a training step may use."""
    version, words, gauss = random.getstate()
    name, keys, *position = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [name, keys.tolist(), *position],  # type: ignore[union-attr]
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: dict[str, Any]) -> None:
    """Set every generator to what `rng_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *position = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *position))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _read(path: Path, *, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, or none of them, and its metadata."""
    check_there(path)
    with reading(path, "a safetensors file"):
        if tensors:  # read once: a training that goes on may replace the file at any moment
            data = path.read_bytes()
            found = deserialise(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            return found, header.get("__metadata__", {})
        with safe_open(path, framework="pt") as file:
            return {}, file.metadata() or {}


def _pack(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """JSON for ``value``; its tensors go to ``tensors`` under the path they stand at."""
    if isinstance(value, Tensor):
        name = where or "."
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        # Pairs, since JSON would turn the integer keys of an optimiser's state into strings.
        return {"dict": [[k, _pack(v, tensors, f"{where}/{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(v, tensors, f"{where}/{i}") for i, v in enumerate(value)]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"cannot save a {type(value).__name__} (at {where or 'the top'})")
