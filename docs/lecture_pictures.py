"""Draws what the lecture has of its own: ``python docs/lecture_pictures.py [FOLDER]``.

In the language of ``pictures.py``, from which the sheet and its marks come.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
from pictures import ALPHA, AMBER, CLASSES, GREY, INK, PALE, STYLE, TINT, Canvas

FOLDER = Path(__file__).parent / "images" / "lecture"

# Characters, as lines through points of the unit square.
ZIGZAG = ((0, 1), (1, 1), (0, 0), (1, 0))
HOUSE = ((0, 0), (0, 0.6), (0.5, 1), (1, 0.6), (1, 0), (0, 0))
STEPS = ((0, 0), (0.35, 0), (0.35, 0.5), (0.7, 0.5), (0.7, 1), (1, 1))
HOOK = ((0.2, 1), (0.2, 0), (0.9, 0), (0.9, 0.45))
GATE = ((0, 0), (0, 1), (1, 1), (1, 0))
BOLT = ((0.7, 1), (0.2, 0.45), (0.8, 0.55), (0.3, 0))
KITE = ((0.5, 1), (0.9, 0.6), (0.5, 0), (0.1, 0.6), (0.5, 1))
WAVE = tuple((t / 12, 0.5 + 0.4 * math.sin(math.pi * t / 4)) for t in range(13))
TENT = ((0, 0), (0.5, 1), (1, 0))
BOX = ((0.1, 0.1), (0.1, 0.9), (0.9, 0.9), (0.9, 0.1), (0.1, 0.1))
FORK = ((0.1, 1), (0.1, 0.5), (0.9, 0.5), (0.9, 1), (0.9, 0.5), (0.5, 0.5), (0.5, 0))
SPIRAL = ((0.9, 0.1), (0.1, 0.1), (0.1, 0.9), (0.8, 0.9), (0.8, 0.4), (0.4, 0.4), (0.4, 0.65))

Drawing = tuple[tuple[float, float], ...]


def _character(
    canvas: Canvas, x: float, y: float, drawing: Drawing, frame: str, turn: float = 0
) -> None:
    size, a = 4.0, math.radians(turn)
    canvas.box(x, y, size, size, edgecolor=frame, linewidth=1.6)
    points = [(u - 0.5, v - 0.5) for u, v in drawing]
    turned = [
        (u * math.cos(a) - v * math.sin(a), u * math.sin(a) + v * math.cos(a)) for u, v in points
    ]
    middle = (x + size / 2, y + size / 2)
    canvas.line(
        [(middle[0] + 0.54 * size * u, middle[1] + 0.54 * size * v) for u, v in turned],
        color=INK,
        linewidth=1.5,
        solid_capstyle="round",
    )


def _tasks() -> Canvas:
    canvas = Canvas()
    rows = (
        (ZIGZAG, HOUSE, STEPS),
        (GATE, HOOK, BOLT),
        (WAVE, KITE, ZIGZAG),
        (TENT, SPIRAL, FORK),
    )
    canvas.text(35.5, 31.6, "support: labels shown", weight="bold", fontsize=7.5)
    canvas.text(61.0, 31.6, "query: labels asked for", weight="bold", fontsize=7.5)
    for i, drawings in enumerate(rows):
        new = i == len(rows) - 1
        y = 24.6 - 6.5 * i - 1.9 * new
        canvas.box(
            25.6,
            y - 0.9,
            51.4,
            5.8,
            facecolor=TINT if new else "#f8f9fa",
            edgecolor=AMBER if new else PALE,
            linewidth=1.3,
        )
        name = "a new task" if new else f"task {i + 1}"
        canvas.text(24.6, y + 2, name, ha="right", fontsize=8, weight="bold" if new else "normal")
        for k, drawing in enumerate(drawings):
            _character(canvas, 27.4 + 5.6 * k, y, drawing, CLASSES[k], -6 + 6 * k)
        canvas.arrow((45.4, y + 2), (49.2, y + 2), color=GREY)
        for k, c in enumerate((1, 0, 2, 1)):
            _character(canvas, 50.6 + 6.4 * k, y, drawings[c], INK, (14, -12, 9, -15)[k])
    canvas.line([(1, 9.0), (77, 9.0)], linestyle=(0, (4, 3)), color=GREY)
    canvas.text(1, 21.0, "meta-training", ha="left", weight="bold")
    canvas.text(
        1,
        19.0,
        "many tasks, of classes\nwith plenty of data",
        ha="left",
        va="top",
        fontsize=7,
        color=GREY,
    )
    canvas.text(1, 6.6, "meta-test", ha="left", weight="bold")
    canvas.text(
        1,
        4.6,
        "classes that nobody has\nseen, an example of each",
        ha="left",
        va="top",
        fontsize=7,
        color=GREY,
    )
    return canvas


def _loops() -> Canvas:
    canvas = Canvas()
    canvas.box(14.5, 6.0, 62.5, 25.4, facecolor="#f8f9fa", edgecolor=PALE)
    canvas.text(22.0, 29.8, "step 1: sample tasks", weight="bold", fontsize=7.5)
    canvas.text(45.0, 29.8, "step 2: inner loop on the support", weight="bold", fontsize=7.5)
    canvas.text(69.5, 29.8, "loss on the query", weight="bold", fontsize=7.5)
    canvas.dot((7.0, 18.0), GREY, 4.2)
    canvas.text(7.0, 18.0, "θ", weight="bold", color="white", fontsize=10, zorder=7)
    canvas.text(7.0, 22.4, "step 0: initialise", weight="bold", fontsize=7.5)
    for i in range(3):
        y = 25.0 - 7.0 * i
        canvas.arrow((9.4, 18.0), (17.4, y), color=GREY, bend=0.0)
        canvas.box(17.8, y - 2.3, 8.6, 4.6, edgecolor=CLASSES[i], linewidth=1.4)
        canvas.text(22.1, y, ("D₁", "D₂", "D₃")[i])
        canvas.box(28.6, y - 2.6, 31.4, 5.2, facecolor=TINT, edgecolor=AMBER, linewidth=1.2)
        canvas.arrow((26.6, y), (30.4, y), color=GREY, size=6)
        for k in range(4):
            x = 32.0 + 8.2 * k
            if k < 3:
                canvas.arrow((x + 1.1, y), (x + 7.0, y), linewidth=1.4)
                canvas.text(x + 4.0, y + 1.3, f"-{ALPHA} grad", fontsize=6.5)
            canvas.dot(
                (x, y),
                (GREY, INK, INK, AMBER)[k],
                1.9 if k in (0, 3) else 1.2,
                edgecolor=INK if k == 3 else "white",
            )
        canvas.text(32.0, y - 1.8, "θ", fontsize=7)
        canvas.text(56.6, y - 1.8, f"φ{'₁₂₃'[i]}", weight="bold", fontsize=7.5)
        canvas.arrow((60.2, y), (63.8, y), color=GREY, size=6)
        canvas.block(64.0, y - 2.0, 11.2, 4.0, f"L(φ{'₁₂₃'[i]}, D{'₁₂₃'[i]}ᵗˢ)", fontsize=7.5)
    canvas.line([(69.6, 8.6), (69.6, 3.4), (7.0, 3.4)], color=INK, linewidth=2.0)
    canvas.arrow((7.0, 3.3), (7.0, 15.6), linewidth=2.0, size=12)
    canvas.text(
        38.3,
        4.6,
        "step 3, outer loop: θ ← θ - β grad of the sum of the losses, through all inner steps",
        fontsize=7.5,
        weight="bold",
    )
    canvas.text(38.3, 1.9, "and again from 1, with other tasks", fontsize=7, color=GREY)
    return canvas


PICTURES: dict[str, Callable[[], Canvas]] = {"tasks": _tasks, "loops": _loops}


def draw_all(folder: Path = FOLDER) -> list[Path]:
    """Write every picture into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with matplotlib.rc_context(STYLE):
        for name, draw in PICTURES.items():
            files.append(folder / f"{name}.svg")
            draw().figure.savefig(files[-1], dpi=140, metadata=dict.fromkeys(("Date", "Creator")))
    return files


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
