"""A task learned from a handful of examples, in one file: learn, predict, add, save."""

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.checkpoint import reading
from quickstudy.columns import Columns, rows_of
from quickstudy.cores import one_thread
from quickstudy.encoders import (
    AbsentEncoder,
    Encoder,
    FeatureCache,
    LearnedEncoder,
    TableEncoder,
    built_in_encoder,
    content_key,
    encode,
    load_encoder,
)
from quickstudy.estimator import Classifier
from quickstudy.examples import Example, Item, as_example, as_examples, label_form
from quickstudy.hub import Shareable
from quickstudy.images import decode_image, open_image
from quickstudy.names import HEAD_NAMES, Prior

__all__ = ["Answer", "Model"]

_LARGE = 1 << 20  # bytes of an image
_FEW = 500  # examples: threads that share so little work cost more than they save
_ENOUGH = 8  # examples to hold out, for a choice between encoders
_INK = "taken for drawings: all are ink on paper, without colour"
_HEADS = {
    "drawing": "protonet-drawings",
    "efficientnet-lite0": "photo",
    "minilm": "sentence",
    "table": "tables",
}
_MOST_ROWS = 1000  # of a table: all of them are compared with each other


@dataclass(frozen=True)
class Answer:
    """What a model says of one example.

    Attributes:
        where: the example.
        label: the likeliest class, or ``None`` for "unknown".
        probability: of the likeliest class.
        probabilities: of every class.
    """

    where: str
    label: str | None
    probability: float
    probabilities: dict[str, float]


class Model(Shareable):
    """An encoder and a classifier fitted to a few examples of each class.

    Args:
        encoder: what turns files or texts into numbers.
        classifier: fitted.
        false_reject: the rate of false "unknown" answers that was asked for; 0 for never.

    Attributes:
        guess: what the examples were taken for, and why, if `learn` had to guess.
        by_hand: how many examples `add` and `remove` have added and taken away.

    Example:
        >>> class Letters:
        ...     name, kind, fingerprint = "letters", "text", "1"
        ...     def __call__(self, examples):
        ...         return np.array([[e.item.count(c) for c in "aeiou"] for e in examples])
        >>> few = [("banana", "fruit"), ("fish and chips", "dish")]
        >>> model = Model.learn(few, encoder=Letters(), head="centroid")
        >>> [answer.label for answer in model.predict(["papaya"])]
        ['fruit']
    """

    imported_from = ("quickstudy.model", "Model")
    guess: str | None = None
    by_hand: int = 0

    def __init__(self, encoder: Encoder, classifier: Classifier, false_reject: float = 0.0) -> None:
        self.encoder, self.classifier, self.false_reject = encoder, classifier, false_reject

    @classmethod
    def learn(
        cls,
        examples: str | os.PathLike[str] | Iterable[Example | tuple[Item, Any]],
        *,
        encoder: Encoder | str | None = None,
        head: str | None = None,
        label: str | None = None,
        false_reject: float = 0.0,
        prior: Prior = "alike",
        device: str | None = None,
        cache: FeatureCache | None = None,
        failed: list[str] | None = None,
    ) -> "Model":
        """Learn from labelled examples.

        Args:
            examples: any number of each class, in any order: a path (see `read_examples`), or
                `Example`s, or pairs of an item (see `as_example`) and its label, or a DataFrame.
            encoder: an encoder or its name, see `load_encoder`. Default: what the head was trained
                on, if it was; else ``minilm`` for texts, ``efficientnet-lite0`` for photos; if all
                images are ink on paper, ``drawing``, or ``efficientnet-lite0`` where it does
                clearly better on held-out examples.
            head: a head (`HEADS`, `LEARNED_HEADS`), the name of shipped weights, a run folder, or
                a file of weights. Default: ``protonet-drawings`` for the encoder ``drawing``,
                ``photo`` for ``efficientnet-lite0``, ``sentence`` for ``minilm``, ``tables`` for
                tables of up to 1000 rows, ``logistic`` for larger ones and any other.
            label: the column of a table that holds the labels, see `read_examples`.
            false_reject: how many examples of known classes may be called unknown, 0..1; with 0
                there is always an answer.
            prior: ``"alike"``: no class is likelier for having more examples; ``"examples"``: they
                are as frequent as here in what is to be answered.
            device: where to compute, see `quickstudy.devices.find_device`.
            cache: keeps features between calls.
            failed: receives what is wrong with examples that cannot be read; without it the first
                one raises.

        Raises:
            ValueError: an example cannot be read or has no label, or there are fewer than 2
                classes.
        """
        stream, guess = as_examples(examples, failed, label), None
        if encoder is None and head is not None and head not in HEAD_NAMES:
            from quickstudy.experiments.pretrained import taken_images

            encoder = taken_images(head)
        if encoder is None:
            encoder, guess, stream = _suited(stream)
        given = list(stream) if guess and encoder == "drawing" and head is None else None
        if encoder == "table":
            rows = list(stream)
            encoder, stream = TableEncoder.of(rows, label), iter(rows)
            guess = encoder.columns.summary()
        if isinstance(encoder, str):
            encoder = load_encoder(encoder, device)
        x, y = _gather(encoder, stream if given is None else given, cache, failed)
        table = encoder.kind == "table"
        large = table and len(y) > _MOST_ROWS
        chosen = head or ("logistic" if large else _HEADS.get(encoder.name, "logistic"))
        with one_thread() if len(y) <= _FEW else nullcontext():
            classifier = Classifier(chosen, device=device, table=table, prior=prior).fit(x, y)
            classifier.calibrate(false_reject)
        model = cls(encoder, classifier, false_reject)
        model.guess = guess
        return model if given is None else model._or_of_photos(given, device, cache)

    def _or_of_photos(
        self, examples: list[Example], device: str | None, cache: FeatureCache | None
    ) -> "Model":
        """This model of drawings; or one of photos, if it does clearly better on held-out examples.

        Both learn from the same drawings. Photo features are far better for some that no pen drew.
        """
        own = self.classifier
        if own.held_out_ < _ENOUGH or own.held_out_accuracy_ in (None, 1.0):
            return self
        try:
            photo = load_encoder("efficientnet-lite0", device)
        except ModuleNotFoundError:
            return self
        other = Model.learn(
            examples,
            encoder=photo,
            false_reject=self.false_reject,
            prior=own.prior,
            device=device,
            cache=cache,
            failed=[],
        )
        mine, others = (float(m.classifier.held_out_accuracy_ or 0) for m in (self, other))
        noise = (mine * (1 - mine) + others * (1 - others)) / own.held_out_
        better = other if others > mine + noise**0.5 else self
        better.guess = (
            f"{_INK}; right on held-out examples: drawing features {mine:.0%}, photo features "
            f"{others:.0%}; {'photo' if better is other else 'drawing'} features are taken"
        )
        return better

    def predict(
        self,
        examples: Iterable[Item],
        *,
        cache: FeatureCache | None = None,
        failed: list[str] | None = None,
        at_once: int = 64,
        together: bool = False,
    ) -> Iterator[Answer]:
        """Answers, one after another as examples come; or together, when all are there.

        Args:
            examples: `Example`s, or items that `as_example` takes: paths, texts, images, arrays; or
                a DataFrame.
            cache: as in `learn`, also below.
            failed: receives what is wrong with examples that cannot be read.
            at_once: how many to wait for before they are answered, each for itself.
            together: answer when all are there, by what each shows of its class, see
                `Classifier.judge`.

        Of values in the rows of a table that were not learned, and count as missing, a warning
        tells at the end.

        Raises:
            ValueError: an example cannot be read; or the head cannot answer them together.
        """
        if isinstance(examples, str | bytes | os.PathLike):
            raise TypeError("predict takes a list of examples; for a single one, give [example]")
        if together:
            self.classifier.check_compares()
        rows = rows_of(examples)
        asked = examples if rows is None else rows

        def items() -> Iterator[Example]:
            for i, item in enumerate(asked):
                try:
                    yield as_example(item, item if isinstance(item, str) else f"example {i + 1}")
                except (OSError, ValueError) as fault:
                    if failed is None:
                        raise
                    failed.append(str(fault))

        classes = [str(name) for name in self.classifier.classes_]
        first, count = dict[str, str](), Counter[str]()  # of each column, what was not learned

        def encoded() -> Iterator[tuple[str, Any]]:
            for example, z in encode(
                self.encoder, items(), cache=cache, failed=failed, at_once=at_once
            ):
                if isinstance(self.encoder, TableEncoder) and np.isnan(z).any():
                    row = example.item if isinstance(example.item, Mapping) else {}
                    for name, value in self.encoder.columns.unread(row):
                        first.setdefault(name, value)
                        count[name] += 1
                yield example.where, z

        stream = encoded()
        while batch := list(islice(stream, None if together else at_once)):
            with one_thread():
                p, known = self.classifier.judge(np.stack([z for _, z in batch]), together=together)
            for (where, _), row, sure in zip(batch, p, known, strict=True):
                best = int(row.argmax())
                yield Answer(
                    where,
                    classes[best] if sure else None,
                    float(row[best]),
                    dict(zip(classes, map(float, row), strict=True)),
                )
        for name, value in first.items():
            more = f" ({count[name]} of this kind)" if count[name] > 1 else ""
            warnings.warn(
                f"the column {name!r} has {value!r}, which was not learned, and counts as missing"
                + more,
                stacklevel=2,
            )

    def add(
        self,
        examples: str | os.PathLike[str] | Iterable[Example | tuple[Item, Any]],
        *,
        cache: FeatureCache | None = None,
        failed: list[str] | None = None,
    ) -> int:
        """Learn more examples, of known or new classes; returns the number added. See `learn`.

        A warning says if held-out accuracy falls by more than chance.

        Raises:
            ValueError: as of `learn`; or an example is held already, under another label.
        """
        own = self.classifier
        label = self.encoder.label if isinstance(self.encoder, TableEncoder) else None
        stream = as_examples(examples, failed, label)
        x, y = _gather(self.encoder, stream, cache, failed, held=own)
        before = own.held_out_accuracy_
        own.partial_fit(x, y)
        own.calibrate(self.false_reject)
        self.by_hand += len(y)
        after = own.held_out_accuracy_
        if before is not None and after is not None:
            noise = (before * (1 - before) + after * (1 - after)) / own.held_out_
            if after < before - max(noise, 1 / own.held_out_**2) ** 0.5:
                warnings.warn(
                    f"held-out accuracy fell from {before:.1%} to {after:.1%} with these examples",
                    stacklevel=2,
                )
        return len(y)

    def remove(self, label: str) -> None:
        """Forget a class and all its examples.

        Raises:
            ValueError: there is no such class, or fewer than 2 others.
        """
        count = len(self.classifier.support_y_)
        self.classifier.forget(label_form(label, "the class"))
        self.by_hand += count - len(self.classifier.support_y_)
        self.classifier.calibrate(self.false_reject)

    @property
    def counts(self) -> dict[str, int]:
        """How many examples of each class it has learned from."""
        each = np.bincount(self.classifier.support_y_, minlength=len(self.classifier.classes_))
        return dict(zip(map(str, self.classifier.classes_), map(int, each), strict=True))

    def about(self) -> dict[str, Any]:
        """What there is to know of it, as plain values."""
        classifier = self.classifier
        columns = getattr(self.encoder, "columns", None)
        return {
            **({} if columns is None else {"columns": columns.summary()}),
            "encoder": self.encoder.name,
            "head": str(classifier.learner),
            "classes": self.counts,
            "prior": classifier.prior,
            "temperature": classifier.temperature_,
            "held_out": classifier.held_out_,
            "expected_calibration_error": classifier.calibration_error_,
            "held_out_accuracy": classifier.held_out_accuracy_,
            "false_reject": self.false_reject,
            "threshold": classifier.threshold_,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one safetensors file, whole or not at all; never pickle.

        The head is in the file, and so is an encoder that you trained, whatever becomes of the
        weights or the run folder that they came from.
        """
        about = {
            "encoder": self.encoder.name,
            "kind": self.encoder.kind,
            "fingerprint": self.encoder.fingerprint,
            "false_reject": self.false_reject,
            "by_hand": self.by_hand,
        }
        if isinstance(self.encoder, LearnedEncoder):
            about["learned"] = {
                "about": self.encoder.about,
                "images": self.encoder.images,
                "weights": dict(self.encoder.network.state_dict()),
            }
        if isinstance(self.encoder, TableEncoder):
            about["table"] = {
                "columns": self.encoder.columns.plain(),
                "label": self.encoder.label,
            }
        self.classifier.save(path, about={"model": about})

    @classmethod
    @one_thread()
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        encoder: Encoder | str | None = None,
        device: str | None = None,
    ) -> "Model":
        """Read what `save` wrote.

        Args:
            path: the file.
            encoder: the encoder or its name, if it is neither built in
                (`quickstudy.encoders.built_in_encoder`) nor in the file. Without it such a model
                tells what it has learned, but encodes nothing: a file does not decide what is
                loaded.
            device: where to compute, whatever it was saved on.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else, or its encoder has changed since.
        """
        classifier = Classifier.load(path, device=device)
        about = classifier.about_.get("model")
        if about is None:
            raise ValueError(f"{path} holds a classifier without an encoder; expected a model")
        with reading(path, "a model"):
            name, fingerprint = about["encoder"], about["fingerprint"]
            if isinstance(encoder, str):
                encoder = load_encoder(encoder, device)
            elif encoder is None and (learned := about.get("learned")) is not None:
                encoder = LearnedEncoder(name, **learned, device=device)
            elif encoder is None and (table := about.get("table")) is not None:
                encoder = TableEncoder(Columns.of_plain(table["columns"]), table["label"])
                width, given = encoder.columns.width, classifier.support_x_.shape[1]
                if width != given:
                    raise ValueError(f"its columns are {width} numbers, its examples have {given}")
            elif encoder is None:
                encoder = built_in_encoder(name, device) or AbsentEncoder(
                    name, "text" if about.get("kind") == "text" else "image", fingerprint
                )
            if encoder.fingerprint != fingerprint:
                raise ValueError(
                    f"{path} was learned with another {about['encoder']} than the one installed "
                    "now; learn it again"
                )
            if not 0 <= float(about["false_reject"]) < 1:
                raise ValueError(f"false_reject is {about['false_reject']!r}; expected 0 to 1")
            model = cls(encoder, classifier, float(about["false_reject"]))
            model.by_hand = about.get("by_hand", 0)
        return model

    def _write_file(self, path: Path) -> dict[str, Any]:
        self.save(path)
        return self.about()

    @classmethod
    def _read_file(cls, path: Path) -> "Model":
        return cls.load(path)


def _gather(
    encoder: Encoder,
    examples: Iterable[Example],
    cache: FeatureCache | None,
    failed: list[str] | None,
    held: Classifier | None = None,
) -> tuple[Any, list[str]]:
    """Numbers and labels of examples; none that ``held`` knows by another label."""
    numbers, labels = [], []
    seen: dict[str, tuple[str, str]] = {}  # of each content: its first place and label
    twice: list[str] = []
    again: list[str] = []
    given: dict[str, None] = {}

    def noted() -> Iterator[Example]:
        for example in examples:
            given[str(example.label)] = None
            yield example

    for example, z in encode(encoder, noted(), cache=cache, failed=failed):
        if example.label is None:
            raise ValueError(f"{example.where} has no label")
        alike = held is not None and not isinstance(encoder, TableEncoder)
        if held is not None and alike and (known := _labels_of(held, z)):
            reason = f"{example.where} is held already, as an example of {known[0]}"
            if example.label in known:
                again.append(reason)
                continue
            if failed is None:
                raise ValueError(reason)
            failed.append(reason)
            continue
        numbers.append(z)
        labels.append(example.label)
        if isinstance(encoder, TableEncoder):
            continue  # rows may well be alike
        where, label = seen.setdefault(content_key(example), (example.where, example.label))
        if label == example.label and where != example.where:
            again.append(f"{example.where} is the same as {where}")
        if label != example.label:
            twice.append(
                f"{example.where} is the same as {where}, and they have two labels, "
                f"{example.label} and {label}"
            )
    if twice:
        more = f" ({len(twice)} of this kind)" if len(twice) > 1 else ""
        warnings.warn(twice[0] + more, stacklevel=3)
    if again:
        more = f" ({len(again)} of this kind)" if len(again) > 1 else ""
        left_out = " and is left out" if held is not None else ", and counts twice"
        warnings.warn(again[0] + left_out + more, stacklevel=3)
    rest = [name for name in given if name not in labels]
    if held is None and rest and len({*labels}) > 1:
        warnings.warn(f"of the class {rest[0]} nothing can be read: it is left out", stacklevel=3)
    if held is None and rest and len({*labels}) == 1:
        raise ValueError(
            f"there is only the class {labels[0]}: of {', '.join(rest)} nothing can be read"
            + (f"; {failed[0]}" if failed else "")
        )
    if not numbers and again:
        raise ValueError(f"there is nothing new: {again[0]}")
    if not numbers:
        raise ValueError(
            f"none of the examples can be used: {failed[0]}" if failed else "there are no examples"
        )
    return np.stack(numbers), labels


def _labels_of(classifier: Classifier, z: Any) -> list[str]:
    """The labels under which it holds this very example."""
    x = classifier.support_x_
    far = np.abs(x - z).reshape(len(x), -1).max(1) > 1e-4 * np.abs(z).max()
    return [str(classifier.classes_[y]) for y in classifier.support_y_[~far]]


def _suited(examples: Iterator[Example]) -> tuple[str, str, Iterator[Example]]:
    """An encoder's name, why, and the examples again.

    Images are looked at until one is no drawing: the first class may be all grey.
    """
    seen: list[Example] = []
    for example in examples:
        if isinstance(example.item, Mapping):
            return "table", "", chain(seen, [example], examples)
        whole = len(example.item) < _LARGE or isinstance(example.item, str)
        readable = whole or (isinstance(example.item, bytes) and _readable(example))
        seen.append(example if readable else replace(example, item=b""))
        if isinstance(example.item, str):
            return "minilm", "texts are taken for sentences", chain(seen, examples)
        if not _drawn(example):
            why = f"taken for photos, because of {example.where}"
            return "efficientnet-lite0", why, chain(seen, examples)
    if not seen:
        raise ValueError("there are no examples")
    return "drawing", f"{_INK} (--encoder efficientnet-lite0 for photos)", iter(seen)


def _readable(example: Example) -> bool:
    """Whether a large file is an image: else nobody keeps it in memory."""
    try:
        open_image(example.item, example.where, "L")  # type: ignore[arg-type]
    except ValueError:
        return False
    return True


def _drawn(example: Example) -> bool:
    """Whether an image is without colour, and mostly black or white. So is one that is damaged."""
    try:
        pixels = decode_image(example.item, Path(example.where).name, (64, 64), 3)  # type: ignore[arg-type]
    except ValueError:
        return True
    plain = int(np.ptp(pixels.astype(int), axis=0).max()) < 16
    return plain and float(((pixels < 40) | (pixels > 215)).mean()) > 0.5
