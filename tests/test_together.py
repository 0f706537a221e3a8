"""Many examples answered together: the mixture's equations, and what it promises."""

import io
import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from quickstudy.calibration import matching_temperature, probabilities
from quickstudy.estimator import Classifier
from quickstudy.examples import Example
from quickstudy.experiments.spec import LearnerSpec
from quickstudy.heads import load_learner
from quickstudy.learners import MAML, ProtoNet
from quickstudy.model import Model
from quickstudy.nn import MLP
from quickstudy.report import Report
from quickstudy.together import answer_together

Array = NDArray[Any]
EVERYONE, ALIKE = np.ones(60, bool), np.array([0.5, 0.5])


def heaps(seed: int = 0) -> tuple[Array, Array, Array]:
    """Two heaps of 30 points in the plane, which of them each is in, and a point of each."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([0, 1], 30))
    x = np.array([[-2.0, 0], [2, 0]])[labels] + 0.4 * rng.normal(size=(60, 2))
    return x, labels, np.array([[-0.2, 1.0], [0.1, -1.0]])


def by_loops(
    logits: Array, support: Array, y: Array, x: Array, known: Array, share: Array
) -> Array:
    """What the docstring of `answer_together` says, an example and a class at a time."""
    n, N = logits.shape
    everyone = [*support, *x[known]]
    centre = np.mean(everyone, axis=0)
    v = np.mean([np.sum((z - centre) ** 2) for z in everyone])
    prior = logits + np.log(share)
    p = np.array([np.exp(row) / np.exp(row).sum() for row in prior])
    sure = np.mean(p[known].max(1))
    for _ in range(10):
        scores = np.empty((n, N))
        for c in range(N):
            mine = [z for z, label in zip(support, y, strict=True) if label == c]
            others = [(p[q, c], x[q]) for q in range(n) if known[q]]
            count = len(mine) + sum(share for share, _ in others) / 2
            mean = (np.sum(mine, axis=0) + sum(share * z for share, z in others) / 2) / count
            frequency = (sum(share for share, _ in others) + 5 * N * share[c]) / (
                known.sum() + 5 * N
            )
            for q in range(n):
                distance = np.sum((x[q] - mean) ** 2)
                scores[q, c] = logits[q, c] + np.log(frequency) - 20 * distance / v
        p = probabilities(scores)
    low, high = 1.0, 1e4
    for _ in range(60):
        middle = (low + high) / 2
        surer = probabilities(scores, middle)[known].max(1).mean() > sure
        low, high = (middle, high) if surer else (low, middle)
    return probabilities(scores, low)


@pytest.mark.parametrize("others", [0, 20], ids=["all-known", "some-unknown"])
def test_equals_its_equations(others: int) -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], 20)
    centres = np.array([[0, 0], [2, 0], [0, 2.5]])
    x = centres[labels] + rng.normal(size=(60, 2))
    y = np.array([0, 1, 2, 2])
    support = centres[y] + rng.normal(size=(4, 2))
    logits, share = 0.3 * rng.normal(size=(60, 3)), np.array([0.5, 0.2, 0.3])
    known = np.arange(60) >= others
    ours = answer_together(logits, support, np.eye(3)[y], x, known, share)
    theirs = by_loops(logits, support, y, x, known, share)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    sure, before = (p[known].max(1).mean() for p in (ours, probabilities(logits + np.log(share))))
    assert sure == pytest.approx(before, abs=1e-6)


def test_unlabelled_examples_show_where_the_heaps_are() -> None:
    """One example of each is far from the middle of its heap, and misleads; 30 more do not."""
    found = []
    for seed in range(10):
        x, labels, support = heaps(seed)
        classifier = Classifier("centroid").fit(support, [0, 1])
        alone, together = (
            classifier.judge(x, together=each)[0].argmax(1) == labels for each in (False, True)
        )
        found.append((alone.mean(), together.mean()))
    alone, together = np.mean(found, axis=0)
    assert alone < 0.95
    assert together > 0.99


def test_order_and_names_change_nothing() -> None:
    x, _, support = heaps()
    logits = np.random.default_rng(1).normal(size=(60, 2))
    answers = answer_together(logits, support, np.eye(2), x, EVERYONE, ALIKE)
    order = np.random.default_rng(2).permutation(60)
    again = answer_together(logits[order], support, np.eye(2), x[order], EVERYONE, ALIKE)
    np.testing.assert_allclose(again, answers[order], rtol=1e-9)
    swapped = answer_together(logits[:, ::-1], support[::-1], np.eye(2), x, EVERYONE, ALIKE)
    np.testing.assert_allclose(swapped, answers[:, ::-1], rtol=1e-9)


def test_examples_that_resemble_no_class_change_no_answer() -> None:
    x, _, support = heaps()
    logits = np.random.default_rng(1).normal(size=(60, 2))
    strange = np.concatenate([x, [[-3.0, 3.0]] * 40])
    more = np.concatenate([logits, [[9.0, 0.0]] * 40])
    known = np.arange(100) < 60
    plain = answer_together(logits, support, np.eye(2), x, EVERYONE, ALIKE)
    answers = answer_together(more, support, np.eye(2), strange, known, ALIKE)
    np.testing.assert_allclose(answers[:60], plain, rtol=1e-6)
    moved = answer_together(more, support, np.eye(2), strange, np.ones(100, bool), ALIKE)
    assert not np.allclose(moved[:60], plain, rtol=0.05)
    nobody = answer_together(logits, support, np.eye(2), x, ~EVERYONE, ALIKE)
    np.testing.assert_allclose(nobody, probabilities(logits))


def test_examples_that_are_all_alike_are_answered_as_alone() -> None:
    same = np.ones((2, 3))
    logits = np.array([[1.0, 0.0], [0.0, 2.0]])
    found = answer_together(logits, same, np.eye(2), same, np.ones(2, bool), ALIKE)
    np.testing.assert_allclose(found, probabilities(logits))


def test_a_temperature_that_makes_answers_as_sure_as_wanted() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4)) * 30
    temperature = matching_temperature(logits, 0.6)
    assert probabilities(logits, temperature).max(1).mean() == pytest.approx(0.6, abs=1e-5)
    assert matching_temperature(logits / 1000, 0.6) == pytest.approx(1, abs=1e-5)


def test_weights_count_as_repeated_examples() -> None:
    x, _, support = heaps()
    three = np.concatenate([support, [[-1.5, 0.5]]])
    weighted = Classifier("logistic").fit(three, [0, 1, 0], sample_weight=[1, 1, 3])
    repeated = Classifier("logistic").fit(three[[0, 1, 2, 2, 2]], [0, 1, 0, 0, 0])
    ours, theirs = (c.judge(x, together=True)[0] for c in (weighted, repeated))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("head", ["logistic", "ridge", "centroid", "proto-maml", "sentence"])
def test_every_head_can(head: str) -> None:
    rng = np.random.default_rng(0)
    means = 3 * rng.normal(size=(3, 384))
    labels = np.repeat([0, 1, 2], 20)
    x = (means[labels] + 2 * rng.normal(size=(60, 384))).astype(np.float32)
    few = (means + 4 * rng.normal(size=(3, 384))).astype(np.float32)
    classifier = Classifier(head).fit(few, ["a", "b", "c"])
    before = classifier.judge(x)[0]
    p, known = classifier.judge(x, together=True)
    assert p.shape == (60, 3)
    assert known.all()
    np.testing.assert_allclose(p.sum(1), 1)
    assert (p.argmax(1) == labels).mean() >= (before.argmax(1) == labels).mean()
    np.testing.assert_array_equal(classifier.judge(x)[0], before)


def test_rows_of_a_table_with_holes_too() -> None:
    x, labels, support = heaps()
    x, support = (np.column_stack([1000 * z[:, 0], z[:, 1]]) for z in (x, support))
    x[3, 1] = np.nan
    classifier = Classifier("logistic", table=True).fit(support, [0, 1])
    p, _ = classifier.judge(x, together=True)
    assert (p.argmax(1) == labels).mean() > 0.9


def test_a_frequent_class_counts_once() -> None:
    """The share that is expected is where counting begins, and is in nothing else."""
    x, _, support = heaps()
    few = np.concatenate([support, support[:1] + 0.1, support[:1] - 0.1])
    y = np.array([0, 1, 0, 0])
    frequent = Classifier("logistic", table=True, prior="examples").fit(few, y)
    alike = Classifier("logistic", table=True).fit(few, y)
    logits = alike._answer(x) / alike.temperature_
    support_z, z = alike._embedded(few), alike._embedded(x)
    p = answer_together(logits, support_z, np.eye(2)[y], z, EVERYONE, np.array([0.75, 0.25]))
    np.testing.assert_allclose(frequent.judge(x, together=True)[0], p)


def test_files_are_let_go_when_they_are_encoded() -> None:
    """However many are answered together: only their features are kept."""
    x, _, support = heaps()
    few = [Example(f"{a} {b}", name, "") for (a, b), name in zip(support, "ab", strict=True)]
    model = Model.learn(few, encoder=Points(), head="centroid")  # type: ignore[arg-type]
    living: weakref.WeakSet[Example] = weakref.WeakSet()
    most = 0

    def items() -> Iterator[Example]:
        nonlocal most
        for i in range(300):
            a, b = x[i % 60]
            example = Example(f"{a} {b}", None, str(i))
            living.add(example)
            most = max(most, len(living))
            yield example
            del example

    assert len([*model.predict(items(), together=True, at_once=10)]) == 300
    assert most < 60


def test_a_head_that_cannot_says_so_before_anything_is_read() -> None:
    rows = [({"a": str(i)}, "xy"[i % 2]) for i in range(6)]
    model = Model.learn(rows)

    def items() -> Iterator[Any]:
        raise AssertionError("read")
        yield

    with pytest.raises(ValueError, match="the head tables has no encoder"):
        next(model.predict(items(), together=True))


def test_a_learner_whose_tests_were_refined_answers_each_alone_as_a_head(tmp_path: Path) -> None:
    spec = LearnerSpec(learner="protonet", size=16, filters=4, options={"refine": 5})
    spec.build().save_pretrained(tmp_path / "p")
    assert isinstance(load_learner(str(tmp_path / "p")), ProtoNet)
    assert load_learner(str(tmp_path / "p")).refine == 0


def test_files_of_before_answer_as_they_did_and_together(tmp_path: Path) -> None:
    """Those of a ProtoNet did not keep how many examples each mean is of."""
    x, _, support = heaps()
    classifier = Classifier("centroid").fit(support, ["a", "b"])
    before = classifier.judge(x)[0], classifier.judge(x, together=True)[0]
    assert classifier.phi_.pop("sizes").tolist() == [[1, 1]]
    classifier.save(tmp_path / "old.qs")
    old = Classifier.load(tmp_path / "old.qs")
    assert "sizes" not in old.phi_
    np.testing.assert_allclose(old.judge(x)[0], before[0])
    np.testing.assert_allclose(old.judge(x, together=True)[0], before[1])


def test_a_learner_without_a_space_says_so() -> None:
    classifier = Classifier(MAML(MLP(2, [8], 2), inner_lr=0.1))
    x, _, support = heaps()
    classifier.fit(support.astype(np.float32), [0, 1])
    with pytest.raises(ValueError, match="the head MAML has no encoder that is the same for every"):
        classifier.judge(x.astype(np.float32), together=True)


class Points:
    """Texts such as "1 2" as they are."""

    name, kind, fingerprint = "points", "text", "points 1"

    def __call__(self, examples: Any) -> Any:
        return np.array([[float(v) for v in e.item.split()] for e in examples], np.float32)


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of points in the plane can be saved and read, in a folder of their own."""
    import quickstudy.model as module

    monkeypatch.chdir(tmp_path)
    for name in ("load_encoder", "built_in_encoder"):
        monkeypatch.setattr(module, name, lambda name, device=None: Points())


@pytest.mark.usefixtures("points")
def test_a_model_and_the_command_answer_together(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from quickstudy.cli import app

    x, _, support = heaps()
    few = [Example(f"{a} {b}", name, "") for (a, b), name in zip(support, "ab", strict=True)]
    model = Model.learn(few, encoder=Points(), head="centroid")  # type: ignore[arg-type]
    texts = [f"{a} {b}" for a, b in x]
    alone, together = ([*model.predict(texts, together=each)] for each in (False, True))
    assert [a.where for a in together] == texts
    expected = model.classifier.judge(x.astype(np.float32), together=True)[0]
    np.testing.assert_allclose([[*a.probabilities.values()] for a in together], expected, rtol=1e-4)
    assert [a.probability for a in alone] != [a.probability for a in together]

    model.save("m.qs")
    Path("new.txt").write_text("\n".join(texts))
    app(["predict", "m.qs", "new.txt", "--together", "--json", "--no-cache"], standalone_mode=False)
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["label"] for one in said] == [a.label for a in together]
    with pytest.raises(ValueError, match="--together answers by all examples, and --shard reads"):
        app(["predict", "m.qs", "new.txt", "--together", "--shard", "1/2"], standalone_mode=False)


@pytest.mark.usefixtures("points")
def test_a_report_of_what_was_answered_together(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from quickstudy.cli import app

    x, y, support = heaps()
    few = [Example(f"{a} {b}", name, "") for (a, b), name in zip(support, "ab", strict=True)]
    model = Model.learn(few, encoder=Points(), head="centroid")  # type: ignore[arg-type]
    texts = [f"{a} {b}" for a, b in x]
    truth = ["ab"[label] for label in y]
    test = [Example(*each, str(i)) for i, each in enumerate(zip(texts, truth, strict=True))]
    for together in (False, True):
        report = Report.of(model, test, together=together)
        right = [
            answer.label == name
            for answer, name in zip(model.predict(texts, together=together), truth, strict=True)
        ]
        assert report.accuracy == sum(right) / len(right)
        assert ("answered together" in report.html("m")) is together
    model.save("m.qs")
    rows = "".join(f"{text},{name}\n" for text, name in zip(texts, truth, strict=True))
    Path("test.csv").write_text("text,label\n" + rows)
    app(["report", "m.qs", "test.csv", "--together", "--no-cache"], standalone_mode=False)
    assert f"accuracy {report.accuracy:.1%} on {len(x)} examples" in capsys.readouterr().out
    assert "answered together" in Path("report.html").read_text()


def test_a_report_together_keeps_no_more_of_an_image_than_it_shows(tmp_path: Path) -> None:
    """Nor does one that cannot be read stop it."""
    rng = np.random.default_rng(0)
    paint = {"red": (200, 60, 60), "blue": (60, 60, 200)}

    def photo(colour: tuple[int, int, int]) -> bytes:
        pixels = np.clip(rng.normal(colour, 40, (40, 40, 3)), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    few = [Example(photo(colour), name, "") for name, colour in paint.items()]
    model = Model.learn(few, encoder="pixels:8", head="centroid")
    living: weakref.WeakSet[Example] = weakref.WeakSet()
    most = 0

    def test() -> Iterator[Example]:
        nonlocal most
        for i in range(200):
            name = "red" if i % 2 else "blue"
            data = b"no image" if i == 5 else photo(paint[name])
            example = Example(data, "blue" if i == 9 else name, f"photo {i}")
            living.add(example)
            most = max(most, len(living))
            yield example
            del example

    failed: list[str] = []
    report = Report.of(model, test(), failed=failed, together=True)
    assert [line.split(":")[0] for line in failed] == ["cannot read the image photo 5"]
    assert (report.tested, report.accuracy) == (199, 198 / 199)
    (mistake,) = report.worst
    assert (mistake.truth, mistake.answer.where) == ("blue", "photo 9")
    assert mistake.picture is not None
    assert Image.open(io.BytesIO(mistake.picture)).size == (96, 96)
    assert most < 100
