"""Knowing how sure to be: temperature, expected calibration error, and when to say "unknown"."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["expected_calibration_error", "fit_temperature", "probabilities", "reject_threshold"]

Array = NDArray[Any]


def probabilities(logits: ArrayLike, temperature: float = 1.0) -> Array:
    """``softmax(logits / temperature)`` over the last dimension."""
    z = np.asarray(logits, np.float64) / temperature
    odds = np.exp(z - z.max(-1, keepdims=True))
    result: Array = odds / odds.sum(-1, keepdims=True)
    return result


def fit_temperature(logits: ArrayLike, y: ArrayLike) -> float:
    """The temperature under which held-out answers are likeliest (Guo et al. 2017, section 4.2).

    Args:
        logits: ``[n,N]``, of examples that were not learned from.
        y: their classes ``[n]``.

    Returns:
        From 0.01 to 100. Where every answer is right, a lower temperature always fits better, so
        one more answer is counted, spread evenly over all classes: a few examples prove little.
    """
    from scipy.optimize import minimize_scalar

    z, labels = np.asarray(logits, np.float64), np.asarray(y)
    rows = np.arange(len(labels))

    def negative_log_likelihood(log_temperature: float) -> float:
        p = probabilities(z, math.exp(log_temperature)).clip(1e-300)
        uniform = np.log(p).mean()
        return -float(np.log(p[rows, labels]).sum() + uniform)

    bounds = (math.log(0.01), math.log(100))
    minimum = minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded")
    return math.exp(float(minimum.x))


def expected_calibration_error(p: ArrayLike, y: ArrayLike, bins: int = 15) -> float:
    """How far confidence is from accuracy, 0..1 (Naeini et al. 2015; Guo et al. 2017, eq. 3).

    Args:
        p: probabilities ``[n,N]``.
        y: the true classes ``[n]``.
        bins: how many intervals of confidence, equally wide.
    """
    p, y = np.asarray(p, np.float64), np.asarray(y)
    confidence, right = p.max(1), p.argmax(1) == y
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for b in range(bins):
        inside = bin_of == b
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return error


def reject_threshold(confidence: ArrayLike, rate: float) -> float | None:
    """The confidence below which to answer "unknown", so that known classes seldom are.

    By rank, as in split conformal prediction (Vovk et al. 2005): if held-out and new examples of
    known classes are exchangeable, at most ``rate`` of the new ones are rejected, on average.

    Args:
        confidence: of held-out examples of known classes ``[n]``.
        rate: of false rejections, above 0 and below 1.

    Returns:
        ``None`` if there are fewer than ``1/rate - 1`` examples: too few to promise that.

    Raises:
        ValueError: ``rate`` is not above 0 and below 1.
    """
    if not 0 < rate < 1:
        raise ValueError(f"the false-reject rate is {rate}; expected a number above 0 and below 1")
    ordered = np.sort(np.asarray(confidence, np.float64))
    rank = math.floor(rate * (len(ordered) + 1) + 1e-9)
    return float(ordered[rank - 1]) if rank >= 1 else None
