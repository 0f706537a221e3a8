"""Draws phi of every learner: ``python docs/pictures.py [FOLDER]`` writes one SVG each.

All pictures speak the same language. Left: the support, a colour a class. Middle: what `adapt`
makes of it; amber is phi, grey is what training has learned. Right: a query (black) and its logits.
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle

FOLDER = Path(__file__).parent / "images" / "phi"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "quickstudy",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.monospace": ["DejaVu Sans Mono", "Menlo", "Consolas"],
}
CLASSES = ("#2667c9", "#c2571a", "#1a7f5a")
INK, GREY, PALE, AMBER, TINT = "#1f2933", "#7b8794", "#d5dbe1", "#f0b429", "#fff9ea"
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
NETWORK = (("network", "{name: [T,...]}"), ("classes", "[T,N]"))
WIDTH, HEIGHT = 78.0, 33.0  # tenths of an inch
MONO = 0.606 * 7 / 7.2  # width of a letter of 7 points

Point = tuple[float, float]


class Canvas:
    """A white sheet of 78 x 33 tenths of an inch, the origin at the bottom left."""

    def __init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH / 10, HEIGHT / 10), facecolor="white")
        self.axes: Any = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(0, WIDTH)
        self.axes.set_ylim(0, HEIGHT)
        self.axes.axis("off")

    def text(self, x: float, y: float, words: str, **style: Any) -> None:
        look = {"fontsize": 8, "color": INK, "ha": "center", "va": "center", **style}
        self.axes.text(x, y, words, **look)

    def mono(self, x: float, y: float, words: str, **style: Any) -> None:
        self.text(x, y, words, **{"fontsize": 7, "family": "monospace", **style})

    def box(self, x: float, y: float, w: float, h: float, **style: Any) -> None:
        look = {"facecolor": "white", "edgecolor": INK, "linewidth": 1.0, **style}
        round_ = f"round,pad=0,rounding_size={look.pop('corner', 0.4)}"
        self.axes.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=round_, clip_on=False, **look))

    def cell(self, x: float, y: float, w: float, h: float, colour: str, **style: Any) -> None:
        look = {"edgecolor": "white", "linewidth": 0.6, **style}
        self.axes.add_patch(Rectangle((x, y), w, h, facecolor=colour, clip_on=False, **look))

    def line(self, points: Sequence[Point], **style: Any) -> None:
        look = {"color": GREY, "linewidth": 1.0, "clip_on": False, **style}
        self.axes.add_line(Line2D([p[0] for p in points], [p[1] for p in points], **look))

    def arrow(self, start: Point, end: Point, **style: Any) -> None:
        look = {"color": INK, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0, **style}
        bend = look.pop("bend", 0.0)
        size = look.pop("size", 8)
        self.axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle=look.pop("head", "-|>"),
                mutation_scale=size,
                connectionstyle=f"arc3,rad={bend}",
                clip_on=False,
                **look,
            )
        )

    def oval(self, centre: Point, w: float, h: float, angle: float = 0, **style: Any) -> None:
        look = {"facecolor": "none", "edgecolor": PALE, "linewidth": 0.9, **style}
        self.axes.add_patch(Ellipse(centre, w, h, angle=angle, clip_on=False, **look))

    def dot(self, at: Point, colour: str, size: float = 1.1, **style: Any) -> None:
        look = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.8, "zorder": 5, **style}
        self.oval(at, size, size, **look)

    def query(self, at: Point, size: float = 1.0) -> None:
        """The query: a black star."""
        corners = []
        for k in range(10):
            radius, angle = size * (1 if k % 2 == 0 else 0.42), math.pi * (k / 5 + 0.5)
            corners.append((at[0] + radius * math.cos(angle), at[1] + radius * math.sin(angle)))
        self.axes.add_patch(Polygon(corners, facecolor=INK, linewidth=0, zorder=6, clip_on=False))

    def example(
        self, x: float, y: float, label: int, size: float = 3.6, *, frame: str = "", turn: int = 0
    ) -> None:
        """An image of class ``label``: a ring, a triangle or a cross, framed in its colour."""
        self.box(x, y, size, size, edgecolor=frame or CLASSES[label], linewidth=1.6)
        cx, cy, r = x + size / 2, y + size / 2, 0.28 * size
        look = {"color": INK, "linewidth": 1.4}
        if label == 0:
            self.oval((cx, cy), 2 * r, (1.7 - 0.3 * turn) * r, edgecolor=INK, linewidth=1.4)
        elif label == 1:
            angles = [math.radians(90 + 15 * turn + 120 * k) for k in range(4)]
            self.line([(cx + r * math.cos(a), cy + r * math.sin(a)) for a in angles], **look)
        else:
            a = math.radians(45 + 18 * turn)
            for b in (a, a + math.pi / 2):
                dx, dy = r * math.cos(b), r * math.sin(b)
                self.line([(cx - dx, cy - dy), (cx + dx, cy + dy)], **look)

    def block(self, x: float, y: float, w: float, h: float, words: str, **style: Any) -> None:
        """A part of the network: grey if it is as trained, amber if it belongs to phi."""
        size = style.pop("fontsize", 8)
        self.box(x, y, w, h, **{"facecolor": "#eef1f4", "edgecolor": GREY, **style})
        self.text(x + w / 2, y + h / 2, words, fontsize=size)


@dataclass(frozen=True)
class Picture:
    """What is particular to a learner.

    Args:
        says: what phi is, above it.
        tensors: names and shapes of phi.
        rule: how a query is answered.
        learned: what training on many tasks has learned.
        draw: draws phi into ``x`` 22..57 and ``y`` 8..28.
    """

    says: str
    tensors: tuple[tuple[str, str], ...]
    rule: str
    learned: str
    draw: Callable[[Canvas], None]


# -- spaces and the points in them

POINTS: tuple[tuple[float, float, int], ...] = (
    (28.0, 23.0, 0),
    (31.5, 25.8, 0),
    (45.5, 24.8, 1),
    (52.0, 23.2, 1),
    (37.0, 10.8, 2),
    (43.5, 12.2, 2),
)
QUERY = (45.5, 19.6)
KEPT = (("support", "[T,S,D]"), ("labels", "[T,S]"), ("classes", "[T,N]"))


def _points(canvas: Canvas, size: float = 1.3, kept: bool = False) -> None:
    for x, y, label in POINTS:
        look = {"edgecolor": AMBER, "linewidth": 1.8} if kept else {}
        canvas.dot((x, y), CLASSES[label], size + 0.3 * kept, **look)


def _nearest(canvas: Canvas) -> None:
    canvas.line([QUERY, POINTS[2][:2]], color=INK, linewidth=2)
    canvas.oval(QUERY, 10.6, 10.6, linestyle="--", edgecolor=GREY)
    _points(canvas, kept=True)
    canvas.query(QUERY, 1.2)
    canvas.text(50.6, 11.6, "closest example\nof the support", color=GREY, fontsize=7)


def _soft(canvas: Canvas) -> None:
    for x, y, label in POINTS:
        square = (x - QUERY[0]) ** 2 + (y - QUERY[1]) ** 2
        canvas.line(
            [QUERY, (x, y)], color=CLASSES[label], linewidth=max(0.5, 5.5 * math.exp(-square / 40))
        )
    _points(canvas, kept=True)
    canvas.query(QUERY, 1.2)
    canvas.text(30, 15.5, "width: weight\nof the vote", color=GREY, fontsize=7)


def _protonet(canvas: Canvas) -> None:
    for label in range(3):
        mine = [p for p in POINTS if p[2] == label]
        mean = (sum(p[0] for p in mine) / 2, sum(p[1] for p in mine) / 2)
        canvas.line([p[:2] for p in mine], color=CLASSES[label], linewidth=0.9)
        near = label == 1
        look = {"linestyle": "-", "linewidth": 2.0} if near else {"linestyle": (0, (4, 2))}
        canvas.line([QUERY, mean], color=INK if near else GREY, **look)
        canvas.dot(mean, CLASSES[label], 2.5, edgecolor=AMBER, linewidth=2.4)
        above = 2.2 if label < 2 else -2.4
        canvas.text(mean[0], mean[1] + above, f"c{'₀₁₂'[label]}", weight="bold")
    _points(canvas, 1.1)
    canvas.query(QUERY, 1.2)
    canvas.text(26.5, 14.2, "c: mean of the\nclass's examples", color=GREY, fontsize=7)


def _circle(canvas: Canvas, centre: Point, radius: float, angles: Sequence[float]) -> list[Point]:
    canvas.oval(centre, 2 * radius, 2 * radius, edgecolor=GREY)
    return [
        (
            centre[0] + radius * math.cos(math.radians(a)),
            centre[1] + radius * math.sin(math.radians(a)),
        )
        for a in angles
    ]


def _matching(canvas: Canvas) -> None:
    centre = (39.5, 18.0)
    where = _circle(canvas, centre, 9.0, (165, 140, 62, 30, 258, 285))
    (query,) = _circle(canvas, centre, 9.0, (5,))
    canvas.line([centre, query], linewidth=0.8)
    for point, weight, label in zip(
        where, (0.5, 0.6, 2.0, 5.5, 0.8, 1.2), (0, 0, 1, 1, 2, 2), strict=True
    ):
        canvas.line([centre, point], linewidth=0.5, color=PALE)
        canvas.line([query, point], linewidth=weight, color=CLASSES[label])
        canvas.dot(point, CLASSES[label], 1.6, edgecolor=AMBER, linewidth=1.8)
    canvas.query(query, 1.2)
    canvas.text(26.0, 12.2, "cosine: only\nthe angle counts", color=GREY, fontsize=7)
    canvas.text(53.2, 24.6, "width:\nattention a", color=GREY, fontsize=7)


def _simpleshot(canvas: Canvas) -> None:
    raw = [(24.6, 20.0), (26.0, 22.6), (31.4, 23.4), (33.6, 21.0), (27.6, 13.4), (30.8, 12.6)]
    mean = (29.0, 18.4)
    for point, label in zip(raw, (0, 0, 1, 1, 2, 2), strict=True):
        canvas.line([mean, point], color=PALE)
        canvas.dot(point, CLASSES[label], 1.2)
    canvas.text(mean[0], mean[1], "+", fontsize=15, color=GREY)
    canvas.text(mean[0] + 1.2, mean[1] - 1.4, "m", color=GREY)
    canvas.text(29.0, 9.6, "features e(x)", color=GREY, fontsize=7)
    canvas.arrow((35.4, 18), (40.0, 18), color=GREY)
    canvas.text(37.7, 20.0, "centre,", color=GREY, fontsize=7)
    canvas.text(37.7, 16.0, "normalise", color=GREY, fontsize=7)
    centre = (49.3, 18.0)
    where = _circle(canvas, centre, 7.4, (172, 128, 62, 22, 240, 290))
    (query,) = _circle(canvas, centre, 7.4, (78,))
    for label in range(3):
        a, b = where[2 * label : 2 * label + 2]
        middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        near = label == 1
        look = {"linewidth": 2.0} if near else {"linestyle": (0, (4, 2))}
        canvas.line([query, middle], color=INK if near else GREY, **look)
        canvas.line([a, b], color=CLASSES[label], linewidth=0.9)
        canvas.dot(middle, CLASSES[label], 2.1, edgecolor=AMBER, linewidth=2.2)
        for point in (a, b):
            canvas.dot(point, CLASSES[label], 1.1)
    canvas.query(query, 1.1)


# -- gradients


def _ensemble(canvas: Canvas) -> None:
    middle = 17.6
    for k, (name, heights) in enumerate(
        (("ProtoNet", (1.0, 2.6, 0.6)), ("matching", (0.6, 2.2, 1.4)), ("MAML", (1.8, 1.6, 0.7)))
    ):
        y = 23.4 - 5.8 * k
        canvas.block(23.0, y - 1.7, 8.4, 3.4, name)
        canvas.arrow((31.8, y), (34.0, y), color=GREY)
        canvas.box(34.4, y - 1.5, 5.2, 3.0, facecolor=AMBER, linewidth=0.8)
        canvas.text(37.0, y, f"phi{'₁₂₃'[k]}")
        canvas.arrow((40.0, y), (42.2, y), color=GREY)
        for label, height in enumerate(heights):
            canvas.cell(42.8 + 1.5 * label, y - 1.3, 1.1, height, CLASSES[label])
        canvas.line([(42.4, y - 1.3), (47.4, y - 1.3)])
        canvas.arrow((48.0, y), (51.2, middle + 0.35 * (y - middle)), color=GREY)
    for label, height in enumerate((1.4, 3.4, 1.0)):
        canvas.cell(51.8 + 1.5 * label, middle - 1.7, 1.1, height, CLASSES[label])
    canvas.line([(51.4, middle - 1.7), (56.4, middle - 1.7)])


def _valley(canvas: Canvas, centre: Point, *, angle: float = 30, scale: float = 1.0) -> None:
    for size in (1.0, 0.74, 0.5, 0.28):
        canvas.oval(centre, 15 * size * scale, 9.5 * size * scale, angle, edgecolor="#c3cbd3")


def _path(canvas: Canvas, points: Sequence[Point], colour: str = INK) -> None:
    for a, b in pairwise(points):
        gap = 6.5 if b == points[-1] else 4.0
        canvas.arrow(a, b, color=colour, linewidth=1.5, shrinkB=gap)
    for point in points[1:-1]:
        canvas.dot(point, colour, 1.0)


def _goal(canvas: Canvas, at: Point, size: float = 1.7) -> None:
    canvas.dot(at, AMBER, size, edgecolor=INK, linewidth=0.9)


def _maml(canvas: Canvas) -> None:
    start, end = (31.0, 16.0), (47.0, 21.2)
    _valley(canvas, (47.4, 21.2))
    for centre, words in (((30.4, 24.2), "another\ntask"), ((38.0, 10.4), "another task")):
        _valley(canvas, centre, angle=-20, scale=0.34)
        canvas.arrow(start, centre, color=PALE, linestyle="--")
        dx, dy = (-5.4, 0.8) if "\n" in words else (7.0, -0.4)
        canvas.text(centre[0] + dx, centre[1] + dy, words, color=GREY, fontsize=7)
    _path(canvas, [start, (36.6, 16.0), (42.0, 18.0), end])
    canvas.dot(start, GREY, 2.0)
    _goal(canvas, end)
    canvas.text(28.8, 14.4, "θ = φ₀", weight="bold")
    canvas.text(36.8, 14.0, "φ₁", weight="bold")
    canvas.text(40.6, 19.2, "φ₂", weight="bold")
    canvas.text(48.6, 22.8, "φ₃", weight="bold")
    canvas.text(47.5, 27.3, "loss of this task's support", color=GREY, fontsize=7)


def _reptile(canvas: Canvas) -> None:
    start = (31.0, 12.0)
    ends = ((30.4, 24.0), (42.4, 23.4), (50.4, 14.6))
    bends: tuple[tuple[Point, ...], ...] = (
        ((28.6, 15.0), (28.2, 19.4)),
        ((33.4, 16.6), (37.2, 20.8)),
        ((36.6, 11.2), (43.4, 12.0)),
    )
    for i, (end, bend) in enumerate(zip(ends, bends, strict=True)):
        _valley(canvas, end, angle=25 - 30 * i, scale=0.44)
        _path(canvas, [start, *bend, end], GREY)
        _goal(canvas, end)
        dx, dy = ((-2.6, 1.4), (2.8, 1.2), (2.8, 1.2))[i]
        canvas.text(end[0] + dx, end[1] + dy, f"φ{'₁₂₃'[i]}", weight="bold")
    canvas.arrow(start, (37.8, 17.2), linewidth=3.0, size=14)
    canvas.dot(start, GREY, 2.0)
    canvas.text(28.4, 10.8, "θ", weight="bold")
    canvas.text(47.4, 18.9, "θ ← θ + ε mean(φᵢ - θ)", fontsize=7.5)
    canvas.text(45.2, 9.2, "three tasks of training", color=GREY, fontsize=7)


def _anil(canvas: Canvas) -> None:
    for k, h in enumerate((13.0, 11.0, 9.0)):
        canvas.block(23.4 + 3.2 * k, 18.0 - h / 2, 2.6, h, "")
    canvas.text(27.6, 26.4, "encoder e: runs once,", color=GREY, fontsize=7)
    canvas.text(27.6, 25.1, "not adapted", color=GREY, fontsize=7)
    canvas.arrow((33.0, 18), (35.6, 18), color=GREY)
    for k, fill in enumerate(("#eef1f4", "#fdf0cd", AMBER)):
        x = 36.0 + 7.6 * k
        edge = INK if k == 2 else GREY
        canvas.block(x, 14.4, 4.0, 7.2, f"φ{'₀₁₂'[k]}", facecolor=fill, edgecolor=edge)
        if k:
            canvas.arrow((x - 3.4, 18), (x - 0.2, 18))
    canvas.text(45.6, 23.4, "last layer: a gradient step at a time", fontsize=7)
    canvas.text(41.8, 12.4, f"-{ALPHA} grad", fontsize=7)
    canvas.text(49.4, 12.4, f"-{ALPHA} grad", fontsize=7)


def _meta_sgd(canvas: Canvas) -> None:
    start, end = (25.6, 13.2), (34.0, 20.6)
    _valley(canvas, (34.4, 20.8), angle=10, scale=0.86)
    canvas.arrow(start, (28.9, 20.3), color=GREY, linestyle="--")
    canvas.arrow(start, end, linewidth=1.8, shrinkB=6.5)
    canvas.dot(start, GREY, 2.0)
    _goal(canvas, end)
    canvas.text(27.4, 11.6, "θ", weight="bold")
    canvas.text(36.0, 20.6, "φ", weight="bold")
    canvas.text(26.2, 21.0, "-grad", fontsize=7, color=GREY)
    gradient = (0.5, -0.9, 0.7, -0.3, 1.0, -0.6)
    alpha = (0.9, 0.15, 0.6, -0.5, 0.2, 0.8)
    product = tuple(g * a for g, a in zip(gradient, alpha, strict=True))
    rows = ((24.2, "-grad", gradient), (18.2, ALPHA, alpha), (12.0, "φ - θ", product))
    for (y, name, values), colour in zip(rows, (GREY, INK, AMBER), strict=True):
        canvas.text(44.4, y, name, ha="right", fontsize=7.5)
        canvas.line([(45.2, y), (56.6, y)], linewidth=0.6)
        for k, value in enumerate(values):
            canvas.cell(45.9 + 1.8 * k, y, 1.2, 2.3 * value, colour)
    canvas.text(50.9, 21.2, "times, number by number", fontsize=6.5, color=GREY)
    canvas.text(50.9, 15.2, "is the step", fontsize=6.5, color=GREY)


def _maml_plus_plus(canvas: Canvas) -> None:
    for k in range(4):
        x = 25.2 + 9.4 * k
        if k < 3:
            canvas.arrow((x + 1.6, 16), (x + 7.8, 16), linewidth=1.5)
            canvas.text(x + 4.7, 17.6, f"{ALPHA}{'₀₁₂'[k]}, by layer", fontsize=6.5)
        if k == 3:
            _goal(canvas, (x, 16), 2.4)
        else:
            canvas.dot((x, 16), GREY, 2.2 if k == 0 else 1.5)
        canvas.text(x, 13.4, "θ" if k == 0 else f"φ{'₀₁₂₃'[k]}", weight="bold")
        canvas.block(x - 2.6, 9.6, 5.2, 2.1, f"norm {k}", fontsize=7)
        if k:
            canvas.arrow((x, 17.5), (x, 21.0), color=GREY)
            height = (0.0, 1.0, 1.8, 3.2)[k]
            canvas.cell(x - 1.1, 21.6, 2.2, height, CLASSES[1])
            canvas.text(x, 22.3 + height, f"v{'₀₁₂₃'[k]}·L", fontsize=7)
    canvas.text(28.2, 24.0, "loss on the query", fontsize=7, color=GREY)
    canvas.text(28.2, 22.7, "after every step", fontsize=7, color=GREY)


def _scratch(canvas: Canvas) -> None:
    end = (49.0, 17.0)
    _valley(canvas, (49.0, 17.0), angle=60)
    steps = [(25.4, 23.8), (28.0, 21.4), (30.2, 22.4), (32.0, 19.8), (34.0, 20.6), (35.6, 18.2)]
    steps += [(38.0, 19.2), (39.8, 17.0), (42.4, 18.0), (44.4, 16.4), (46.6, 17.2), end]
    for a, b in pairwise(steps):
        canvas.line([a, b], color=INK, linewidth=1.3)
        canvas.dot(b, INK, 0.7, linewidth=0)
    canvas.dot(steps[0], "white", 2.4, edgecolor=GREY, linewidth=1.4)
    canvas.text(*steps[0], "?", weight="bold", zorder=7)
    _goal(canvas, end)
    canvas.text(27.2, 26.6, "a random start", fontsize=7, color=GREY)
    canvas.text(35.0, 14.2, "many small steps\non the support alone", fontsize=7, color=GREY)
    canvas.text(50.8, 18.4, "φ", weight="bold")


# -- solutions and layers


def _r2d2(canvas: Canvas) -> None:
    top, unit = 25.4, 1.25

    def matrix(x: float, rows: int, columns: int, colour: str, below: str, shape: str) -> None:
        for r in range(rows):
            for c in range(columns):
                canvas.cell(x + c * unit, top - (r + 1) * unit, unit, unit, colour)
        y = top - rows * unit
        canvas.text(x + columns * unit / 2, y - 1.1, below, weight="bold")
        canvas.mono(x + columns * unit / 2, y - 2.5, shape, color=GREY, fontsize=6.5)

    matrix(24.2, 10, 3, AMBER, "W", "[D+1,N]")
    canvas.text(29.7, 21.6, "=", fontsize=12)
    matrix(32.0, 10, 6, PALE, "Xᵀ", "[D+1,S]")
    matrix(41.6, 6, 6, PALE, "(XXᵀ + λI)⁻¹", "[S,S]")
    for r in range(6):
        for c in range(3):
            colour = CLASSES[c] if r // 2 == c else "#eef1f4"
            canvas.cell(51.4 + c * unit, top - (r + 1) * unit, unit, unit, colour)
    canvas.text(53.3, top - 6 * unit - 1.1, "Y", weight="bold")
    canvas.mono(53.3, top - 6 * unit - 2.5, "[S,N]", color=GREY, fontsize=6.5)
    canvas.text(
        48.9, 11.2, "solved exactly, no steps;\nas large as the support", color=GREY, fontsize=7
    )


def _baseline(canvas: Canvas) -> None:
    for k, h in enumerate((12.0, 10.0, 8.0)):
        canvas.block(22.8 + 2.9 * k, 18.0 - h / 2, 2.3, h, "")
    canvas.text(26.9, 10.6, "encoder e", color=GREY, fontsize=7)
    canvas.arrow((31.4, 19.4), (34.0, 22.0), color=PALE, linestyle="--")
    canvas.box(34.2, 20.0, 4.0, 6.0, edgecolor=GREY, linestyle="--", facecolor="#f5f7fa")
    canvas.text(36.2, 23.0, "W_b", color=GREY, fontsize=7)
    canvas.line([(34.2, 20.0), (38.2, 26.0)], linewidth=0.8)
    canvas.text(31.0, 27.2, "old classes: left out", color=GREY, fontsize=7)
    canvas.arrow((31.4, 17.0), (39.6, 16.0), color=INK)
    canvas.text(35.4, 14.4, "new layer,", fontsize=7)
    canvas.text(35.4, 13.1, "from 0", fontsize=7)
    middle = (49.0, 17.6)
    for end in ((40.6, 13.4), (57.0, 13.8), (48.6, 27.0)):
        canvas.line([middle, end], color=AMBER, linewidth=2.6)
    points = ((43.0, 21.0, 0), (45.6, 23.4, 0), (52.6, 22.4, 1), (54.6, 20.0, 1))
    for x, y, label in (*points, (46.4, 11.6, 2), (51.0, 12.2, 2)):
        canvas.dot((x, y), CLASSES[label], 1.4)
    canvas.query((51.6, 18.9), 1.1)
    canvas.text(49.0, 9.2, "borders that the new layer draws", color=GREY, fontsize=7)


def _borders(canvas: Canvas, middle: Point, ends: Sequence[Point], **style: Any) -> None:
    for end in ends:
        canvas.line([middle, end], **style)


def _proto_maml(canvas: Canvas) -> None:
    _borders(
        canvas,
        (40.6, 18.2),
        ((39.4, 27.6), (27.0, 13.2), (54.6, 14.8)),
        color=GREY,
        linewidth=1.2,
        linestyle=(0, (4, 2)),
    )
    _borders(
        canvas,
        (38.2, 17.4),
        ((37.2, 27.6), (26.0, 16.2), (55.6, 17.4)),
        color=AMBER,
        linewidth=2.6,
    )
    for label in range(3):
        mine = [p for p in POINTS if p[2] == label]
        mean = (sum(p[0] for p in mine) / 2, sum(p[1] for p in mine) / 2)
        canvas.line([p[:2] for p in mine], color=CLASSES[label], linewidth=0.9)
        canvas.dot(mean, CLASSES[label], 2.3)
    _points(canvas, 1.1)
    canvas.query(QUERY, 1.2)
    canvas.arrow((31.0, 14.7), (30.4, 16.6), size=6)
    canvas.text(28.8, 10.6, "dashed: start, between\nthe class means", color=GREY, fontsize=7)
    canvas.text(50.6, 11.6, "amber: after steps\non the support", fontsize=7)


def _logistic(canvas: Canvas) -> None:
    middle = (39.4, 18.0)
    _borders(
        canvas,
        middle,
        ((38.6, 27.6), (26.4, 14.2), (55.0, 16.2)),
        color=AMBER,
        linewidth=2.6,
    )
    _points(canvas, 1.4)
    canvas.query(QUERY, 1.2)
    canvas.text(29.0, 10.8, "as likely as can be,\nfor weights this small", color=GREY, fontsize=7)
    canvas.text(51.8, 11.4, "one solution:\nno start, no rate", color=GREY, fontsize=7)


# -- black boxes


def _label(canvas: Canvas, x: float, y: float, label: int | None) -> None:
    """A one-hot label; all zero if there is none."""
    for c in range(3):
        fill = CLASSES[c] if c == label else "white"
        canvas.cell(x + 1.1 * c, y, 1.1, 1.1, fill, edgecolor=GREY)


def _lstm(canvas: Canvas) -> None:
    order = (2, 0, 1, 0)
    for k, label in enumerate(order):
        x = 23.2 + 6.6 * k + (2.2 if k == 3 else 0)
        canvas.block(x, 19.6, 4.4, 4.4, "LSTM", fontsize=7)
        canvas.example(x + 0.6, 13.4, label, 3.2, turn=k % 2)
        _label(canvas, x + 0.55, 11.6, label)
        canvas.arrow((x + 2.2, 17.0), (x + 2.2, 19.3), color=GREY)
        if k == 3:
            canvas.text(x - 2.2, 21.8, "· · ·", weight="bold")
            canvas.text(x - 2.2, 15.0, "· · ·", weight="bold")
        elif k < 2:
            canvas.arrow((x + 4.6, 21.8), (x + 6.4, 21.8))
    canvas.arrow((49.8, 21.8), (51.6, 21.8))
    canvas.box(51.9, 19.2, 5.2, 5.2, facecolor=AMBER)
    canvas.text(54.5, 21.8, "(h, c)", weight="bold")
    canvas.text(39.4, 26.2, "the support, one example after another", color=GREY, fontsize=7)
    canvas.text(36.0, 9.6, "image and one-hot label", color=GREY, fontsize=7)


def _mann(canvas: Canvas) -> None:
    canvas.block(24.0, 20.4, 9.4, 4.8, "controller")
    canvas.example(24.4, 14.2, 1, 3.0)
    _label(canvas, 28.6, 15.2, 1)
    canvas.arrow((26.0, 17.4), (26.0, 20.2), color=GREY)
    canvas.arrow((30.2, 16.6), (30.2, 20.2), color=GREY)
    x, y, unit = 43.2, 14.4, 1.5
    for r in range(8):
        for c in range(6):
            strong = r in (1, 2, 5)
            shade = ("#fdf0cd", "#f8d98a", AMBER)[(3 * r + 5 * c) % 3] if strong else "#fdf6e3"
            canvas.cell(x + c * unit, y + r * unit, unit, unit, shade)
    for r, used in enumerate((0.3, 2.6, 1.7, 0.2, 0.4, 2.2, 0.1, 0.3)):
        canvas.cell(x + 6 * unit + 0.6, y + r * unit + 0.2, used, unit - 0.4, GREY)
    canvas.text(x + 3 * unit, y + 8 * unit + 0.9, "memory", weight="bold", fontsize=7.5)
    canvas.text(x + 6 * unit + 2.4, y + 8 * unit + 0.9, "usage", color=GREY, fontsize=7)
    canvas.arrow((33.8, 23.6), (42.8, 23.6))
    canvas.text(38.2, 24.9, "write key", fontsize=7)
    canvas.arrow((42.8, 21.6), (33.8, 21.6))
    canvas.text(38.2, 20.3, "read by", fontsize=7)
    canvas.text(38.2, 19.0, "cosine", fontsize=7)
    canvas.text(38.0, 16.6, "written: slot least", color=GREY, fontsize=6.5)
    canvas.text(38.0, 15.3, "used or last read", color=GREY, fontsize=6.5)


def _transformer(canvas: Canvas) -> None:
    weights = (0.5, 0.8, 5.0, 2.6, 0.7, 0.5)
    query = (39.5, 26.2)
    for k, (label, weight) in enumerate(zip((0, 0, 1, 1, 2, 2), weights, strict=True)):
        x = 23.0 + 5.6 * k
        canvas.line([query, (x + 2.2, 19.9)], color=CLASSES[label], linewidth=weight)
        canvas.box(x, 17.4, 2.1, 2.4, facecolor=AMBER, edgecolor=INK, linewidth=0.8)
        canvas.box(x + 2.3, 17.4, 2.1, 2.4, facecolor=AMBER, edgecolor=INK, linewidth=0.8)
        canvas.text(x + 1.05, 18.6, "k", fontsize=7)
        canvas.text(x + 3.35, 18.6, "v", fontsize=7)
        canvas.block(x, 13.8, 4.4, 2.1, "token", fontsize=6.5, edgecolor=CLASSES[label])
        canvas.arrow((x + 2.2, 16.0), (x + 2.2, 17.3), color=GREY, size=5, linewidth=0.9)
        if k:
            canvas.arrow(
                (x - 3.4, 13.6),
                (x + 2.2, 13.6),
                bend=0.45,
                head="<|-|>",
                color=GREY,
                size=4,
                linewidth=0.7,
            )
        if k in (2, 4):
            canvas.arrow(
                (x - 9.0, 13.6),
                (x + 2.2, 13.6),
                bend=0.4,
                head="<|-|>",
                color=PALE,
                size=4,
                linewidth=0.7,
            )
    canvas.query(query, 1.2)
    canvas.text(
        42.6, 26.8, "query token attends\nto the support alone", ha="left", color=GREY, fontsize=7
    )
    canvas.text(39.5, 9.4, "support tokens attend to each other", color=GREY, fontsize=7)


def _tables(canvas: Canvas) -> None:
    machines = (("|x - q|", 1.2, 6, 0.64), ("(x - q)²", 0.5, 5, 0.26), ("x · q", 0.2, 3, 0.03))
    for k, (name, sharp, right, trust) in enumerate((*machines, ("Bayes", 0.0, 4, 0.07))):
        y, unit = 23.2 - 4.8 * k, 0.62
        canvas.text(24.6, y + 1.9, name, fontsize=7)
        for r in range(6):
            for c in range(6):
                like = math.exp(-sharp * abs(r - c)) if sharp else float(r // 2 == c // 2)
                shade = GREY if like > 0.5 else PALE if like > 0.15 else "#eef1f4"
                canvas.cell(28.4 + c * unit, y + (5 - r) * unit, unit, unit, shade)
        canvas.arrow((32.8, y + 1.9), (34.6, y + 1.9), color=GREY, size=6)
        for s in range(6):
            at = (36.0 + 1.35 * s, y + 1.9)
            canvas.dot(
                at, CLASSES[s // 2] if s < right else "white", 1.1, edgecolor=CLASSES[s // 2]
            )
        canvas.arrow((44.4, y + 1.9), (46.2, y + 1.9), color=GREY, size=6)
        canvas.box(
            46.8, y + 1.1, 9.6 * trust + 0.4, 1.6, facecolor=AMBER, linewidth=0.8, corner=0.2
        )
    canvas.text(30.3, 27.9, "K(S,S)", color=GREY, fontsize=7)
    canvas.text(39.4, 27.9, "right of each\nrow without it", color=GREY, fontsize=7)
    canvas.text(50.6, 27.9, "trust", color=GREY, fontsize=7)


def _table_transformer(canvas: Canvas) -> None:
    left, top, w, h = 27.0, 25.2, 4.4, 2.0
    for row, label in enumerate((0, 0, 1, 1, 2, 2)):
        y = top - row * (h + 0.2)
        for column in range(4):
            canvas.box(left + column * (w + 0.4), y, w, h, facecolor=AMBER, linewidth=0.8)
            canvas.text(left + column * (w + 0.4) + w / 2, y + h / 2, "k v", fontsize=6.5)
        x = left + 4 * (w + 0.4) + 0.6
        canvas.box(x, y, w, h, facecolor=AMBER, edgecolor=CLASSES[label], linewidth=2.0)
        canvas.text(x + w / 2, y + h / 2, "k v", fontsize=6.5)
    canvas.text(left + 2 * w + 0.6, top + 2.9, "a token a cell", color=GREY, fontsize=7)
    canvas.text(left + 4 * w + 4.2, top + 2.9, "labels", color=GREY, fontsize=7)
    bottom = top - 5 * (h + 0.2)
    canvas.arrow((25.2, bottom), (25.2, top + h), head="<|-|>", color=GREY, size=6)
    canvas.text(23.7, top - 5.2, "cells of a column attend", color=GREY, fontsize=7, rotation=90)
    canvas.arrow((left, bottom - 1.0), (left + 5 * w + 2.2, bottom - 1.0), head="<|-|>", color=GREY)
    canvas.text(left + 2.5 * w + 1, bottom - 2.2, "cells of a row attend", color=GREY, fontsize=7)


def _cnp(canvas: Canvas) -> None:
    for k, label in enumerate((0, 0, 1, 1, 2, 2)):
        y = 24.4 - 2.9 * k
        canvas.example(22.6, y - 0.2, label, 2.5, turn=k % 2)
        canvas.arrow((25.4, y + 1.05), (27.6, y + 1.05), color=GREY, size=6)
        canvas.line([(30.2, y + 1.05), (31.8, y + 1.05)])
        for c in range(4):
            shade = CLASSES[label]
            canvas.cell(32.0 + 1.3 * c, y + 0.4, 1.3, 1.3, shade, alpha=(0.9, 0.4, 0.65, 0.25)[c])
        if k % 2 == 0:
            canvas.line([(37.6, y + 1.05), (38.6, y - 0.4)])
            canvas.arrow((38.6, y - 0.4), (42.6, 21.2 - 2.1 * k), color=GREY)
        else:
            canvas.line([(37.6, y + 1.05), (38.6, y + 2.5)])
    canvas.block(27.8, 9.8, 2.4, 17.2, "e\n\nh")
    canvas.text(34.6, 27.6, "rₛ of each example", fontsize=7, color=GREY)
    for label in range(3):
        for c in range(4):
            canvas.cell(
                43.2,
                21.2 - 4.2 * label + 0.95 * (1.5 - c) - 0.47,
                2.4,
                0.95,
                CLASSES[label],
                alpha=(0.85, 0.45, 0.6, 0.3)[c],
            )
    canvas.box(42.8, 10.4, 3.2, 13.2, facecolor="none", edgecolor=AMBER, linewidth=2.2)
    canvas.text(44.4, 24.8, "r", weight="bold")
    canvas.arrow((46.4, 17), (49.0, 17), color=GREY)
    canvas.query((50.4, 22.4), 1.0)
    canvas.arrow((50.4, 21.2), (50.4, 19.5), color=GREY, size=6)
    canvas.text(51.8, 22.4, "e(x)", ha="left", fontsize=7)
    canvas.block(49.2, 14.8, 3.2, 4.4, "g")
    canvas.arrow((52.6, 17), (54.6, 17), color=GREY)
    canvas.text(55.8, 17, "y")
    canvas.text(51.2, 10.4, "side by side:\nthe mean of\neach class", color=GREY, fontsize=7)


PICTURES: dict[str, Picture] = {
    "nearest": Picture(
        "the examples themselves, or their embeddings",
        KEPT,
        "class of the\nclosest example",
        "nothing, or the encoder e of any learner",
        _nearest,
    ),
    "soft-nearest": Picture(
        "the embeddings of the examples",
        KEPT,
        "vote, weighted by\nsoftmax(-distance²)",
        "the encoder e",
        _soft,
    ),
    "protonet": Picture(
        "the mean of each class in a learned space",
        (("prototypes", "[T,N,D]"),),
        "minus squared\ndistance to c",
        "the encoder e",
        _protonet,
    ),
    "matching": Picture(
        "the embedded examples and their labels",
        KEPT,
        "vote, weighted by\nsoftmax(cosine)",
        "the encoders; with full context two LSTMs that read the support",
        _matching,
    ),
    "r2d2": Picture(
        "the weights of a ridge regression",
        (("weight", "[T,D+1,N]"),),
        "a · [e(x), 1] W",
        "the encoder e, the penalty λ and the scale a",
        _r2d2,
    ),
    "maml": Picture(
        "the parameters after a few gradient steps",
        NETWORK,
        "the network\nwith φ",
        "the start θ",
        _maml,
    ),
    "reptile": Picture(
        "the parameters after ordinary training on the task",
        NETWORK,
        "the network\nwith φ",
        "the start θ, moved towards where tasks end",
        _reptile,
    ),
    "anil": Picture(
        "the last layer after a few gradient steps",
        (("weight", "[T,outputs,D]"), ("bias", "[T,outputs]"), ("classes", "[T,N]")),
        "the last layer φ\non e(x)",
        "the encoder e and the last layer's start φ₀",
        _anil,
    ),
    "meta-sgd": Picture(
        "the parameters after a step with a rate for each",
        NETWORK,
        "the network\nwith φ",
        f"the start θ, and {ALPHA}: rate and sign for every parameter",
        _meta_sgd,
    ),
    "maml-plus-plus": Picture(
        "the parameters after steps that are each their own",
        NETWORK,
        "the network\nwith φ and the\nlast norm",
        "the start θ, rates by layer and step, batch norms by step",
        _maml_plus_plus,
    ),
    "lstm": Picture(
        "the state of an LSTM that has read the support",
        (("h", "[T,layers,hidden]"), ("c", "[T,layers,hidden]"), ("classes", "[T,N]")),
        "one more LSTM step,\nlabel zero; then W",
        "the encoder e, the LSTM and the output layer W",
        _lstm,
    ),
    "mann": Picture(
        "a memory, and the state of its controller",
        (
            ("memory", "[T,slots,width]"),
            ("usage", "[T,slots]"),
            ("weights", "[T,reads,slots]"),
            ("read", "[T,reads*width]"),
            ("h", "[T,hidden]"),
            ("c", "[T,hidden]"),
            ("label", "[T,outputs]"),
            ("classes", "[T,N]"),
        ),
        "one more step;\nW [h, read]",
        "the encoder e, the controller, its keys and gates, the output layer W",
        _mann,
    ),
    "transformer": Picture(
        "keys and values of the support in every block",
        (
            ("keys", "[T,layers,heads,S,d]"),
            ("values", "the same"),
            ("classes", "[T,N]"),
        ),
        "attend to keys\nand values; W",
        "the encoder e, the embeddings of image and label, the blocks, the output layer W",
        _transformer,
    ),
    "tables": Picture(
        "the weights of many kernel machines, and the trust in each",
        (("weights", "[T,K,S,N]"), ("trust", "[T,E,1]"), ("cells", "[T,2,S,F]")),
        "compared with\neach row by each;\nthe trusted answer",
        "how wide each kernel is, how strong its penalty, how far to trust what it got right",
        _tables,
    ),
    "table-transformer": Picture(
        "keys and values of the support's cells",
        (("cells", "2 x [T,G,layers,F+1,S,d]"), ("ends", "[T,G,S,d]"), ("votes", "[T,S,N]")),
        "its cells attend to\nthese; rows vote",
        "what a cell tells, the marks of labels, the blocks, who is asked for a vote",
        _table_transformer,
    ),
    "cnp": Picture(
        "the mean of what is said of each example",
        (("r", "[T,outputs*width]"), ("classes", "[T,N]")),
        "g(e(x), r)",
        "the encoder e and the networks h and g",
        _cnp,
    ),
    "scratch": Picture(
        "the parameters after training from a random start",
        NETWORK,
        "the network\nwith φ",
        "nothing",
        _scratch,
    ),
    "baseline": Picture(
        "a new linear layer, fitted to the support",
        (("weight", "[T,N,D]"), ("bias", "[T,N]")),
        "W e(x) + b",
        "the encoder e, by telling all training classes apart",
        _baseline,
    ),
    "pmf": Picture(
        "a fine-tuned encoder, and the mean of each class in its space",
        (("network", "[T,...]"), ("prototypes", "[T,N,D]")),
        "cosine with\nthe mean",
        "the encoder e, where fine-tuning starts; the scale of the cosine",
        _protonet,
    ),
    "proto-maml": Picture(
        "a linear layer that starts as class means and takes steps",
        (("weight", "[T,N,D]"), ("bias", "[T,N]")),
        "w · e(x) + b",
        "nothing; the encoder e comes trained",
        _proto_maml,
    ),
    "logistic": Picture(
        "the weights of a logistic regression",
        (("weight", "[T,D+1,N]"),),
        "[e(x), 1] W",
        "nothing; the encoder e comes trained",
        _logistic,
    ),
    "simpleshot": Picture(
        "the centroid of each class's normalised features",
        (("centroids", "[T,N,D]"),),
        "minus squared\ndistance to the\ncentroid",
        "the encoder e, by telling all training classes apart; the mean feature m",
        _simpleshot,
    ),
    "ensemble": Picture(
        "what each member makes of the support",
        (("members", "{number: phi of each}"), ("classes", "[T,N]")),
        "mean of the members'\np(y | x)",
        "each member what it learns alone",
        _ensemble,
    ),
}


def _sheet(picture: Picture) -> Canvas:
    canvas = Canvas()
    canvas.box(1, 3, 15, 28.6, facecolor="#f8f9fa", edgecolor=PALE)
    canvas.box(21, 3, 37, 28.6, facecolor=TINT, edgecolor=AMBER, linewidth=1.4)
    canvas.box(63, 3, 14, 28.6, facecolor="#f8f9fa", edgecolor=PALE)
    canvas.text(8.5, 30.0, "support", weight="bold")
    canvas.text(70.0, 30.0, "query", weight="bold")
    canvas.text(22.0, 30.0, "phi:", weight="bold", ha="left")
    canvas.text(25.4, 30.0, picture.says, ha="left", fontsize=7.5)
    for k, label in enumerate((2, 0, 1, 0, 2, 1)):
        canvas.example(3.6 + 5.6 * (k % 2), 22.6 - 5.2 * (k // 2), label, 4.2, turn=k // 3)
    canvas.mono(8.5, 9.0, "support_x [T,S,...]")
    canvas.mono(8.5, 7.2, "support_y [T,S]")
    canvas.example(67.9, 23.6, 1, 4.2, frame=INK, turn=2)
    canvas.query((71.9, 27.7), 1.1)
    canvas.mono(70.0, 22.0, "query_x [T,Q,...]")
    canvas.arrow((70.0, 20.8), (70.0, 19.0))
    canvas.text(70.0, 16.2, picture.rule, fontsize=7.5)
    for label, height in enumerate((1.2, 4.4, 0.8)):
        canvas.cell(67.1 + 2.1 * label, 7.2, 1.6, height, CLASSES[label])
    canvas.line([(66.5, 7.2), (73.5, 7.2)], color=INK)
    canvas.mono(70.0, 5.2, "logits [T,Q,N]")
    canvas.arrow((16.6, 17), (20.4, 17), linewidth=1.8, size=11)
    canvas.text(18.5, 18.6, "adapt", weight="bold", fontsize=7)
    canvas.arrow((58.6, 17), (62.4, 17), linewidth=1.8, size=11)
    canvas.text(60.5, 18.6, "predict", weight="bold", fontsize=7)
    canvas.text(1, 1.5, "learned over many tasks:", ha="left", weight="bold", fontsize=7.5)
    canvas.text(17.6, 1.5, picture.learned, ha="left", fontsize=7.5)
    _tensors(canvas, picture.tensors)
    picture.draw(canvas)
    return canvas


def _tensors(canvas: Canvas, tensors: Sequence[tuple[str, str]]) -> None:
    """The tensors of phi as boxes with their shapes, in as many rows as it takes."""
    gap, room = 0.6, 36.2
    rows: list[list[str]] = []
    for name, shape in tensors:
        words = f"{name} {shape}"
        fits = (row for row in rows if sum(_width(w) + gap for w in [*row, words]) - gap <= room)
        row = next(fits, None)
        if row is None:
            rows.append([words])
        else:
            row.append(words)
    for up, row in enumerate(reversed(rows)):
        x = 39.5 - (sum(map(_width, row)) + gap * (len(row) - 1)) / 2
        for words in row:
            canvas.box(x, 3.9 + 2.7 * up, _width(words), 2.1, facecolor=AMBER, linewidth=0.8)
            canvas.mono(x + _width(words) / 2, 4.95 + 2.7 * up, words)
            x += _width(words) + gap


def _width(words: str) -> float:
    return MONO * len(words) + 1.2


def draw_all(folder: Path = FOLDER, kind: str = "svg") -> list[Path]:
    """Write every picture into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with matplotlib.rc_context(STYLE):
        for name, picture in PICTURES.items():
            files.append(folder / f"{name}.{kind}")
            metadata = dict.fromkeys(("Date", "Creator")) if kind == "svg" else None
            _sheet(picture).figure.savefig(files[-1], dpi=140, metadata=metadata)
    return files


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
