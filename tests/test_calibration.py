"""How sure to be: against what is known by construction."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import log_softmax

from quickstudy.calibration import (
    expected_accuracy,
    expected_calibration_error,
    fit_temperature,
    probabilities,
    reject_threshold,
)


@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_answers_is_found(true: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5000, 6)) * 3
    p = probabilities(logits, true)
    y = np.array([rng.choice(6, p=row) for row in p])
    found = fit_temperature(logits, y)
    assert found == pytest.approx(true, rel=0.1)
    assert expected_calibration_error(probabilities(logits, found), y) < 0.03


def test_scipy_finds_the_same() -> None:
    rng = np.random.default_rng(3)
    for n in (1, 4, 60):
        logits, y = rng.normal(size=(n, 5)) * 4, rng.integers(0, 5, n)

        def unlikeliness(log_t: float, z: Any = logits, y: Any = y) -> float:
            return log_t**2 / 0.18 - float(
                log_softmax(z / np.exp(log_t), 1)[range(len(y)), y].sum()
            )

        best = minimize_scalar(unlikeliness, bounds=(-4, 4), method="bounded").x
        assert fit_temperature(logits, y) == pytest.approx(np.exp(best), rel=1e-4)
        right, had = np.append(rng.integers(0, 2, n), [0, 1]), rng.integers(1, 9, n + 2)

        def off(odds: float, right: Any = right, had: Any = had) -> float:
            return float(np.mean(1 / (1 + np.exp(-odds - 0.6 * np.log(had)))) - right.mean())

        expected = 1 / (1 + np.exp(-brentq(off, -50, 50) - 0.6 * np.log(7)))
        assert expected_accuracy(right, had, 7) == pytest.approx(expected, abs=1e-6)


def test_few_answers_move_the_usual_temperature_little() -> None:
    right = np.eye(3), np.arange(3)
    assert 0.8 < fit_temperature(*right) < 1
    assert 1 < fit_temperature(right[0] * 5, 2 - right[1]) < 2
    many = np.tile(right[0], (200, 1)), np.tile(right[1], 200)
    assert fit_temperature(*many) < 0.2
    assert fit_temperature(np.zeros((0, 3)), []) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("held", "now"), [(1, 2), (4, 5)])
def test_the_accuracy_to_expect_makes_up_for_what_was_held_out(held: int, now: int) -> None:
    right = np.repeat([1, 0], [70, 30])
    odds = 0.7 / 0.3 * (now / held) ** 0.6
    assert expected_accuracy(right, [held] * 100, now) == pytest.approx(odds / (1 + odds))
    assert expected_accuracy(right, [held] * 100, held) == pytest.approx(0.7)
    assert expected_accuracy([1, 1], [1, 1], 2) == 1


def test_probabilities_are_a_softmax() -> None:
    z = np.random.default_rng(1).normal(size=(4, 5)) * 500
    assert np.allclose(probabilities(z, 2.0), np.exp(log_softmax(z / 2, axis=1)))


def test_calibration_error_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    y = np.array([0, 1, 0, 1])
    # |0.9 - 1/2| over two, |0.6 - 1| over two
    assert expected_calibration_error(p, y, bins=10) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert expected_calibration_error(np.eye(3), np.arange(3)) == 0


@pytest.mark.parametrize(("rate", "n"), [(0.1, 9), (0.1, 40), (0.2, 17), (0.05, 100)])
def test_no_more_known_examples_are_rejected_than_was_promised(rate: float, n: int) -> None:
    rng = np.random.default_rng(2)
    rejected = []
    for _ in range(4000):
        drawn = rng.beta(5, 2, n + 1)
        threshold = reject_threshold(drawn[:n], rate)
        assert threshold is not None
        rejected.append(drawn[n] < threshold)
    assert np.mean(rejected) <= rate + 0.015
    assert np.mean(rejected) >= rate - 0.06


def test_too_few_examples_promise_nothing() -> None:
    assert reject_threshold(np.ones(8), 0.1) is None
    assert reject_threshold([], 0.5) is None
    with pytest.raises(ValueError, match="false-reject rate is 1"):
        reject_threshold(np.ones(8), 1)
