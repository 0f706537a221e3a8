"""Answering many examples together: each shows the others what its class looks like."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quickstudy.calibration import matching_temperature, probabilities

__all__ = ["answer_together"]

Array = NDArray[Any]
STEPS = 10
SHARPNESS = 20.0
WEIGHT = 0.5
ALIKE = 5.0


def answer_together(
    logits: Array, support: Array, weight: Array, examples: Array, known: Array, share: Array
) -> Array:
    """Probabilities ``[n,N]`` of ``n`` examples whose classes nobody knows, by a mixture model.

    A few labelled examples say roughly where a class lies; the unlabelled ones say where there are
    heaps. By turns each example belongs to the classes as likely as it seems, and the means of the
    classes move to what belongs to them (soft k-means with labelled examples, as in Ren et al.
    2018, arXiv:1803.00676)::

        p   = softmax( logits + log f - 20 ||x - c||^2 / v )
        c_n = (sum of labelled x + 1/2 sum_q p_qn x_q) / (their number + 1/2 sum_q p_qn)
        f_n = (sum_q p_qn + 5 N s_n) / (n + 5 N)

    ``v`` is the variance of all of them, ``s`` the share of each class that is expected. What was
    learned from the labels stays in it as ``logits``, and classes need not be alike in number, of
    which ``f`` keeps count (that they are alike is what many such methods suppose: Veilleux et al.
    2021, arXiv:2204.11181).

    Such answers are right more often and far too sure. So all are divided by the one temperature
    that makes them no surer, on the average, than ``logits`` and ``s`` alone are.

    Args:
        logits: what the head says, ``[n,N]``, divided by its temperature.
        support: labelled examples ``[S,D]`` in a space where those of a class are near.
        weight: how much each belongs to each class, ``[S,N]``: one-hot labels.
        examples: in the same space, ``[n,D]``.
        known: which of them resemble any class ``[n]``; the others count for nothing above.
        share: ``s``, ``[N]``.
    """
    alone = probabilities(logits + np.log(share))
    everyone = np.concatenate([support, examples])
    counts = np.concatenate([weight.sum(1), known])
    centre = np.average(everyone, 0, counts)
    variance = np.average(np.square(everyone - centre).sum(1), weights=counts)
    if not (variance and known.any()):
        return alone
    p, scores = alone, logits
    for _ in range(STEPS):
        belongs = np.concatenate([weight, WEIGHT * known[:, None] * p])
        means = belongs.T @ everyone / belongs.sum(0)[:, None]
        frequent = (known[:, None] * p).sum(0) + ALIKE * len(share) * share
        distances = _squared(examples, means) / variance
        scores = logits + np.log(frequent / frequent.sum()) - SHARPNESS * distances
        p = probabilities(scores)
    sure = float(alone[known].max(1).mean())
    return probabilities(scores, matching_temperature(scores[known], sure))


def _squared(a: Array, b: Array) -> Array:
    """Squared distance of each pair ``[n,D], [m,D] -> [n,m]``."""
    squares = np.square(a).sum(1)[:, None] + np.square(b).sum(1)
    return np.maximum(squares - 2 * a @ b.T, 0)  # type: ignore[no-any-return]
