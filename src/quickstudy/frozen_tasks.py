"""The exact tasks of an evaluation, in one file."""

import hashlib
import math
import os
from typing import Any

import torch
from torch import Tensor

from quickstudy.checkpoint import load_state, reading, save_state
from quickstudy.data.sampler import TaskSource, batch_of, to_float
from quickstudy.task import Task

__all__ = ["FrozenTasks"]


class FrozenTasks:
    """The exact tasks of an evaluation in one file: the same bits for everyone, for ever.

    Every distinct example is stored once, as uint8 where that loses nothing; no data set is
    needed to use the file. ``frozen[i]`` is the ``i``-th batch of ``batch`` tasks.

    Attributes:
        about: where the tasks came from.
        fingerprint: SHA-256 (16 hex digits) of the tasks themselves.
    """

    def __init__(self, state: dict[str, Any], batch: int = 1) -> None:
        self._state = state
        self.batch = batch
        self.about: dict[str, Any] = state["about"]
        self.fingerprint: str = state["fingerprint"]

    @classmethod
    def freeze(
        cls, tasks: TaskSource, n_tasks: int, about: dict[str, Any] | None = None
    ) -> "FrozenTasks":
        """Take the first ``n_tasks`` tasks of a source; all must have one way, ``S`` and ``Q``."""
        batches: list[Task] = []
        while sum(map(len, batches)) < n_tasks:
            batches.append(batch_of(tasks, len(batches)))
        first = batches[0]
        shapes = {(b.n_way, b.support_y.shape[1:], b.query_y.shape[1:]) for b in batches}
        if len(shapes) > 1:
            raise ValueError(
                "frozen tasks must all have the same way, support and query size; give the "
                "sampler single numbers instead of ranges"
            )
        rows: dict[bytes, int] = {}
        index: dict[str, Tensor] = {}
        shape = first.support_x.shape[2:]
        for part in ("support_x", "query_x"):
            x = torch.cat([getattr(b, part) for b in batches])[:n_tasks]
            flat = x.flatten(0, 1).flatten(1).contiguous().numpy()
            ids = [rows.setdefault(row.tobytes(), len(rows)) for row in flat]
            index[part] = torch.tensor(ids, dtype=torch.int32).view(x.shape[:2])
        joined = torch.frombuffer(bytearray(b"".join(rows)), dtype=first.support_x.dtype)
        examples = joined.view(len(rows), *shape)
        pixels = (examples.clamp(0, 1) * 255).round().to(torch.uint8)
        if torch.equal(to_float(pixels), examples):
            examples = pixels
        state: dict[str, Any] = {
            "examples": examples,
            "n_way": first.n_way,
            "about": about or {},
            **index,
            **{
                part: torch.cat([getattr(b, part) for b in batches])[:n_tasks]
                for part in ("support_y", "query_y")
            },
        }
        return cls({**state, "fingerprint": _fingerprint(state)})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tasks (safetensors)."""
        save_state(path, self._state)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, batch: int = 1) -> "FrozenTasks":
        """Read tasks that `save` wrote.

        Raises:
            ValueError: the file does not hold frozen tasks.
        """
        state = load_state(path)
        if not isinstance(state, dict) or "examples" not in state or "fingerprint" not in state:
            raise ValueError(f"{path} does not hold frozen tasks")
        with reading(path, "frozen tasks"):
            if _fingerprint(state) != state["fingerprint"]:
                raise ValueError("the tasks are not those of its fingerprint")
            rows = len(state["examples"])
            for part in ("support_x", "query_x"):
                if not (int(state[part].min()) >= 0 and int(state[part].max()) < rows):
                    raise ValueError(f"{part} goes beyond its {rows} examples")
            if not isinstance(state.get("about"), dict):
                raise ValueError("about is no table")
            frozen = cls(state, batch)
            for each in range(len(frozen)):
                frozen[each]  # whether each is a task
            return frozen

    def __len__(self) -> int:
        """Number of batches."""
        return math.ceil(self.n_tasks / self.batch)

    @property
    def n_tasks(self) -> int:
        return len(self._state["support_y"])

    def batched(self, batch: int) -> "FrozenTasks":
        """The same tasks in batches of another size."""
        return FrozenTasks(self._state, batch)

    def __getitem__(self, index: int) -> Task:
        if not 0 <= index < len(self):
            raise IndexError(f"there are {self.n_tasks} frozen tasks in {len(self)} batches")
        rows = slice(index * self.batch, (index + 1) * self.batch)
        support, query = (
            to_float(self._state["examples"][self._state[part][rows].long()])
            for part in ("support_x", "query_x")
        )
        return Task(
            support,
            self._state["support_y"][rows],
            query,
            self._state["query_y"][rows],
            self._state["n_way"],
        )


def _fingerprint(frozen: dict[str, Tensor]) -> str:
    """SHA-256 (16 hex digits) of frozen tasks."""
    shape = frozen["examples"].shape[1:]
    digest = hashlib.sha256(f"{frozen['n_way']} {shape}".encode())
    for part in ("examples", "support_x", "support_y", "query_x", "query_y"):
        digest.update(frozen[part].contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
