"""Tasks that people put together live, and what several learners make of them; no web here."""

import base64
import binascii
import io
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from quickstudy.app.explain import Lesson, lesson
from quickstudy.app.take import Format, model_file
from quickstudy.app.unknown import Unknown
from quickstudy.data.images import open_image
from quickstudy.devices import find_device
from quickstudy.encoders import Encoder, load_encoder
from quickstudy.examples import Example, label_form
from quickstudy.experiments.pretrained import taken_images
from quickstudy.heads import load_learner, usual_temperature
from quickstudy.learner import MetaLearner, Phi
from quickstudy.learners import MAML, NearestNeighbour

__all__ = ["FullError", "Item", "Kind", "Limits", "LiveTask", "Workbench"]

Kind = Literal["drawing", "photo", "text"]
ENCODERS: dict[Kind, str] = {
    "drawing": "drawing",
    "photo": "efficientnet-lite0",
    "text": "minilm",
}
_ON_FEATURES = {
    "Logistic": "logistic",
    "Ridge": "ridge",
    "Proto-MAML": "proto-maml",
    "Centroid": "centroid",
    "Nearest features": "nearest",
}
SHOWN: dict[Kind, dict[str, str]] = {
    "drawing": {
        "ProtoNet": "protonet-drawings",
        "Matching network": "matching-omniglot",
        "MAML": "maml-omniglot-5w1s",
        "LSTM": "lstm-omniglot-5w1s",
        "Nearest pixels": "nearest",
    },
    "photo": {**_ON_FEATURES, "Logistic": "photo"},
    "text": _ON_FEATURES,
}
_STORED: dict[Kind, tuple[int, str]] = {"drawing": (84, "PNG"), "photo": (224, "JPEG")}
_STORED_BYTES = 1 << 16
_BEGINS = {"PNG": b"\x89PNG", "JPEG": b"\xff\xd8"}
_FOR_URLS = str.maketrans("-_", "+/")  # of base64, as it stands in addresses


Charge = Callable[[int], None]


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
class Item:
    """An example as it arrives: an encoded image, or a text."""

    image: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class _Shown:
    """A learner on the page: what it is called, where it is from, and who prepares its inputs."""

    name: str
    source: str
    encoder: str


@dataclass(frozen=True)
class _Stored:
    label: str
    numbers: dict[str, Any]  # by the name of the encoder
    shown: str

    @property
    def bytes(self) -> int:
        return len(self.shown) + sum(int(z.nbytes) for z in self.numbers.values())


@dataclass
class _Fitted:
    phi: Phi
    milliseconds: float
    lesson: Lesson
    unknown: Unknown | None


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
    examples: dict[str, _Stored] = field(default_factory=dict)
    touched: float = 0.0
    held: int = 0
    fitted: dict[str, _Fitted] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Labels, in the order they came."""
        return [*dict.fromkeys(example.label for example in self.examples.values())]


class Workbench:
    """All tasks of a server. Every method may be called from any thread.

    Images are decoded side by side; one thread at a time encodes, adapts and predicts. None of it
    keeps the others from the tasks themselves.

    Args:
        limits: what it accepts.
        clock: monotonic seconds.
        device: where to compute, see `quickstudy.devices.find_device`.
        learners: more learners to show, of images: run folders, files of weights, shipped names.

    Raises:
        FileNotFoundError: there is no such learner.
        ValueError: a learner takes no images.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        device: str | None = None,
        learners: Sequence[str] = (),
    ) -> None:
        self.limits = limits or Limits()
        self.device = find_device(device)
        self._shown = {
            kind: [_Shown(name, source, ENCODERS[kind]) for name, source in those.items()]
            for kind, those in SHOWN.items()
        }
        for source in learners:
            images = taken_images(source)
            if images is None:
                raise ValueError(f"{source} takes no images; the page can show none else of yours")
            kind: Kind = "photo" if images.startswith("pixels") else "drawing"
            self._shown[kind].append(_Shown(Path(source).name, source, images))
        self._clock = clock
        self._tasks: dict[str, LiveTask] = {}
        self._lock = threading.RLock()  # of the tasks, and never held for long
        self._computing = threading.Lock()
        self._making = threading.Lock()  # of files
        self._made: tuple[tuple[str, list[str], list[str]], bytes] = ("", [], []), b""

    def __len__(self) -> int:
        with self._lock:
            self._forget()
            return len(self._tasks)

    def create(self, kind: Kind) -> str:
        """Create an empty task; returns its id.

        Raises:
            FullError: the server already holds as many tasks as it accepts.
            ModuleNotFoundError: the encoder of this kind is not installed.
        """
        _encoder(ENCODERS[kind], self.device)
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

    def add(
        self, task: str, items: Sequence[tuple[str, Item]], charge: Charge | None = None
    ) -> list[str]:
        """Add labelled examples, all or none of them; returns their ids.

        Args:
            task: its id.
            items: each with its label.
            charge: told of the pixels of each image that was decoded.

        Raises:
            KeyError: there is no such task.
            ValueError: an example cannot be read, or is not of the task's kind.
            FullError: the task would have too many examples or classes.
        """
        items = [
            (label_form(label, f"example {i + 1}"), item) for i, (label, item) in enumerate(items)
        ]
        with self._lock:
            kind = self._room(task, items).kind
        read = [
            self._read(kind, item, f"example {i + 1}", charge) for i, (_, item) in enumerate(items)
        ]
        with self._computing:
            numbers = self._encoded(kind, read)
        stored = {
            secrets.token_urlsafe(6): _Stored(
                label,
                {name: z[i] for name, z in numbers.items()},
                example.item if isinstance(example.item, str) else _url(example.item),
            )
            for i, ((label, _), example) in enumerate(zip(items, read, strict=True))
        }
        with self._lock:
            live = self._room(task, items)
            new = sum(example.bytes for example in stored.values())
            held = sum(other.held for other in self._tasks.values())
            if held + new > self.limits.megabytes << 20:
                raise FullError(f"this server holds {held >> 20} MiB of examples; try later")
            live.examples |= stored
            live.held += new
            live.fitted = {}
        return [*stored]

    def _room(self, task: str, items: Sequence[tuple[str, Item]]) -> LiveTask:
        """The task, if it has room for these."""
        live = self._task(task)
        if len(live.examples) + len(items) > self.limits.examples:
            raise FullError(f"a task takes at most {self.limits.examples} examples")
        if len({*live.classes, *(label for label, _ in items)}) > self.limits.classes:
            raise FullError(f"a task takes at most {self.limits.classes} classes")
        return live

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
                key: _Stored(
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

    def predict(
        self, task: str, items: Sequence[Item], charge: Charge | None = None
    ) -> dict[str, Any]:
        """What each learner says of new examples.

        Args:
            task: its id.
            items: the examples.
            charge: told of the pixels of each image that was decoded.

        Returns:
            ``classes``; ``examples``, their ids in the order that explanations follow; and for
            each learner either ``waiting``, why it says nothing yet, or ``adapt_ms``, how long it
            took to learn the task, and ``answers``: for each item the ``label``, the
            ``probabilities`` of all classes and, where the learner can tell, whether it is
            ``unknown``. ``rejects`` says what that rests on, ``None`` for too few examples; a
            learner without it names a class for everything. `lesson` adds the rest.

        Raises:
            KeyError: there is no such task.
            ValueError: an item cannot be read, or is not of the task's kind.
        """
        with self._lock:
            kind = self._task(task).kind
        read = [self._read(kind, item, f"item {i + 1}", charge) for i, item in enumerate(items)]
        with self._computing:
            x = {
                name: torch.from_numpy(z).unsqueeze(0).to(self.device)
                for name, z in self._encoded(kind, read).items()
            }
            with self._lock:  # as it is now: a change takes another dict, and leaves these alone
                live = self._task(task)
                examples, fitted = dict(live.examples), live.fitted
            classes = [*dict.fromkeys(example.label for example in examples.values())]
            result: dict[str, Any] = {"classes": classes, "examples": [*examples], "learners": {}}
            for shown in self._shown[kind]:
                answers = self._ask(shown, examples, classes, fitted, x[shown.encoder])
                result["learners"][shown.name] = answers
        return result

    def model(self, task: str, form: Format) -> bytes:
        """The task as a file, see `quickstudy.app.take.model_file`; its head is the first shown.

        Raises:
            KeyError: there is no such task.
            ValueError: it has fewer than two classes.
            ModuleNotFoundError: a package for the format is not installed.
            FullError: a file is being made already. One that was done too late can be had then.
        """
        with self._lock:
            live = self._task(task)
            kind, examples = live.kind, dict(live.examples)
        name, head = ENCODERS[kind], next(iter(SHOWN[kind].values()))
        labels = [example.label for example in examples.values()]
        if self._made[0] == (form, [*examples], labels):
            return self._made[1]
        if not self._making.acquire(blocking=False):
            raise FullError("a file is being made already; try again in a moment")
        try:
            x = [example.numbers[name] for example in examples.values()]
            content = model_file(_encoder(name, self.device), head, x, labels, form)
            self._made = (form, [*examples], labels), content
            return content
        finally:
            self._making.release()

    def _encoded(self, kind: Kind, read: Sequence[Example]) -> dict[str, Any]:
        """What each encoder in use makes of examples."""
        names = {shown.encoder for shown in self._shown[kind]}
        return {name: _encoder(name, self.device)(read) for name in names}

    def _ask(
        self,
        shown: _Shown,
        examples: dict[str, _Stored],
        classes: list[str],
        fitted: dict[str, _Fitted],
        x: Tensor,
    ) -> dict[str, Any]:
        name, source = shown.name, shown.source
        learner = _learner(source, self.device)
        if len(classes) < 2:
            return {"waiting": "needs examples of two classes"}
        max_way = getattr(learner, "max_way", None)
        if max_way is not None and len(classes) > max_way:
            return {"waiting": f"was trained for at most {max_way} classes"}
        labels = torch.tensor([classes.index(example.label) for example in examples.values()])
        support = torch.from_numpy(
            np.stack([example.numbers[shown.encoder] for example in examples.values()])
        )
        support, labels = support.unsqueeze(0).to(self.device), labels.to(self.device)
        with torch.no_grad():
            if name not in fitted:
                began = time.perf_counter()
                phi = learner.adapt(support, labels.unsqueeze(0), len(classes))
                spent = 1000 * (time.perf_counter() - began)
                fitted[name] = _Fitted(
                    phi,
                    spent,
                    lesson(learner, phi, support, labels.unsqueeze(0), len(classes)),
                    Unknown.of(learner, support, labels.unsqueeze(0)),
                )
            own = fitted[name]
            usual = usual_temperature(source, labels.bincount().tolist())
            logits = learner.predict(own.phi, x)[0]
            probabilities = (logits / usual).softmax(-1)
            explanations = own.lesson.answers(x)
        ids = [*examples]
        answers = []
        for row, reason in zip(probabilities, explanations, strict=True):
            answer: dict[str, Any] = {
                "label": classes[int(row.argmax())],
                "probabilities": [round(float(p), 4) for p in row],
            }
            if "looked_at" in reason:
                answer["looked_at"] = ids[reason.pop("looked_at")]
            answers.append({**answer, **reason})
        result = {"adapt_ms": round(own.milliseconds, 2), **own.lesson.shown, "answers": answers}
        if Unknown.possible(learner):
            result["rejects"] = own.unknown and own.unknown.shown
        if own.unknown is not None:
            for answer, unknown in zip(answers, own.unknown(logits).tolist(), strict=True):
                answer["unknown"] = unknown
        return result

    def _read(self, kind: Kind, item: Item, where: str, charge: Charge | None) -> Example:
        if kind == "text":
            if item.text is None or not item.text.strip():
                raise ValueError(f"{where} has no text; this task is of sentences")
            return Example(item.text, None, where)
        if item.image is None:
            raise ValueError(f"{where} has no image; this task is of {kind}s")
        encoded = item.image.partition("base64,")[2] if "," in item.image else item.image
        encoded = "".join(encoded.split()).translate(_FOR_URLS)
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"{where}: its image is not base64 ({error})") from error
        return Example(self._small(data, kind, where, charge), None, where)

    def _small(self, data: bytes, kind: Kind, where: str, charge: Charge | None) -> bytes:
        """An image as it is stored and encoded; one that was stored before comes back unchanged."""
        side, form = _STORED[kind]
        image = open_image(data, where, "RGB", self.limits.pixels)
        if charge is not None:
            charge(image.width * image.height)
        stored = image.size == (side, side) and data.startswith(_BEGINS[form])
        if stored and len(data) <= _STORED_BYTES:
            return data
        file = io.BytesIO()
        ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS).save(file, form, quality=90)
        return file.getvalue()

    def _task(self, task: str) -> LiveTask:
        self._forget()
        live = self._tasks[task]
        live.touched = self._clock()
        return live

    def _forget(self) -> None:
        oldest = self._clock() - self.limits.idle_seconds
        self._tasks = {k: live for k, live in self._tasks.items() if live.touched >= oldest}


def _url(data: bytes) -> str:
    kind = "png" if data.startswith(_BEGINS["PNG"]) else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@cache
def _encoder(name: str, device: torch.device) -> Encoder:
    return load_encoder(name, device)


@cache
def _learner(source: str, device: torch.device) -> MetaLearner:
    if source == "nearest":
        return NearestNeighbour().eval()
    learner = load_learner(source)
    if isinstance(learner, MAML):
        learner.inner_steps = 3  # as it was evaluated
    return learner.to(device)
