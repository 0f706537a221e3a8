"""Tasks that people put together live, and how many a server holds; no web here."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from quickstudy.app.answers import Fitted
from quickstudy.app.items import Kind
from quickstudy.examples import label_form

__all__ = ["FullError", "Limits", "LiveTask", "Stored", "Tasks"]


class FullError(Exception):
    """There is no room for more: try again later, or delete something."""


@dataclass(frozen=True)
class Limits:
    """What one server accepts.

    Attributes:
        tasks: at once.
        examples: per task.
        classes: per task.
        pixels: of an image, before it is shrunk.
        megabytes: of all examples of all tasks.
        idle_seconds: after this time a task that nobody touches is forgotten.
    """

    tasks: int = 200
    examples: int = 500
    classes: int = 100
    pixels: int = 40_000_000
    megabytes: int = 1024
    idle_seconds: float = 3600.0


@dataclass(frozen=True)
class Stored:
    """An example: its class, its numbers by the name of the encoder, and what pages show."""

    label: str
    numbers: dict[str, Any]
    shown: str

    @property
    def bytes(self) -> int:
        """That it takes."""
        return len(self.shown) + sum(int(z.nbytes) for z in self.numbers.values())


@dataclass
class LiveTask:
    """One task: its examples, and each learner adapted to them.

    Attributes:
        kind: what its examples are.
        examples: by their ids, in the order they came.
        touched: when it was last used (monotonic seconds).
        held: bytes of its examples.
        fitted: each learner's ``phi``, by its name, while the examples are as they were.
    """

    kind: Kind
    examples: dict[str, Stored] = field(default_factory=dict)
    touched: float = 0.0
    held: int = 0
    fitted: dict[str, Fitted] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Labels, in the order they came."""
        return [*dict.fromkeys(example.label for example in self.examples.values())]


class Tasks:
    """All tasks of a server. Every method may be called from any thread, and none takes long.

    Args:
        limits: what it accepts.
        clock: monotonic seconds.
    """

    def __init__(
        self, limits: Limits | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limits = limits or Limits()
        self._clock = clock
        self._tasks: dict[str, LiveTask] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        with self._lock:
            self._forget()
            return len(self._tasks)

    def create(self, kind: Kind) -> str:
        """Create an empty task; returns its id.

        Raises:
            FullError: the server already holds as many tasks as it accepts.
        """
        with self._lock:
            self._forget()
            if len(self._tasks) >= self.limits.tasks:
                raise FullError(f"this server holds {self.limits.tasks} tasks already; try later")
            name = secrets.token_urlsafe(12)
            self._tasks[name] = LiveTask(kind, touched=self._clock())
            return name

    def delete(self, task: str) -> None:
        """Forget a task.

        Raises:
            KeyError: there is no such task.
        """
        with self._lock:
            self._task(task)
            del self._tasks[task]

    def room(self, task: str, labels: Sequence[str]) -> LiveTask:
        """The task, if it has room for examples of these labels.

        Raises:
            KeyError: there is no such task.
            FullError: it would have too many examples or classes.
        """
        with self._lock:
            live = self._task(task)
            if len(live.examples) + len(labels) > self.limits.examples:
                raise FullError(f"a task takes at most {self.limits.examples} examples")
            if len({*live.classes, *labels}) > self.limits.classes:
                raise FullError(f"a task takes at most {self.limits.classes} classes")
            return live

    def put(self, task: str, examples: dict[str, Stored]) -> None:
        """Add examples, by their ids.

        Raises:
            KeyError: there is no such task.
            FullError: there is no room for them.
        """
        with self._lock:
            live = self.room(task, [example.label for example in examples.values()])
            new = sum(example.bytes for example in examples.values())
            held = sum(other.held for other in self._tasks.values())
            if held + new > self.limits.megabytes << 20:
                raise FullError(f"this server holds {held >> 20} MiB of examples; try later")
            live.examples |= examples
            live.held += new
            live.fitted = {}

    def remove(self, task: str, example: str) -> None:
        """Remove an example.

        Raises:
            KeyError: there is no such task or example.
        """
        with self._lock:
            live = self._task(task)
            live.held -= live.examples.pop(example).bytes
            live.fitted = {}

    def rename(self, task: str, old: str, new: str) -> None:
        """Give a class another name; if that is a class too, they become one.

        Raises:
            KeyError: there is no such task or class.
        """
        with self._lock:
            live = self._task(task)
            if old not in live.classes:
                raise KeyError(old)
            new = label_form(new, "the class")
            live.examples = {
                key: Stored(
                    new if example.label == old else example.label, example.numbers, example.shown
                )
                for key, example in live.examples.items()
            }
            live.fitted = {}

    def show(self, task: str) -> dict[str, Any]:
        """Everything that makes up a task: enough to make it again.

        Raises:
            KeyError: there is no such task.
        """
        with self._lock:
            live = self._task(task)
            content = "text" if live.kind == "text" else "image"
            return {
                "kind": live.kind,
                "examples": [
                    {"id": key, "label": example.label, content: example.shown}
                    for key, example in live.examples.items()
                ],
            }

    def now(self, task: str) -> LiveTask:
        """A task as it is now: a change takes another dict, and leaves these alone.

        Raises:
            KeyError: there is no such task.
        """
        with self._lock:
            live = self._task(task)
            return replace(live, examples=dict(live.examples))

    def _task(self, task: str) -> LiveTask:
        self._forget()
        live = self._tasks[task]
        live.touched = self._clock()
        return live

    def _forget(self) -> None:
        oldest = self._clock() - self.limits.idle_seconds
        self._tasks = {k: live for k, live in self._tasks.items() if live.touched >= oldest}
