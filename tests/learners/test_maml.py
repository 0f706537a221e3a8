"""MAML against references we did not write."""

import copy
import math
from collections.abc import Callable, Iterator

import higher
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchopt
from torch import Tensor, nn

from quickstudy.inner import SGD, Adam
from quickstudy.learners import MAML
from quickstudy.nn import MLP, Conv4, set_batch_norm_policy
from quickstudy.task import Task
from quickstudy.testing import make_task


def conv_network() -> nn.Module:
    """No batch norm: `higher` does not know ours."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(64, 3),
    )


def meta_gradient(learner: MAML, task: Task) -> list[Tensor]:
    learner.zero_grad()
    learner.loss(task).backward()
    return [p.grad.clone() for p in learner.network.parameters() if p.grad is not None]


INNER = {"sgd": SGD(), "momentum": SGD(0.9), "adam": Adam()}
RATES = {"sgd": 0.4, "momentum": 0.2, "adam": 0.02}


def torch_optimizer(name: str, network: nn.Module) -> torch.optim.Optimizer:
    if name == "adam":
        return torch.optim.Adam(network.parameters(), lr=RATES[name])
    momentum = {"sgd": 0.0, "momentum": 0.9}[name]
    return torch.optim.SGD(network.parameters(), lr=RATES[name], momentum=momentum)


def higher_gradient(
    network: nn.Module, name: str, task: Task, steps: int, first_order: bool
) -> list[Tensor]:
    total = [torch.zeros_like(p) for p in network.parameters()]
    for x, y, query_x, query_y in zip(*task.tensors(), strict=True):
        with higher.innerloop_ctx(
            network,
            torch_optimizer(name, network),
            copy_initial_weights=False,
            track_higher_grads=not first_order,
        ) as (fast, inner):
            for step in range(1, steps + 1):
                override = {}
                if name == "adam":  # it adds eps before it corrects the root's bias
                    override["eps"] = [1e-8 * math.sqrt(1 - 0.999**step)]
                inner.step(F.cross_entropy(fast(x), y), override=override)
            loss = F.cross_entropy(fast(query_x), query_y) / len(task)
            start = fast if first_order else network
            gradients = torch.autograd.grad(loss, list(start.parameters()))
            total = [a + b for a, b in zip(total, gradients, strict=True)]
    return total


def torchopt_gradient(network: nn.Module, name: str, task: Task, steps: int) -> list[Tensor]:
    network = copy.deepcopy(network)
    theta = list(network.parameters())
    start = torchopt.extract_state_dict(network, by="reference")
    total = [torch.zeros_like(p) for p in theta]
    for x, y, query_x, query_y in zip(*task.tensors(), strict=True):
        torchopt.recover_state_dict(network, start)
        if name == "adam":  # eps_root=0 is its default: eps is outside the root, as ours
            inner = torchopt.MetaAdam(network, lr=RATES[name], moment_requires_grad=True)
        else:
            momentum = {"sgd": 0.0, "momentum": 0.9}[name]
            inner = torchopt.MetaSGD(
                network, lr=RATES[name], momentum=momentum, moment_requires_grad=True
            )
        for _ in range(steps):
            inner.step(F.cross_entropy(network(x), y))
        loss = F.cross_entropy(network(query_x), query_y) / len(task)
        gradients = torch.autograd.grad(loss, theta)
        total = [a + b for a, b in zip(total, gradients, strict=True)]
    return total


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for mine, p in zip(ours, theirs, strict=True):
        assert torch.linalg.norm(mine - p) <= 1e-9 * torch.linalg.norm(p)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_meta_gradient_equals_higher(steps: int, name: str, first_order: bool) -> None:
    torch.manual_seed(0)
    network = conv_network().double()
    task = make_task((1, 8, 8), way=3, tasks=4, shot=2, query=3)
    learner = MAML(
        network,
        inner_lr=RATES[name],
        inner_steps=steps,
        inner_optimizer=INNER[name],
        first_order=first_order,
    )
    theirs = higher_gradient(network, name, task, steps, first_order)
    assert_equal(meta_gradient(learner, task), theirs)


@pytest.fixture
def _double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("_double_precision")  # torchopt computes beta**step in the default dtype
@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("steps", [1, 3, 5])
def test_meta_gradient_equals_torchopt(steps: int, name: str) -> None:
    torch.manual_seed(0)
    network = conv_network().double()
    task = make_task((1, 8, 8), way=3, tasks=4, shot=2, query=3)
    learner = MAML(network, inner_lr=RATES[name], inner_steps=steps, inner_optimizer=INNER[name])
    assert_equal(meta_gradient(learner, task), torchopt_gradient(network, name, task, steps))


@pytest.mark.parametrize("policy", ["inductive", "transductive"])
def test_meta_gradient_equals_finite_differences(policy: str) -> None:
    """Batch norm included: its support statistics carry gradient too."""
    torch.manual_seed(1)
    encoder = Conv4(1, 3, image_size=16, downsample="stride", batch_norm=policy)
    for block in encoder.blocks:
        block[2] = nn.Softplus()  # finite differences across a ReLU's kink would mislead
    learner = MAML(nn.Sequential(encoder, nn.Linear(3, 3)).double(), inner_lr=0.3, inner_steps=2)
    task = make_task((1, 16, 16), way=3, tasks=2, shot=2, query=3)
    gradient = meta_gradient(learner, task)
    rng = torch.Generator().manual_seed(2)
    for p, g in zip(learner.network.parameters(), gradient, strict=True):
        direction = torch.randn(p.shape, generator=rng, dtype=p.dtype)
        eps, losses = 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                p.add_(sign * eps * direction)
                losses.append(float(learner.loss(task)))
                p.sub_(sign * eps * direction)
        numeric = (losses[0] - losses[1]) / (2 * eps)
        assert float((g * direction).sum()) == pytest.approx(numeric, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_linear_regression_closed_form(steps: int) -> None:
    """With exact targets the error contracts: ``phi_L - w = (I - 2 lr X'X / S)^L (theta - w)``."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = nn.Linear(4, 1, bias=False).double()
    theta = network.weight.detach().numpy()[0]
    support, query, w = (rng.normal(size=(3, *s)) for s in ((6, 4), (5, 4), (4, 1)))
    task = Task(*map(torch.from_numpy, (support, support @ w, query, query @ w)), n_way=None)
    learner = MAML(network, inner_lr=0.1, inner_steps=steps)
    phi = learner.adapt(task.support_x, task.support_y, None)["network"]["weight"].detach()

    gradients = []
    for t in range(3):
        hessian, query_hessian = (2 * X[t].T @ X[t] / len(X[t]) for X in (support, query))
        contraction = np.linalg.matrix_power(np.eye(4) - 0.1 * hessian, steps)
        error = contraction @ (theta - w[t, :, 0])
        np.testing.assert_allclose(phi[t, 0], w[t, :, 0] + error, rtol=1e-10)
        gradients.append(contraction @ query_hessian @ error)
    (ours,) = meta_gradient(learner, task)
    np.testing.assert_allclose(ours[0], np.mean(gradients, axis=0), rtol=1e-10)


@pytest.mark.parametrize("steps", [1, 3])
def test_inner_adam_with_a_dead_unit(steps: int) -> None:
    """Its gradients are exactly zero, where Adam's square root has no derivative."""
    torch.manual_seed(0)
    network, alive = MLP(8, [5], 3).double(), MLP(8, [4], 3).double()
    with torch.no_grad():
        network.layers[0].bias[4] = -1e3
        for name, p in alive.named_parameters():
            whole = network.get_parameter(name)
            p.copy_(whole[tuple(slice(n) for n in p.shape)])
    task = make_task((8,), 3)
    ours, without = (
        meta_gradient(MAML(f, inner_lr=0.02, inner_steps=steps, inner_optimizer=Adam()), task)
        for f in (network, alive)
    )
    for whole, part in zip(ours, without, strict=True):
        kept = tuple(slice(n) for n in part.shape)
        assert torch.allclose(whole[kept], part, rtol=1e-9, atol=0)
        whole[kept] = 0
        assert not whole.any()


def test_first_order_differs_only_in_the_gradient() -> None:
    torch.manual_seed(0)
    network = MLP(8, [16], 3).double()
    exact, cheap = (MAML(network, inner_lr=0.5, first_order=fo) for fo in (False, True))
    task = make_task((8,), 3)
    assert torch.equal(exact(task), cheap(task))
    pairs = zip(meta_gradient(exact, task), meta_gradient(cheap, task), strict=True)
    assert not all(torch.allclose(a, b) for a, b in pairs)


def test_more_steps_fit_the_support_better() -> None:
    torch.manual_seed(0)
    task = make_task((8,), 3, tasks=4)
    fit = Task(task.support_x, task.support_y, task.support_x, task.support_y, 3)
    learner = MAML(MLP(8, [16], 3).double(), inner_lr=0.5)
    losses = []
    for learner.inner_steps in (0, 1, 5, 20):
        losses.append(learner.loss(fit).item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]


def test_frozen_parameters_stay() -> None:
    network = MLP(8, [16], 3)
    network.layers[0].weight.requires_grad_(False)
    task = make_task((8,), 3).to(torch.float32)
    phi = MAML(network, inner_lr=0.5).adapt(task.support_x, task.support_y, 3)
    assert torch.equal(phi["network"]["layers.0.weight"][0], network.layers[0].weight)
    assert not torch.equal(phi["network"]["layers.2.weight"][0], network.layers[2].weight)


def test_transductive_and_inductive_share_weights_but_not_answers() -> None:
    torch.manual_seed(0)
    encoder = Conv4(1, 4, image_size=16, downsample="stride")
    learner = MAML(nn.Sequential(encoder, nn.Linear(4, 3)), inner_lr=0.1).eval()
    task = make_task((1, 16, 16), 3).to(torch.float32)
    inductive = learner(task)
    set_batch_norm_policy(learner, "transductive")
    assert learner.transductive
    assert not torch.allclose(learner(task), inductive)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MAML(MLP(2, [], 2), inner_lr=0), "inner_lr is 0"),
        (lambda: MAML(MLP(2, [], 2), inner_lr=0.1, inner_steps=-1), "inner_steps is -1"),
        (lambda: MAML(MLP(2, [], 2), inner_lr="a"), "inner_lr is a; expected a positive number"),
        (lambda: MAML(MLP(2, [], 2), inner_optimizer=SGD), "expected an InnerOptimizer"),
        (
            lambda: MAML(MLP(2, [], 2), inner_optimizer="lion"),
            "inner_optimizer is 'lion'; expected an InnerOptimizer",
        ),
    ],
)
def test_bad_arguments(build: Callable[[], MAML], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_inference_mode_is_refused_in_words() -> None:
    task = make_task((8,), 3).to(torch.float32)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch\.no_grad"):
        MAML(MLP(8, [4], 3), inner_lr=0.1)(task)
