"""How a model does on examples it has not seen, as one self-contained HTML page."""

import base64
import html
import io
import os
import warnings
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quickstudy.encoders import FeatureCache
from quickstudy.examples import Example, Item, as_examples
from quickstudy.model import Answer, Model
from quickstudy.plain import interval_of

__all__ = ["Mistake", "Report"]

_WORST = 24
_SIDE = 96


@dataclass(frozen=True)
class Mistake:
    """A wrong answer, with what there is to show of the example: a picture, or its text."""

    answer: Answer
    truth: str
    picture: bytes | None
    text: str | None


@dataclass(frozen=True)
class Report:
    """Figures of a test.

    Attributes:
        classes: of the model, and after them those that only the test has.
        confusion: ``[N,M+1]``: how many of each true class were called what; the last column is
            "unknown".
        worst: the wrong answers it was surest of.
        failed: examples that could not be read.
        about: what there is to know of the model, see `Model.about`.
        together: whether the examples were answered together, see `Model.predict`.
    """

    classes: list[str]
    confusion: NDArray[np.int64]
    worst: list[Mistake]
    failed: list[str]
    about: dict[str, Any]
    together: bool = False

    @classmethod
    def of(
        cls,
        model: Model,
        examples: str | os.PathLike[str] | Iterable[Example | tuple[Item, Any]],
        *,
        cache: FeatureCache | None = None,
        failed: list[str] | None = None,
        together: bool = False,
    ) -> "Report":
        """Test a model on labelled examples; arguments as in `Model.learn`.

        With ``together`` they are answered when all are read, as `Model.predict` does; their labels
        are not looked at before.

        Raises:
            ValueError: there is nothing to test on, or an example has no label; or the head cannot
                answer many together.
        """
        failed = [] if failed is None else failed
        classes = [*model.counts]
        known = len(classes)
        counts: dict[tuple[int, int], int] = {}
        worst: list[Mistake] = []
        pending: deque[Example] = deque()

        def remember() -> Iterable[Example]:
            for example in as_examples(examples, failed):
                if example.label is None:
                    raise ValueError(f"{example.where} has no label")
                pending.append(_shrunk(example) if together else example)
                yield example

        for answer in model.predict(remember(), cache=cache, failed=failed, together=together):
            while pending[0].where != answer.where:
                pending.popleft()  # could not be read
            example = pending.popleft()
            truth = str(example.label)
            if truth not in classes:
                classes.append(truth)
            called = known if answer.label is None else classes.index(answer.label)
            cell = classes.index(truth), called
            counts[cell] = counts.get(cell, 0) + 1
            if answer.label is not None and answer.label != truth:
                worst.append(_mistake(answer, example, truth))
                worst = sorted(worst, key=lambda m: -m.answer.probability)[:_WORST]
        if not counts:
            reason = (
                f"none of the examples can be used: {failed[0]}" if failed else "nothing to test"
            )
            raise ValueError(reason)
        tested = {classes[truth] for truth, _ in counts}
        if tested.isdisjoint(model.counts):
            warnings.warn(
                f"no class that is tested ({', '.join(sorted(tested)[:3])}) is one of the model's "
                f"({', '.join([*model.counts][:3])})",
                stacklevel=2,
            )
        confusion = np.zeros((len(classes), known + 1), np.int64)
        for cell, count in counts.items():
            confusion[cell] = count
        return cls(classes, confusion, worst, failed, model.about(), together)

    @property
    def tested(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Right answers in all; "unknown" is right for a class the model does not have."""
        return self._right / self.tested

    @property
    def interval(self) -> tuple[float, float]:
        """Where the true accuracy lies, with 95% confidence (Wilson 1927)."""
        return interval_of(self._right, self.tested)

    @property
    def _right(self) -> int:
        known = self.confusion.shape[1] - 1
        return int(self.confusion[:known, :known].trace() + self.confusion[known:, known].sum())

    def per_class(self) -> list[tuple[str, int, float, float, float]]:
        """Class, examples, recall, precision and F1 of each class that the model has."""
        rows = []
        known = self.confusion.shape[1] - 1
        for i, name in enumerate(self.classes[:known]):
            right = float(self.confusion[i, i])
            total, called = int(self.confusion[i].sum()), int(self.confusion[:, i].sum())
            recall = right / total if total else float("nan")
            precision = right / called if called else float("nan")
            f1 = 2 * right / (total + called) if total + called else float("nan")
            rows.append((name, total, recall, precision, f1))
        return rows

    def html(self, title: str) -> str:
        """The page: works offline, loads nothing."""
        known = self.confusion.shape[1] - 1
        columns = [*self.classes[:known], "unknown"]
        head = "".join(f"<th><span>{html.escape(c)}</span></th>" for c in columns)
        body = ""
        for i, name in enumerate(self.classes):
            total = max(1, int(self.confusion[i].sum()))
            cells = ""
            for j, n in enumerate(self.confusion[i]):
                right = j == i or (i >= known and j == known)
                hue = 145 if right else 10
                share = n / total
                style = f"background:hsl({hue} 60% 45% / {share:.2f})" if n else ""
                caption = f"{name} called {columns[j]}: {n} of {total}"
                cells += f'<td style="{style}" title="{html.escape(caption)}">{n or ""}</td>'
            body += f"<tr><th>{html.escape(name)}</th>{cells}</tr>"
        learned, rows = self.about["classes"], ""
        for i, (name, n, *figures) in enumerate(self.per_class()):
            low, high = interval_of(int(self.confusion[i, i]), n)
            shown = [*("-" if v != v else f"{v:.1%}" for v in figures)]
            shown[0] += f" <small>{low:.0%} to {high:.0%}</small>" if n else ""
            cells = "".join(f"<td>{v}</td>" for v in (learned[name], n, *shown))
            rows += f"<tr><th>{html.escape(name)}</th>{cells}</tr>"
        mistakes = "".join(map(_figure, self.worst)) or "<p>None.</p>"
        lost = "".join(f"<li>{html.escape(f)}</li>" for f in self.failed)
        return _PAGE.format(
            title=html.escape(title),
            accuracy=f"{self.accuracy:.1%}",
            interval="{:.1%} to {:.1%}".format(*self.interval),
            encoder=html.escape(self.about["encoder"]),
            head=html.escape(self.about["head"]),
            learned=sum(learned.values()),
            known=known,
            together=_TOGETHER if self.together else "",
            wide=_WIDE,
            tested=self.tested,
            columns=head,
            body=body,
            rows=rows,
            mistakes=mistakes,
            failed=f"<h2>Could not be read</h2><ul>{lost}</ul>" if lost else "",
        )


def _mistake(answer: Answer, example: Example, truth: str) -> Mistake:
    if isinstance(example.item, str):
        return Mistake(answer, truth, None, example.item)
    if not isinstance(example.item, bytes):
        row = ", ".join(f"{name}: {value}" for name, value in example.item.items())
        return Mistake(answer, truth, None, f"{example.where} ({row})")
    return Mistake(answer, truth, _picture(example.item, example.where), None)


def _picture(image: bytes, where: str) -> bytes:
    """An image as it is shown, small."""
    from PIL import Image

    from quickstudy.images import decode_image

    file = io.BytesIO()
    pixels = decode_image(image, where, (_SIDE, _SIDE), 3)
    Image.fromarray(np.moveaxis(pixels, 0, 2)).save(file, "PNG")
    return file.getvalue()


def _shrunk(example: Example) -> Example:
    """What of an example is kept until all are read; of an image, the picture to show of it."""
    if not isinstance(example.item, bytes):
        return example
    try:
        picture = _picture(example.item, example.where)
    except ValueError:  # which whoever encodes it will say
        picture = b""
    return replace(example, item=picture)


def _figure(mistake: Mistake) -> str:
    answer = mistake.answer
    if mistake.picture is not None:
        data = base64.b64encode(mistake.picture).decode()
        shown = f'<img src="data:image/png;base64,{data}" alt="">'
    else:
        shown = f"<blockquote>{html.escape(mistake.text or '')}</blockquote>"
    label = html.escape(str(answer.label))
    return (
        f'<figure title="{html.escape(answer.where)}">{shown}<figcaption>'
        f"<b>{html.escape(mistake.truth)}</b><br>called {label}, {answer.probability:.0%}"
        "</figcaption></figure>"
    )


_TOGETHER = (
    " The examples were answered together: each showed the others what its class looks like, so "
    "that one alone, or others, may be answered otherwise."
)
_WIDE = '<div class="wide" role="region" aria-label="Table" tabindex="0">'
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}: report</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
       padding: 0 1rem; color: #222; background: #fff }}
h1 strong {{ font-size: 3rem; display: block; line-height: 1.1 }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th {{ text-align: left; font-weight: 500; padding: .1rem .6rem .1rem 0; white-space: nowrap }}
td {{ text-align: right; padding: .1rem .6rem; min-width: 1.6rem }}
thead th:not(:first-child) {{ text-align: right; padding: .1rem .6rem }}
.confusion thead th:not(:first-child) {{ height: 8rem; vertical-align: bottom; padding: 0 }}
.confusion thead span {{ writing-mode: vertical-rl; transform: rotate(180deg); padding: .3rem }}
.confusion td {{ border: 1px solid #ddd; text-align: center; padding: .1rem .3rem }}
figure {{ display: inline-block; vertical-align: top; width: 9rem; margin: 0 1rem 1rem 0;
         font-size: .85rem }}
img {{ width: 96px; height: 96px; border: 1px solid #ddd; border-radius: 4px }}
blockquote {{ margin: 0; padding: .4rem .6rem; background: #f3f3f3; border-radius: 4px }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #ddd; background: #181818 }}
  .confusion td, img {{ border-color: #444 }} blockquote {{ background: #2a2a2a }} }}
</style>
<h1>{title} <strong>{accuracy}</strong></h1>
<p>of {tested} examples were called by their right name. With 95% confidence that is {interval}
of all such examples.</p>
<p>The model: encoder {encoder}, head {head}, learned from {learned} examples of {known}
classes.{together}</p>
<h2>What was called what</h2>
<p>A row is a true class, a column what the model said.</p>
{wide}<table class="confusion"><thead><tr><th></th>{columns}</tr></thead>
<tbody>{body}</tbody></table></div>
<h2>Each class</h2>
{wide}<table><thead><tr><th>class</th><th>learned from</th><th>tested</th><th>recall</th>
<th>precision</th><th>F1</th></tr></thead><tbody>{rows}</tbody></table></div>
<h2>The mistakes it was surest of</h2>
{mistakes}
{failed}
</html>
"""
