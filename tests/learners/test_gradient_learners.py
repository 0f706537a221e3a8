"""Learners that adapt by gradients, or solve for the last layer, against others' code."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import higher
import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.inner import SGD, Adam
from quickstudy.learner import MetaLearner
from quickstudy.learners import (
    ANIL,
    MAML,
    R2D2,
    Baseline,
    MAMLPlusPlus,
    MetaSGD,
    Reptile,
    Scratch,
)
from quickstudy.nn import MLP, BatchNorm
from quickstudy.policy import Policy
from quickstudy.task import Task
from quickstudy.testing import make_task

Gradients = dict[str, Tensor]


def smooth(outputs: int = 3) -> nn.Sequential:
    """No kink, so that finite differences hold, and no gradient of exactly zero."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, outputs)).double()


def normed(policy: str = "inductive") -> nn.Sequential:
    """No bias before the norm, which would subtract it again and leave it without gradient."""
    torch.manual_seed(0)
    norm = BatchNorm(4, policy=policy)
    return nn.Sequential(nn.Linear(5, 4, bias=False), norm, nn.Tanh(), nn.Linear(4, 3)).double()


def smooth_encoder() -> nn.Module:
    encoder = smooth(outputs=6)
    encoder.out_features = 6
    return encoder


def examples(way: int | None = 3, tasks: int = 2, seed: int = 0) -> Task:
    return make_task((5,), way, tasks, shot=2 if way else 6, query=3, seed=seed)


def each(task: Task) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    return zip(*task.tensors(), strict=True)


def trained(learner: MetaLearner) -> dict[str, nn.Parameter]:
    return {name: p for name, p in learner.named_parameters() if p.requires_grad}


def shake(parameters: nn.Module, size: float = 0.1, seed: int = 7) -> None:
    """Move parameters that all start alike apart."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in parameters.parameters():
            p.add_(size * torch.randn(p.shape, generator=rng, dtype=p.dtype))


def gradients(learner: MetaLearner, task: Task) -> Gradients:
    parameters = trained(learner)
    found = torch.autograd.grad(learner.loss(task), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


def finite_differences(learner: MetaLearner, task: Task, eps: float = 1e-5) -> Gradients:
    """By every single number that is trained; in double precision they err by about 1e-9."""
    found = {}
    for name, p in trained(learner).items():
        found[name] = torch.zeros_like(p)
        for i in np.ndindex(tuple(p.shape)):
            losses, before = [], p[i].item()
            with torch.no_grad():
                for moved in (before + eps, before - eps):
                    p[i] = moved
                    losses.append(float(learner.loss(task)))
                p[i] = before
            found[name][i] = (losses[0] - losses[1]) / (2 * eps)
    return found


def assert_same(ours: Gradients, theirs: Gradients, tolerance: float = 1e-9) -> None:
    assert ours.keys() == theirs.keys()
    for name, g in theirs.items():
        assert torch.linalg.norm(g) > 0, f"{name} is not tested by a gradient of zero"
        assert torch.linalg.norm(ours[name] - g) <= tolerance * torch.linalg.norm(g), name


# Meta-SGD


def meta_sgd(steps: int, *, first_order: bool = False) -> MetaSGD:
    learner = MetaSGD(smooth(), inner_lr=0.2, inner_steps=steps, first_order=first_order)
    shake(learner.alpha, 0.3)  # some rates are negative
    return learner


@pytest.mark.parametrize("way", [3, None])
@pytest.mark.parametrize("steps", [1, 3])
def test_meta_sgd_equals_higher(steps: int, way: int | None) -> None:
    """By theta and by every rate: `higher` multiplies by whatever ``lr`` a group is given."""
    learner, task = meta_sgd(steps), examples(way)
    if way is None:
        learner = MetaSGD(smooth(1), inner_lr=0.1, inner_steps=steps)
        shake(learner.alpha)
    criterion = F.mse_loss if way is None else F.cross_entropy
    groups = [{"params": [p]} for p in learner.network.parameters()]
    total = torch.zeros(())
    for x, y, query_x, query_y in each(task):
        with higher.innerloop_ctx(
            learner.network,
            torch.optim.SGD(groups, lr=1.0),
            copy_initial_weights=False,
            override={"lr": [rate[0] for rate in learner.alpha.parameters()]},
        ) as (fast, inner):
            for _ in range(steps):
                inner.step(criterion(fast(x), y))
            total = total + criterion(fast(query_x), query_y) / len(task)
    parameters = trained(learner)
    theirs = torch.autograd.grad(total, list(parameters.values()))
    assert_same(gradients(learner, task), dict(zip(parameters, theirs, strict=True)))


@pytest.mark.parametrize("steps", [1, 3])
def test_meta_sgd_equals_finite_differences(steps: int) -> None:
    learner, task = meta_sgd(steps), examples()
    assert_same(gradients(learner, task), finite_differences(learner, task), 1e-6)


def test_first_order_meta_sgd_by_hand() -> None:
    """``d phi_L / d theta`` is one, and ``d phi_L / d alpha`` minus the sum of the gradients."""
    learner, task = meta_sgd(3, first_order=True), examples(tasks=1)
    x, y, query_x, query_y = next(each(task))
    network = copy.deepcopy(learner.network)
    parameters = list(network.parameters())
    passed = [torch.zeros_like(p) for p in parameters]
    for _ in range(3):
        found = torch.autograd.grad(F.cross_entropy(network(x), y), parameters)
        with torch.no_grad():
            for p, g, rate, sum_ in zip(
                parameters, found, learner.alpha.parameters(), passed, strict=True
            ):
                p -= rate[0] * g
                sum_ -= g
    outer = torch.autograd.grad(F.cross_entropy(network(query_x), query_y), parameters)
    rates = [(s * g).unsqueeze(0) for s, g in zip(passed, outer, strict=True)]
    expected = dict(zip(trained(learner), (*outer, *rates), strict=True))
    assert_same(gradients(learner, task), expected)


# MAML++


def plus_plus(network: nn.Module, steps: int = 3, **options: bool) -> MAMLPlusPlus:
    learner = MAMLPlusPlus(network, inner_lr=0.2, inner_steps=steps, anneal_steps=10, **options)
    for part in (learner.rates, learner.norms):
        if isinstance(part, nn.Module):
            shake(part)
    return learner.double()


def author_weights(steps: int, done: int, anneal: int) -> list[float]:
    """`get_per_step_loss_importance_vector` of the authors' code, read with numpy."""
    weights = np.ones(steps) / steps
    if done >= anneal:  # then `forward` takes the last loss alone
        return [0.0] * (steps - 1) + [1.0]
    decay, least = 1 / steps / anneal, 0.03 / steps
    weights[:-1] = np.maximum(weights[:-1] - done * decay, least)
    weights[-1] = min(weights[-1] + done * (steps - 1) * decay, 1 - (steps - 1) * least)
    return list(weights)


@pytest.mark.parametrize("multi_step_loss", [False, True])
@pytest.mark.parametrize("way", [3, None])
def test_rates_per_tensor_and_step_equal_higher(multi_step_loss: bool, way: int | None) -> None:
    learner = plus_plus(smooth(way or 1), per_step_scales=False, multi_step_loss=multi_step_loss)
    task = examples(way)
    criterion = F.mse_loss if way is None else F.cross_entropy
    for _ in range(4):
        learner.loss(task)  # on the way to other weights
    weights = author_weights(3, 4, 10) if multi_step_loss else [0, 0, 1]
    groups = [{"params": [p]} for p in learner.network.parameters()]
    total = torch.zeros(())
    for x, y, query_x, query_y in each(task):
        with higher.innerloop_ctx(
            learner.network, torch.optim.SGD(groups, lr=1.0), copy_initial_weights=False
        ) as (fast, inner):
            for step, weight in enumerate(weights):
                rates = [rate[step] for rate in learner.rates.parameters()]
                inner.step(criterion(fast(x), y), override={"lr": rates})
                total = total + weight * criterion(fast(query_x), query_y) / len(task)
    parameters = trained(learner)
    theirs = torch.autograd.grad(total, list(parameters.values()))
    learner.eval()
    assert learner.loss(task).item() == pytest.approx(total.item(), rel=1e-12)
    assert_same(gradients(learner, task), dict(zip(parameters, theirs, strict=True)))


@pytest.mark.parametrize("multi_step_loss", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("network", "scales", "averages"),
    [
        (smooth, False, False),
        (normed, False, False),
        (normed, True, False),
        (normed, False, True),
        (normed, True, True),
        (lambda: normed("transductive"), True, False),
        (lambda: normed("transductive"), True, True),
    ],
    ids=["no-norm", "norm", "scales", "averages", "both", "transductive", "transductive-both"],
)
def test_maml_plus_plus_equals_finite_differences(
    network: Callable[[], nn.Module],
    scales: bool,
    averages: bool,
    training: bool,
    multi_step_loss: bool,
) -> None:
    """By every rate, weight, scale and shift of every step."""
    learner = plus_plus(
        network(),
        2,
        per_step_scales=scales,
        per_step_averages=averages,
        multi_step_loss=multi_step_loss,
    )
    learner.anneal_steps = 1  # the weights have settled: finite differences count as steps, too
    task = examples()
    for _ in range(3):
        learner.loss(task)  # running averages that differ by step
    learner.train(training)
    ours = gradients(learner, task)
    parts = {"network", "rates", "norms"} if scales else {"network", "rates"}
    assert {name.partition(".")[0] for name in ours} == parts
    assert_same(ours, finite_differences(learner, task), 1e-6)


def test_multi_step_weights() -> None:
    for steps, anneal in ((1, 5), (4, 10), (5, 3)):
        learner = MAMLPlusPlus(smooth(), inner_steps=steps, anneal_steps=anneal).double()
        assert learner.step_weights == pytest.approx([1 / steps] * steps, rel=1e-12)
        for done in range(anneal + 3):
            expected = author_weights(steps, done, anneal)
            assert learner.step_weights == pytest.approx(expected, rel=1e-12)
            assert sum(learner.step_weights) == pytest.approx(1, rel=1e-12)
            learner.eval().loss(examples())  # does not count
            learner.train().loss(examples())
        assert learner.step_weights == [0.0] * (steps - 1) + [1.0]
    alone = MAMLPlusPlus(smooth(), inner_steps=3, multi_step_loss=False).double()
    for _ in range(3):
        assert alone.step_weights == [0, 0, 1]
        alone.loss(examples())


@pytest.mark.parametrize("network", [smooth, normed, lambda: normed("transductive")])
@pytest.mark.parametrize("done", [0, 6, 20])
def test_multi_step_loss_is_a_sum_of_maml_losses(
    network: Callable[[], nn.Module], done: int
) -> None:
    f, task = network(), examples()
    learner = MAMLPlusPlus(f, inner_lr=0.2, inner_steps=3, anneal_steps=10, per_step_scales=False)
    learner.double()
    for _ in range(done):
        learner.loss(task)
    losses = [MAML(f, inner_lr=0.2, inner_steps=steps).loss(task) for steps in (1, 2, 3)]
    expected = sum(v * loss for v, loss in zip(author_weights(3, done, 10), losses, strict=True))
    loss = learner.loss(task)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    parameters = list(f.parameters())
    ours, theirs = (torch.autograd.grad(x, parameters) for x in (loss, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("first_order", [False, True])
def test_without_its_remedies_it_is_maml(first_order: bool) -> None:
    task = examples()
    off = {"learned_rates": False, "multi_step_loss": False, "per_step_scales": False}
    for network in (smooth(), normed()):
        how = {"inner_lr": 0.2, "inner_steps": 3, "first_order": first_order}
        learner, reference = MAMLPlusPlus(network, **how, **off), MAML(network, **how)
        assert trained(learner).keys() == trained(reference).keys()
        torch.testing.assert_close(learner(task), reference(task), rtol=1e-12, atol=1e-12)
        ours, theirs = gradients(learner, task), gradients(reference, task)
        for name, g in theirs.items():
            torch.testing.assert_close(ours[name], g, rtol=1e-10, atol=1e-12)


def averages(learner: MAMLPlusPlus) -> Gradients:
    return {k: v.clone() for k, v in learner.named_buffers() if k.startswith("norms.")}


def test_per_step_averages_move_in_training_only_and_differ_by_step() -> None:
    learner = plus_plus(normed(), per_step_averages=True)
    before = averages(learner)
    assert sorted(before) == ["norms.1.running_mean", "norms.1.running_var"]
    for done in range(3):
        learner.train().loss(examples(seed=done))
        now = averages(learner)
        for name, rows in now.items():
            assert rows.shape == (4, 4), "steps 0..3, four channels"
            assert (rows != before[name]).all()
            assert all((a != b).all() for i, a in enumerate(rows) for b in rows[:i])
        before = now
    learner.eval()
    learner.loss(examples())
    learner(examples())
    assert all(torch.equal(rows, before[name]) for name, rows in averages(learner).items())


def test_first_averages_by_hand() -> None:
    """Before any step all see the support under theta, one task after the other."""
    learner, task = plus_plus(normed(), per_step_averages=True), examples()
    linear = learner.network[0].weight.detach()
    mean, var = torch.zeros(4).double(), torch.ones(4).double()
    for x in task.support_x:
        z = x @ linear.T
        mean, var = 0.9 * mean + 0.1 * z.mean(0), 0.9 * var + 0.1 * z.var(0, correction=0)
    learner.loss(task)
    now = averages(learner)
    assert torch.allclose(now["norms.1.running_mean"][0], mean, rtol=1e-12, atol=0)
    assert torch.allclose(now["norms.1.running_var"][0], var, rtol=1e-12, atol=0)


def experienced() -> MAMLPlusPlus:
    learner = plus_plus(normed(), per_step_averages=True)
    for done in range(5):
        learner.loss(examples(seed=done))
    return learner.eval()


def with_torch_batch_norm(learner: MAMLPlusPlus, task: Task, steps: int = 3) -> Tensor:
    """What `learner` answers by its docstring, with `nn.BatchNorm1d` and a plain loop."""
    rows = dict(learner.norms["1"].named_parameters())
    rows |= dict(learner.norms["1"].named_buffers())

    def at(step: int) -> nn.Module:
        norm = nn.BatchNorm1d(4).double().eval()
        norm.load_state_dict({k: v[min(step, 3)] for k, v in rows.items()}, strict=False)
        return norm.requires_grad_(False)

    logits = []
    for x, y, query_x, _ in each(task):
        first, _, tanh, last = copy.deepcopy(learner.network)
        parameters = [*first.parameters(), *last.parameters()]
        for step in range(steps):
            output = nn.Sequential(first, at(step), tanh, last)(x)
            found = torch.autograd.grad(F.cross_entropy(output, y), parameters)
            with torch.no_grad():
                for p, g, rate in zip(parameters, found, learner.rates.parameters(), strict=True):
                    p -= rate[min(step, 2)] * g
        logits.append(nn.Sequential(first, at(steps), tanh, last)(query_x))
    return torch.stack(logits).detach()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6])
def test_evaluation_uses_the_averages_of_its_step(steps: int) -> None:
    """Fewer steps than the three trained stop early; further ones repeat the last."""
    learner, task = experienced(), examples(seed=9)
    learner.inner_steps = steps
    expected = with_torch_batch_norm(learner, task, steps)
    assert torch.allclose(learner(task), expected, rtol=1e-9, atol=1e-12)
    assert learner.multi_step_loss
    learner.multi_step_loss = False
    loss = F.cross_entropy(expected.flatten(0, 1), task.query_y.flatten())
    assert learner.loss(task).item() == pytest.approx(loss.item(), rel=1e-9)


@pytest.mark.parametrize("multi_step_loss", [False, True])
def test_evaluation_without_a_step(multi_step_loss: bool) -> None:
    """The start itself: where a curve over the number of steps begins."""
    learner, task = experienced(), examples(seed=9)
    learner.inner_steps, learner.multi_step_loss = 0, multi_step_loss
    expected = with_torch_batch_norm(learner, task, 0)
    assert torch.allclose(learner(task), expected, rtol=1e-9, atol=1e-12)
    loss = F.cross_entropy(expected.flatten(0, 1), task.query_y.flatten())
    assert learner.loss(task).item() == pytest.approx(loss.item(), rel=1e-9)


def test_evaluation_with_averages_is_inductive() -> None:
    learner, task = experienced(), examples(seed=9)
    assert not learner.transductive
    phi = learner.adapt(task.support_x, task.support_y, 3)
    alone = [learner.predict(phi, task.query_x[:, q : q + 1]) for q in range(9)]
    assert torch.allclose(torch.cat(alone, dim=1), learner(task), rtol=1e-12, atol=1e-14)
    logits = learner(task)
    with torch.no_grad():
        learner.network[1].running_mean.add_(5)  # the layer's own are not used
    assert torch.equal(learner(task), logits)


def test_state_dict_carries_averages_and_outer_steps() -> None:
    learner, task = experienced(), examples(seed=9)
    state = learner.state_dict()
    assert state["norms.1.running_mean"].shape == state["norms.1.running_var"].shape == (4, 4)
    other = plus_plus(normed(), per_step_averages=True).eval()
    assert not torch.allclose(other(task), learner(task))
    other.load_state_dict(state)
    assert torch.equal(other(task), learner(task))
    assert other.step_weights == learner.step_weights == pytest.approx(author_weights(3, 5, 10))


# Reptile and Scratch


def plain_training(
    network: nn.Module,
    build: Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer],
    x: Tensor,
    y: Tensor,
    steps: int,
    batch: int | None = None,
) -> nn.Module:
    """An ordinary loop on a copy, mini-batches in order and around again."""
    network = copy.deepcopy(network).requires_grad_(True)
    optimizer = build(network.parameters())
    batch = batch or len(y)
    for step in range(steps):
        rows = [i % len(y) for i in range(step * batch, (step + 1) * batch)]
        optimizer.zero_grad()
        criterion = F.mse_loss if y.is_floating_point() else F.cross_entropy
        criterion(network(x[rows]), y[rows]).backward()
        optimizer.step()
    return network


REPTILES = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.0, 0.999)),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
}


@pytest.mark.parametrize("way", [3, None])
@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize("name", REPTILES)
def test_reptile_moves_towards_torch_optims_solution(
    name: str, batch: int | None, way: int | None
) -> None:
    network, task = smooth(way or 1), examples(way, tasks=3)
    inner = Adam(beta1=0.0) if name == "adam" else SGD()
    learner = Reptile(network, inner_lr=0.05, inner_batch=batch, inner_optimizer=inner).eval()
    ends = [
        plain_training(network, REPTILES[name], x, y, 5, batch)
        for x, y in zip(task.support_x, task.support_y, strict=True)
    ]
    phi = learner.adapt(task.support_x, task.support_y, way)["network"]
    ours, expected, apart, moved = gradients(learner, task), {}, 0.0, {}
    for key, p in network.named_parameters():
        each_end = torch.stack([end.get_parameter(key) for end in ends]).detach()
        assert torch.allclose(phi[key], each_end, rtol=1e-10, atol=1e-14)
        expected[f"network.{key}"] = (p - each_end.mean(0)).detach()
        apart += (p - each_end).square().sum().item() / 2 / 3
        moved[key] = (p + 0.3 * (each_end.mean(0) - p)).detach()
    assert_same(ours, expected)
    loss = learner.loss(task)
    assert loss.item() == pytest.approx(apart, rel=1e-9)

    outer = torch.optim.SGD(learner.parameters(), lr=0.3)
    loss.backward()
    outer.step()
    for key, p in network.named_parameters():
        assert torch.allclose(p, moved[key], rtol=1e-12, atol=1e-15)


def test_batched_reptile_is_the_mean_of_serial_ones() -> None:
    learner, task = Reptile(smooth(), inner_lr=0.05).eval(), examples(tasks=4)
    alone = [gradients(learner, task[t : t + 1]) for t in range(4)]
    mean = {name: torch.stack([g[name] for g in alone]).mean(0) for name in alone[0]}
    assert_same(gradients(learner, task), mean, 1e-12)
    losses = [learner.loss(task[t : t + 1]).item() for t in range(4)]
    assert learner.loss(task).item() == pytest.approx(np.mean(losses), rel=1e-12)


@pytest.mark.parametrize("network", [smooth, normed])
def test_reptile_does_not_look_at_queries(network: Callable[[], nn.Module]) -> None:
    learner, task = Reptile(network(), inner_lr=0.05).eval(), examples()
    other = Task(task.support_x, task.support_y, task.query_x[:, :2] * 1e6, task.query_y[:, 4:6], 3)
    before = copy.deepcopy(learner.state_dict())
    assert torch.equal(learner.loss(task), learner.loss(other))
    ours, theirs = gradients(learner, task), gradients(learner, other)
    assert all(torch.equal(ours[name], g) for name, g in theirs.items())
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


CARRIED = {
    "adam-reptile": (Adam(beta1=0.0), lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.0, 0.999))),
    "adam": (Adam(), lambda p: torch.optim.Adam(p, lr=0.05)),
    "momentum": (SGD(0.9), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
}


@pytest.mark.parametrize("name", CARRIED)
def test_reptile_carries_the_state_of_its_inner_optimiser(name: str) -> None:
    """One `torch.optim` optimiser for all tasks, its parameters put back after each."""
    inner, build = CARRIED[name]
    learner, tasks = Reptile(smooth(), inner_lr=0.05, inner_optimizer=inner), examples(tasks=4)
    network = copy.deepcopy(learner.network)
    optimizer = build(network.parameters())
    for i, (x, y, _, _) in enumerate(each(tasks)):
        network.load_state_dict(learner.network.state_dict())
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
        task = tasks[i : i + 1]
        before = copy.deepcopy(learner.state_dict())
        phi = learner.eval().adapt(task.support_x, task.support_y, 3)["network"]
        learner.loss(task)
        assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())
        for key, p in network.named_parameters():
            assert torch.allclose(phi[key][0], p, rtol=1e-10, atol=1e-14)
        learner.train().loss(task)
    fresh = Reptile(smooth(), inner_lr=0.05, inner_optimizer=inner)
    assert not torch.equal(fresh(tasks), learner(tasks))
    fresh.load_state_dict(learner.state_dict())
    assert torch.equal(fresh(tasks), learner(tasks))


def test_reptile_carries_the_mean_over_a_batch_of_tasks() -> None:
    task = examples(tasks=3)
    together = Reptile(smooth(), inner_lr=0.05)
    together.loss(task)
    seconds = []
    for t in range(3):
        alone = Reptile(smooth(), inner_lr=0.05)
        alone.loss(task[t : t + 1])
        seconds.append(alone.inner_second)
    expected = torch.stack(seconds).mean(0)
    assert expected.min() > 0
    torch.testing.assert_close(together.inner_second, expected, rtol=1e-12, atol=0)
    assert together.inner_done == 5


def test_reptile_without_a_state_to_carry() -> None:
    learner = Reptile(smooth(), inner_optimizer=SGD())
    learner.loss(examples())
    assert [name for name, _ in learner.named_buffers()] == ["inner_done"]
    frozen = Reptile(smooth(), inner_lr=0.05)
    frozen.network[0].requires_grad_(False)
    frozen.loss(examples())
    sizes = [p.numel() for p in frozen.network.parameters()]
    changed = [bool(part.any()) for part in frozen.inner_second.split(sizes)]
    assert changed == [False, False, True, True]


SCRATCH = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
}


@pytest.mark.parametrize("way", [3, None])
@pytest.mark.parametrize("name", SCRATCH)
def test_scratch_equals_torch_optim(name: str, way: int | None) -> None:
    network, task = smooth(way or 1), examples(way)
    before = copy.deepcopy(network.state_dict())
    inner = {"adam": Adam(), "sgd": SGD(), "momentum": SGD(0.9)}[name]
    learner = Scratch(network, inner_lr=0.05, inner_steps=30, inner_optimizer=inner)
    logits = learner(task)
    for answer, (x, y, query_x, _) in zip(logits, each(task), strict=True):
        expected = plain_training(network, SCRATCH[name], x, y, 30)(query_x)
        assert torch.allclose(answer, expected, rtol=1e-9, atol=1e-12)
    assert not logits.requires_grad
    assert not learner.loss(task).requires_grad
    assert not trained(learner)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


# ANIL


def last_layer_maml(learner: ANIL, task: Task) -> Gradients:
    """`higher` on the last layer alone; the encoder stays in the graph of every inner step."""
    total = torch.zeros(())
    criterion = F.mse_loss if task.n_way is None else F.cross_entropy
    for x, y, query_x, query_y in each(task):
        with higher.innerloop_ctx(
            learner.head,
            torch.optim.SGD(learner.head.parameters(), lr=learner.inner_lr),
            copy_initial_weights=False,
        ) as (head, inner):
            for _ in range(learner.inner_steps):
                inner.step(criterion(head(learner.encoder(x))[:, : task.n_way], y))
            output = head(learner.encoder(query_x))[:, : task.n_way]
            total = total + criterion(output, query_y) / len(task)
    parameters = trained(learner)
    found = torch.autograd.grad(total, list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize(("way", "outputs"), [(3, 3), (3, 5), (None, 1)])
@pytest.mark.parametrize("steps", [1, 5])
def test_anil_equals_higher(steps: int, way: int | None, outputs: int) -> None:
    learner = ANIL(smooth_encoder(), outputs=outputs, inner_lr=0.3, inner_steps=steps).double()
    task = examples(way, tasks=3)
    assert_same(gradients(learner, task), last_layer_maml(learner, task))


@pytest.mark.parametrize("steps", [1, 5])
def test_anil_equals_finite_differences(steps: int) -> None:
    learner = ANIL(smooth_encoder(), outputs=3, inner_lr=0.3, inner_steps=steps).double()
    task = examples()
    assert_same(gradients(learner, task), finite_differences(learner, task), 1e-6)


def test_anil_is_maml_with_a_frozen_body_in_the_inner_loop() -> None:
    """The same adapted weights as MAML where only the last layer may move."""
    learner = ANIL(smooth_encoder(), outputs=3, inner_lr=0.3, inner_steps=5).double()
    task = examples()
    phi = learner.adapt(task.support_x, task.support_y, 3)
    body = copy.deepcopy(learner.encoder).requires_grad_(False)
    reference = MAML(
        nn.Sequential(body, copy.deepcopy(learner.head)), inner_lr=0.3, inner_steps=5
    ).adapt(task.support_x, task.support_y, 3)["network"]
    for part in ("weight", "bias"):
        assert torch.allclose(phi[part], reference[f"1.{part}"], rtol=1e-9, atol=1e-14)


def norm_shaken(policy: Policy) -> nn.Module:
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Linear(5, 6), BatchNorm(6, policy=policy), nn.Tanh(), nn.Linear(6, 3)
    )
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return network.double()


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_maml_without_batch_norm_in_its_steps(steps: int, first_order: bool) -> None:
    """As in the authors' code: scale and shift stay in the inner loop and learn in the outer."""
    network = norm_shaken("transductive")
    learner = MAML(
        network, inner_lr=0.3, inner_steps=steps, adapt_norm=False, first_order=first_order
    )
    task = examples(3)
    ours = gradients(learner, task)
    phi = learner.adapt(task.support_x, task.support_y, 3)["network"]
    for name in ("1.weight", "1.bias"):
        assert torch.equal(phi[name], network.get_parameter(name).expand_as(phi[name]))
    theta = dict(network.named_parameters())
    kept = {"1.weight", "1.bias"}
    losses = []
    for x, y, query_x, query_y in each(task):
        moved = dict(theta)
        for _ in range(steps):
            names = [k for k in moved if k not in kept]
            loss = F.cross_entropy(functional_call(network, moved, (x,)), y)
            found = torch.autograd.grad(
                loss, [moved[k] for k in names], create_graph=not first_order
            )
            moved |= {k: moved[k] - 0.3 * g for k, g in zip(names, found, strict=True)}
        losses.append(F.cross_entropy(functional_call(network, moved, (query_x,)), query_y))
    theirs = torch.autograd.grad(torch.stack(losses).mean(), list(theta.values()))
    for (name, _), expected in zip(theta.items(), theirs, strict=True):
        assert name == "0.bias" or float(expected.abs().max()) > 1e-6
        torch.testing.assert_close(
            torch.as_tensor(ours[f"network.{name}"]), expected, rtol=1e-9, atol=1e-12
        )


# R2-D2


def features(learner: R2D2, x: Tensor) -> npt.NDArray[np.float64]:
    z = learner.encoder(x).detach().numpy()
    return np.concatenate([z, np.ones((len(z), 1))], axis=1)


@pytest.mark.parametrize("way", [3, None])
@pytest.mark.parametrize("penalty", [0.01, 50.0])
@pytest.mark.parametrize("outputs", [2, 30], ids=["fewer-features", "more-features"])
def test_r2d2_equals_scikit_learn_and_numpy(outputs: int, penalty: float, way: int | None) -> None:
    """Eq. 4, ``(X'X + lambda I)^-1 X'Y``, whether features or examples are more."""
    from sklearn.linear_model import Ridge

    learner, task = R2D2(smooth(outputs), penalty=penalty, scale=3.0).double(), examples(way)
    weight = learner.adapt(task.support_x, task.support_y, way)["weight"].detach()
    logits = learner(task).detach()
    alpha, scale = learner.log_penalty.exp().item(), learner.log_scale.exp().item()
    assert (alpha, scale) == pytest.approx((penalty, 3.0))
    for t, (x, y, query_x, _) in enumerate(each(task)):
        X, targets = features(learner, x), y.numpy() if way is None else np.eye(way)[y]
        ridge = Ridge(alpha=alpha, fit_intercept=False, solver="svd").fit(X, targets)
        np.testing.assert_allclose(
            weight[t].T, scale * np.atleast_2d(ridge.coef_), rtol=1e-8, atol=1e-12
        )
        primal = np.linalg.solve(X.T @ X + alpha * np.eye(X.shape[1]), X.T @ targets)
        np.testing.assert_allclose(weight[t], scale * primal, rtol=1e-8, atol=1e-12)
        answer = ridge.predict(features(learner, query_x)).reshape(logits[t].shape)
        np.testing.assert_allclose(logits[t], scale * answer, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("way", [3, None])
def test_r2d2_equals_finite_differences(way: int | None) -> None:
    learner, task = R2D2(smooth(outputs=4), penalty=0.5, scale=3.0).double(), examples(way)
    ours = gradients(learner, task)
    assert {"log_penalty", "log_scale"} < ours.keys()
    assert_same(ours, finite_differences(learner, task), 1e-6)


def test_r2d2_as_the_authors_code_has_it() -> None:
    """It divides ``X`` and ``Y`` by ``sqrt(n)``, and its penalty stays what it is."""
    options = {"penalty": 0.7, "scale": 1.0, "learn_penalty": False, "per_example": True}
    learner, task = R2D2(smooth(4), **options).double(), examples(3)  # type: ignore[arg-type]
    weight = learner.adapt(task.support_x, task.support_y, 3)["weight"].detach()
    for t, (x, y, *_) in enumerate(each(task)):
        X, Y = features(learner, x) / np.sqrt(len(x)), np.eye(3)[y] / np.sqrt(len(x))
        theirs = X.T @ np.linalg.inv(X @ X.T + 0.7 * np.eye(len(x))) @ Y
        np.testing.assert_allclose(weight[t], theirs, rtol=1e-5, atol=1e-8)
    trained = {name for name, p in learner.named_parameters() if p.requires_grad}
    assert "log_scale" in trained
    assert "log_penalty" not in trained


def test_r2d2_recovers_a_line() -> None:
    """With almost no penalty and a scale of one it is least squares, intercept included."""
    rng = np.random.default_rng(0)
    support, query, w = (rng.normal(size=(2, *s)) for s in ((9, 4), (5, 4), (4, 2)))
    arrays = (support, support @ w + 3, query, query @ w + 3)
    task = Task(*map(torch.from_numpy, arrays), n_way=None)
    learner = R2D2(nn.Flatten(), penalty=1e-12, scale=1.0).double()
    np.testing.assert_allclose(learner(task).detach(), task.query_y, rtol=1e-8)


# Baseline


def test_baseline_fits_the_last_layer_as_torch_optim() -> None:
    learner = Baseline(smooth_encoder(), classes=7, inner_lr=0.05, inner_steps=40).double()
    task = examples()
    before = copy.deepcopy(learner.state_dict())
    phi = learner.adapt(task.support_x, task.support_y, 3)
    logits = learner(task)
    for t, (x, y, query_x, _) in enumerate(each(task)):
        with torch.no_grad():
            z, query_z = learner.encoder(x), learner.encoder(query_x)
            head = nn.Linear(6, 3).double()
            head.weight.zero_()
            head.bias.zero_()
        head = plain_training(head, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), z, y, 40)
        assert torch.allclose(phi["weight"][t], head.weight, rtol=1e-9, atol=1e-12)
        assert torch.allclose(phi["bias"][t], head.bias, rtol=1e-9, atol=1e-12)
        assert torch.allclose(logits[t], head(query_z), rtol=1e-9, atol=1e-12)
    assert not phi["weight"].requires_grad
    assert all(torch.equal(v, before[k]) for k, v in learner.state_dict().items())


def test_baseline_pretrains_on_the_classes_of_the_data_set() -> None:
    learner, task = Baseline(smooth_encoder(), classes=9).double(), examples()
    classes = torch.tensor([[5, 0, 2], [8, 3, 5]])
    inputs, labels = [], []
    for t in range(2):
        for x, y in ((task.support_x, task.support_y), (task.query_x, task.query_y)):
            inputs.append(x[t])
            labels += [classes[t, n].item() for n in y[t]]
    output = learner.classifier(learner.encoder(torch.cat(inputs)))
    expected = F.cross_entropy(output, torch.tensor(labels))
    loss = learner.loss(Task(*task.tensors(), n_way=3, classes=classes))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    ours, theirs = (torch.autograd.grad(x, list(learner.parameters())) for x in (loss, expected))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-15)
    with pytest.raises(ValueError, match="needs tasks with `classes`"):
        learner.loss(Task(*task.tensors(), n_way=3))
    with pytest.raises(ValueError, match="cannot learn a regression task"):
        learner.loss(examples(None))


# All of them


ADAPTING: dict[str, Callable[[], MetaLearner]] = {
    "MAML": lambda: MAML(smooth(), inner_steps=2),
    "MetaSGD": lambda: MetaSGD(smooth()),
    "MAML++": lambda: MAMLPlusPlus(normed()),
    "ANIL": lambda: ANIL(smooth_encoder(), outputs=3),
    "Reptile": lambda: Reptile(smooth()),
    "Scratch": lambda: Scratch(smooth()),
    "Baseline": lambda: Baseline(smooth_encoder(), classes=3),
}


@pytest.mark.parametrize("name", ADAPTING)
def test_inference_mode_is_refused_in_words(name: str) -> None:
    learner, task = ADAPTING[name]().double().eval(), examples()
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch\.no_grad"):
        learner(task)
    with torch.no_grad():
        assert learner(task).isfinite().all()


def test_inference_mode_serves_where_nothing_is_differentiated() -> None:
    learner, task = R2D2(smooth()).double().eval(), examples()
    with torch.inference_mode():
        logits = learner(task)
    assert torch.equal(logits, learner(task))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_lr": 0}, "inner_lr is 0; expected a positive number"),
        ({"inner_lr": -0.5}, "inner_lr is -0.5; expected a positive number"),
        ({"inner_steps": -1}, "inner_steps is -1; expected 0 or more"),
    ],
)
def test_bad_inner_arguments(options: dict[str, float], message: str) -> None:
    for build in (MAML, MetaSGD, MAMLPlusPlus, Reptile, Scratch):
        with pytest.raises(ValueError, match=message):
            build(MLP(2, [], 2), **options)
    with pytest.raises(ValueError, match=message):
        ANIL(MLP(2, [], 2), outputs=2, **options)
    with pytest.raises(ValueError, match=message):
        Baseline(MLP(2, [], 2), classes=2, **options)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: MAML(f, inner_optimizer="lbfgs"), "inner_optimizer is 'lbfgs'; expected an"),
        (lambda f: Scratch(f, inner_optimizer=torch.optim.SGD), "expected an InnerOptimizer"),
        (lambda f: Reptile(f, inner_optimizer="adam"), "expected an InnerOptimizer such as SGD"),
        (
            lambda f: MAML(f.double().requires_grad_(False))(make_task((2,), 2)),
            "no parameter to adapt",
        ),
        (lambda f: Reptile(f, inner_batch=0), "inner_batch is 0; expected at least 1, or None"),
        (lambda f: Reptile(f, inner_batch=-2), "inner_batch is -2; expected at least 1"),
        (lambda f: MAMLPlusPlus(f, inner_steps=0), "must each be at least 1"),
        (lambda f: MAMLPlusPlus(f, anneal_steps=0), "must each be at least 1"),
        (lambda f: ANIL(f, outputs=0), "outputs is 0; expected at least 1"),
        (lambda f: Baseline(f, classes=1), "classes is 1; expected at least 2"),
        (lambda f: R2D2(f, penalty=0), "penalty is 0 and scale 10.0; both must be positive"),
        (lambda f: R2D2(f, penalty=-1.0), "penalty is -1.0"),
        (lambda f: R2D2(f, scale=0), "penalty is 50.0 and scale 0; both must be positive"),
        (lambda f: R2D2(f, scale=-3), "scale -3; both must be positive"),
    ],
)
def test_bad_arguments(build: Callable[[nn.Module], MetaLearner], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(MLP(2, [], 2))


@pytest.mark.parametrize("kind", [Reptile, Scratch])
def test_a_learned_inner_optimizer_is_refused_where_nothing_would_train_it(
    kind: type[MetaLearner],
) -> None:
    class Learned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.size = nn.Parameter(torch.ones(()))

        def direction(self, gradients: Gradients, state: Any, step: int) -> tuple[Gradients, Any]:
            return {k: self.size * g for k, g in gradients.items()}, state

    with pytest.raises(ValueError, match=f"{kind.__name__} cannot learn an inner optimiser"):
        kind(smooth(), inner_optimizer=Learned())
