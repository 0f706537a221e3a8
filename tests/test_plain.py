"""JSON that any program reads."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quickstudy.evaluation import Evaluation
from quickstudy.metric import Metric
from quickstudy.plain import to_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


@given(VALUES)
def test_whatever_the_numbers(value: object) -> None:
    json.loads(to_json(value), parse_constant=refuse)


def test_numbers_that_are_none_are_null() -> None:
    assert to_json({"a": [1.5, math.nan, (math.inf,)]}) == '{"a": [1.5, null, [null]]}'


def test_an_evaluation_of_one_task_is_json(tmp_path: Path) -> None:
    result = Evaluation((0.5,), Metric.ACCURACY, None, {})
    assert math.isnan(result.ci95)
    result.save(tmp_path / "scores.json")
    text = (tmp_path / "scores.json").read_text()
    assert json.loads(text, parse_constant=refuse)["ci95"] is None
    assert Evaluation.load(tmp_path / "scores.json").scores == (0.5,)


def test_nothing_else_is_taken() -> None:
    with pytest.raises(TypeError):
        to_json({"a": object()})
