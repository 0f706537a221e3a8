"""Tasks that people put together live, and what several learners make of them; no web here."""

import base64
import binascii
import io
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from quickstudy.app.answers import Fitted, fit, logits_of, parts
from quickstudy.app.take import Format, model_file
from quickstudy.devices import find_device
from quickstudy.encoders import (
    DrawingEncoder,
    Encoder,
    PixelEncoder,
    load_encoder,
)
from quickstudy.examples import Example, label_form
from quickstudy.experiments.pretrained import taken_images
from quickstudy.images import open_image
from quickstudy.learner import MetaLearner

__all__ = ["Charge", "FullError", "Item", "Kind", "Limits", "LiveTask", "Workbench", "content_of"]

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
    "text": {**_ON_FEATURES, "Logistic": "sentence"},
}
_STORED: dict[Kind, tuple[int, str]] = {"drawing": (84, "PNG"), "photo": (224, "JPEG")}
_STORED_BYTES = 1 << 16
_BEGINS = {"PNG": b"\x89PNG", "JPEG": b"\xff\xd8"}
_TOGETHER = 64  # items
_FOR_URLS = str.maketrans("-_", "+/")  # of base64, as it stands in addresses

Charge = Callable[[int], None]
T = TypeVar("T")


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
    fitted: dict[str, Fitted] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Labels, in the order they came."""
        return [*dict.fromkeys(example.label for example in self.examples.values())]


class _Asked(NamedTuple):
    """A request for predictions that has been read, and where its answer goes."""

    task: str
    kind: Kind
    read: list[Example]
    pixels: dict[str, Any]  # by the names of the encoders that only decode
    then: Callable[[dict[str, Any]], Any]
    answer: "Future[Any]"


class Workbench:
    """All tasks of a server. Every method may be called from any thread.

    Images are decoded side by side; one thread at a time encodes, adapts and predicts, and what
    waits for it meanwhile is encoded together. None of it keeps the others from the tasks
    themselves.

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
        self._computer = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._asked: list[_Asked] = []
        self._making = threading.Lock()  # of ONNX
        self._made: tuple[tuple[list[str], list[str]], bytes] = ([], []), b""

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
            numbers = {name: encoder(read) for name, encoder in self._encoders(kind).items()}
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
        return self.ask(task, items, charge, then=lambda answer: answer).result()

    def ask(
        self,
        task: str,
        items: Sequence[Item],
        charge: Charge | None = None,
        *,
        then: Callable[[dict[str, Any]], T],
    ) -> "Future[T]":
        """What `predict` will say, as soon as it has been computed.

        Requests that come while others are computed are computed together: an image goes through
        the same encoders whatever its task.

        Args:
            task: as of `predict`, also below, and what it raises when an item is read.
            items: the examples.
            charge: told of pixels.
            then: what to make of the answer, in the thread that computed it.
        """
        with self._lock:
            kind = self._task(task).kind
        read = [self._read(kind, item, f"item {i + 1}", charge) for i, item in enumerate(items)]
        pixels = {
            name: encoder(read)
            for name, encoder in self._encoders(kind).items()
            if isinstance(encoder, DrawingEncoder | PixelEncoder)
        }
        answer: Future[T] = Future()
        with self._lock:
            self._asked.append(_Asked(task, kind, read, pixels, then, answer))
        self._computer.submit(self._answer_waiting)
        return answer

    def close(self) -> None:
        """Drop what waits to be computed."""
        with self._lock:
            waiting, self._asked = self._asked, []
        for asked in waiting:
            asked.answer.cancel()

    def model(self, task: str, form: Format) -> bytes:
        """The task as a file, see `quickstudy.app.take.model_file`; its head is the first shown.

        Raises:
            KeyError: there is no such task.
            ValueError: it has fewer than two classes.
            ModuleNotFoundError: a package for the format is not installed.
            FullError: a graph is being made already. One that was done too late can be had then.
        """
        with self._lock:
            live = self._task(task)
            kind, examples = live.kind, dict(live.examples)
        name, head = ENCODERS[kind], next(iter(SHOWN[kind].values()))
        labels = [example.label for example in examples.values()]
        x = [example.numbers[name] for example in examples.values()]
        if form == "qs":
            return model_file(_encoder(name, self.device), head, x, labels, form)
        if self._made[0] == ([*examples], labels):
            return self._made[1]
        if not self._making.acquire(blocking=False):
            raise FullError("a graph is being made already; try again in a moment")
        try:
            content = model_file(_encoder(name, self.device), head, x, labels, form)
            self._made = ([*examples], labels), content
            return content
        finally:
            self._making.release()

    def _answer_waiting(self) -> None:
        """Answer what waits, up to 64 items."""
        with self._computing:
            with self._lock:
                items = np.cumsum([len(asked.read) for asked in self._asked])
                count = max(1, int((items <= _TOGETHER).sum()))
                taken, self._asked = self._asked[:count], self._asked[count:]
            taken = [asked for asked in taken if asked.answer.set_running_or_notify_cancel()]
            for kind in dict.fromkeys(asked.kind for asked in taken):
                self._answer([asked for asked in taken if asked.kind == kind])

    def _answer(self, together: Sequence[_Asked]) -> None:
        """Answer requests of one kind together; each for itself if that fails."""
        try:
            answers = [
                asked.then(answer)
                for asked, answer in zip(together, self._answers(together), strict=True)
            ]
        except Exception as error:
            if len(together) == 1:
                together[0].answer.set_exception(error)
            else:
                for asked in together:
                    self._answer([asked])
            return
        for asked, answer in zip(together, answers, strict=True):
            asked.answer.set_result(answer)

    def _answers(self, together: Sequence[_Asked]) -> list[dict[str, Any]]:
        kind, sizes = together[0].kind, [len(asked.read) for asked in together]
        read = [example for asked in together for example in asked.read]
        numbers = {
            name: np.concatenate([asked.pixels[name] for asked in together])
            if name in together[0].pixels
            else encoder(read)
            for name, encoder in self._encoders(kind).items()
        }
        tasks = [self._now(asked.task) for asked in together]
        results: list[dict[str, Any]] = [
            {"classes": task.classes, "examples": [*task.examples], "learners": {}}
            for task in tasks
        ]
        for own in self._shown[kind]:
            x = torch.from_numpy(numbers[own.encoder]).to(self.device)
            for result, answer in zip(results, self._ask(own, tasks, x, sizes), strict=True):
                result["learners"][own.name] = answer
        return results

    def _now(self, task: str) -> LiveTask:
        """A task as it is now: a change takes another dict, and leaves these alone."""
        with self._lock:
            live = self._task(task)
            return replace(live, examples=dict(live.examples))

    def _encoders(self, kind: Kind) -> dict[str, Encoder]:
        """Those in use."""
        names = {own.encoder for own in self._shown[kind]}
        return {name: _encoder(name, self.device) for name in names}

    def _ask(
        self, own: _Shown, tasks: Sequence[LiveTask], x: Tensor, sizes: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        """What a learner says in each task of its own queries, so many of ``x``."""
        encoder, head = parts(own.source, self.device)
        missing = [_missing(head, task) for task in tasks]
        ready = [i for i, why in enumerate(missing) if why is None]
        fitted = {i: self._fitted(own, tasks[i]) for i in ready}
        with torch.inference_mode():
            each = encoder(x).split(sizes)
            answered = logits_of(head, [*fitted.values()], [each[i] for i in ready])
            explained = [fitted[i].lesson.answers(each[i].unsqueeze(0)) for i in ready]
        found = dict(zip(ready, zip(answered, explained, strict=True), strict=True))
        for i, why in enumerate(missing):
            yield _said(tasks[i], fitted[i], *found[i]) if why is None else {"waiting": why}

    def _fitted(self, own: _Shown, task: LiveTask) -> Fitted:
        """The learner adapted to a task, once for as long as its examples stay as they are."""
        if own.name not in task.fitted:
            examples, classes = task.examples.values(), task.classes
            x = torch.from_numpy(np.stack([example.numbers[own.encoder] for example in examples]))
            y = torch.tensor([classes.index(example.label) for example in examples])
            x, y = x.to(self.device), y.to(self.device)
            with torch.no_grad():
                task.fitted[own.name] = fit(own.source, x, y, len(classes))
        return task.fitted[own.name]

    def _read(self, kind: Kind, item: Item, where: str, charge: Charge | None) -> Example:
        given = content_of(kind, item, where, "this task is of")
        small = given if isinstance(given, str) else self._small(given, kind, where, charge)
        return Example(small, None, where)

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


def _missing(head: MetaLearner, task: LiveTask) -> str | None:
    """Why a learner can say nothing in a task, if it cannot."""
    way, most = len(task.classes), head.max_way
    if way < 2:
        return "needs examples of two classes"
    if most is not None and way > most:
        return f"was trained for at most {most} classes"
    return None


def _said(
    task: LiveTask, fit: Fitted, logits: Tensor, explained: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the page is told of a learner's answers ``[Q,N]``."""
    ids, classes = [*task.examples], task.classes
    answers: list[dict[str, Any]] = []
    for row, reason in zip((logits / fit.temperature).softmax(-1).tolist(), explained, strict=True):
        answer = {
            "label": classes[row.index(max(row))],
            "probabilities": [round(p, 4) for p in row],
        }
        if "looked_at" in reason:
            answer["looked_at"] = ids[reason.pop("looked_at")]
        answers.append({**answer, **reason})
    if fit.unknown is not None:
        for answer, unknown in zip(answers, fit.unknown(logits).tolist(), strict=True):
            answer["unknown"] = unknown
    return {"adapt_ms": round(fit.milliseconds, 2), **fit.shown, "answers": answers}


def content_of(kind: Kind, item: Item, where: str, taken: str) -> str | bytes:
    """What an item holds: a text, or the bytes of an image.

    Args:
        kind: what it has to be.
        item: as it arrived.
        where: what to call it in a message.
        taken: begins to say what is expected, if it is not of that kind.

    Raises:
        ValueError: it is of another kind, or is no base64.
    """
    if kind == "text":
        if item.text is None or not item.text.strip():
            raise ValueError(f"{where} has no text; {taken} sentences")
        return item.text
    if item.image is None:
        raise ValueError(f"{where} has no image; {taken} {kind}s")
    head, comma, encoded = item.image.rpartition(",")
    if comma and not (head.startswith("data:image/") and head.endswith(";base64")):
        raise ValueError(f"{where}: its image is neither base64 nor a data URL of an image")
    encoded = "".join(encoded.split()).translate(_FOR_URLS)
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{where}: its image is not base64 ({error})") from error


def _url(data: bytes) -> str:
    kind = "png" if data.startswith(_BEGINS["PNG"]) else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@cache
def _encoder(name: str, device: torch.device) -> Encoder:
    return load_encoder(name, device)
