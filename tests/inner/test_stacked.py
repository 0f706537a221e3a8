"""A stack of weights gives what each task's own network gives, up to the second derivative."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.execution import executing
from quickstudy.inner.stacked import can_stack, run_stacked
from quickstudy.learners import MAML
from quickstudy.nn import MLP, BatchNorm, Conv4, statistics_from
from quickstudy.testing import make_task

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "pool": (lambda: nn.Sequential(Conv4(2, 19, image_size=16), nn.Linear(19, 4)), (2, 16, 16)),
    "stride": (lambda: Conv4(1, 10, image_size=12, downsample="stride"), (1, 12, 12)),
    "flatten": (lambda: Conv4(1, 4, image_size=18, downsample="stride-flatten"), (1, 18, 18)),
    "mlp": (lambda: MLP(6, [5, 4], 2), (2, 3)),
    "vectors": (
        lambda: nn.Sequential(nn.Linear(5, 4, bias=False), BatchNorm(4), nn.Tanh()),
        (5,),
    ),
    "own": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(0, 1)),
            nn.GELU(),
            nn.Conv2d(3, 2, 1, bias=False),
            BatchNorm(2, eps=0.1),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
        ),
        (2, 7, 6),
    ),
}
SOURCES = ("batch", "record", "stored")


def stacked_state(network: nn.Module, tasks: int) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    state = {}
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        noise = torch.rand(tasks, *value.shape, generator=rng, dtype=torch.float64)
        state[name] = (value.detach() + 0.3 * noise).requires_grad_("running" not in name)
    return state


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("small", [0, 1 << 20])
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_one_network_after_the_other(
    name: str, source: str, tasks: int, small: int, constant: bool
) -> None:
    """Outputs, statistics, first derivatives, and those of the first derivatives.

    Convolutions by the library or as products of matrices, and of images that are constants.
    """
    with executing(products_up_to=small):
        compare_with_a_loop(name, source, tasks, constant)


def compare_with_a_loop(name: str, source: str, tasks: int, constant: bool) -> None:
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    network = build().double()
    state = stacked_state(network, tasks)
    x = torch.randn(tasks, 4, *shape, dtype=torch.float64, requires_grad=not constant)
    assert can_stack(network)
    y, recorded = run_stacked(network, state, x, source)
    outputs = []
    for t in range(tasks):
        own = {key: value[t] for key, value in state.items()}
        with statistics_from(network, source):
            outputs.append(functional_call(network, own, (x[t],)))
        for key, value in recorded.items():
            torch.testing.assert_close(value[t], own[key], rtol=1e-10, atol=1e-12)
    batch_norms = sum(isinstance(layer, BatchNorm) for layer in network.modules())
    assert len(recorded) == (2 * batch_norms if source == "record" else 0)
    expected = torch.stack(outputs)
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)

    wanted = [value for value in (x, *state.values()) if value.requires_grad]
    found, scale = [], expected.detach().abs().max()
    for output in (y, expected):
        rng = torch.Generator().manual_seed(2)
        first = torch.autograd.grad(
            (output / scale).sin().sum(), wanted, create_graph=True, materialize_grads=True
        )
        mixed = [(g * torch.randn(g.shape, generator=rng, dtype=g.dtype)).sum() for g in first]
        second = torch.autograd.grad(sum(mixed), wanted, allow_unused=True, materialize_grads=True)
        found.append([*first, *second])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)
    assert any(bool(g.abs().max() > 1e-3) for g in found[1][len(wanted) :])


@pytest.mark.parametrize(
    "change",
    [
        lambda: nn.Sequential(nn.Linear(2, 2), nn.Dropout()),
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3, groups=2)),
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3, dilation=2)),
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding="same")),
        lambda: nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")),
        lambda: nn.Sequential(nn.Flatten(2)),
        lambda: nn.Sequential(nn.BatchNorm2d(2)),
        lambda: nn.Sequential(nn.LSTM(2, 2)),
    ],
)
def test_other_layers_are_left_to_vmap(change: Callable[[], nn.Module]) -> None:
    assert not can_stack(change())


def test_hooks_and_subclasses_are_left_to_vmap() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    assert not can_stack(Doubled(2, 2))
    hooked = nn.Sequential(nn.Linear(2, 2))
    assert can_stack(hooked)
    hooked[0].register_forward_hook(lambda layer, x, y: 2 * y)
    assert not can_stack(hooked)


def test_errors_are_those_of_the_layers() -> None:
    images = torch.randn(2, 3, 1, 20, 20)
    network = Conv4(1, 4, image_size=16)
    state = {k: v.expand(2, *v.shape) for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"images of shape \[1, 16, 16\] but got \[1, 20, 20\]"):
        run_stacked(network, state, images, "batch")
    mlp = MLP(4, [3], 2)
    state = {k: v.expand(2, *v.shape) for k, v in mlp.state_dict().items()}
    with pytest.raises(ValueError, match="4 input features but got 5"):
        run_stacked(mlp, state, torch.randn(2, 3, 5), "batch")
    norm = nn.Sequential(BatchNorm(3))
    state = {k: v.expand(2, *v.shape) for k, v in norm.state_dict().items()}
    with pytest.raises(ValueError, match="several examples"):
        run_stacked(norm, state, torch.randn(2, 1, 3), "batch")


@pytest.mark.parametrize(("bias", "source"), [*itertools.product([True, False], SOURCES)])
def test_a_bias_before_batch_norm_keeps_its_place(bias: bool, source: str) -> None:
    """It cancels out in batch statistics, and counts in those that are recorded."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3, bias=bias), BatchNorm(2), nn.ReLU()).double()
    state = stacked_state(network, 2)
    y, recorded = run_stacked(network, state, torch.randn(2, 3, 1, 6, 6).double(), source)
    gradients = torch.autograd.grad(
        y.square().sum(), [v for v in state.values() if v.requires_grad]
    )
    assert all(g.shape[0] == 2 for g in gradients)
    if bias:
        silent = source in ("batch", "record")
        assert bool(gradients[1].abs().max() < 1e-10) == silent
    if source == "record" and bias:
        moved = {**state, "0.bias": state["0.bias"] + 5}
        _, again = run_stacked(network, moved, torch.randn(2, 3, 1, 6, 6).double(), source)
        assert bool((again["1.running_mean"] > recorded["1.running_mean"] + 2).all())


def shared_layers(kind: str) -> nn.Module:
    """Two layers of one weight: one module twice, two modules of one tensor; or one ReLU twice."""
    first, second, last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
    act = nn.ReLU() if kind == "activation" else nn.Tanh()
    if kind == "module":
        second = first
    elif kind == "tensor":
        second.weight, second.bias = first.weight, first.bias
    return nn.Sequential(first, act, second, act, last).double()


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("kind", ["activation", "module", "tensor"])
def test_what_stands_in_two_places_is_used_in_both(kind: str, stacked: bool) -> None:
    torch.manual_seed(0)
    network = shared_layers(kind)
    assert can_stack(network) == (kind == "activation"), "a weight of two places is left to vmap"
    act = torch.relu if kind == "activation" else torch.tanh
    theta = list(network.parameters())

    def forward(phi: list[Tensor], x: Tensor) -> Tensor:
        w, b, *rest = phi
        w2, b2 = rest[:2] if kind == "activation" else (w, b)
        return F.linear(act(F.linear(act(F.linear(x, w, b)), w2, b2)), *rest[-2:])

    task, total = make_task((5,), 3, tasks=3), torch.zeros(())
    for x, y, query_x, query_y in zip(*task.tensors(), strict=True):
        phi = theta
        for _ in range(2):
            loss = F.cross_entropy(forward(phi, x), y)
            gradients = torch.autograd.grad(loss, phi, create_graph=True)
            phi = [p - 0.1 * g for p, g in zip(phi, gradients, strict=True)]
        total = total + F.cross_entropy(forward(phi, query_x), query_y) / 3
    with executing(stacked=stacked):
        loss = MAML(network, inner_lr=0.1, inner_steps=2).loss(task)
    assert loss.item() == pytest.approx(total.item(), rel=1e-10)
    assert all(a is b for a, b in zip(network.parameters(), theta, strict=True))
    pairs = (torch.autograd.grad(value, theta) for value in (loss, total))
    for ours, theirs in zip(*pairs, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_a_first_layer_of_vectors_on_rows_of_vectors_is_left_to_vmap() -> None:
    network = nn.Sequential(nn.Linear(5, 2), nn.Flatten(), nn.Linear(8, 3)).double()
    task = make_task((4, 5), 3, tasks=2)
    learner = MAML(network, inner_steps=0)
    expected = torch.stack([network(x) for x in task.query_x])
    assert torch.allclose(learner(task), expected)
