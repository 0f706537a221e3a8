"""Steps that are taken again give each tensor its gradient, or say that they cannot."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quickstudy.execution import executing
from quickstudy.inner import Parameters, State, StepLoss, grad, trajectory, unroll
from quickstudy.inner.repeated import repeated
from quickstudy.learner import MetaLearner
from quickstudy.learners import MAML, MAMLPlusPlus, MetaSGD
from quickstudy.nn import MLP, Conv4
from quickstudy.task import Task
from quickstudy.testing import make_task

STEPS = 8


class LearnedOptimizer(nn.Module):
    """One number a step, to be learned."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = nn.Parameter(torch.linspace(0.5, 1.5, STEPS, dtype=torch.float64))

    def direction(self, gradients: Parameters, state: State, step: int) -> tuple[Parameters, State]:
        return {k: self.sizes[step] * g for k, g in gradients.items()}, state


def smooth() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def gradients(learner: MetaLearner, task: Task) -> dict[str, Tensor]:
    parameters = {k: p for k, p in learner.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(learner.loss(task), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("tasks_at_once", [None, 1])
@pytest.mark.parametrize("graphs", [1, 2, 3, 7, 8])
def test_a_learned_optimizer_gets_the_gradient_of_every_step(
    graphs: int, tasks_at_once: int | None
) -> None:
    """Equal to all graphs kept, and to finite differences, number by number."""
    learner = MAML(smooth(), inner_lr=0.2, inner_steps=STEPS, inner_optimizer=LearnedOptimizer())
    task = make_task((5,), 3, tasks=3)
    with executing(graphs=None, tasks_at_once=3):
        kept = gradients(learner, task)
    assert kept["inner_optimizer.sizes"].count_nonzero() == STEPS
    with executing(graphs=graphs, tasks_at_once=tasks_at_once):
        ours = gradients(learner, task)
    assert ours.keys() == kept.keys()
    for name, g in kept.items():
        torch.testing.assert_close(ours[name], g, rtol=1e-10, atol=1e-13)
    sizes = dict(learner.named_parameters())["inner_optimizer.sizes"]
    for i in range(STEPS):
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                sizes[i] += sign * 1e-5
                losses.append(float(learner.loss(task)))
                sizes[i] -= sign * 1e-5
        numeric = (losses[0] - losses[1]) / 2e-5
        assert float(ours["inner_optimizer.sizes"][i]) == pytest.approx(numeric, rel=1e-6)


class Closed:
    """An inner optimiser that is no module, so that nobody can know of its tensor."""

    def __init__(self) -> None:
        self.size = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def direction(self, gradients: Parameters, state: State, step: int) -> tuple[Parameters, State]:
        return {k: self.size * g for k, g in gradients.items()}, state


@pytest.mark.parametrize("how", [{"graphs": 2}, {"graphs": None, "tasks_at_once": 1}])
def test_a_tensor_that_would_get_no_gradient_is_refused(how: dict[str, Any]) -> None:
    learner = MAML(smooth(), inner_lr=0.2, inner_steps=5, inner_optimizer=Closed())
    task = make_task((5,), 3, tasks=2)
    with executing(**how), pytest.raises(RuntimeError, match="get none"):
        learner.loss(task).backward()
    with executing(graphs=None, tasks_at_once=2):
        learner.loss(task).backward()
    assert isinstance(learner.inner_optimizer, Closed)
    assert learner.inner_optimizer.size.grad is not None


def test_a_support_that_wants_a_gradient_gets_it() -> None:
    """Data can be learned, too: in parts, and whatever is taken again."""
    learner, task = MAML(smooth(), inner_lr=0.2, inner_steps=6), make_task((5,), 3, tasks=3)
    found = []
    for how in ({"graphs": None, "tasks_at_once": 3}, {"graphs": 1, "tasks_at_once": 1}):
        x, query = (v.clone().requires_grad_() for v in (task.support_x, task.query_x))
        with executing(**how):
            loss = learner.loss(Task(x, task.support_y, query, task.query_y, 3))
        found.append(torch.autograd.grad(loss, [x, query]))
    for a, b in zip(*found, strict=True):
        assert bool(a.abs().max() > 0)
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_random_numbers_are_the_same_again() -> None:
    """A network with dropout: its second run must drop what the first one dropped."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3)).double()
    learner, task = MAML(network, inner_lr=0.2, inner_steps=6), make_task((5,), 3, tasks=2)
    found = []
    for graphs in (None, 2):
        torch.manual_seed(5)
        with executing(graphs=graphs, tasks_at_once=2):
            loss = learner.loss(task)
            torch.manual_seed(99)
            before = torch.get_rng_state()
            found.append([loss, *torch.autograd.grad(loss, list(network.parameters()))])
            assert torch.equal(torch.get_rng_state(), before), "a generator has moved"
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_autocast_is_the_same_again() -> None:
    torch.manual_seed(0)
    backbone = Conv4(1, 8, image_size=16, downsample="stride", batch_norm="transductive")
    learner = MAML(nn.Sequential(backbone, nn.Linear(8, 3)), inner_lr=0.1, inner_steps=4)
    task = make_task((1, 16, 16), 3, tasks=2).to(torch.float32)
    found = []
    for graphs in (None, 1):
        with executing(graphs=graphs), torch.autocast("cpu", torch.bfloat16):
            loss = learner.loss(task)
        found.append(torch.autograd.grad(loss, list(learner.parameters())))
    whole = [torch.cat([g.flatten() for g in gradients]) for gradients in found]
    assert torch.linalg.norm(whole[1] - whole[0]) < 1e-3 * torch.linalg.norm(whole[0])


LEARNERS: dict[str, Callable[[], MetaLearner]] = {
    "meta-sgd": lambda: MetaSGD(smooth(), inner_lr=0.2, inner_steps=7),
    "maml++": lambda: MAMLPlusPlus(smooth(), inner_lr=0.2, inner_steps=7).double(),
    "maml++ with norms": lambda: MAMLPlusPlus(
        nn.Sequential(nn.Flatten(), Conv4(1, 3, image_size=16), nn.Linear(3, 3))[1:],
        inner_steps=5,
    ).double(),
}


@pytest.mark.parametrize("graphs", [1, 3])
@pytest.mark.parametrize("name", LEARNERS)
def test_learned_rates_and_norms_of_early_steps_get_theirs(name: str, graphs: int) -> None:
    torch.manual_seed(0)
    learner = LEARNERS[name]().eval()
    task = make_task((1, 16, 16) if "norms" in name else (5,), 3, tasks=3)
    with executing(graphs=None, tasks_at_once=3):
        kept = gradients(learner, task)
    with executing(graphs=graphs):
        ours = gradients(learner, task)
    scale = max(float(g.abs().max()) for g in kept.values())
    for key, g in kept.items():
        torch.testing.assert_close(ours[key], g, rtol=1e-8, atol=1e-11 * scale)


def test_what_is_returned_does_not_depend_on_a_switch() -> None:
    """The end is the end and the path has every step, with and without gradients."""

    def down(
        phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        gradient = grad(support_loss, phi)
        return {k: p - 0.1 * gradient[k] for k, p in phi.items()}, {"last": gradient}

    def loss(phi: Parameters, step: int) -> Tensor:
        return (phi["a"] - step).square().sum()

    def start() -> Parameters:
        return {"a": torch.ones(2, dtype=torch.float64, requires_grad=True)}

    paths, ends = [], []
    for graphs in (None, 1, 3, 4):
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                theta = start()
                path = trajectory(down, loss, theta, steps=10, graphs=graphs)
                end, state = unroll(down, loss, theta, steps=10, graphs=graphs)
                paths.append(torch.stack([phi["a"] for phi in path]).detach())
                ends.append(torch.stack([end["a"], state["last"]["a"]]).detach())
                assert path[-1]["a"].requires_grad == end["a"].requires_grad == enabled
                if enabled:
                    a, b = (
                        torch.autograd.grad(phi["a"].sum(), theta["a"], retain_graph=True)[0]
                        for phi in (path[-1], end)
                    )
                    assert torch.allclose(a, b, rtol=1e-12)
                    assert torch.allclose(a, torch.full_like(a, 0.8**10), rtol=1e-12)
    assert all(p.shape == (11, 2) for p in paths)
    assert all(torch.equal(p, paths[0]) for p in paths)
    assert all(torch.equal(e, ends[0]) for e in ends)


def test_a_call_may_return_what_it_was_given() -> None:
    a = torch.ones(2, requires_grad=True)
    same, doubled = repeated(lambda x: (x.clone(), 2 * x), a)
    (g,) = torch.autograd.grad((same + doubled).sum(), a)
    assert torch.equal(g, torch.full_like(a, 3))


def test_a_state_may_hold_plain_numbers() -> None:
    """A user's optimiser that counts its steps, and divides by their number."""

    class Counting:
        def direction(
            self, gradients: Parameters, state: dict[str, Any], step: int
        ) -> tuple[Parameters, dict[str, Any]]:
            count = state.get("count", 0) + 1
            assert count == step + 1
            return {k: g / count for k, g in gradients.items()}, {"count": count}

    learner = MAML(smooth(), inner_lr=0.2, inner_steps=6, inner_optimizer=Counting())
    task = make_task((5,), 3, tasks=2)
    with executing(graphs=None, tasks_at_once=2):
        kept = gradients(learner, task)
    with executing(graphs=2):
        ours = gradients(learner, task)
    for name, g in kept.items():
        torch.testing.assert_close(ours[name], g, rtol=1e-10, atol=1e-13)


def plain_gradient(learner: MAML, task: Task) -> list[Tensor]:
    with executing(graphs=None, tasks_at_once=len(task), stacked=False):
        return list(torch.autograd.grad(learner.loss(task), list(learner.parameters())))


@pytest.mark.parametrize("graphs", [None, 1, 3])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_start_that_is_a_constant_has_a_second_derivative_too(
    steps: int, graphs: int | None
) -> None:
    """A last layer that starts at zero: its first step depends on the encoder before it."""
    torch.manual_seed(0)

    class ZeroHead(MAML):
        def start(self, tasks: int) -> Parameters:
            theta = super().start(tasks)
            return {k: torch.zeros_like(p) if k.startswith("2.") else p for k, p in theta.items()}

    network, task = smooth(), make_task((5,), 3, tasks=3)
    learner = ZeroHead(network, inner_lr=0.3, inner_steps=steps)
    encoder = list(network[0].parameters())
    total = torch.zeros(())
    for x, y, query_x, query_y in zip(*task.tensors(), strict=True):
        phi = [*encoder, torch.zeros(3, 4).double(), torch.zeros(3).double()]
        for _ in range(steps):
            at = [p if p.requires_grad else p.requires_grad_() for p in phi]
            h = torch.tanh(nn.functional.linear(x, *at[:2]))
            loss = nn.functional.cross_entropy(nn.functional.linear(h, *at[2:]), y)
            found = torch.autograd.grad(loss, at, create_graph=True)
            phi = [p - 0.3 * g for p, g in zip(at, found, strict=True)]
        h = torch.tanh(nn.functional.linear(query_x, *phi[:2]))
        output = nn.functional.linear(h, *phi[2:])
        total = total + nn.functional.cross_entropy(output, query_y) / 3
    with executing(graphs=graphs):
        ours = torch.autograd.grad(learner.loss(task), encoder)
    for a, b in zip(ours, torch.autograd.grad(total, encoder), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-12)


def test_a_parameter_that_no_step_uses_is_no_error() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = smooth(), nn.Linear(3, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)  # type: ignore[no-any-return]

    learner = MAML(Spare(), inner_lr=0.2, inner_steps=5)
    for how in ({"graphs": 3}, {"graphs": 1, "tasks_at_once": 1}):
        learner.zero_grad()
        with executing(**how):
            learner.loss(make_task((5,), 3, tasks=2)).backward()
        assert learner.network.used[0].weight.grad.count_nonzero()


def shrink(learner: MAML, task: Task) -> None:
    learner.inner_lr *= 0.9


def to_evaluation(learner: MAML, task: Task) -> None:
    learner.eval()


def overwrite(learner: MAML, task: Task) -> None:
    task.support_x.mul_(2)


@pytest.mark.parametrize("change", [shrink, to_evaluation, overwrite])
def test_a_change_before_the_backward_pass_is_refused(
    change: Callable[[MAML, Task], None],
) -> None:
    """Repeated steps would meet other settings than those that made the loss."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 3)).double()
    learner, task = MAML(network, inner_lr=0.2, inner_steps=6), make_task((5,), 3, tasks=2)
    with executing(tasks_at_once=2, graphs=3):
        loss = learner.loss(task)
    change(learner, task)
    with pytest.raises(RuntimeError, match=r"came to another result|inplace operation"):
        loss.backward()


@pytest.mark.parametrize("how", [{"graphs": 1, "tasks_at_once": 2}, {"tasks_at_once": 1}])
def test_a_second_derivative_of_the_loss_is_refused(how: dict[str, Any]) -> None:
    learner, task = MAML(smooth(), inner_lr=0.2, inner_steps=2), make_task((5,), 3, tasks=2)
    parameters = list(learner.parameters())
    with executing(**how), pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(learner.loss(task), parameters, create_graph=True)
    with executing(graphs=None, tasks_at_once=2, stacked=False):
        gradients = torch.autograd.grad(learner.loss(task), parameters, create_graph=True)
    assert all(g.requires_grad for g in gradients)


def test_targets_that_want_a_gradient_get_it() -> None:
    learner = MAML(MLP(1, [8], 1).double(), inner_lr=0.1, inner_steps=6)
    task = make_task((1,), None, tasks=3, shot=5)
    found = []
    for how in ({"graphs": None, "tasks_at_once": 3}, {"graphs": 1, "tasks_at_once": 1}):
        y = task.support_y.clone().requires_grad_()
        with executing(**how):
            loss = learner.loss(Task(task.support_x, y, task.query_x, task.query_y, None))
        found.append(torch.autograd.grad(loss, y)[0])
    assert bool(found[0].abs().max() > 0)
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-13)


def test_hooks_on_parameters_see_one_gradient() -> None:
    learner, task = MAML(smooth(), inner_lr=0.2, inner_steps=5), make_task((5,), 3, tasks=3)
    expected = plain_gradient(learner, task)
    handles = [p.register_hook(lambda g: g / 2) for p in learner.parameters()]
    with executing(tasks_at_once=1, graphs=2):
        halved = torch.autograd.grad(learner.loss(task), list(learner.parameters()))
    for a, b in zip(halved, expected, strict=True):
        torch.testing.assert_close(2 * a, b, rtol=1e-9, atol=1e-12)
    for handle in handles:
        handle.remove()


def test_torchs_own_batch_norm_moves_its_averages_as_often_as_it_runs() -> None:
    counts = []
    for graphs in (None, 1):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3))
        learner = MAML(network, inner_lr=0.1, inner_steps=5)
        with executing(graphs=graphs):
            learner.loss(make_task((5,), 3, tasks=2).to(torch.float32)).backward()
        counts.append((int(network[1].num_batches_tracked), network[1].running_mean.clone()))
    assert counts[0][0] == counts[1][0]
    assert torch.equal(counts[0][1], counts[1][1])
