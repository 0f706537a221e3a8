"""How the tasks of a batch are worked through: how many at once, and what is kept of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["Execution", "executing", "execution"]


@dataclass(frozen=True)
class Execution:
    """The one switch between ways of working, which differ in speed and memory, and in results by
    no more than rounding.

    Attributes:
        tasks_at_once: tasks that go through the network in one pass; 1 is a plain loop. ``None``:
            as many small ones as stay in the processor's cache.
        stacked: use the layers of `quickstudy.inner.stacked` where a network has no others;
            otherwise `torch.func.vmap`, which knows all layers and is slower.
        folded: make the first convolution, batch norm and ReLU of constant images one product of
            matrices (`quickstudy.nn.folding`); otherwise they are three layers like any other.
        products_up_to: stacked convolutions of at most this many outputs per task and filter are
            products of matrices; larger ones (with 0, all of them) are PyTorch's.
        graphs: second-order learners hold the graphs of this many inner steps at a time. The
            backward pass repeats earlier steps, as many together, so that memory grows only by
            their parameters, and time by about a third. ``None``: the graphs of all steps.
            ``"auto"``: of all that take no more than half a GiB together; where that is not
            enough for all, as many as take least memory (`quickstudy.inner.graphs`).
    """

    tasks_at_once: int | None = None
    stacked: bool = True
    folded: bool = True
    products_up_to: int = 256
    graphs: int | Literal["auto"] | None = "auto"

    def __post_init__(self) -> None:
        for name in ("tasks_at_once", "graphs"):
            value = getattr(self, name)
            if value is not None and value != "auto" and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1, or None")


_chosen = Execution()


def execution() -> Execution:
    """What is in force."""
    return _chosen


@contextmanager
def executing(**changes: object) -> Iterator[Execution]:
    """Change what is in force within a block, for instance ``graphs=None``."""
    global _chosen
    before = _chosen
    _chosen = replace(before, **changes)  # type: ignore[arg-type]
    try:
        yield _chosen
    finally:
        _chosen = before
