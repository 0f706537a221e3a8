"""Knowing how sure to be: temperature, expected calibration error, and when to say "unknown"."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "expected_accuracy",
    "expected_calibration_error",
    "fit_temperature",
    "matching_temperature",
    "probabilities",
    "reject_threshold",
]

Array = NDArray[Any]
_NEAR = 1e-7


def probabilities(logits: ArrayLike, temperature: float = 1.0) -> Array:
    """``softmax(logits / temperature)`` over the last dimension."""
    z = np.asarray(logits, np.float64) / temperature
    odds = np.exp(z - z.max(-1, keepdims=True))
    result: Array = odds / odds.sum(-1, keepdims=True)
    return result


def fit_temperature(logits: ArrayLike, y: ArrayLike, *, spread: float = 0.3) -> float:
    """The likeliest temperature, given held-out answers (Guo et al. 2017, section 4.2).

    Args:
        logits: ``[n,N]``, of examples that were not learned from, already divided by the
            temperature that is usual.
        y: their classes ``[n]``.
        spread: standard deviation of the logarithm of temperatures from task to task, around the
            usual one: a few examples move it little, and without any it is 1. The heads' is 0.2
            over photos and sentences, ways and shots.

    Returns:
        From 0.01 to 100.
    """
    z, labels = np.asarray(logits, np.float64), np.asarray(y, np.int64)
    rows = np.arange(len(labels))

    def unlikeliness(log_temperature: float) -> float:
        p = probabilities(z, math.exp(log_temperature)).clip(1e-300)
        return (log_temperature / spread) ** 2 / 2 - float(np.log(p[rows, labels]).sum())

    return math.exp(_lowest(unlikeliness, math.log(0.01), math.log(100)))


def matching_temperature(logits: ArrayLike, sure: float) -> float:
    """With which the largest probability of each answer is ``sure`` on the average.

    Args:
        logits: ``[n,N]``.
        sure: more than ``1 / N``.

    Returns:
        From 1 to 10,000: no answer becomes surer.
    """
    z = np.asarray(logits, np.float64)
    low, high = 0.0, math.log(10_000)
    while high - low > _NEAR:
        middle = (low + high) / 2
        surer = probabilities(z, math.exp(middle)).max(-1).mean() > sure
        low, high = (middle, high) if surer else (low, middle)
    return math.exp(low)


def _lowest(of: Callable[[float], float], low: float, high: float) -> float:
    """Where a function with one valley is lowest, by golden sections."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = of(left), of(right)
    while high - low > _NEAR:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = of(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = of(right)
    return (low + high) / 2


def expected_accuracy(right: ArrayLike, shot: ArrayLike, now: float, *, gain: float = 0.6) -> float:
    """The accuracy to expect with all examples, from answers of those who had fewer.

    The odds of a right answer grow about as the shot to the power ``gain``: from one to two by
    half. In a task of unequal classes the shot is the harmonic mean of their sizes, for each of
    them: a small class draws the large ones down with it.

    Args:
        right: whether each held-out answer is, ``[n]``.
        shot: of those who answered, ``[n]``.
        now: the shot of the whole support.
        gain: 0.4 to 0.7 for 1 to 20 photos or sentences in 5 to 20 classes.

    Returns:
        0..1.
    """
    answers, had = np.asarray(right, np.float64), np.asarray(shot, np.float64)
    if answers.min() == answers.max():
        return float(answers[0])

    def accuracy(log_odds: float, shot: Array | float) -> float:
        return float(np.mean(1 / (1 + np.exp(-log_odds - gain * np.log(shot)))))

    low, high = -50.0, 50.0
    while high - low > _NEAR:
        middle = (low + high) / 2
        low, high = (low, middle) if accuracy(middle, had) > answers.mean() else (middle, high)
    return accuracy(low, now)


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
    return float(error)


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
