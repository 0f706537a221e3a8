"""Columns of tables, and what they are taken for."""

import json
import math
import time
import warnings

import numpy as np
import pytest

from quickstudy.columns import Columns


class NA:
    """As pandas has it: even the question whether it is itself has no answer."""

    def __str__(self) -> str:
        return "<NA>"

    def __ne__(self, other: object) -> "NA":  # type: ignore[override]
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


def column(*values: object) -> list[dict[str, object]]:
    return [{"x": value} for value in values]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", " -3e2 "], "number"),
        ([1, 2.5, None], "number"),
        (["1", "NA", "?", "", "n/a", "2"], "number"),
        (["12 %", "3 %"], "number"),
        (["€5", "€7"], "number"),
        (["2024-01-31", "2023-12-01T10:00"], "date"),
        (["31.7.2025", "01.08.2025 9:30"], "date"),
        (["7/31/2025", "13/1/2025"], "category"),
        (["red", "blue", "red", "blue", "green"], "category"),
        ([True, False, True], "category"),
        (["yes", "no"], "category"),
        (["same", "same"], "constant"),
        ([7, 7.0, "7"], "constant"),
        ([None, "", float("nan"), NA()], "empty"),
        ([1.5, NA(), 2.5], "number"),
        ([f"name {i}" for i in range(20)], "text"),
        (["Ann", "Ann", *(f"name {i}" for i in range(20))], "text"),
        (["Ann", "Ann", "Ben", "Ben", *"abcd"], "category"),
    ],
)
def test_a_column_is_taken_for_what_it_holds(values: list[object], kind: str) -> None:
    rows = [{"x": value, "other": i} for i, value in enumerate(values)]
    assert Columns.fit(rows).columns[0].kind == kind


@pytest.mark.parametrize(
    "name", ["", "Unnamed: 0", "id", "ID", "customer_id", "customerId", "row no"]
)
def test_ids_are_no_numbers_to_learn_from(name: str) -> None:
    rows = [{name: 7 * i, "x": i} for i in range(6)]
    assert [c.kind for c in Columns.fit(rows).columns] == ["index", "number"]
    assert Columns.fit([{**row, name: row["x"] // 2} for row in rows]).columns[0].kind == "number"
    for other in ("paid", "grid", "note", "x"):
        kinds = [c.kind for c in Columns.fit([{other: i, "y": -i} for i in range(6)]).columns]
        assert kinds == ["number", "number"]


def test_dates_are_read_as_people_write_them() -> None:
    def read(*values: str) -> tuple[list[float], str]:
        rows = column(*values)
        columns = Columns.fit(rows)
        assert Columns.of_plain(json.loads(json.dumps(columns.plain()))) == columns
        return columns.numbers(rows)[:, 0].tolist(), columns.summary()

    assert read("2.1.2024", "01.01.2024") == ([738887, 738886], "dates: x (day first)")
    assert read("1/2/2024 12:00", "1/1/2024") == ([738887.5, 738886], "dates: x (month first)")
    assert read("13/1/2024 6:00", "1/1/2024") == ([738898.25, 738886], "dates: x (day first)")
    assert read("13-01-2024", "1-1-2024") == ([738898, 738886], "dates: x (day first)")
    assert read("01.31.2024", "01.01.2024") == ([738916, 738886], "dates: x (month first)")
    assert read("2024-01-02", "01.01.2024") == ([738887, 738886], "dates: x (day first)")
    assert read("2024/01/02", "2024/1/1") == ([738887, 738886], "dates: x")
    assert read("2024.01.02 06:00", "2024.1.1") == ([738887.25, 738886], "dates: x")
    assert read("1/2/2024 12:00 PM", "1/1/2024 12:00 am") == (
        [738887.5, 738886],
        "dates: x (month first)",
    )
    assert read("2024-01-02 6:00:00 p.m.", "2024-01-01 6 AM") == (
        [738887.75, 738886.25],
        "dates: x",
    )
    for none in ("2024/13/01", "24/01/31", "1/2/2024 13:00 PM", "1/2/2024 0 AM", "2024/01-02"):
        assert Columns.fit([*column("b", "b", none, "b", "c")]).columns[0].kind == "category"


def test_a_date_that_does_not_exist_counts_as_missing() -> None:
    """As a word among numbers does, and where one in ten at most is none."""
    days = [f"{day}.1.2024" for day in range(3, 22)]
    with pytest.warns(
        UserWarning, match=r"'x' holds dates, and '31\.2\.2024', which counts as mis"
    ):
        columns = Columns.fit(column(*days, "31.2.2024"))
    assert columns.summary() == "dates: x (day first)"
    assert np.isnan(columns.numbers(column("31.2.2024"))).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Columns.fit(column(*days[:3], "31.2.2024")).columns[0].kind == "category"


def test_numbers_are_read_as_people_write_them() -> None:
    def read(*values: str) -> list[float]:
        rows = column(*values)
        return Columns.fit(rows).numbers(rows)[:, 0].tolist()

    assert read("1,234", "12,345,678", "999") == [1234, 12345678, 999]
    assert read("1,5", "2,25", "3") == [1.5, 2.25, 3]
    assert read("1.5e3", "-.5", "+2.") == [1500, -0.5, 2]
    assert read("1.234,56 €", "20,25 €", "12.345,00 €") == [1234.56, 20.25, 12345]
    assert read("1.234.567", "12.500", "999") == [1234567, 12500, 999]
    assert read("12 345,5", "1\u202f000", "7") == [12345.5, 1000, 7]
    assert read("1'234.5", "-20") == [1234.5, -20]
    assert read("0,125", "1,375", "2") == [0.125, 1.375, 2]
    assert read("$1,234.50", "-$20", "\u22127", "EUR 5") == [1234.5, -20, -7, 5]
    assert read("12.5 kg", "3kg", "4") == [12.5, 3, 4]
    assert read("80 km/h", "95 km/h") == [80, 95]
    assert read("2024-01-02", "2024-01-01") == [738887, 738886]
    assert read("2024-01-02 12:00", "2024-01-02T18:00:00Z") == [738887.5, 738887.75]
    assert read("True", "False", "True") == [0, 1, 0]


def test_a_number_in_another_unit_is_no_number() -> None:
    kilos = Columns.fit(column("12 kg", "3 kg", "4 kg"))
    assert np.isnan(kilos.numbers(column("500 g"))).all()
    assert kilos.unread({"x": "500 g"}) == [("x", "500 g")]
    assert kilos.unread({"x": "?"}) == kilos.unread({"x": "5 kg"}) == []
    english, german = (Columns.fit(column(v, "7")) for v in ("1,234.50", "1.234,50"))
    assert np.isnan(english.numbers(column("1,5", "1.234,50"))).all()
    assert np.isnan(german.numbers(column("1,234.50"))).all()
    for values in (["1 kg", "500 g", "3 kg", "500 g"], ["A1", "A2", "A1"], ["10am", "9am", "9pm"]):
        assert Columns.fit(column(*values, *values)).columns[0].kind == "category"


def test_categories_become_columns_and_what_is_unknown_is_missing() -> None:
    rows = column("a", "b", "c", "a", "b", "c", "a")
    columns = Columns.fit(rows)
    assert columns.columns[0].levels == ("a", "b", "c")
    assert columns.numbers(column("c", "a")).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert np.isnan(columns.numbers(column("new", None, "?"))).all()
    many = Columns.fit(column(*[f"level {i % 30}" for i in range(90)]))
    assert many.width == 16


def test_a_word_among_numbers_counts_as_missing_and_is_told() -> None:
    rows = column(*map(str, range(20)), "about 7")
    with pytest.warns(UserWarning, match="'x' holds numbers, and 'about 7', which counts as miss"):
        columns = Columns.fit(rows)
    assert math.isnan(columns.numbers(rows)[-1, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(Columns.fit(column(1, 2)).numbers(column("inf", "1e999", "x"))).all()


def test_what_a_row_lacks_is_named_and_what_it_has_too_much_is_not_read() -> None:
    columns = Columns.fit([{"a": 1, "b": 2}, {"a": 3, "b": 1}])
    with pytest.raises(ValueError, match="the column 'b' is missing; the model was learned from:"):
        columns.numbers([{"a": 1}])
    assert columns.numbers([{"b": 2, "c": "what", "a": 1}]).tolist() == [[1, 2]]


def test_a_table_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no column can be learned from: the same everywhere, l"):
        Columns.fit(column(1, 1))
    with pytest.raises(ValueError, match="10,001 columns; expected at most 10,000"):
        Columns.fit([{str(i): i for i in range(10_001)}])


def test_the_summary_names_each_column_once() -> None:
    rows = [{"n": i, "c": "ab"[i % 2], "t": f"id {i}", "e": None, "k": 1} for i in range(8)]
    assert Columns.fit(rows).summary() == (
        "numbers: n; categories: c; empty, left out: e; the same everywhere, left out: k; "
        "text that hardly comes again, left out: t"
    )


def test_columns_are_plain_values_and_made_again_from_them() -> None:
    columns = Columns.fit([{"n": i, "c": "ab"[i % 2]} for i in range(8)])
    assert Columns.of_plain(json.loads(json.dumps(columns.plain()))) == columns
    prices = Columns.fit(column("1.234,50 kg", "2 kg"))
    assert Columns.of_plain(json.loads(json.dumps(prices.plain()))) == prices
    first = {"name": "n", "kind": "number", "levels": [], "thousands": False}  # as files had them
    assert Columns.of_plain([first]).plain() == [first]
    for wrong in (None, [1], [{"name": "n"}], [{**columns.plain()[0], "kind": "program"}]):
        with pytest.raises(ValueError, match=r"a column is .*; expected its name, kind and levels"):
            Columns.of_plain(wrong)


def test_a_word_after_many_numbers_is_found_in_time() -> None:
    """Looked for among all numbers before it, each time, 100,000 rows took minutes."""
    began = time.monotonic()
    with pytest.warns(UserWarning, match="'last', which counts as missing"):
        Columns.fit(column(*range(30_000), "last"))
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("none", ["", None, "none"])
@pytest.mark.parametrize("tick", ["x", 1, True])
def test_a_column_of_ticks_is_of_two_levels(tick: object, none: object) -> None:
    columns = Columns.fit(column(tick, none, tick, none))
    assert columns.summary() == "categories: x"
    assert columns.numbers(column(none, tick)).tolist() == [[1.0], [0.0]]
    again = Columns.of_plain(json.loads(json.dumps(columns.plain())))
    assert again.numbers(column(tick, none)).tolist() == [[0.0], [1.0]]
    with pytest.raises(ValueError, match="the same everywhere, left out: x"):
        Columns.fit(column(tick, tick, none))  # once only: it may be a hole


def test_truth_values_and_accents_are_one_however_they_are_written() -> None:
    columns = Columns.fit(column(True, False, True, False))
    written = column("True", "FALSE", "true", np.True_)
    assert columns.numbers(written).tolist() == [[0.0], [1.0], [0.0], [0.0]]
    [kept] = columns.plain()
    before = Columns.of_plain([{**kept, "levels": ["True", "False"]}])  # of an older file
    assert before.numbers(column(True, "False")).tolist() == [[0.0], [1.0]]
    accents = Columns.fit(column("caf\u00e9", "bar", "cafe\u0301", "bar"))
    assert accents.numbers(column("cafe\u0301", "caf\u00e9")).tolist() == [[0.0], [0.0]]


def test_infinite_numbers_are_missing_however_many() -> None:
    columns = Columns.fit(column(1.5, math.inf, 2.5, "-inf", "Infinity", 4))
    assert columns.summary() == "numbers: x"
    values = columns.numbers(column(1.5, math.inf, "inf")).tolist()
    assert values[0] == [1.5]
    assert np.isnan(values[1:]).all()


def test_a_key_that_rows_lack_is_missing_if_some_lacked_it_before() -> None:
    rows = [{"a": 1, "b": "u"}, {"b": "v"}, {"a": 3, "b": "v"}]
    columns = Columns.of_plain(json.loads(json.dumps(Columns.fit(rows).plain())))
    assert np.array_equal(columns.numbers(rows)[:, 0], [1, np.nan, 3], equal_nan=True)
    assert columns.unread({"b": "w"}) == [("b", "w")]
    with pytest.raises(ValueError, match=r"the column 'b' is missing; .* learned from: a, b"):
        columns.numbers([{"a": 1}])
    alone = Columns.fit([{"a": 1}, {"b": 2}, {"a": 3}, {"b": 4}])
    with pytest.raises(ValueError, match="the column 'a' is missing"):
        alone.numbers([{"a": 1}, {"c": 1}])


def test_thousands_are_thousands() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        thousand = Columns.fit(column("1.5k", "2k", "40 K", "300", "$7k"))
        points = Columns.fit(column("5.50", "16.25", "700"))
    assert thousand.numbers(column("1.5k", "800", "40 K", "$7k")).tolist() == [
        [1500.0],
        [800.0],
        [40000.0],
        [7000.0],
    ]
    assert points.numbers(column("1,500", "1,500.25")).tolist() == [[1500.0], [1500.25]]
    assert np.isnan(points.numbers(column("1,5"))).all()
