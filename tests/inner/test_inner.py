"""The inner loop against `torch.optim`, `torch.autograd.gradcheck` and plain arithmetic."""

import math
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.inner import (
    SGD,
    Adam,
    InnerOptimizer,
    InnerStep,
    LearnedRates,
    Parameters,
    State,
    StepLoss,
    check_inner,
    grad,
    trajectory,
    unroll,
)
from quickstudy.learners import MAML, ProtoNet, Reptile, Scratch
from quickstudy.nn import MLP
from quickstudy.testing import make_task

OPTIMIZERS: dict[str, tuple[InnerOptimizer, Callable[[list[Tensor]], torch.optim.Optimizer]]] = {
    "sgd": (SGD(), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (SGD(0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    "little-momentum": (SGD(0.3), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.3)),
    "adam": (Adam(), lambda p: torch.optim.Adam(p, lr=0.1)),
    "adam-reptile": (Adam(beta1=0.0), lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.0, 0.999))),
    "adam-large-eps": (
        Adam(0.5, 0.9, 0.2),
        lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.9), eps=0.2),
    ),
}


def start() -> Parameters:
    rng = torch.Generator().manual_seed(0)
    shapes = {"a": (3,), "b": (2, 3)}
    return {
        k: torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
        for k, shape in shapes.items()
    }


def bumpy(phi: Parameters, step: int) -> Tensor:
    """Smooth, no gradient near zero, and another function at every step."""
    a, b = phi["a"], phi["b"]
    return ((b * a).exp().sum() + (a - 2 - step).square().sum() + (b - 3).square().sum()) / 9


def stepping(
    optimizer: InnerOptimizer,
    rate: Callable[[int, str], Tensor | float] = lambda step, name: 0.1,
    first_order: bool = False,
) -> InnerStep:
    """Descent by an optimiser with rates by step and name."""

    def inner_step(
        phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        gradient = grad(support_loss, phi, first_order=first_order)
        direction, state = optimizer.direction(gradient, state, step)
        return {k: p - rate(step, k) * direction[k] for k, p in phi.items()}, state

    return inner_step


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_path_equals_torch_optim(name: str) -> None:
    optimizer, build = OPTIMIZERS[name]
    path = trajectory(stepping(optimizer), bumpy, start(), steps=7)
    assert len(path) == 8
    phi = start()
    reference = build(list(phi.values()))
    for step, ours in enumerate(path):
        assert ours.keys() == phi.keys()
        assert all(torch.allclose(ours[k], phi[k], rtol=1e-12, atol=0) for k in phi)
        reference.zero_grad()
        bumpy(phi, step).backward()
        reference.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 4])
def test_derivative_equals_finite_differences(name: str, steps: int) -> None:
    """Of every adapted number by every number at the start, and by the rate."""

    def adapted(a: Tensor, b: Tensor, rate: Tensor) -> tuple[Tensor, ...]:
        step = stepping(optimizer, lambda *_: rate)
        phi, _ = unroll(step, bumpy, {"a": a, "b": b}, steps=steps)
        return tuple(phi.values())

    optimizer, _ = OPTIMIZERS[name]
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(adapted, (*start().values(), rate), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_first_order_derivative_is_the_identity(name: str) -> None:
    optimizer, _ = OPTIMIZERS[name]
    theta = start()
    exact, phi = (
        unroll(stepping(optimizer, first_order=cheap), bumpy, theta, steps=3)[0]
        for cheap in (False, True)
    )
    assert all(torch.equal(phi[k], exact[k]) for k in phi)
    outer = {k: torch.randn_like(p) for k, p in phi.items()}
    gradients = torch.autograd.grad(list(phi.values()), list(theta.values()), list(outer.values()))
    assert all(torch.equal(g, outer[k]) for k, g in zip(phi, gradients, strict=True))


def test_rates_by_step_and_name() -> None:
    def rate(step: int, name: str) -> float:
        return {"a": 0.1, "b": -0.05}[name] / (step + 1)

    path = trajectory(stepping(SGD(), rate), bumpy, start(), steps=3)
    phi = start()
    reference = torch.optim.SGD([{"params": [p]} for p in phi.values()], lr=1.0)
    for step in range(3):
        # torch.optim knows no negative rate at construction, but takes one
        for name, group in zip(phi, reference.param_groups, strict=True):
            group["lr"] = rate(step, name)
        reference.zero_grad()
        bumpy(phi, step).backward()
        reference.step()
    assert all(torch.allclose(path[-1][k], phi[k], rtol=1e-12, atol=0) for k in phi)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_that_the_loss_does_not_use_stay(name: str) -> None:
    optimizer, _ = OPTIMIZERS[name]
    theta = {**start(), "idle": torch.ones(2, dtype=torch.float64, requires_grad=True)}
    phi, _ = unroll(stepping(optimizer), bumpy, theta, steps=3)
    assert torch.equal(phi["idle"], theta["idle"])
    total = torch.stack([p.sum() for p in phi.values()]).sum()
    gradients = dict(zip(theta, torch.autograd.grad(total, list(theta.values())), strict=True))
    assert torch.equal(gradients["idle"], torch.ones_like(theta["idle"]))
    assert all(bool(g.isfinite().all()) for g in gradients.values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_adam_at_a_gradient_of_zero(dtype: torch.dtype, beta1: float) -> None:
    """Direction zero, and a finite derivative, also where other gradients come before or after."""
    gradients = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=dtype)
    gradients.requires_grad_()
    adam, state, total = Adam(beta1=beta1), dict[str, Parameters](), torch.zeros((), dtype=dtype)
    for step in range(3):
        directions, state = adam.direction({"p": gradients[:, step]}, state, step)
        assert not directions["p"][0]
        total = total + directions["p"].sum()
    assert bool(torch.autograd.grad(total, gradients)[0].isfinite().all())


def saved_tensors(run: Callable[[Callable[[], int]], Any]) -> Any:
    """Call ``run`` with a function that counts the tensors which graphs hold at the time."""

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    alive = weakref.WeakSet[Kept]()

    def pack(tensor: Tensor) -> Kept:
        kept = Kept(tensor)
        alive.add(kept)
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        return run(lambda: len(alive))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_grad_keeps_no_graph(name: str) -> None:
    optimizer, _ = OPTIMIZERS[name]
    theta = start()

    def run(count: Callable[[], int]) -> tuple[list[Parameters], list[int]]:
        counts = []

        def loss(phi: Parameters, step: int) -> Tensor:
            counts.append(count())
            return bumpy(phi, step)

        path = trajectory(stepping(optimizer), loss, theta, steps=4)
        return path, [*counts, count()]

    with torch.no_grad():
        path, held = saved_tensors(run)
        assert held == [0] * 5
        assert all(p.is_leaf and not p.requires_grad for phi in path for p in phi.values())
    exact, held = saved_tensors(run)
    assert held == sorted(set(held)), "with gradients, every step adds to the graph"
    for a, b in zip(path, exact, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert all(p.requires_grad and p.grad is None for p in theta.values())
    assert all(torch.equal(p, q) for p, q in zip(theta.values(), start().values(), strict=True))


@pytest.mark.parametrize("grad", [True, False])
def test_no_steps(grad: bool) -> None:
    theta = start()
    with torch.set_grad_enabled(grad):
        (phi,) = trajectory(stepping(Adam()), bumpy, theta, steps=0)
        end, state = unroll(stepping(Adam()), bumpy, theta, steps=0)
    assert all(torch.equal(phi[k], theta[k]) for k in theta)
    assert all(p.requires_grad == grad for p in (*phi.values(), *end.values()))
    assert not state


def test_inference_mode_is_refused_in_words() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch\.no_grad"):
        unroll(stepping(SGD()), bumpy, start(), steps=1)


@pytest.mark.parametrize("batch", [1, 4, 5, 6, 50, None])
def test_batches_are_taken_in_turn(batch: int | None) -> None:
    """Five batches of a support of six, around again where it ends."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    task = make_task((8,), 3)
    x, y = task.support_x[0], task.support_y[0]
    assert len(y) == 6
    both = torch.stack([x, x.flip(0)]), torch.stack([y, y.flip(0)])
    learner = Reptile(
        network, inner_lr=0.1, inner_steps=5, inner_batch=batch, inner_optimizer=SGD(0.9)
    )
    phi = learner.adapt(*both, 3)["network"]
    size = min(batch or 6, 6)
    stream = list(range(6)) * size
    reference = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for step in range(5):
        rows = stream[step * size :][:size]
        reference.zero_grad()
        F.cross_entropy(network(x[rows]), y[rows]).backward()
        reference.step()
    for name, p in network.named_parameters():
        assert torch.allclose(phi[name][0], p, rtol=1e-12, atol=0)


def test_frozen_parameters_and_buffers_are_not_adapted() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network[0].bias.requires_grad_(False)
    phi = MAML(network).start(3)
    assert sorted(phi) == ["0.weight", "1.bias", "1.weight"]
    assert all(len(p) == 3 for p in phi.values())
    whole = MAML(network).whole_state(phi, 0)
    assert sorted(whole.keys() - phi.keys()) == [
        "0.bias",
        "1.num_batches_tracked",
        "1.running_mean",
        "1.running_var",
    ]
    everything = Scratch(network).start(3)
    assert sorted(everything) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    with pytest.raises(ValueError, match="no parameter to adapt"):
        MAML(nn.Linear(2, 2).requires_grad_(False)).start(1)


@pytest.mark.parametrize(("steps", "rows"), [(None, 1), (1, 1), (3, 3)])
@pytest.mark.parametrize("per", ["parameter", "tensor"])
def test_learned_rates(per: str, steps: int | None, rows: int) -> None:
    parameters = dict(MLP(4, [3], 2).double().named_parameters())
    rates = LearnedRates(parameters, 0.3, per=per, steps=steps)
    count = sum(p.numel() for p in parameters.values()) if per == "parameter" else len(parameters)
    assert sum(r.numel() for r in rates.parameters()) == rows * count
    with torch.no_grad():
        for i, r in enumerate(rates.parameters()):
            assert r.dtype == torch.float64
            assert bool((r == 0.3).all())
            r.add_(i).add_(torch.arange(rows).view(-1, *[1] * (r.dim() - 1)) * 100)
    for i, (name, p) in enumerate(parameters.items()):
        for step in range(5):
            rate = rates(step, name)
            assert rate.shape == (p.shape if per == "parameter" else ())
            assert torch.equal(rate, torch.full_like(rate, 0.3 + i + 100 * min(step, rows - 1)))


def test_bad_arguments() -> None:
    for rate in (0, 0.0, -0.1):
        with pytest.raises(ValueError, match=f"inner_lr is {rate}; expected a positive number"):
            check_inner(rate, 1)
    with pytest.raises(ValueError, match="inner_steps is -1; expected 0 or more"):
        check_inner(0.1, -1)
    check_inner(1e-9, 0)
    with pytest.raises(ValueError, match="inner_optimizer is 'SGD'; expected an InnerOptimizer"):
        check_inner(0.1, 1, "SGD")
    with pytest.raises(ValueError, match="inner_lr is nan"):
        check_inner(math.nan, 1)
    with pytest.raises(ValueError, match="momentum is 1"):
        SGD(1)
    with pytest.raises(ValueError, match="expected betas"):
        Adam(beta2=1.0)
    with pytest.raises(ValueError, match="per is 'layer'; expected 'parameter' or 'tensor'"):
        LearnedRates({}, 0.1, per="layer")


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(8), nn.LayerNorm(8)])
def test_threads_share_a_learner(layer: nn.Module) -> None:
    """Whose network lends its modules to the weights of one task at a time."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), layer, nn.Tanh(), nn.Linear(8, 3))
    learner = MAML(network, inner_steps=2, inner_lr=0.5).eval()
    before = [(p, p.clone()) for p in network.parameters()]
    y = torch.arange(6).remainder(3).expand(2, 6)

    def answer(x: Tensor) -> Tensor:
        with torch.no_grad():
            return learner.predict(learner.adapt(x, y, 3), x)

    tasks = torch.randn(8, 2, 6, 6)
    alone = [answer(x) for x in tasks]
    with ThreadPoolExecutor(4) as threads:
        together = [*threads.map(answer, tasks.repeat(4, 1, 1, 1))]
    for i, found in enumerate(together):
        torch.testing.assert_close(found, alone[i % 8])
    for p, (own, value) in zip(network.parameters(), before, strict=True):
        assert p is own
        assert p.equal(value)


def test_a_forward_of_ones_own_is_heeded() -> None:
    task = make_task((6,), way=3)
    for network in (MLP(6, [8], 3), nn.Sequential(nn.Linear(6, 3)), nn.Linear(6, 3)):
        network = network.double()
        inner = network[0] if isinstance(network, nn.Sequential) else network
        inner.forward = lambda x: 0 * x[..., :3]
        learner = MAML(network, inner_steps=0)
        assert learner.loss(task).item() == pytest.approx(math.log(3))


class _Pair(nn.Linear):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), x


def test_networks_that_return_no_tensor_or_have_no_size_are_refused_in_words() -> None:
    task = make_task((6,), way=3)
    pair = _Pair(6, 3).double()
    with pytest.raises(ValueError, match="the network returned a tuple; expected one tensor"):
        MAML(pair, inner_lr=0.1).loss(task)
    with pytest.raises(ValueError, match="the encoder returned a tuple; expected one tensor"):
        ProtoNet(pair).loss(task)
    narrow = nn.Sequential(nn.Linear(6, 2), nn.Identity()).double()
    with pytest.raises(ValueError, match="the network has 2 outputs, and the task 3 classes"):
        MAML(narrow, inner_lr=0.1).loss(task)
    lazy = nn.Sequential(nn.LazyLinear(3)).double()
    with pytest.raises(ValueError, match=r"0\.weight has no size yet: let the network see one"):
        MAML(lazy, inner_lr=0.1).loss(task)
