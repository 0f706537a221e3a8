import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.checkpoint import load_state, save_state
from quickstudy.data import ClassDataset, EpisodeSampler, SinusoidSampler, alphabets
from quickstudy.evaluation import (
    Evaluation,
    FrozenTasks,
    accuracy_by_instance,
    compare,
    evaluate,
    result_path,
)
from quickstudy.frozen_tasks import _fingerprint
from quickstudy.learner import MetaLearner, Phi
from quickstudy.learners import MAML, BlackBoxLSTM, Ensemble, NearestNeighbour, ProtoNet
from quickstudy.nn import MLP, Conv4
from quickstudy.task import Task
from quickstudy.testing import make_task


def image_sampler(**settings: int) -> EpisodeSampler:
    rng = np.random.default_rng(0)
    means = rng.integers(0, 255, (10, 1, 1, 16, 16))
    x = np.clip(means + rng.normal(0, 90, (10, 8, 1, 16, 16)), 0, 255).astype(np.uint8)
    dataset = ClassDataset.from_arrays(x.reshape(-1, 1, 16, 16), np.repeat(np.arange(10), 8))
    return EpisodeSampler(dataset, **{"way": 5, "shot": 1, "query": 3, **settings})


class Always(ProtoNet):
    """Says class 0 to everything: its accuracy is known without running it."""

    def predict(self, phi: dict[str, torch.Tensor], query_x: torch.Tensor) -> torch.Tensor:
        logits = query_x.new_zeros(*query_x.shape[:2], phi["prototypes"].shape[1])
        logits[..., 0] = 1
        return logits


def test_known_accuracy_and_interval() -> None:
    result = evaluate(Always(MLP(256, [], 2)), image_sampler(tasks=7), n_tasks=50)
    assert result.scores == tuple([0.2] * 50)
    assert result.mean == pytest.approx(0.2)
    assert result.ci95 == pytest.approx(0)
    scores = (0.0, 0.5, 1.0, 0.5)
    t = 3.182446  # of 3 degrees of freedom, from a printed table
    assert Evaluation(scores).ci95 == pytest.approx(t * np.std(scores, ddof=1) / 2)
    assert math.isnan(Evaluation((1.0,)).ci95)


def test_small_tasks_are_answered_together_and_scored_as_if_alone() -> None:
    seen: list[int] = []

    class Watched(NearestNeighbour):
        def forward(self, task: Task) -> torch.Tensor:
            seen.append(len(task))
            return super().forward(task)

    sources = [image_sampler(shot=shot, tasks=tasks) for shot, tasks in ((1, 1), (2, 3), (1, 1))]
    batches = [source[i] for source in sources for i in range(4)]
    together = evaluate(Watched(), batches, n_tasks=19)
    assert seen == [4, 12, 3], "joined while they are alike"
    alone = [evaluate(NearestNeighbour(), [b], n_tasks=len(b)).scores for b in batches]
    assert together.scores == tuple(score for scores in alone for score in scores)[:19]


class Parrot:
    """Says of each example the class of the one before it, and of the first that of label 0."""

    def read(self, x: torch.Tensor, y: torch.Tensor, n_way: int | None) -> torch.Tensor:
        said = torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], dim=1)
        return torch.nn.functional.one_hot(said, n_way or 0).float()


def test_accuracy_by_instance() -> None:
    x, query = torch.rand(1, 6, 3), torch.rand(1, 1, 3)
    y = torch.tensor([[1, 1, 0, 1, 0, 0]])
    task = Task(x, y, query, torch.zeros(1, 1, dtype=torch.int64), 2)
    scores = accuracy_by_instance(Parrot(), [task] * 4, n_tasks=4)  # type: ignore[arg-type]
    # instance 1: class 1 at 0 (says 0), class 0 at 2 (says 1); 2: right, wrong; 3: wrong, right
    assert {j: result.mean for j, result in scores.items()} == {1: 0.0, 2: 0.5, 3: 0.5}
    assert len(scores[1].scores) == 4
    with pytest.raises(ValueError, match="does not read sequences"):
        accuracy_by_instance(NearestNeighbour(), [task], n_tasks=1)  # type: ignore[arg-type]


def test_comparison_speaks_in_its_metric() -> None:
    a, b = (Evaluation(s, metric="mean squared error") for s in ((1.0, 2.0), (0.5, 0.5)))
    assert str(compare(a, b)).startswith("+1.0000 ± ")
    assert str(compare(Evaluation((1.0, 0.5)), Evaluation((0.5, 0.5)))).startswith("+25.00 ± ")


def test_batch_size_does_not_matter() -> None:
    frozen = FrozenTasks.freeze(image_sampler(tasks=4), 20)
    torch.manual_seed(0)
    learner = ProtoNet(Conv4(1, 8, image_size=16))
    one, many = (evaluate(learner, frozen.batched(b), n_tasks=20) for b in (1, 6))
    assert one.scores == many.scores


def test_evaluation_leaves_no_trace() -> None:
    torch.manual_seed(0)
    learner = MAML(
        torch.nn.Sequential(Conv4(1, 4, image_size=16), torch.nn.Linear(4, 5)), inner_lr=0.1
    )
    before = {k: v.clone() for k, v in learner.state_dict().items()}
    rng = torch.get_rng_state()
    result = evaluate(learner, image_sampler(), n_tasks=3, batch_norm="transductive")
    assert result.batch_norm == "transductive"
    assert learner.training
    assert not learner.transductive
    assert torch.equal(torch.get_rng_state(), rng)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_two_batch_norm_columns_differ() -> None:
    torch.manual_seed(0)
    learner = ProtoNet(Conv4(1, 8, image_size=16))
    a, b = (
        evaluate(learner, image_sampler(), n_tasks=20, batch_norm=policy)
        for policy in ("inductive", "transductive")
    )
    assert a.scores != b.scores
    with pytest.raises(ValueError, match=r"has no quickstudy\.nn\.BatchNorm"):
        evaluate(NearestNeighbour(), image_sampler(), n_tasks=2, batch_norm="inductive")


def test_regression_is_scored_by_squared_error() -> None:
    class Zero(MAML):
        def predict(self, phi: object, query_x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(query_x)

    sampler = SinusoidSampler(shot=5, query=8, tasks=2)
    result = evaluate(Zero(MLP(1, [4], 1), inner_lr=0.1), sampler, n_tasks=2)
    expected = sampler[0].query_y.square().flatten(1).mean(1)
    assert result.metric == "mean squared error"
    assert result.scores == pytest.approx(expected.tolist())


def test_saved_evaluation_is_the_same(tmp_path: Path) -> None:
    result = evaluate(NearestNeighbour(), image_sampler(), n_tasks=5, about={"way": 5})
    path = tmp_path / "deep" / "scores.json"
    result.save(path)
    assert Evaluation.load(path) == result
    assert json.loads(path.read_text())["mean"] == pytest.approx(result.mean)
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match="not a saved evaluation"):
        Evaluation.load(tmp_path / "other.json")


def test_comparison_is_scipys_paired_test() -> None:
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    a = Evaluation(tuple(rng.random(100)))
    b = Evaluation(tuple(np.array(a.scores) * 0.9))
    result = compare(a, b)
    assert result.difference == pytest.approx(a.mean - b.mean)
    assert result.p_value == pytest.approx(ttest_rel(a.scores, b.scores).pvalue)
    assert result.ci95 < a.ci95, "pairing must narrow the interval here"
    assert compare(a, a).p_value == 1


def test_different_tasks_cannot_be_paired() -> None:
    a, b = (Evaluation((0.5, 0.6), about={"tasks": name}) for name in "ab")
    with pytest.raises(ValueError, match="tasks 'a' against 'b'"):
        compare(a, b)
    with pytest.raises(ValueError, match="number of tasks 2 against 1"):
        compare(a, Evaluation((0.5,)))


def test_frozen_tasks_are_the_same_bits(tmp_path: Path) -> None:
    sampler = image_sampler(tasks=3)
    frozen = FrozenTasks.freeze(sampler, 7, {"from": "here"})
    frozen.save(tmp_path / "tasks.safetensors")
    loaded = FrozenTasks.load(tmp_path / "tasks.safetensors", batch=3)
    assert (loaded.n_tasks, len(loaded)) == (7, 3)
    assert loaded.about == {"from": "here"}
    assert loaded.fingerprint == frozen.fingerprint
    for i, size in enumerate((3, 3, 1)):
        for mine, theirs in zip(loaded[i].tensors(), sampler[i].tensors(), strict=True):
            assert torch.equal(mine, theirs[:size])
    with pytest.raises(IndexError):
        loaded[3]
    stored = loaded._state["examples"]
    assert stored.dtype == torch.uint8
    assert len(stored) <= 80


def test_frozen_regression_tasks(tmp_path: Path) -> None:
    sampler = SinusoidSampler(shot=5, query=6, tasks=2)
    FrozenTasks.freeze(sampler, 4).save(tmp_path / "f")
    task: Task = FrozenTasks.load(tmp_path / "f", batch=2)[1]
    for mine, theirs in zip(task.tensors(), sampler[1].tensors(), strict=True):
        assert torch.equal(mine, theirs)


def test_frozen_tasks_need_one_shape() -> None:
    rng = np.random.default_rng(0)
    dataset = ClassDataset.from_arrays(rng.random((60, 3), np.float32), np.repeat(np.arange(10), 6))
    with pytest.raises(ValueError, match="single numbers instead of ranges"):
        FrozenTasks.freeze(EpisodeSampler(dataset, way=(2, 9), shot=1, query=2), 10)


def test_foreign_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="is not a safetensors file that can be read"):
        FrozenTasks.load(tmp_path / "x")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        FrozenTasks.load(tmp_path / "y")


@pytest.mark.parametrize("learner", [ProtoNet, MAML])
def test_queries_that_see_each_other_are_noticed_whatever_the_layer(learner: Any) -> None:
    """PyTorch's own batch norm; a layer of the user's; and a network in which nothing is mixed."""

    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x - x.mean(0)

    tasks = EpisodeSampler(alphabets(6, 6, size=8), way=2, shot=2, query=3)
    for layer, seen in (
        (nn.BatchNorm1d(8, track_running_stats=False), "transductive"),
        (Centred(), "transductive"),
        (nn.LayerNorm(8), None),
    ):
        torch.manual_seed(0)
        own = learner(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), layer, nn.Linear(8, 2)))
        assert evaluate(own, tasks, n_tasks=2).batch_norm == seen
        if isinstance(layer, nn.BatchNorm1d):
            assert own.transductive


def test_a_sequence_of_queries_is_transductive_alone_or_in_an_ensemble() -> None:
    """Though the first of them is answered as if alone."""
    tasks = EpisodeSampler(alphabets(6, 6, size=16), way=2, shot=2, query=3)
    encoder = Conv4(1, 4, image_size=16)
    learner = BlackBoxLSTM(encoder, outputs=2, hidden=8, queries="sequence")
    alone = BlackBoxLSTM(Conv4(1, 4, image_size=16), outputs=2, hidden=8)
    assert evaluate(learner, tasks, n_tasks=2).batch_norm == "transductive"
    assert evaluate(Ensemble([learner, alone]), tasks, n_tasks=2).batch_norm == "transductive"
    assert evaluate(alone, tasks, n_tasks=2).batch_norm == "inductive"


class _Back(ProtoNet):
    """Says nothing of it: answers depend on the queries after each."""

    def predict(self, phi: dict[str, Tensor], query_x: Tensor) -> Tensor:
        logits = super().predict(phi, query_x)
        return logits.flip(1).cumsum(1).flip(1)


def test_queries_that_see_those_before_or_after_them_are_noticed() -> None:
    tasks = EpisodeSampler(alphabets(6, 6, size=8), way=2, shot=2, query=3)

    class _Forth(_Back):
        def predict(self, phi: dict[str, Tensor], query_x: Tensor) -> Tensor:
            return super().predict(phi, query_x.flip(1)).flip(1)

    for kind in (_Back, _Forth):
        learner = kind(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)))
        assert evaluate(learner, tasks, n_tasks=2).batch_norm == "transductive"


def test_tasks_that_were_changed_are_refused(tmp_path: Path) -> None:
    FrozenTasks.freeze(EpisodeSampler(alphabets(4, 4, size=8), way=2, shot=1, query=1), 3).save(
        tmp_path / "t"
    )
    state = load_state(tmp_path / "t")
    state["support_y"] = 1 - state["support_y"]
    save_state(tmp_path / "t", state)
    with pytest.raises(ValueError, match="the tasks are not those of its fingerprint"):
        FrozenTasks.load(tmp_path / "t")


def test_a_result_stays_in_its_folder() -> None:
    about = {"part": "../../../elsewhere/x", "way": 5, "shot": "/etc"}
    path = result_path(Evaluation((1.0,), about=about), "run")
    assert path.parent == Path("run/evaluations")
    assert ".." not in path.parts


def test_frozen_tasks_that_are_none_are_refused(tmp_path: Path) -> None:
    frozen = FrozenTasks.freeze(image_sampler(), 2, {})
    frozen.save(tmp_path / "f.qs")
    whole = load_state(tmp_path / "f.qs")
    rows = len(whole["examples"])
    for change in (
        {"query_x": whole["query_x"].clone().fill_(rows)},
        {"query_x": whole["query_x"].clone().fill_(-1)},
        {"n_way": "x"},
        {"about": [1]},
        {"support_y": whole["support_y"] + 99},
    ):
        state = {**whole, **change}
        with contextlib.suppress(Exception):  # as a stranger would
            state["fingerprint"] = _fingerprint(state)
        save_state(tmp_path / "f.qs", state)
        with pytest.raises(ValueError, match=r"f\.qs is not frozen tasks that can be read"):
            FrozenTasks.load(tmp_path / "f.qs")


def test_answers_that_are_no_numbers_are_said() -> None:
    learner = ProtoNet(nn.Sequential(nn.Flatten(), nn.Threshold(1e9, math.nan)))
    with pytest.warns(UserWarning, match=r"some answers are no numbers \(NaN\)"):
        result = evaluate(learner, image_sampler(), n_tasks=2)
    assert result.batch_norm is None, "nothing mixes queries there"


@pytest.mark.parametrize("shape", [(2, 6, 2), (2, 6, 4), (6, 3), (2, 5, 3)])
def test_a_learner_that_does_not_answer_what_it_was_asked_is_refused(shape: Any) -> None:
    class Own(MetaLearner):
        def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
            return {}

        def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
            return torch.zeros(shape)

    task = make_task((4,), 3, tasks=2, shot=1, query=2)
    with pytest.raises(ValueError, match=r"answers \[., 6\] queries with .*; expected \[., 6, 3\]"):
        evaluate(Own(), [task], n_tasks=2, batch_norm=None)
