"""P>M>F: fine-tuning against a plain loop, and what it leaves alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.data import EpisodeSampler, alphabets
from quickstudy.evaluation import choose, evaluate
from quickstudy.experiments.spec import Experiment
from quickstudy.learners import PMF
from quickstudy.learners.pmf import _changed
from quickstudy.nn import MLP, Conv4
from quickstudy.testing import make_task


def encoder() -> nn.Module:
    torch.manual_seed(0)
    return MLP(6, [16], 5).double()


def cosines(z: Tensor, support: Tensor, y: Tensor) -> Tensor:
    means = torch.stack([support[y == n].mean(0) for n in range(3)])
    return 10 * F.cosine_similarity(z.unsqueeze(1), means, dim=-1)


def test_fine_tuning_is_a_plain_loop_over_the_encoder() -> None:
    task, own = make_task((6,), 3, tasks=2), encoder()
    logits = PMF(own, inner_lr=0.01, inner_steps=4)(task)
    for t in range(2):
        network, x, y = copy.deepcopy(own), task.support_x[t], task.support_y[t]
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(4):
            optimizer.zero_grad()
            F.cross_entropy(cosines(network(x), network(x), y), y).backward()
            optimizer.step()
        assert torch.allclose(logits[t], cosines(network(task.query_x[t]), network(x), y))
        assert not torch.allclose(logits[t], cosines(own(task.query_x[t]), own(x), y))


@pytest.mark.parametrize("way_off", [{"inner_steps": 0}, {"inner_lr": 0.0}])
def test_without_a_step_or_a_rate_it_is_protonet_with_the_cosine(way_off: dict[str, int]) -> None:
    task, own = make_task((6,), 3, tasks=1), encoder()
    learner = PMF(own, **{"inner_steps": 4, **way_off})
    z = own(task.support_x[0])
    assert torch.allclose(learner(task)[0], cosines(own(task.query_x[0]), z, task.support_y[0]))


def test_meta_training_never_fine_tunes() -> None:
    task, own = make_task((6,), 3), encoder()
    losses = [PMF(own, inner_steps=n).loss(task) for n in (0, 9)]
    assert torch.equal(*losses)
    losses[1].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in own.parameters())


def test_what_is_frozen_stays_and_takes_no_room() -> None:
    task, own = make_task((6,), 3), encoder()
    first = [*own.parameters()][:2]
    for p in first:
        p.requires_grad_(False)
    phi = PMF(own, inner_steps=2).adapt(task.support_x, task.support_y, 3)
    assert len(phi["network"]) == len([*own.parameters()]) - 2


def test_pictures_are_changed_alike_and_at_every_step_anew() -> None:
    x = torch.rand(1, 3, 16, 24).repeat(4, 1, 1, 1)
    one, other = _changed(x, 0), _changed(x, 1)
    assert one.shape == other.shape == x.shape
    assert torch.equal(one[0], one[3])
    assert not torch.allclose(one, other)
    assert torch.equal(_changed(x, 1), other)
    features = torch.rand(4, 7)
    assert _changed(features, 0) is features
    dot = torch.zeros(1, 1, 16, 16)
    dot[..., 8, 8] = 100
    where = torch.stack([(_changed(dot, s)[0, 0] > 20).nonzero()[0] for s in range(40)])
    assert (where.amin(0).tolist(), where.amax(0).tolist()) == ([6, 6], [10, 10])


def test_fine_tuning_helps_where_the_encoder_was_made_for_something_else() -> None:
    torch.manual_seed(0)
    learner = PMF(Conv4(channels=16), inner_lr=3e-3)
    tasks = EpisodeSampler(alphabets(30, seed=3), way=5, shot=5, query=5, tasks=1)
    before = evaluate(learner, tasks, n_tasks=10)
    assert choose(learner, "inner_steps", [0, 15], tasks, n_tasks=10) == learner.inner_steps == 15
    assert evaluate(learner, tasks, n_tasks=10).mean > before.mean + 0.02


def test_what_is_chosen_is_the_best_and_stays_set() -> None:
    tasks = EpisodeSampler(alphabets(30), way=3, shot=1, query=5, tasks=1)
    learner = PMF(nn.Sequential(nn.Flatten(), nn.Linear(784, 8)), inner_steps=3)
    tried = {r: _mean(learner, r, tasks) for r in (10.0, 0.0, 1e-3)}
    assert choose(learner, "inner_lr", [*tried], tasks, n_tasks=8) == learner.inner_lr
    assert tried[learner.inner_lr] == max(tried.values())
    with pytest.raises(ValueError, match="PMF has no outer_lr to choose"):
        choose(learner, "outer_lr", [1], tasks, n_tasks=1)
    with pytest.raises(ValueError, match="or there are no values"):
        choose(learner, "inner_lr", [], tasks, n_tasks=1)


def _mean(learner: PMF, rate: float, tasks: EpisodeSampler) -> float:
    learner.inner_lr = rate
    return evaluate(learner, tasks, n_tasks=8).mean


def test_what_makes_no_sense_is_refused() -> None:
    for wrong in ({"inner_lr": -1.0}, {"inner_steps": -1}, {"scale": 0.0}):
        with pytest.raises(ValueError, match="expected neither of the first two below 0"):
            PMF(encoder(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no weights to fine-tune"):
        PMF(nn.Identity(), inner_steps=1).double()(make_task((6,), 3))


def test_a_pretrained_backbone_is_trained_but_keeps_its_statistics() -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs quickstudy[photo]")
    photos = {"data": "folder", "size": 32, "backbone": "efficientnet-lite0"}
    with pytest.raises(ValueError, match="channels is 1; efficientnet-lite0 takes photos"):
        Experiment("pmf", **photos)  # type: ignore[arg-type]
    learner = Experiment("pmf", channels=3, **photos).build_learner().train()  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in learner.named_buffers()}
    task = make_task((3, 32, 32), 2, tasks=1, shot=1, query=2).to(torch.float32)
    loss = learner.loss(task)
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [p for p in learner.parameters() if p.requires_grad]
    assert len(trained) > 100
    assert all(p.grad is not None for p in trained)
    assert all(torch.equal(value, before[name]) for name, value in learner.named_buffers())
    assert torch.equal(learner.eval().loss(task), loss)
