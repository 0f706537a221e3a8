"""However the tasks of a batch are worked through, the result is the same."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quickstudy.execution import Execution, executing, execution
from quickstudy.inner import SGD, Adam, graphs
from quickstudy.inner.graphs import graph_bytes, graphs_at_once
from quickstudy.learner import MetaLearner
from quickstudy.learners import MAML, MetaSGD
from quickstudy.nn import MLP, Conv4
from quickstudy.task import Task
from quickstudy.testing import make_task


def conv(policy: str = "transductive") -> nn.Module:
    torch.manual_seed(0)
    backbone = Conv4(1, 8, image_size=16, downsample="stride", batch_norm=policy)
    return nn.Sequential(backbone, nn.Linear(8, 3))


def dense() -> nn.Module:
    torch.manual_seed(0)
    return MLP(1, [9, 9], 1)


def several_rates() -> MetaSGD:
    learner = MetaSGD(conv(), inner_lr=0.2, inner_steps=3)
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in learner.alpha.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=rng))
    return learner


LEARNERS: dict[str, Callable[[], MetaLearner]] = {
    "maml": lambda: MAML(conv(), inner_lr=0.3, inner_steps=3),
    "maml-inductive": lambda: MAML(conv("inductive"), inner_lr=0.3, inner_steps=2),
    "maml-momentum": lambda: MAML(
        conv(), inner_lr=0.1, inner_steps=4, inner_optimizer=SGD(momentum=0.9)
    ),
    "maml-adam": lambda: MAML(conv(), inner_lr=0.01, inner_steps=4, inner_optimizer=Adam(eps=1e-2)),
    "fomaml": lambda: MAML(conv(), inner_lr=0.3, inner_steps=3, first_order=True),
    "meta-sgd": several_rates,
    "sinusoid": lambda: MAML(dense(), inner_lr=0.05, inner_steps=3),
}
PATHS = {
    "loop": {"tasks_at_once": 1, "graphs": None},
    "vmap": {"stacked": False, "graphs": None},
    "vmap in parts": {"stacked": False, "tasks_at_once": 2, "graphs": None},
    "stacked": {"graphs": None},
    "uneven parts": {"tasks_at_once": 3, "graphs": None},
    "uneven parts, three graphs": {"tasks_at_once": 3, "graphs": 3},
    "one graph": {"graphs": 1},
    "one graph, vmap": {"stacked": False, "graphs": 1},
    "two graphs, in parts": {"tasks_at_once": 2, "graphs": 2},
}


def a_task(name: str) -> Task:
    if name == "sinusoid":
        return make_task((1,), None, 5, shot=6, query=4, seed=0).to(torch.float64)
    return make_task((1, 16, 16), 3, 5, shot=2, query=2, seed=0).to(torch.float64)


def result(learner: MetaLearner, task: Task) -> list[Tensor]:
    loss = learner.loss(task)
    gradients = torch.autograd.grad(loss, list(learner.parameters()))
    with torch.no_grad():
        return [loss.detach(), *gradients, learner(task)]


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    """Of all numbers together, relative."""
    x, y = (torch.cat([t.double().flatten() for t in r]) for r in (a, b))
    return float(torch.linalg.norm(x - y) / torch.linalg.norm(y))


@pytest.mark.parametrize("path", [p for p in PATHS if p != "loop"])
@pytest.mark.parametrize("name", LEARNERS)
def test_all_paths_give_the_same(name: str, path: str) -> None:
    """Loss, meta-gradient and answers; single precision amplifies its rounding in these tasks."""
    task, learner = a_task(name), LEARNERS[name]().double()
    with executing(**PATHS["loop"]):
        expected = result(learner, task)
    with executing(**PATHS[path]):
        assert distance(result(learner, task), expected) < 1e-10
        assert distance(result(LEARNERS[name](), task.to(torch.float32)), expected) < 1e-3


def test_the_loop_is_plain_autograd() -> None:
    """The reference itself, against a loop that uses nothing of ours."""
    learner, task = MAML(conv().double(), inner_lr=0.3, inner_steps=3), a_task("maml")
    network, total = copy.deepcopy(learner.network), torch.zeros(())
    names = [name for name, _ in network.named_parameters()]
    for x, y, query_x, query_y in zip(*task.tensors(), strict=True):
        phi = list(network.parameters())
        for _ in range(3):
            output = torch.func.functional_call(network, dict(zip(names, phi, strict=True)), (x,))
            loss = nn.functional.cross_entropy(output, y)
            gradients = torch.autograd.grad(loss, phi, create_graph=True)
            phi = [p - 0.3 * g for p, g in zip(phi, gradients, strict=True)]
        output = torch.func.functional_call(network, dict(zip(names, phi, strict=True)), (query_x,))
        total = total + nn.functional.cross_entropy(output, query_y) / len(task)
    theirs = torch.autograd.grad(total, list(network.parameters()))
    for path in ("loop", "stacked", "two graphs, in parts"):
        with executing(**PATHS[path]):
            ours = result(learner, task)
        assert ours[0].item() == pytest.approx(total.item(), rel=1e-10)
        for a, b in zip(ours[1:-1], theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


def test_steps_without_a_graph_keep_only_parameters() -> None:
    """What the backward pass needs grows by the parameters of a step, not by its activations."""
    task = a_task("maml")[:1]

    def held(steps: int, graphs: int | None) -> int:
        learner = MAML(conv().double(), inner_lr=0.1, inner_steps=steps)
        with executing(graphs=graphs):
            return graph_bytes(lambda: learner.loss(task), [])[0]

    parameters = sum(p.numel() * p.element_size() for p in conv().double().parameters())
    grown = (held(9, 1) - held(1, 1)) / 8
    assert 0 < grown < 1.5 * parameters
    assert (held(9, None) - held(1, None)) / 8 > 4 * parameters


def test_graphs_are_held_while_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them within a limit; beyond, as many as fit, or as many as take least memory."""
    task, learner = a_task("maml"), MAML(conv().double(), inner_lr=0.1, inner_steps=12)

    step = a_step(learner, task)
    graph, moved = graph_bytes(step, [task.support_x, *learner.parameters()])
    assert moved == len(task) * sum(p.numel() * p.element_size() for p in learner.parameters())

    def chosen(limit: float, steps: int = 12) -> int | None:
        monkeypatch.setattr(graphs, "MOST", int(limit))
        return graphs_at_once(learner, task.support_x, steps, step)

    least = round((12 * moved / graph) ** 0.5)
    assert chosen(12 * graph) is None
    assert chosen(12 * graph - 1) == 11
    assert chosen(0) == max(1, least)
    assert chosen(0, 1200) == round((1200 * moved / graph) ** 0.5) > max(1, least)
    assert chosen(0, steps=3) == 3, "as many as there are"
    with executing(graphs=5):
        assert chosen(0) == 5
    monkeypatch.setattr(graphs, "MOST", 24 * graph)
    assert graphs_at_once(learner, task.support_x, 12, step, parts=2) is None
    assert graphs_at_once(learner, task.support_x, 12, step, parts=4) == 6


def a_step(learner: MAML, task: Task) -> Callable[[], Any]:
    """As `GradientLearner.repeating` measures one."""
    found: list[Callable[[], Any]] = []

    def kept(learner: Any, x: Tensor, steps: int, step: Callable[[], Any], parts: int) -> None:
        found.append(step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quickstudy.inner.gradient_learner.graphs_at_once", kept)
        learner.loss(task)
    return found[0]


@pytest.mark.parametrize("network", ["conv", "dense"])
def test_what_is_measured_is_what_is_held(network: str) -> None:
    """With small maps and large ones; where parameters outweigh activations, they are the most."""
    if network == "conv":
        task, learner = a_task("maml"), MAML(conv().double(), inner_lr=0.1)
    else:
        task = make_task((64,), 3, 4, shot=1, query=1).to(torch.float64)
        learner = MAML(MLP(64, [200, 200], 3).double(), inner_lr=0.01)
    known = [*task.tensors(), *learner.parameters()]

    def held(steps: int) -> int:
        learner.inner_steps = steps
        with executing(graphs=None, tasks_at_once=5):
            return graph_bytes(lambda: learner.loss(task), known)[0]

    measured, _ = graph_bytes(a_step(learner, task), known)
    assert (held(12) - held(2)) / 10 == pytest.approx(measured, rel=0.2)


def test_what_is_measured_is_measured_again_where_it_may_have_changed() -> None:
    task = make_task((8,), 3, 2).to(torch.float32)
    network = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))
    learner = MAML(network, inner_steps=6)
    network[0].requires_grad_(False)
    learner.loss(task)
    learner.loss(task)
    (one,) = graphs._MEASURED[learner].values()
    network[0].requires_grad_(True)
    learner.loss(task)
    learner.eval().loss(task)
    found = [bytes_ for bytes_, _ in graphs._MEASURED[learner].values()]  # type: ignore[misc]
    assert len(found) == 3
    assert one
    assert one[0] == found[0] < found[1] != found[2]


def test_a_step_that_changes_buffers_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST", 0)
    torch.manual_seed(0)
    layer = torch.nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
    network = nn.Sequential(layer, nn.Tanh(), nn.Linear(8, 3)).double()
    task = make_task((8,), 3, 1)
    found = []
    for how in ({}, {"graphs": None}):
        learner = MAML(copy.deepcopy(network), inner_lr=0.1, inner_steps=5)
        with executing(**how):
            found.append(torch.autograd.grad(learner.loss(task), list(learner.parameters())))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_parts_that_are_held_together_share_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """`adapt` keeps the graphs of all parts; `loss` those of one at a time."""
    learner, task, parts = MAML(dense(), inner_steps=6), a_task("sinusoid"), []

    def noted(*_: Any) -> None:
        parts.append(_[-1])

    monkeypatch.setattr("quickstudy.inner.gradient_learner.graphs_at_once", noted)
    with executing(tasks_at_once=2):
        learner.double().adapt(task.support_x, task.support_y, None)
        learner.loss(task)
    assert parts == [3, 3, 3, 1, 1, 1]


def test_where_graphs_cannot_be_looked_into_all_are_held() -> None:
    learner, task = (
        MAML(dense(), inner_lr=0.05, inner_steps=6),
        a_task("sinusoid").to(torch.float32),
    )
    with torch.autograd.graph.disable_saved_tensors_hooks("not here"), executing(tasks_at_once=5):
        there = learner.loss(task)
    assert torch.equal(there, learner.loss(task))


def test_bfloat16_keeps_the_meta_gradient() -> None:
    """Its direction to a cosine of 0.95, its size to 10%: a loop under autocast does no better."""
    torch.manual_seed(0)
    backbone = Conv4(1, 32, downsample="stride", batch_norm="transductive")
    learner = MAML(nn.Sequential(backbone, nn.Linear(32, 5)), inner_lr=0.4)
    task = make_task((1, 28, 28), 5, 8, shot=1, query=3, seed=0).to(torch.float32)
    found = []
    for mixed in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = learner.loss(task)
        gradients = torch.autograd.grad(loss, list(learner.parameters()))
        found.append(torch.cat([g.flatten() for g in gradients]))
    assert found[1].dtype == torch.float32
    assert not torch.equal(*found)
    assert torch.cosine_similarity(*found, dim=0) > 0.95
    sizes = [torch.linalg.norm(gradient).item() for gradient in found]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_the_switch() -> None:
    assert execution() == Execution()
    with executing(tasks_at_once=1) as inside:
        assert execution() == inside == Execution(tasks_at_once=1)
        with executing(graphs=None):
            assert execution() == Execution(tasks_at_once=1, graphs=None)
        assert execution() == inside
    assert execution() == Execution()
    with pytest.raises(ValueError, match="tasks_at_once is 0; expected at least 1, or None"):
        Execution(tasks_at_once=0)
    with pytest.raises(ValueError, match="tasks_at_once is -1"):
        Execution(tasks_at_once=-1)
    with pytest.raises(ValueError, match="graphs is 0; expected at least 1, or None"):
        Execution(graphs=0)
    with pytest.raises(TypeError, match="chunks"), executing(chunks=2):
        pass
