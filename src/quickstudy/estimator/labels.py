"""Labels, and how often each example counts."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from quickstudy.estimator.inputs import Array

__all__ = ["check_repeated", "labels_of", "sort_of", "weighted"]

_MOST_REPEATED = 1 << 28  # numbers, each as often as its example counts


def labels_of(y: Any) -> Array:
    """Labels of one type: texts stay texts among numbers, which NumPy would make them.

    Raises:
        ValueError: they are of several types; names two.
    """
    given = np.asarray(y)
    if given.ndim != 1 or (given.dtype.kind not in "OUS" and not isinstance(y, list | tuple)):
        return given
    first: dict[str, Any] = {}
    for value in given.tolist() if given.dtype.kind == "O" else list(y):
        kind = "number" if isinstance(value, int | float | np.number) else type(value).__name__
        kind = "truth value" if isinstance(value, bool | np.bool_) else kind
        first.setdefault("text" if isinstance(value, str) else kind, value)
    if len(first) > 1:
        one, other, *_ = first.values()
        raise ValueError(f"y holds {one!r} and {other!r}; expected labels of one type")
    if given.dtype.kind == "O" and first.keys() <= {"text", "number", "truth value"}:
        return np.array(given.tolist())
    return given


def sort_of(labels: Array) -> str:
    """Of what type labels are: texts, truth values, or numbers."""
    return {"S": "text", "U": "text", "O": "text", "b": "truth"}.get(labels.dtype.kind, "number")


def weighted(x: Array, y: Any, weight: ArrayLike | None) -> tuple[Array, Array, Array | None]:
    """The examples that count, their labels, and how often each does.

    Raises:
        ValueError: the weights are no whole numbers, or none is positive.
    """
    if weight is None:
        return x, y, None
    from sklearn.utils.validation import _check_sample_weight

    given = _check_sample_weight(weight, x, dtype=np.float64, ensure_non_negative=True)
    whole = given.astype(np.int64)
    if (whole != given).any():
        raise ValueError(
            f"sample_weight has {given[whole != given][0]:g}; expected whole numbers: how often "
            "each example counts"
        )
    if not whole.any():
        raise ValueError("sample_weight has only zeros; expected examples that count")
    counts = whole > 0
    check_repeated(x, whole)
    return x[counts], y[counts], whole[counts]


def check_repeated(x: Array, weight: Array) -> None:
    """Raise ``ValueError`` if examples count so often that memory could not hold them."""
    times = float(weight.sum(dtype=np.float64))
    if times * x[0].size > _MOST_REPEATED:
        raise ValueError(
            f"the weights of examples add up to {times:g}, and each is held as often as it counts: "
            f"more than {_MOST_REPEATED / x[0].size:g} is too much; divide them"
        )
