"""Draws invented tables: ``python docs/tables_pictures.py [FOLDER]``."""

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from pictures import CLASSES, INK, STYLE

from quickstudy.data.tables import invent

FOLDER = Path(__file__).parent / "images" / "tables"
ACROSS, DOWN = 6, 2


def prior() -> Figure:
    """Twelve tables of two columns and three classes, as they come."""
    figure = Figure(figsize=(7.8, 2.7), facecolor="white", layout="constrained")
    for k, axes in enumerate(figure.subplots(DOWN, ACROSS).flat):
        x, y = invent(np.random.default_rng(20 + k), 90, 2, 3)
        x = np.clip((x - np.nanmean(x, 0)) / (np.nanstd(x, 0) + 1e-9), -3, 3)
        spread = np.random.default_rng(0).normal(0, 0.03, x.shape)  # categories lie on each other
        for label, colour in enumerate(CLASSES):
            axes.plot(*(x + spread)[y == label].T, ".", color=colour, markersize=3, alpha=0.8)
        axes.set(xlim=(-3.3, 3.3), ylim=(-3.3, 3.3), xticks=(), yticks=())
        axes.spines[:].set_color(INK)
        axes.spines[:].set_linewidth(0.6)
    return figure


def draw_all(folder: Path = FOLDER) -> list[Path]:
    """Write the picture into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prior.svg"
    with matplotlib.rc_context(STYLE):
        prior().savefig(file, metadata=dict.fromkeys(("Date", "Creator")))
    return [file]


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
