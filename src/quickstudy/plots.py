"""Pictures (matplotlib, the ``plot`` extra)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from quickstudy.task import Task

if TYPE_CHECKING:
    from quickstudy.data import ClassDataset
    from quickstudy.evaluation import Evaluation

__all__ = ["plot_adaptation", "plot_classes", "plot_task"]

INK, RIGHT, WRONG, PALE = "#1f2933", "#1a7f5a", "#c2352b", "#9aa5b1"
LINES = ("#2667c9", "#c2571a", "#1a7f5a", "#7b4fb5")


def _pyplot() -> Any:
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "pictures need matplotlib: pip install 'quickstudy[plot]'"
        ) from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


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
    """A contact sheet: one row a class, drawn at random, with its name.

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
    names = names or [str(n) for n in range(task.n_way)]
    column = sorted(range(task.n_way), key=names.__getitem__)
    order = task.support_y[0].argsort(stable=True)
    shown = min(queries, task.query_x.shape[1])
    columns = max(task.n_way, shown)
    shots = int(task.support_y[0].bincount().max())
    said_height = 0.3 + 0.26 * len(answers)
    height = 0.95 * (shots + 1) + said_height
    figure, grid = plt.subplots(
        shots + 1,
        columns,
        figsize=(0.92 * columns + 0.8, height),
        squeeze=False,
        gridspec_kw={"wspace": 0.1, "hspace": 0.1, "bottom": said_height / height, "top": 0.98},
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
            axes.set_title(names[n], fontsize=9, color=INK)
        filled[n] += 1
    _row_label(grid[0][0], "support:\nwhat it learns\nfrom")
    _row_label(grid[shots][0], "query:\nnever seen")
    for q in range(shown):
        axes = grid[shots][q]
        axes.axis("on")
        _show(axes, task.query_x[0, q])
        for row, logits in enumerate(answers.values()):
            said = int(logits[0, q].argmax())
            right = said == int(task.query_y[0, q])
            axes.text(
                0.5,
                -0.2 - 0.28 * row,
                f"{names[said]} {'✓' if right else '✗'}",
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


def plot_adaptation(
    curves: Mapping[str, Mapping[int, "Evaluation"]],
    path: str | os.PathLike[str],
    *,
    title: str = "",
) -> None:
    """Accuracy against inner step, with 95% intervals; one line a learner.

    Args:
        curves: evaluation by number of inner steps, by name of the line.
        path: of the PNG.
        title: above the plot.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(5.6, 3.4))
    for (name, curve), colour in zip(curves.items(), LINES, strict=False):
        steps = sorted(curve)
        mean = [100 * curve[s].mean for s in steps]
        low = [100 * (curve[s].mean - curve[s].ci95) for s in steps]
        high = [100 * (curve[s].mean + curve[s].ci95) for s in steps]
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(steps, mean, "o-", color=colour, markersize=4)
        axes.annotate(
            name,
            (steps[-1], mean[-1]),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=9,
        )
    axes.set_xlabel("inner gradient steps on the support")
    axes.set_ylabel("accuracy on queries, %")
    axes.set_title(title, fontsize=10, loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    _save(figure, path)
