"""Ensembles: what members say counts alike, and each stays the learner that it is alone."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.checkpoint import count_weights
from quickstudy.evaluation import Evaluation, evaluate, result_path
from quickstudy.experiments.architecture import LearnerSpec
from quickstudy.experiments.pretrained import load
from quickstudy.functional import balanced
from quickstudy.heads import rebuild_learner
from quickstudy.learner import temporarily
from quickstudy.learners import (
    ANIL,
    MAML,
    R2D2,
    BlackBoxLSTM,
    Ensemble,
    MatchingNetwork,
    NearestNeighbour,
    ProtoNet,
    SoftNearestNeighbour,
)
from quickstudy.nn import MLP
from quickstudy.task import Task
from quickstudy.testing import make_task


def net(seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    return MLP(8, [16], 5)


def test_an_answer_is_the_mean_of_probabilities_by_numpy() -> None:
    members = [ProtoNet(net(0)), MatchingNetwork(net(1)), R2D2(net(2))]
    task = make_task((8,), way=4).to(torch.float32)
    expected = np.zeros((2, 16, 4))
    for member in members:
        logits = member(task).detach().double().numpy()
        p = np.exp(logits - logits.max(-1, keepdims=True))
        expected += p / p.sum(-1, keepdims=True) / 3
    together = Ensemble(members)(task).exp().detach().numpy()
    np.testing.assert_allclose(together, expected, rtol=1e-4, atol=1e-5)


def test_in_regression_it_is_the_mean() -> None:
    members = [MAML(MLP(1, [9], 1), inner_lr=0.01), R2D2(MLP(1, [9], 4))]
    task = make_task((1,), None, shot=5).to(torch.float32)
    expected = sum(member(task) for member in members) / 2
    torch.testing.assert_close(Ensemble(members)(task), expected)


class Blind(nn.Module):
    """Sees all but one part of an example, and noise there."""

    def __init__(self, part: int) -> None:
        super().__init__()
        self.part, self.out_features = part, 8

    def forward(self, x: Tensor) -> Tensor:
        seen = x.clone()
        seen[:, self.part :: 3] = torch.randn_like(seen[:, self.part :: 3])
        return seen


def test_members_that_err_differently_err_less_together() -> None:
    torch.manual_seed(0)
    task = make_task((12,), way=5, tasks=40, shot=1, query=10).to(torch.float32)
    members = [ProtoNet(Blind(part)) for part in range(3)]
    alone = [evaluate(member, [task], n_tasks=40).mean for member in members]
    together = evaluate(Ensemble(members), [task], n_tasks=40).mean
    assert max(alone) < 0.9
    assert together > max(alone) + 0.04


def test_a_member_learns_as_it_would_alone() -> None:
    members = [ProtoNet(net(0)), ANIL(net(1), outputs=4, inner_steps=2)]
    alone = copy.deepcopy(members)
    together = Ensemble(members)
    task = make_task((8,), way=4).to(torch.float32)
    loss = together.loss(task)
    torch.testing.assert_close(loss, sum(member.loss(task) for member in alone))
    for learner in (together, *alone):
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
        optimizer.zero_grad()
        learner.loss(task).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for mine, theirs in zip(members, alone, strict=True):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_what_a_member_does_not_promise_the_ensemble_does_not() -> None:
    free = Ensemble([ProtoNet(net()), R2D2(net())])
    assert (free.order_invariant, free.label_equivariant, free.max_way) == (True, True, None)
    assert not free.transductive
    bound = Ensemble([ProtoNet(net()), BlackBoxLSTM(net(), outputs=4, hidden=8, layers=1)])
    assert (bound.order_invariant, bound.label_equivariant, bound.max_way) == (False, False, 4)
    with pytest.raises(ValueError, match="this BlackBoxLSTM was built for at most 4"):
        bound(make_task((8,), way=5).to(torch.float32))
    with pytest.raises(ValueError, match="ProtoNet classifies"):
        free(make_task((8,), None).to(torch.float32))
    assert Ensemble([ProtoNet(net(), refine=3), R2D2(net())]).transductive
    same = ProtoNet(net())
    for members in ([], iter([]), [same, same]):
        with pytest.raises(ValueError, match="expected one or more, all distinct"):
            Ensemble(members)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a member is a str; expected a MetaLearner"):
        Ensemble(["protonet-omniglot"])  # type: ignore[list-item]


def test_refine_and_inner_steps_are_of_all_members_that_have_them() -> None:
    one, two, other = ProtoNet(net()), ProtoNet(net(1)), R2D2(net(2))
    learner = Ensemble([other, one, two])
    assert learner.refine == 0
    assert not hasattr(learner, "inner_steps")
    with temporarily(learner, refine=4):
        assert (one.refine, two.refine, learner.refine) == (4, 4, 4)
        assert learner.transductive
        assert not hasattr(other, "refine")
    assert (one.refine, two.refine) == (0, 0)
    with pytest.raises(ValueError, match="Ensemble takes no inner steps"):
        temporarily(learner, inner_steps=3).__enter__()
    one.refine = 2
    assert learner.refine == (2, 0)
    with temporarily(learner, refine=5):
        assert (one.refine, two.refine) == (5, 5)
    assert (one.refine, two.refine) == (2, 0)
    assert evaluate(learner, [make_task((8,), way=3).to(torch.float32)], n_tasks=2).company
    one.refine = 0
    about = evaluate(learner, [make_task((8,), way=3).to(torch.float32)], n_tasks=2).about
    assert "refine" not in about


def spec(learner: str = "protonet", **values: object) -> LearnerSpec:
    return LearnerSpec(**{"learner": learner, "size": 16, "filters": 4, **values})  # type: ignore[arg-type]


def test_it_is_saved_as_one_file_that_says_what_it_holds(tmp_path: Path) -> None:
    drawn = make_task((1, 16, 16), way=3).to(torch.float32)
    members = [spec().build(1), spec("matching").build(2), spec("maml", way=3).build(3)]
    learner = Ensemble(members).eval()
    learner.save_pretrained(tmp_path / "e")
    again = load(tmp_path / "e")
    assert isinstance(again, Ensemble)
    assert [type(m).__name__ for m in again.members] == ["ProtoNet", "MatchingNetwork", "MAML"]
    torch.testing.assert_close(again(drawn), learner(drawn))
    assert again.described == learner.described
    assert Ensemble([spec().build(), ProtoNet(net())]).described is None
    assert Ensemble([learner, spec().build()]).described is None
    assert Ensemble([spec().build(), spec(size=20).build()]).described is None
    assert Ensemble([spec("nearest").build() for _ in range(22)]).described is None
    with pytest.raises(ValueError, match="nothing says how to build this Ensemble again"):
        Ensemble([ProtoNet(net())]).save_pretrained(tmp_path / "f")


def test_a_description_may_ask_for_no_more_than_its_file_holds(tmp_path: Path) -> None:
    learner = Ensemble([spec().build(), spec().build()])
    learner.save_pretrained(tmp_path)
    about = learner.described.model_dump()  # type: ignore[union-attr]
    held = count_weights(tmp_path / "model.safetensors")
    assert rebuild_learner(about, held) is not None
    greedy = {**about, "others": [spec().model_dump() for _ in range(2)]}
    with pytest.raises(ValueError, match=f"and it has weights for {held:,}"):
        rebuild_learner(greedy, held)
    photo = LearnerSpec(learner="protonet", backbone="efficientnet-lite0", channels=3)
    with pytest.raises(ValueError, match="numbers in all, and it has weights for 5,000,000"):
        photo.replace(others=[photo.model_dump()]).build(at_most=5_000_000)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([{}], "learner is missing"),
        ([spec().model_dump()] * 21, "expected at most 20 learners"),
        ("protonet", "expected at most 20 learners"),
        ([3], "has what is no learner"),
        ([{**spec().model_dump(), "others": [spec().model_dump()]}], "is an ensemble itself"),
        ([{"learner": "protonet", "size": 20}], "size is 16 of one member and 20 of another"),
        ([{"learner": "protonets"}], "learner is 'protonets'; expected one of"),
    ],
)
def test_other_descriptions_are_refused(others: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        spec(others=others)


def test_as_a_head_it_answers_each_alone() -> None:
    described = Ensemble([spec(options={"refine": 3}).build(), spec("soft-nearest").build()])
    assert described.transductive
    about = described.described.model_dump()  # type: ignore[union-attr]
    assert not rebuild_learner(about, None).transductive


def test_balanced_answers_have_as_many_of_each_class() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(2, 20, 4, dtype=torch.float64)
    p = balanced(logits).softmax(-1)
    torch.testing.assert_close(
        p.sum(1), torch.full((2, 4), 5.0, dtype=torch.float64), rtol=1e-3, atol=0
    )
    torch.testing.assert_close(p.sum(2), torch.ones(2, 20, dtype=torch.float64))
    even = torch.log(torch.tensor([[[0.7, 0.3], [0.3, 0.7]]]))
    torch.testing.assert_close(balanced(even), even)  # nothing to mend
    both = torch.log(torch.tensor([[[0.9, 0.1], [0.6, 0.4]]]))  # one of them has to be the other
    assert both.argmax(-1).tolist() == [[0, 0]]
    assert balanced(both).argmax(-1).tolist() == [[0, 1]]
    sharp = balanced(100 * torch.randn(3, 300, 20)).softmax(-1)
    torch.testing.assert_close(sharp.sum(1), torch.full((3, 20), 15.0), rtol=2e-3, atol=0)
    rough = balanced(torch.randn(1, 40, 4).bfloat16())
    assert rough.dtype == torch.bfloat16
    assert balanced(torch.zeros(2, 0, 4)).shape == (2, 0, 4)
    never = torch.tensor([[[0.0, -torch.inf], [-torch.inf, 0.0]]])
    assert balanced(never).argmax(-1).tolist() == [[0, 1]]


def test_a_balanced_evaluation_says_so_and_refuses_what_is_not() -> None:
    task = make_task((8,), way=5, tasks=30, shot=1, query=6).to(torch.float32)
    task = Task(task.support_x, task.support_y, task.query_x + 0.5, task.query_y, 5)
    learner = SoftNearestNeighbour(nn.Identity())
    plain, even = (evaluate(learner, [task], n_tasks=30, balanced=b) for b in (False, True))
    assert even.mean > plain.mean
    assert str(even).endswith("(30 tasks, queries together, balanced)")
    assert even.about["balanced"] is True
    assert "balanced" not in plain.about
    fewer = Task(task.support_x, task.support_y, task.query_x[:, 1:], task.query_y[:, 1:], 5)
    with pytest.raises(ValueError, match="have 5, 6 queries; expected as many of each"):
        evaluate(learner, [fewer], n_tasks=1, balanced=True)
    with pytest.raises(ValueError, match="these tasks ask for numbers"):
        evaluate(
            R2D2(MLP(1, [4], 3)),
            [make_task((1,), None).to(torch.float32)],
            n_tasks=1,
            balanced=True,
        )


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.randn_like(x)


def test_a_member_that_is_sure_without_reason_is_one_voice_among_others() -> None:
    torch.manual_seed(0)
    task = make_task((8,), way=4, tasks=40).to(torch.float32)
    task = Task(9 * task.support_x, task.support_y, 9 * task.query_x, task.query_y, 4)
    sure, good = NearestNeighbour(Noise()), [ProtoNet(nn.Identity()) for _ in range(2)]
    assert evaluate(sure, [task], n_tasks=40).mean < 0.4
    assert evaluate(Ensemble([sure, *good]), [task], n_tasks=40).mean > 0.9


def test_members_may_have_batch_norm_of_either_policy() -> None:
    policies = ("inductive", "transductive")
    members = [spec(batch_norm=policy).build() for policy in policies]
    learner, task = Ensemble(members).eval(), make_task((1, 16, 16), way=3).to(torch.float32)
    assert learner.transductive
    assert evaluate(learner, [task], n_tasks=2).batch_norm == "transductive"
    assert evaluate(learner, [task], n_tasks=2, batch_norm="inductive").batch_norm == "inductive"
    assert [member.transductive for member in members] == [False, True]


def test_what_was_done_counts_and_not_what_is_said_of_the_tasks() -> None:
    task = make_task((8,), way=3).to(torch.float32)
    said = {"balanced": False, "refine": 0, "way": 3}
    done = evaluate(ProtoNet(net(), refine=2), [task], n_tasks=2, balanced=True, about=said)
    assert done.about == {"balanced": True, "refine": 2, "way": 3}
    said = {"balanced": True, "refine": 5}
    assert evaluate(ProtoNet(net()), [task], n_tasks=2, about=said).about == {}


def test_results_of_long_lists_of_members_stay_apart() -> None:
    names = ["meta-sgd-omniglot-5w1s"] * 9
    lists = (names, [*names, "x"], ["sub/A"], ["sub_A"])
    paths = {
        result_path(Evaluation((1.0,), batch_norm=norm, about={"with": each, **more}), "r")
        for each in lists
        for more in ({}, {"balanced": True})
        for norm in ("inductive", None)
    }
    assert len(paths) == 16
    assert max(len(path.name) for path in paths) < 255
