"""Heads on frozen features: against scikit-learn, a plain loop, and the contract of learners."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from torch import nn

from quickstudy import data
from quickstudy.calibration import expected_calibration_error
from quickstudy.checkpoint import weights_about
from quickstudy.estimator import FewShotClassifier
from quickstudy.heads import (
    HEADS,
    LEARNED_HEADS,
    Logistic,
    ProtoMAML,
    UnitVectors,
    load_learner,
    rebuild_learner,
    usual_temperature,
)
from quickstudy.learners import ProtoNet
from quickstudy.testing import CHECKS, Case, make_task

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", HEADS)
def test_every_head_keeps_the_contract(name: str, check: Callable[[Case], None]) -> None:
    check(Case(lambda: HEADS[name](UnitVectors()), (6,)))


@pytest.mark.parametrize(("way", "penalty"), [(2, 1.0), (3, 1.0), (7, 0.5)])
def test_logistic_is_scikit_learns(way: int, penalty: float) -> None:
    task = make_task((6,), way, tasks=2, shot=4)
    phi = Logistic(UnitVectors(), penalty=penalty).adapt(task.support_x, task.support_y, way)
    for x, y, weight in zip(task.support_x, task.support_y, phi["weight"], strict=True):
        X = F.pad(F.normalize(x, dim=-1), (0, 1), value=1.0).numpy()
        # two classes share one vector there, which costs half of what our two cost
        C = 1 / penalty if way > 2 else 2 / penalty
        oracle = LogisticRegression(C=C, fit_intercept=False, tol=1e-10, max_iter=10_000)
        theirs = oracle.fit(X, y.numpy()).coef_
        theirs = theirs if way > 2 else np.concatenate([-theirs, theirs]) / 2
        assert np.allclose(weight.numpy().T, theirs, atol=1e-6)


def test_how_far_a_hundred_steps_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/learners/logistic.md says: enough down to a penalty of 0.01, and not for 0.001."""
    torch.manual_seed(0)
    x, q = torch.randn(1, 15, 64).double(), torch.randn(1, 20, 64).double()
    y = torch.arange(5).repeat(3).unsqueeze(0)

    def answer(penalty: float, steps: int) -> torch.Tensor:
        monkeypatch.setattr("quickstudy.learners.logistic._SOLVER_STEPS", steps)
        learner = Logistic(UnitVectors(), penalty=penalty)
        return learner.predict(learner.adapt(x, y, 5), q).softmax(-1)

    apart = {p: (answer(p, 100) - answer(p, 5000)).abs().max() for p in (1.0, 0.01, 0.001)}
    assert apart[1.0] < 1e-9
    assert apart[0.01] < 0.02
    assert apart[0.001] > 0.05


def test_proto_maml_starts_as_protonet_and_takes_plain_steps() -> None:
    task = make_task((6,), 3, tasks=2)
    learner, prototypes = ProtoMAML(UnitVectors(), inner_steps=0), ProtoNet(UnitVectors())
    assert torch.allclose(learner(task).softmax(-1), prototypes(task).softmax(-1))
    learner.inner_steps, learner.inner_lr = 3, 0.7
    logits = learner(task)
    for t in range(2):
        z, y = F.normalize(task.support_x[t], dim=-1), task.support_y[t]
        means = torch.stack([z[y == n].mean(0) for n in range(3)])
        layer = nn.Linear(6, 3).double()
        layer.weight.data, layer.bias.data = 2 * means, -(means**2).sum(1)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.7)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(layer(z), y).backward()
            optimizer.step()
        assert torch.allclose(logits[t], layer(F.normalize(task.query_x[t], dim=-1)))


@pytest.mark.parametrize("name", HEADS)
def test_a_head_grows_is_calibrated_and_saved(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(np.repeat(np.eye(3), 8, axis=0) * 2, 1.0)
    y = np.repeat([*"abc"], 8)
    own = FewShotClassifier(name).fit(x[:16], y[:16]).partial_fit(x[16:], y[16:]).calibrate()
    assert np.allclose(own.predict_proba(x), _fitted(name, x, y).predict_proba(x))
    assert own.score(x, y) > 0.8
    own.save(tmp_path / "own")
    assert np.allclose(
        FewShotClassifier.load(tmp_path / "own").predict_proba(x), own.predict_proba(x)
    )


def _fitted(name: str, x: object, y: object) -> FewShotClassifier:
    return FewShotClassifier(name).fit(x, y).calibrate()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(FileNotFoundError, match="no weights of 'rigde' come with"):
        load_learner("rigde")
    with pytest.raises(ValueError, match="penalty is 0; expected a positive number"):
        Logistic(UnitVectors(), penalty=0)
    with pytest.raises(ValueError, match="inner_lr is -1"):
        ProtoMAML(UnitVectors(), inner_lr=-1)


@pytest.mark.parametrize("sizes", [(10, 1, 1, 1, 1), (5, 5, 1, 1, 1)], ids=str)
@pytest.mark.parametrize("name", HEADS)
def test_classes_of_one_example_are_not_forgotten(name: str, sizes: tuple[int, ...]) -> None:
    """Nearly as many right answers in them as in a task of one example each."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0.5, 0.3, (60, 5, 40))
    _check_small_classes(name, sizes, lambda t, y: centres[t, y] + rng.normal(0, 0.6, (len(y), 40)))


@pytest.mark.parametrize(
    "name", ["protonet-omniglot", "protonet-drawings", "r2d2-omniglot", "maml-omniglot-5w1s"]
)
def test_nor_are_they_by_learners_that_come_with_it(name: str) -> None:
    drawn = data.alphabets(24, 20, seed=5)
    images = torch.stack([drawn.read(*_rows(c, 20)) for c in range(24)]).numpy() / 255
    rng = np.random.default_rng(0)

    def draw(t: int, y: Any) -> Any:
        return images[(t + 5 * y) % 24, rng.integers(20, size=len(y))]

    _check_small_classes(name, (10, 1, 1, 1, 1), draw, tasks=15)


def _rows(label: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((n,), label), torch.arange(n)


def _check_small_classes(
    name: str, sizes: tuple[int, ...], draw: Callable[[int, Any], Any], tasks: int = 60
) -> None:
    small, many, queries = np.array(sizes) == 1, np.repeat(range(5), sizes), np.repeat(range(5), 10)
    first = np.unique(many, return_index=True)[1]
    balanced, unequal = [], []
    for t in range(tasks):
        x, q = draw(t, many), draw(t, queries)
        for scores, rows in ((balanced, first), (unequal, np.arange(len(many)))):
            right = FewShotClassifier(name).fit(x[rows], many[rows]).predict(q) == queries
            scores.append(right[small[queries]].mean())
    assert np.mean(balanced) > 0.35
    assert np.mean(unequal) > 0.7 * np.mean(balanced)


def test_known_examples_of_small_classes_are_seldom_called_unknown() -> None:
    rng = np.random.default_rng(0)
    kept, without = [], []
    for _ in range(10):
        centres = rng.normal(0, 1, (10, 30))
        sizes = np.repeat([8, 1], 5)
        many, queries = np.repeat(range(10), sizes), np.repeat(range(10), 20)
        x = centres[many] + rng.normal(0, 0.8, (len(many), 30))
        q = centres[queries] + rng.normal(0, 0.8, (len(queries), 30))
        model = FewShotClassifier("logistic").fit(x, many).calibrate(0.1)
        small = q[queries >= 5]
        kept.append(1 - model.is_known(small).mean())
        model.allowance_ = 0.0
        without.append(1 - model.is_known(small).mean())
    assert np.mean(kept) < 0.15
    assert np.mean(without) > 0.25


def test_held_out_figures_do_not_depend_on_the_classes_that_give_examples_up() -> None:
    """At two examples a class, one class held out by itself would always be the poorer one."""
    rng = np.random.default_rng(0)
    said, true, errors = [], [], []
    for _ in range(40):
        centres = rng.normal(0, 1, (5, 40))
        many, queries = np.repeat(range(5), 2), np.repeat(range(5), 20)
        x, q = (centres[y] + rng.normal(0, 2, (len(y), 40)) for y in (many, queries))
        model = FewShotClassifier("logistic").fit(x, many).calibrate()
        assert model.held_out_ == 10
        said.append(model.held_out_accuracy_)
        true.append(model.score(q, queries))
        errors.append(expected_calibration_error(model.predict_proba(q), queries))
    assert abs(np.mean(said) - np.mean(true)) < 0.06
    assert np.mean(errors) < 0.15


def test_learned_heads_are_for_the_features_whose_average_they_know() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 1280)), np.arange(6) % 3
    encoder = FewShotClassifier("photo").fit(x, y).learner_.encoder
    centre, gain = encoder.centre.numpy(), encoder.gain.numpy()
    basis = encoder.basis.numpy().astype(float)
    root = _unit(_unit(np.sqrt(x)) - centre)
    along = root @ basis
    expected = _unit(root - along @ basis.T + (along * gain) @ basis.T)
    assert np.allclose(encoder(torch.from_numpy(x).float()).numpy(), expected, atol=2e-4)
    assert np.allclose(basis.T @ basis, np.eye(64), atol=2e-3)
    assert (np.diff(gain) > 0).all()  # the more one class varies along it, the shorter
    assert 0.3 < gain[0] < gain[-1] < 1
    assert 0.3 < np.linalg.norm(centre) < 1  # of unit vectors that have much in common
    with pytest.raises(ValueError, match='the head "logistic" takes any'):
        FewShotClassifier("photo").fit(x[:, :384], y)
    sentence = FewShotClassifier("sentence").fit(x[:, :384], y).learner_.encoder
    centred = _unit(_unit(x[:, :384]) - sentence.centre.numpy())
    assert np.allclose(sentence(torch.from_numpy(x[:, :384]).float()), centred, atol=1e-5)


def _unit(z: Any) -> Any:
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_the_docs_say_what_learned_heads_have_seen() -> None:
    said = " ".join((ROOT / "docs" / "own.md").read_text().split())
    for name, words in (
        ("photo", "3000 photos of 50 of ImageNet's classes"),
        ("sentence", "4500 sentences of 75 of CLINC150's intents"),
    ):
        data = str((weights_about(ROOT / f"src/quickstudy/heads_{name}.safetensors") or {})["data"])
        assert words in said
        assert set(re.findall(r"\d+", words)) <= set(re.findall(r"\d+", data))


def test_a_photo_head_of_before_is_still_opened() -> None:
    """It subtracted an average, and no more."""
    old = rebuild_learner({"head": "photo", "penalty": 0.1})
    centre = torch.rand(1280) / 50
    old.load_state_dict({"encoder.centre": centre})
    x, y = torch.rand(1, 6, 1280), torch.arange(6).unsqueeze(0) % 3
    unit = F.normalize(F.normalize(x, dim=-1) - centre, dim=-1)
    plain = Logistic(nn.Flatten(), penalty=0.1, prior=old.prior, debias=old.debias)
    assert torch.allclose(
        old.predict(old.adapt(x, y, 3), x), plain.predict(plain.adapt(unit, y, 3), unit), atol=1e-4
    )


@pytest.mark.parametrize(
    "about",
    [
        {"head": "photo", "rank": 10**9, "power": 0.5},
        {"head": "photo", "rank": 64, "power": float("nan")},
        {"head": "photo", "rank": "64", "power": 0.5},
        {"head": ["photo"]},
        {"head": "photo", "encoder": "timm:resnet18"},
    ],
    ids=str,
)
def test_a_description_that_makes_no_sense_is_refused(about: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected 0\.\.1280|there is no head"):
        rebuild_learner(about)
    with pytest.raises(ValueError, match="a rank of 64 takes more than the 2000 numbers"):
        rebuild_learner({"head": "photo", "rank": 64, "power": 0.5}, at_most=2000)


@pytest.mark.parametrize("name", [*HEADS, *LEARNED_HEADS])
def test_the_usual_temperature_depends_on_ways_and_shots_as_the_head_does(name: str) -> None:
    one, twenty = usual_temperature(name, [1] * 5), usual_temperature(name, [20] * 5)
    assert 0.03 < min(one, twenty) < max(one, twenty) < 1
    assert usual_temperature(name, [10, 1, 1, 1, 1]) == pytest.approx(one, rel=0.1)
    assert usual_temperature("protonet-omniglot", [1] * 5) == 1


def test_heads_of_tables_have_temperatures_of_their_own() -> None:
    """Fitted to unit vectors of photos, those of features made them far too sure."""
    x, y = load_wine(return_X_y=True)
    few, new, label, truth = train_test_split(x, y, train_size=9, stratify=y, random_state=0)
    for head in ("logistic", "ridge", "centroid"):
        model = FewShotClassifier(head, table=True).fit(few, label)
        loss = log_loss(truth, model.predict_proba(new))
        model.temperature_ = usual_temperature(head, [3, 3, 3])
        assert loss < 0.9 * log_loss(truth, model.predict_proba(new))
        assert loss < 0.7
    assert usual_temperature("unheard-of", [3, 3], table=True) == 1


def test_what_you_trained_has_no_usual_temperature_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert usual_temperature("protonet-drawings", [1] * 5) > 1.5
    for name in ("protonet-drawings", "photo"):
        Path(name).mkdir()
    assert usual_temperature("protonet-drawings", [1] * 5) == 1
    assert usual_temperature("photo", [1] * 5) < 1, "a head's name is never a folder's"


def test_drawings_that_are_no_characters_are_not_answered_too_surely() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((5, 1, 28, 28), dtype=np.float32), np.arange(5)
    model = FewShotClassifier("protonet-drawings").fit(x, y)
    assert model.temperature_ == usual_temperature("protonet-drawings", [1] * 5)
    assert 1.5 < model.temperature_ < 2
    assert model.calibrate().temperature_ == model.temperature_
    shots = [usual_temperature("protonet-drawings", [k] * 5) for k in (1, 2, 5, 20)]
    assert shots == sorted(shots, reverse=True)
