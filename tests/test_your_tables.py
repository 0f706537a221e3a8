"""From a table of yours to answers: estimators, models, files and the command line."""

import csv
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, load_wine
from sklearn.model_selection import train_test_split

from quickstudy.batches import Predictor
from quickstudy.checkpoint import load_state, save_state, save_weights
from quickstudy.cli import main
from quickstudy.estimator import FewShotClassifier, FewShotRegressor
from quickstudy.experiments.spec import LearnerSpec
from quickstudy.model import Model

ROWS = [
    ["31", "4", "2024-01-31", "blue"],
    ["44", "", "2019-07-01", "red"],
    ["28", "1", "2024-03-05", "blue"],
    ["51", "12", "2018-02-14", "red"],
    ["33", "?", "2023-05-01", "blue"],
    ["60", "9", "2017-05-01", "red"],
]
PLANS = ["free", "paid"] * 3
HEAD = ["age", "visits", "since", "colour"]


class Frame:
    """As much of a DataFrame as is asked of one."""

    def __init__(self, rows: list[list[Any]], columns: list[str]) -> None:
        self.rows, self.columns = rows, columns

    def __len__(self) -> int:
        return len(self.rows)

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def table(path: Path, rows: list[list[str]], labels: list[str] | None = None) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*HEAD, *(["plan"] if labels else [])])
        for i, row in enumerate(rows):
            writer.writerow([*row, *([labels[i]] if labels else [])])
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["quickstudy", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of weights of a learner of tables that is yours."""
    spec = LearnerSpec(learner="tables", inputs="tables")
    learner = spec.build()
    path = tmp_path_factory.mktemp("reader") / "tables.safetensors"
    save_weights(path, learner, about=spec.model_dump())
    return str(path)


@pytest.mark.parametrize("learner", ["logistic", "ridge", "centroid"])
def test_columns_of_any_unit_are_learned(learner: str) -> None:
    """What destroyed tables were rows of length 1: the unit of a column decided everything."""
    x, y = load_wine(return_X_y=True)
    few, new, label, truth = train_test_split(x, y, train_size=30, stratify=y, random_state=0)
    score = FewShotClassifier(learner, table=True).fit(few, label).score(new, truth)
    assert score > 0.85
    unit = np.logspace(-6, 6, x.shape[1])
    other = FewShotClassifier(learner, table=True).fit(few * unit + 3 * unit, label)
    assert (other.predict(new * unit + 3 * unit) == truth).mean() == pytest.approx(score, abs=0.03)


@pytest.mark.parametrize("learner", ["reader", "logistic"])
def test_words_holes_and_dates_are_taken_from_a_frame_and_from_an_array(
    learner: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if learner == "reader":
        learner = request.getfixturevalue("reader")
    framed = FewShotClassifier(learner, table=True).fit(Frame(ROWS, HEAD), PLANS)
    plain = FewShotClassifier(learner, table=True).fit(ROWS, PLANS)
    asked = [["29", "2", "2024-02-01", "blue"], ["55", "?", "2018-01-01", "violet"]]
    assert framed.predict(Frame(asked, HEAD)).tolist() == ["free", "paid"]
    np.testing.assert_array_equal(framed.predict_proba(asked), plain.predict_proba(asked))
    turned = Frame([row[::-1] for row in asked], HEAD[::-1])
    np.testing.assert_array_equal(framed.predict_proba(turned), plain.predict_proba(asked))
    with pytest.raises(ValueError, match="X has 3 columns; fitted with 4: age, visits, since"):
        framed.predict([row[:3] for row in asked])
    with pytest.raises(ValueError, match="the column 'colour' is missing"):
        framed.predict(Frame([row[:3] for row in asked], HEAD[:3]))
    framed.save(tmp_path / "t.safetensors")
    again = FewShotClassifier.load(tmp_path / "t.safetensors")
    np.testing.assert_array_equal(again.predict_proba(asked), plain.predict_proba(asked))
    more = framed.partial_fit([["19", "3", "2024-06-01", "green"]], ["new"])
    assert more.classes_.tolist() == ["free", "new", "paid"]


def test_what_was_not_learned_and_labels_that_are_not_heeded_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = table(tmp_path / "t.csv", ROWS, PLANS)
    assert run(monkeypatch, "learn", file, "--label", "Plan", "-o", tmp_path / "m.qs") == 0
    new = table(tmp_path / "new.csv", [["29", "2 kg", "today", "violet"], ["", "3", "?", "pink"]])
    with pytest.warns(UserWarning, match="counts as missing") as said:
        assert run(monkeypatch, "predict", tmp_path / "m.qs", new) == 0
    assert [str(warning.message) for warning in said] == [
        "the column 'visits' has '2 kg', which was not learned, and counts as missing",
        "the column 'since' has 'today', which was not learned, and counts as missing",
        "the column 'colour' has 'violet', which was not learned, and counts as missing "
        "(2 of this kind)",
    ]
    assert run(monkeypatch, "add", tmp_path / "m.qs", file, "--class", "paid") == 0
    others = "3 examples have another label, such as free: all are paid now"
    assert others in capsys.readouterr().err


def test_a_model_of_a_frame_answers_a_frame() -> None:
    rows = [[*row, plan] for row, plan in zip(ROWS, PLANS, strict=True)]
    model = Model.learn(Frame(rows, [*HEAD, "Plan"]), label="plan")  # type: ignore[arg-type]
    answers = [answer.label for answer in model.predict(Frame(ROWS, HEAD))]  # type: ignore[arg-type]
    assert answers == PLANS


def test_numbers_stay_exact_where_their_differences_are_small(reader: str) -> None:
    """Seconds since 1970, an hour apart: single precision has steps of 128."""
    x = 1.7e9 + 3600.0 * np.arange(40)[:, None]
    y = (np.arange(40) // 20).astype(int)
    model, small = FewShotClassifier(reader).fit(x[::4], y[::4]), x - x[0]
    other = FewShotClassifier(reader).fit(small[::4], y[::4])
    np.testing.assert_allclose(model.predict_proba(x), other.predict_proba(small), atol=1e-5)
    assert np.ptp(model.predict_proba(x)[:, 0]) > 0.1


def test_a_number_is_predicted_in_its_own_unit(reader: str, tmp_path: Path) -> None:
    x, _ = load_iris(return_X_y=True)
    few, new = x[::5], x[2::5]
    few_x, few_y, new_x, new_y = few[:, :3], 1000 * few[:, 3], new[:, :3], 1000 * new[:, 3]
    few_x[3, 1] = np.nan
    model = FewShotRegressor(reader).fit(few_x, few_y)
    unit = FewShotRegressor(reader).fit(few_x, few_y / 1000)
    np.testing.assert_allclose(model.predict(new_x), 1000 * unit.predict(new_x), rtol=1e-4)
    assert np.corrcoef(model.predict(new_x), new_y)[0, 1] > 0.9
    model.save(tmp_path / "r.safetensors")
    again = FewShotRegressor.load(tmp_path / "r.safetensors")
    np.testing.assert_array_equal(again.predict(new_x), model.predict(new_x))
    both = FewShotRegressor(reader).fit(few_x, np.stack([few_y, -few_y], 1))
    np.testing.assert_allclose(both.predict(new_x)[:, 0], model.predict(new_x), rtol=1e-4)


def test_from_a_csv_to_predictions_in_two_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    known = table(tmp_path / "customers.csv", ROWS, PLANS)
    new = table(tmp_path / "new.csv", [["29", "2", "2024-02-01", "blue"], ["", "", "", "red"]])
    model = tmp_path / "m.qs"
    assert run(monkeypatch, "learn", known, "--label", "Plan", "-o", model) == 0
    said = " ".join(capfd.readouterr().err.split())
    assert "numbers: age, visits; dates: since; categories: colour" in said
    assert "table features, tables" in said
    assert run(monkeypatch, "predict", model, new, "--csv") == 0
    rows = list(csv.DictReader(capfd.readouterr().out.splitlines()))
    assert [row["label"] for row in rows] == ["free", "paid"]
    assert rows[1]["example"].endswith("new.csv, line 3")
    assert run(monkeypatch, "report", model, known, "-o", tmp_path / "r.html") == 0
    assert "accuracy 100.0% on 6 examples" in capfd.readouterr().out
    assert "age: 31" not in (tmp_path / "r.html").read_text()  # no mistake to show
    assert run(monkeypatch, "add", model, new, "--class", "trial") == 0
    assert Model.load(model).counts == {"free": 3, "paid": 3, "trial": 2}


def test_a_large_table_is_learned_by_a_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows are compared with each other by what learns small ones."""
    rows = [{"size": i, "plan": PLANS[i % 2]} for i in range(12)]
    heads = []
    for most in (12, 11):
        monkeypatch.setattr("quickstudy.model._MOST_ROWS", most)
        frame = Frame([[*row.values()] for row in rows], ["size", "plan"])
        heads.append(Model.learn(frame, label="plan").about()["head"])  # type: ignore[arg-type]
    assert heads == ["tables", "logistic"]


def test_a_label_column_is_none_to_learn_from(tmp_path: Path) -> None:
    """And one that is called class or category beside it is."""
    rows = [{"class": "ab"[i % 2], "size": i, "plan": PLANS[i % 2]} for i in range(6)]
    model = Model.learn(Frame([[*row.values()] for row in rows], [*rows[0]]), label="plan")
    assert [c.name for c in model.encoder.columns.columns] == ["class", "size"]  # type: ignore[attr-defined]
    model.save(tmp_path / "m.qs")
    again = Model.load(tmp_path / "m.qs")
    assert [a.label for a in again.predict([{"size": 3, "class": "b"}])] == ["paid"]
    assert again.encoder.label == "plan"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", r"t\.csv, line 2 has no label; it has: a, b; --label names its column"),
        ("a,label\n1,\n", "line 2 has no label: the column 'label' is empty"),
        ("label\nx\ny\n", "line 2 has a label, and nothing to tell it by"),
        ("a,label\n1,x\n1,y\n", "no column can be learned from: the same everywhere, left out: a"),
        ("a,label\n,x\n?,y\n", "no column can be learned from: empty, left out: a"),
        ("a,label\n1,x\n2,x\n", "only 1 class"),
        ("a,a,label\n1,2,x\n", "2 columns called a"),
    ],
)
def test_a_table_that_cannot_be_learned_says_why(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(ValueError, match=message):
        Model.learn(tmp_path / "t.csv")


def test_a_missing_label_column_is_named(tmp_path: Path) -> None:
    known = table(tmp_path / "t.csv", ROWS, PLANS)
    with pytest.raises(ValueError, match="has no column 'paln'; it has: age, visits, since, col"):
        Model.learn(known, label="paln")
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="is no table: no column of it is called 'plan'"):
        Model.learn(tmp_path / "photos", label="plan")


def test_rows_and_photos_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Model.learn(table(tmp_path / "t.csv", ROWS, PLANS), label="plan", head="logistic")
    with pytest.raises(ValueError, match="is a text; this model takes rows of a table"):
        list(model.predict(["blue"]))
    model.save(tmp_path / "m.qs")
    (tmp_path / "x.txt").write_text("blue")
    for words, said in (
        (("--text", "blue"), "this model was learned from a table; --text is for sentences"),
        ((tmp_path / "x.txt",), "x.txt is no table; this model takes .csv, .tsv, .jsonl or .json"),
        (("-",), "this model was learned from a table; - is for sentences"),
    ):
        assert run(monkeypatch, "predict", tmp_path / "m.qs", *words) != 0
        assert said in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("learner", ["reader", "logistic"])
def test_twelve_classes_and_unequal_sizes(learner: str, request: pytest.FixtureRequest) -> None:
    if learner == "reader":
        learner = request.getfixturevalue("reader")
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(12), [2, 5] * 6)
    x = np.stack([np.cos(y * np.pi / 6), np.sin(y * np.pi / 6)], 1) * 5
    model = FewShotClassifier(learner, table=True).fit(x + 0.1 * rng.normal(size=x.shape), y)
    right = (model.predict(x + 0.1 * rng.normal(size=x.shape)) == y).mean()
    assert right > 0.9


def test_infinite_numbers_are_refused_and_a_thousand_columns_are_not(reader: str) -> None:
    x, y = np.random.default_rng(0).normal(size=(12, 1000)), np.arange(12) % 2
    x[:, 700] += 5 * y
    assert FewShotClassifier(reader).fit(x, y).predict(x).tolist() == y.tolist()
    x[3, 4] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        FewShotClassifier(reader).fit(x, y)


def test_an_engine_hands_out_batches_of_a_table(tmp_path: Path) -> None:
    model = Model.learn(table(tmp_path / "t.csv", ROWS, PLANS), label="plan")
    model.save(tmp_path / "m.qs")
    batch = {name: np.array([row[i] for row in ROWS]) for i, name in enumerate(HEAD)}
    names = np.array([f"row {i}" for i in range(len(ROWS))])
    found = Predictor(tmp_path / "m.qs")({"path": names, **batch})
    rows = [dict(zip(HEAD, row, strict=True)) for row in ROWS]
    assert found["label"].tolist() == [answer.label for answer in model.predict(rows)]
    assert found["path"].tolist() == names.tolist()


@pytest.mark.parametrize("head", ["logistic", "ridge", "centroid"])
def test_holes_count_as_the_average_and_outliers_are_drawn_in(head: str) -> None:
    x, y = load_wine(return_X_y=True)
    few, label = x[::6].copy(), y[::6]
    model = FewShotClassifier(head, table=True).fit(few, label)
    hole, mean, far, farther = (x[1:2].copy() for _ in range(4))
    hole[0, 3], mean[0, 3] = np.nan, few[:, 3].mean()
    np.testing.assert_allclose(model.predict_proba(hole), model.predict_proba(mean), atol=1e-6)
    far[0, 3], farther[0, 3] = 1e4, 1e9
    np.testing.assert_allclose(model.predict_proba(far), model.predict_proba(farther), atol=1e-6)


def test_columns_of_a_stranger_are_as_wide_as_the_examples(tmp_path: Path) -> None:
    """A category of a million levels took gigabytes as soon as rows were answered."""
    path = tmp_path / "m.qs"
    Model.learn(table(tmp_path / "t.csv", ROWS, PLANS), label="plan", head="logistic").save(path)
    state = load_state(path)
    about = state["about"]["model"]
    columns = about["table"]["columns"]
    next(c for c in columns if c["kind"] == "category")["levels"] += ["mauve", "taupe"]
    about["fingerprint"] = hashlib.sha256(json.dumps(columns).encode()).hexdigest()
    save_state(path, state)
    with pytest.raises(ValueError, match=r"m\.qs is not .*: its columns are \d+ numbers, its exam"):
        Model.load(path)


def test_a_table_s_own_numbers_are_checked_as_they_are_read(tmp_path: Path) -> None:
    x, y = load_wine(return_X_y=True)
    x[3, 2] = np.nan
    FewShotClassifier("tables").fit(x[::5], y[::5]).save(tmp_path / "m.qs")
    whole = FewShotClassifier.load(tmp_path / "m.qs").predict_proba(x)
    assert np.allclose(whole, FewShotClassifier("tables").fit(x[::5], y[::5]).predict_proba(x))

    def with_part(path: tuple[str, ...], change: Any) -> None:
        state = load_state(tmp_path / "m.qs")
        *outer, last = path
        inner = state
        for name in outer:
            inner = inner[name]
        inner[last] = change(inner[last].clone())
        save_state(tmp_path / "n.qs", state)

    for part, change in (
        (("phi", "spread"), lambda z: z * np.nan),
        (("phi", "sorted"), lambda z: z * np.nan),
        (("phi", "weights"), lambda z: z[..., :1]),
        (("phi", "mean"), lambda z: z[:, :1]),
        (("phi", "trust"), lambda z: z[:, :3]),
        (("phi", "variances"), lambda z: z / 0),
        (("support_x",), lambda z: z * np.inf),
    ):
        with_part(part, change)
        with pytest.raises(ValueError, match=r"n\.qs"):
            FewShotClassifier.load(tmp_path / "n.qs")


def test_a_folder_that_is_called_as_what_ships_does_not_hide_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tables").mkdir()
    x, y = load_iris(return_X_y=True)
    assert FewShotClassifier("tables").fit(x[::9], y[::9]).score(x, y) > 0.85
    with pytest.raises(FileNotFoundError, match="tables is not a run folder"):
        FewShotClassifier("./tables").fit(x, y)


def test_arrays_are_taken_or_refused_in_words() -> None:
    x, y = load_iris(return_X_y=True)
    fitted = FewShotClassifier("tables").fit(x[::9], y[::9])
    of_tensor = FewShotClassifier("tables").fit(torch.tensor(x[::9]), y[::9])
    assert (of_tensor.predict(torch.tensor(x)) == fitted.predict(x)).all()
    holes = x[:3].astype(object)
    holes[0, 1] = None
    assert len(fitted.predict(holes)) == 3
    holes[0, 1] = "?"
    with pytest.raises(ValueError, match="this was fitted with numbers alone"):
        fitted.predict(holes)
    with pytest.raises(ValueError, match="X has 3 dimensions; a table has two"):
        FewShotClassifier("tables").fit(x[:, :, None], y)
    assert FewShotClassifier("tables").__sklearn_tags__().input_tags.allow_nan
    assert not FewShotClassifier("logistic").__sklearn_tags__().input_tags.allow_nan


def test_a_frame_with_numbers_for_names_is_saved_and_one_name_for_two_columns_refused(
    tmp_path: Path,
) -> None:
    x, y = load_iris(return_X_y=True)
    few: Any = Frame(x[::9].tolist(), [0, 1, 2, 3])  # type: ignore[list-item]
    FewShotClassifier("tables").fit(few, y[::9]).save(tmp_path / "m.qs")
    again = FewShotClassifier.load(tmp_path / "m.qs")
    whole: Any = Frame(x.tolist(), [0, 1, 2, 3])  # type: ignore[list-item]
    assert again.score(whole, y) > 0.85

    class Twice(Frame):
        def to_dict(self, orient: str) -> list[dict[str, Any]]:
            return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    with pytest.raises(ValueError, match="several columns called 'a'"):
        FewShotClassifier("tables").fit(Twice(x.tolist(), ["a", "b", "a", "c"]), y)


@pytest.mark.parametrize("learner", ["tables", "logistic"])
def test_classes_are_as_frequent_as_is_said(learner: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [40, 10])
    x, query = rng.normal(size=(50, 3)), rng.normal(size=(400, 3))
    x[:, 0] += y
    alike = FewShotClassifier(learner, table=True).fit(x, y)
    own = FewShotClassifier(learner, table=True, prior="examples").fit(x, y)
    odds = [np.log(each.predict_proba(query)) @ [1, -1] for each in (own, alike)]
    assert np.allclose(odds[0] - odds[1], np.log(4)), "four to one"
    assert (own.predict(query) == own.predict_proba(query).argmax(1)).all()
    own.calibrate().save(tmp_path / "m.qs")
    again = FewShotClassifier.load(tmp_path / "m.qs")
    assert again.prior == "examples"
    assert np.allclose(again.predict_proba(query), own.predict_proba(query))
    with pytest.raises(ValueError, match="prior is 'natural'; expected 'alike' or 'examples'"):
        FewShotClassifier(learner, prior="natural").fit(x, y)  # type: ignore[arg-type]


def test_what_learn_says_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{i},{30 + i % 7 - 20 * (i < 9)},{'no' if i < 9 else 'yes'}" for i in range(30)]
    data = tmp_path / "t.csv"
    data.write_text("\n".join(["customer_id,age,label", *lines, "30,1,", *["31,2,"] * 20]) + "\n")
    model = tmp_path / "m.qs"
    said = []
    for more in ([], ["--prior", "examples"]):
        assert run(monkeypatch, "learn", data, "-o", model, "--force", *more) == 0
        said.append(" ".join(capsys.readouterr().err.split()))
        assert run(monkeypatch, "info", model) == 0
        known = " ".join(capsys.readouterr().out.split())
        assert "numbers: age; row numbers or ids, left out: customer_id" in known
        assert "% (" in known
        assert "to 100%) on 30 of its examples" in known
    assert "no class is likelier for having more examples (learn --prior examples" in said[0]
    assert "classes are taken to be as frequent as among the examples" in said[1]
    assert said[0].count("has no label: the column 'label' is empty") == 10
    assert "left out: 11 more" in said[0]
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    assert run(monkeypatch, "learn", tmp_path / "t.xlsx", "--label", "plan") == 2
    assert "save the sheet as CSV" in capsys.readouterr().err


def test_that_other_columns_beside_texts_are_not_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,amount,label\ngood day,1,a\nso long,2,b\n")
    with pytest.warns(UserWarning, match="has texts, which alone are read, and not amount"):
        Model.learn(tmp_path / "t.csv", encoder="minilm")
    (tmp_path / "t.csv").write_text("text,,label\ngood day,1,a\nso long,2,b\n")
    with pytest.warns(UserWarning, match="and not a column without a name: to learn"):
        Model.learn(tmp_path / "t.csv", encoder="minilm")
    with pytest.raises(ValueError, match="has two columns called 'age'"):
        Model.learn(Frame([[1, 2, "x"], [3, 4, "y"]], ["Age", "age", "label"]))  # type: ignore[arg-type]
