"""MAML against references we did not write."""

import copy
from collections.abc import Callable

import higher
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_meta_gradient_equals_higher(steps: int, first_order: bool) -> None:
    torch.manual_seed(0)
    network = conv_network().double()
    task = make_task((1, 8, 8), way=3, tasks=4, shot=2, query=3)
    learner = MAML(network, inner_lr=0.4, inner_steps=steps, first_order=first_order)
    ours = meta_gradient(learner, task)

    reference = copy.deepcopy(network)
    reference.zero_grad()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.4)
    for t in range(len(task)):
        with higher.innerloop_ctx(
            reference,
            optimizer,
            copy_initial_weights=False,
            track_higher_grads=not first_order,
        ) as (fast, inner):
            for _ in range(steps):
                inner.step(F.cross_entropy(fast(task.support_x[t]), task.support_y[t]))
            loss = F.cross_entropy(fast(task.query_x[t]), task.query_y[t]) / len(task)
            if first_order:
                gradients = torch.autograd.grad(loss, list(fast.parameters()))
                for p, g in zip(reference.parameters(), gradients, strict=True):
                    p.grad = g if p.grad is None else p.grad + g
            else:
                loss.backward()
    for mine, p in zip(ours, reference.parameters(), strict=True):
        assert p.grad is not None
        assert torch.linalg.norm(mine - p.grad) <= 1e-5 * torch.linalg.norm(p.grad)


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


def test_linear_regression_closed_form() -> None:
    """One step on ``y = w x`` with squared error is ``w - 2 lr mean(x (w x - y))``."""
    torch.manual_seed(0)
    network = nn.Linear(1, 1, bias=False).double()
    task = make_task((1,), None, tasks=3, shot=5)
    phi = MAML(network, inner_lr=0.1).adapt(task.support_x, task.support_y, None)
    w = network.weight.detach()
    x, y = task.support_x, task.support_y
    expected = w - 0.1 * 2 * (x * (w * x - y)).mean(1)
    assert torch.allclose(phi["network"]["weight"].squeeze(1), expected)


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
    ],
)
def test_bad_arguments(build: Callable[[], MAML], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_inference_mode_is_refused_in_words() -> None:
    task = make_task((8,), 3).to(torch.float32)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch\.no_grad"):
        MAML(MLP(8, [4], 3), inner_lr=0.1)(task)
