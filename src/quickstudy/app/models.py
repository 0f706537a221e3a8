"""Models that people learned from their own examples, behind the same server; no web here."""

import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from quickstudy.app.items import Charge, Item, Kind, content_of
from quickstudy.app.tasks import Limits
from quickstudy.encoders import AbsentEncoder, Encoder, LearnedEncoder, TableEncoder
from quickstudy.examples import Example, as_example
from quickstudy.images import count_pixels
from quickstudy.model import Model

__all__ = ["Models"]


@dataclass(frozen=True)
class _Served:
    model: Model
    kind: Kind | Literal["table"]
    lock: threading.Lock = field(default_factory=threading.Lock)  # one thread at a time predicts


class Models:
    """Model files, each as it was when it was read. Every method may be called from any thread.

    Args:
        paths: files that `quickstudy.model.Model.save` wrote; each is called by its name without
            the ending.
        encoder: for those whose encoder is no part of quickstudy, see `Model.load`.
        device: where to compute, see `quickstudy.devices.find_device`.
        limits: how many pixels an image may have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is no model, needs an encoder that is not given, or is called as another.
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]] = (),
        *,
        encoder: str | None = None,
        device: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._served: dict[str, _Served] = {}
        files: dict[str, Path] = {}
        for path in map(Path, paths):
            name = path.stem
            if name in files:
                raise ValueError(f"{files[name]} and {path} are both called {name}; rename one")
            files[name] = path
            model = Model.load(path, device=device)
            if isinstance(model.encoder, AbsentEncoder):
                if encoder is None:
                    raise ValueError(f"{path}: {model.encoder.fault}")
                model = Model.load(path, encoder=encoder, device=device)
            self._served[name] = _Served(model, _kind(model.encoder))

    def about(self) -> list[dict[str, Any]]:
        """Of each model its name, kind, encoder and classes, how many ``examples`` it has learned
        from, whether it may answer ``unknown``, and whether many ``together``; of a table also the
        ``columns`` that it reads.
        """
        return [
            {
                "name": name,
                "kind": served.kind,
                "encoder": served.model.encoder.name,
                "classes": [*served.model.counts],
                "examples": sum(served.model.counts.values()),
                "unknown": served.model.classifier.threshold_ is not None,
                "together": served.model.classifier.compares,
                **_columns(served.model.encoder),
            }
            for name, served in self._served.items()
        ]

    def predict(
        self,
        name: str,
        items: Sequence[Item],
        charge: Charge | None = None,
        together: bool = False,
    ) -> dict[str, Any]:
        """What a model says of new examples, as `Model.predict` says it.

        Args:
            name: of the model.
            items: the examples.
            charge: told of the pixels of each image before it is decoded.
            together: as of `Model.predict`.

        Returns:
            ``classes``; and ``answers``: for each item the likeliest ``label``, whether it is
            ``unknown`` nevertheless, and the ``probabilities`` of all classes.

        Raises:
            KeyError: there is no such model.
            ValueError: an item cannot be read, or is not of the model's kind; or the model cannot
                answer many together.
        """
        served = self._served[name]
        examples = [
            self._example(served.kind, item, f"item {i + 1}", charge)
            for i, item in enumerate(items)
        ]
        with served.lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the server's log is not the place for them
            answers = [*served.model.predict(examples, together=together)]
        return {
            "classes": [*served.model.counts],
            "answers": [
                {
                    "label": max(answer.probabilities, key=answer.probabilities.__getitem__),
                    "unknown": answer.label is None,
                    "probabilities": [*answer.probabilities.values()],
                }
                for answer in answers
            ],
        }

    def _example(
        self, kind: Kind | Literal["table"], item: Item, where: str, charge: Charge | None
    ) -> Example:
        if kind == "table":
            if item.row is None:
                raise ValueError(f"{where} has no row; this model takes rows of a table")
            return as_example(item.row, where)
        found = content_of(kind, item, where, "this model takes")
        if isinstance(found, bytes):
            pixels = count_pixels(found, where, self.limits.pixels)
            if charge is not None:
                charge(pixels)
        return Example(found, None, where)


def _columns(encoder: Encoder) -> dict[str, Any]:
    """What pages ask for: the columns that count."""
    if not isinstance(encoder, TableEncoder):
        return {}
    read = [column for column in encoder.columns.columns if column.width]
    shown = [{"name": c.name, "kind": c.kind, "levels": [*filter(None, c.levels)]} for c in read]
    return {"columns": shown}


def _kind(encoder: Encoder) -> Kind | Literal["table"]:
    if encoder.kind != "image":
        return encoder.kind
    pixels = encoder.images if isinstance(encoder, LearnedEncoder) else encoder.name
    return "drawing" if pixels.partition(":")[0] in ("drawing", "grey", "inverted") else "photo"
