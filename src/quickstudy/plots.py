"""Pictures (matplotlib, the ``plot`` extra)."""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from quickstudy.extras import need
from quickstudy.task import Task

if TYPE_CHECKING:
    from quickstudy.data import ClassDataset
    from quickstudy.evaluation import Evaluation

__all__ = ["plot_classes", "plot_curves", "plot_regression", "plot_task"]

INK, RIGHT, WRONG, PALE = "#1f2933", "#1a7f5a", "#c2352b", "#9aa5b1"
STAGES = ("#f0b429", "#c2571a", "#2667c9")
LINES = (
    *("#2667c9", "#c2571a", "#1a7f5a", "#7b4fb5", "#c2352b", "#0f8b8d", "#a36a00", "#d6409f"),
    *("#5b6770", "#4c8c2b", "#8d5b4c", "#3f4fa0"),
)


def _pyplot() -> Any:
    need("matplotlib", "plot").use("Agg")
    return need("matplotlib.pyplot", "plot")


def _save(figure: Any, path: str | os.PathLike[str]) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight", facecolor="white")
    _pyplot().close(figure)


def _image(x: Tensor) -> tuple[Any, dict[str, Any]]:
    """A float image ``[C,H,W]`` as matplotlib wants it; grey ones as dark ink on white."""
    if x.shape[0] == 1:
        return 1 - x[0].numpy(), {"cmap": "gray", "vmin": 0, "vmax": 1}
    return x.permute(1, 2, 0).numpy(), {}


def _show(axes: Any, x: Tensor, colour: str | None = None) -> None:
    picture, style = _image(x)
    axes.imshow(picture, **style)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour or "#e4e7eb")
        spine.set_linewidth(2.2 if colour else 0.8)


def plot_classes(
    dataset: "ClassDataset",
    path: str | os.PathLike[str],
    *,
    classes: int = 12,
    examples: int = 8,
    seed: int = 0,
) -> None:
    """A contact sheet: one row per class, drawn at random, with its name.

    Raises:
        ValueError: the examples are not images.
    """
    from quickstudy.data import to_float

    if len(dataset.shape) != 3 or dataset.shape[0] not in (1, 3):
        raise ValueError(f"only images can be drawn; examples have shape {list(dataset.shape)}")
    plt = _pyplot()
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randperm(dataset.n_classes, generator=rng)[:classes]
    figure, grid = plt.subplots(
        len(rows), examples, figsize=(0.62 * examples + 2.2, 0.66 * len(rows)), squeeze=False
    )
    for line, c in zip(grid, rows.tolist(), strict=True):
        for axes in line:
            axes.axis("off")
        line[0].text(
            -0.25,
            0.5,
            dataset.names[c],
            transform=line[0].transAxes,
            ha="right",
            va="center",
            fontsize=8,
            color=INK,
        )
        picked = torch.randperm(int(dataset.sizes[c]), generator=rng)[:examples]
        for axes, x in zip(line, dataset.read(torch.full_like(picked, c), picked), strict=False):
            axes.axis("on")
            _show(axes, to_float(x))
    _save(figure, path)


def plot_task(
    task: Task,
    answers: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    names: Sequence[str] | None = None,
    queries: int = 10,
) -> None:
    """One task: its support on top, then queries with what each learner said of them.

    Args:
        task: images; its first task is drawn.
        answers: logits ``[1,Q,N]`` by learner.
        path: of the PNG.
        names: of the classes; default ``0..N-1``.
        queries: how many to draw at most.
    """
    if task.n_way is None or task.support_x.dim() != 5:
        raise ValueError("only classification tasks of images can be drawn")
    plt = _pyplot()
    names = list(names or map(str, range(task.n_way)))
    titles = names
    if max(map(len, names)) > 9:
        titles = [f"{chr(65 + n)}: {name}".replace("/", "\n") for n, name in enumerate(names)]
        names = [chr(65 + n) for n in range(task.n_way)]
    column = sorted(range(task.n_way), key=names.__getitem__)
    order = task.support_y[0].argsort(stable=True)
    shown = min(queries, task.query_x.shape[1])
    columns = max(task.n_way, shown)
    shots = int(task.support_y[0].bincount().max())
    answers_height = 0.3 + 0.26 * len(answers)
    height = 0.95 * (shots + 1) + answers_height
    figure, grid = plt.subplots(
        shots + 1,
        columns,
        figsize=(0.92 * columns + 0.8, height),
        squeeze=False,
        gridspec_kw={"wspace": 0.1, "hspace": 0.1, "bottom": answers_height / height, "top": 0.98},
    )
    for axes in grid.flat:
        axes.axis("off")
    filled = [0] * task.n_way
    for s in order.tolist():
        n = int(task.support_y[0, s])
        axes = grid[filled[n]][column.index(n)]
        axes.axis("on")
        _show(axes, task.support_x[0, s])
        if not filled[n]:
            size = 9 if titles == names else 5.5
            axes.set_title(titles[n], fontsize=size, color=INK)
        filled[n] += 1
    _row_label(grid[0][0], "support:\nwhat it learns\nfrom")
    _row_label(grid[shots][0], "query:\nnever seen")
    for q in range(shown):
        axes = grid[shots][q]
        axes.axis("on")
        _show(axes, task.query_x[0, q])
        for row, logits in enumerate(answers.values()):
            predicted = int(logits[0, q].argmax())
            right = predicted == int(task.query_y[0, q])
            axes.text(
                0.5,
                -0.2 - 0.28 * row,
                f"{names[predicted]} {'✓' if right else '✗'}",
                transform=axes.transAxes,
                ha="center",
                va="center",
                fontsize=8,
                color=RIGHT if right else WRONG,
            )
    for row, learner in enumerate(answers):
        grid[shots][0].text(
            -0.25,
            -0.2 - 0.28 * row,
            learner,
            transform=grid[shots][0].transAxes,
            ha="right",
            va="center",
            fontsize=8,
            color=INK,
        )
    _save(figure, path)


def _row_label(axes: Any, text: str) -> None:
    axes.text(
        -0.25,
        0.5,
        text,
        transform=axes.transAxes,
        ha="right",
        va="center",
        fontsize=8,
        color=INK,
        weight="bold",
    )


def plot_curves(
    curves: Mapping[str, Mapping[int, "Evaluation"]],
    path: str | os.PathLike[str],
    *,
    x: str,
    title: str = "",
    baseline: str | None = None,
) -> None:
    """Score against a number, with 95% intervals; one line per learner, named at its end.

    Args:
        curves: evaluation by number (of inner steps, of examples), by name of the line.
        path: of the PNG.
        x: what the number is.
        title: above the plot.
        baseline: the line to draw in grey dashes.
    """
    if not any(curves.values()):
        raise ValueError("there is no curve to draw")
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(6.4, 3.2 + 0.14 * len(curves)))
    metric = next(e.metric for curve in curves.values() for e in curve.values())
    scale = metric.scale
    ends = {}
    colours = itertools.cycle(LINES)
    for name, curve in curves.items():
        colour, style = (PALE, "o--") if name == baseline else (next(colours), "o-")
        numbers = sorted(curve)
        mean = [scale * curve[n].mean for n in numbers]
        low = [scale * (curve[n].mean - curve[n].ci95) for n in numbers]
        high = [scale * (curve[n].mean + curve[n].ci95) for n in numbers]
        axes.fill_between(numbers, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(numbers, mean, style, color=colour, markersize=4)
        ends[name] = (numbers[-1], mean[-1], colour)
    bottom, top = axes.get_ylim()
    if not metric.higher_is_better:  # an error has no bound: show what is better than the start
        bottom, top = 0, 1.25 * max(curve[min(curve)].mean for curve in curves.values())
    axes.set_ylim(bottom, top)
    left = min(min(curve) for curve in curves.values())
    right = max(last for last, _, _ in ends.values())
    span = right - left or 1
    axes.set_xlim(left - 0.02 * span, right + 0.02 * span)
    shown = [
        min(max(value, bottom), top) if value == value else top for _, value, _ in ends.values()
    ]
    heights = _apart(shown, (top - bottom) * 0.17 / (2.4 + 0.14 * len(curves)))
    for (name, (last, _, colour)), value, height in zip(ends.items(), shown, heights, strict=True):
        line = [last, right + 0.055 * span]
        axes.plot(line, [value, height], color=colour, linewidth=0.6, clip_on=False)
        ink = INK if colour == PALE else colour
        axes.text(right + 0.06 * span, height, name, va="center", color=ink, fontsize=8.5)
    axes.set_xticks(sorted({n for curve in curves.values() for n in curve}))
    axes.set_xlabel(x)
    axes.set_ylabel(metric.label)
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    _save(figure, path)


def plot_regression(
    task: Task,
    answers: Mapping[str, Mapping[str, Tensor]],
    path: str | os.PathLike[str],
) -> None:
    """One regression task with one input: its support, the truth, and each learner's curves.

    Args:
        task: its first task is drawn; the queries, in order of ``x``, are the truth.
        answers: predictions for the queries ``[1,Q,1]``, by their label, by learner.
        path: of the PNG.
    """
    if task.n_way is not None or task.support_x.shape[2:] != (1,):
        raise ValueError("only regression tasks with a single input can be drawn")
    plt = _pyplot()
    columns = min(4, len(answers))
    rows = math.ceil(len(answers) / columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 2.4 * rows), squeeze=False, sharex=True, sharey=True
    )
    order = task.query_x[0, :, 0].argsort()
    x = task.query_x[0, order, 0]
    for axes in grid.flat:
        axes.axis("off")
    truth = task.query_y[0, :, 0]
    grid[0][0].set_ylim(float(truth.min()) - 1, float(truth.max()) + 1)
    for axes, (name, curves) in zip(grid.flat, answers.items(), strict=False):
        axes.axis("on")
        axes.plot(x, task.query_y[0, order, 0], color=PALE, linewidth=4, alpha=0.6, label="truth")
        stages = STAGES if len(curves) > 1 else (RIGHT,)
        for (label, y), colour in zip(curves.items(), itertools.cycle(stages), strict=False):
            axes.plot(x, y[0, order, 0].detach(), color=colour, linewidth=1.4, label=label)
        support = (task.support_x[0, :, 0], task.support_y[0, :, 0])
        axes.plot(*support, "o", color=INK, markersize=4, label="support")
        axes.set_title(name, fontsize=9, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=7, labelbottom=True)
    lines = {
        label: line
        for axes in grid.flat
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        lines.values(), lines.keys(), loc="lower center", ncol=6, fontsize=8, frameon=False
    )
    figure.subplots_adjust(bottom=0.12 + 0.1 / rows, hspace=0.35)
    _save(figure, path)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """The same heights, moved as little as it takes to lie ``gap`` apart, in the same order."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed: list[float] = []
    for rank, i in enumerate(order):
        low = placed[-1] + gap if rank else heights[i]
        placed.append(max(heights[i], low))
    excess = [p - heights[i] for p, i in zip(placed, order, strict=True)]
    shift = sum(excess) / len(excess)
    result = [0.0] * len(heights)
    for p, i in zip(placed, order, strict=True):
        result[i] = p - shift
    return result
