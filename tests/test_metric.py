"""Saved evaluations say their metric in words; what follows from it is decided in one place."""

import json
from pathlib import Path

import pytest

from quickstudy.evaluation import Comparison, Evaluation
from quickstudy.metric import Metric


def test_a_saved_evaluation_has_the_words(tmp_path: Path) -> None:
    for words in ("accuracy", "mean squared error"):
        result = Evaluation((0.5, 0.25), words)  # type: ignore[arg-type]
        result.save(tmp_path / "scores.json")
        data = json.loads((tmp_path / "scores.json").read_text())
        assert data["metric"] == words
        data = {k: data[k] for k in ("scores", "metric", "batch_norm", "about")}
        (tmp_path / "old.json").write_text(json.dumps(data))
        assert Evaluation.load(tmp_path / "old.json") == result
        assert result.metric is Metric(words)


def test_an_unknown_metric_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'luck' is not a valid Metric"):
        Evaluation((0.5,), "luck")  # type: ignore[arg-type]
    data = {"scores": [0.5], "metric": "luck", "batch_norm": None, "about": {}}
    (tmp_path / "scores.json").write_text(json.dumps(data))
    with pytest.raises(
        ValueError, match=r"scores.json is not a saved evaluation that can be read: .*luck"
    ):
        Evaluation.load(tmp_path / "scores.json")


def test_each_metric_has_its_way_of_writing_and_of_being_better() -> None:
    good, bad = Evaluation((0.75, 0.5)), Evaluation((0.5, 0.5))
    assert str(good).startswith("62.50 ± 158.83% (2 tasks)")
    assert good.better_than(bad)
    assert not bad.better_than(good)
    assert not good.better_than(good)
    assert str(Comparison(0.125, 0.01, 0.5, 2)).startswith("+12.50 ± 1.00 points (paired")
    large, small = (Evaluation(s, Metric.SQUARED_ERROR) for s in ((2.0, 1.0), (1.0, 1.0)))
    assert str(large) == "mean squared error 1.5000 ± 6.3531 (2 tasks)"
    assert small.better_than(large)
    assert not large.better_than(small)
    assert str(Comparison(-0.5, 0.1, 0.5, 2, Metric.SQUARED_ERROR)).startswith("-0.5000 ± 0.1000 (")
