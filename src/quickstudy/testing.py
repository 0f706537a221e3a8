"""The contract every meta-learner keeps, as checks that anyone's learner can run::

    import pytest
    from quickstudy.testing import CHECKS, Case

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_learner(check):
        check(Case(lambda: MyLearner(...), example_shape=(1, 28, 28)))

A learner declares what it does not promise (`MetaLearner.order_invariant`,
`label_equivariant`, `class_balanced`, `transductive`, `max_way`) and what it takes beside
(`takes_missing`); a declaration that is not true fails too.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quickstudy.execution import executing
from quickstudy.learner import MetaLearner, Phi, temporarily
from quickstudy.task import Task

__all__ = ["CHECKS", "Case", "check_learner", "check_ways_of_working", "make_task"]


@dataclass(frozen=True)
class Case:
    """A learner to check.

    Args:
        build: makes the learner; must give the same weights after the same `torch.manual_seed`.
        example_shape: of one input.
        way: the largest way to try, at least 3; ``None`` for regression.
        target_size: ``d``, for regression.
    """

    build: Callable[[], MetaLearner]
    example_shape: tuple[int, ...]
    way: int | None = 3
    target_size: int = 1

    def learner(self) -> MetaLearner:
        """A fresh learner in evaluation mode and float64, past its first training steps.

        The steps fill batch norm's running averages and move parameters off zero.
        """
        torch.manual_seed(0)
        learner = self.build().double()
        parameters = [p for p in learner.parameters() if p.requires_grad]
        if parameters:
            optimizer = torch.optim.SGD(parameters, lr=0.01)
            for seed in (101, 102):
                optimizer.zero_grad()
                learner.loss(self.task(seed=seed)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return learner.eval()

    def task(self, *, tasks: int = 2, shot: int = 2, query: int = 4, seed: int = 0) -> Task:
        """A batch of learnable tasks in float64."""
        return make_task(self.example_shape, self.way, tasks, shot, query, seed, self.target_size)


def make_task(
    example_shape: tuple[int, ...],
    way: int | None,
    tasks: int = 2,
    shot: int = 2,
    query: int = 4,
    seed: int = 0,
    target_size: int = 1,
) -> Task:
    """Random tasks in float64 whose classes differ in their mean; support in random order.

    Regression (``way=None``) has ``shot`` support and ``query`` query points per task.
    """
    rng = torch.Generator().manual_seed(seed)
    if way is None:
        shape = (tasks, shot + query, *example_shape)
        x = torch.randn(shape, generator=rng, dtype=torch.float64)
        weight = torch.randn(tasks, 1, target_size, generator=rng, dtype=torch.float64)
        y = torch.sin(x.flatten(2).mean(-1, keepdim=True)) * weight
        return Task(x[:, :shot], y[:, :shot], x[:, shot:], y[:, shot:], None)
    means = torch.rand(tasks, way, *example_shape, generator=rng, dtype=torch.float64)

    def draw(n: int) -> tuple[Tensor, Tensor]:
        y = torch.arange(way).repeat(n)[torch.randperm(way * n, generator=rng)].repeat(tasks, 1)
        noise = torch.rand(tasks, way * n, *example_shape, generator=rng, dtype=torch.float64)
        return means[torch.arange(tasks).unsqueeze(1), y] + 0.3 * noise, y

    classes = torch.arange(way).repeat(tasks, 1)
    return Task(*draw(shot), *draw(query), n_way=way, classes=classes)


def check_learner(case: Case) -> None:
    """Run every check; the first that fails raises ``AssertionError``."""
    for check in CHECKS:
        check(case)


def _close(a: Tensor, b: Tensor, message: str) -> None:
    a, b = a.detach(), b.detach()
    tolerance = 1e-7 * (1 + float(b.abs().max()))
    error = float((a - b).abs().max())
    assert error <= tolerance, f"{message} (largest difference {error:.2e})"


def _tensors(phi: Any) -> Iterator[Tensor]:
    if isinstance(phi, Tensor):
        yield phi
    elif isinstance(phi, dict | tuple | list):
        for value in phi.values() if isinstance(phi, dict) else phi:
            yield from _tensors(value)
    else:
        raise AssertionError(f"phi holds a {type(phi).__name__}; only tensors may be in it")


def _adapt(learner: MetaLearner, task: Task) -> Phi:
    return learner.adapt(task.support_x, task.support_y, task.n_way)


def check_shapes(case: Case) -> None:
    """Logits are ``[T,Q,N]``, and calling the learner is ``predict(adapt(...))``."""
    learner, task = case.learner(), case.task(tasks=3)
    logits = learner(task)
    last = case.target_size if case.way is None else case.way
    assert logits.shape == (3, task.query_x.shape[1], last), f"logits are {list(logits.shape)}"
    _close(learner.predict(_adapt(learner, task), task.query_x), logits, "forward differs")
    loss = learner.loss(task)
    assert loss.shape == (), f"the loss has shape {list(loss.shape)}"
    assert bool(torch.isfinite(loss)), f"the loss is {loss}"


def check_adapt_is_pure(case: Case) -> None:
    """Adapting stores nothing on the learner and gives the same answer twice."""
    learner, task, other = case.learner(), case.task(), case.task(seed=7)
    before = copy.deepcopy(learner.state_dict())
    phi = _adapt(learner, task)
    first = learner.predict(phi, task.query_x)
    _adapt(learner, other)
    _close(learner.predict(phi, task.query_x), first, "phi changed when another task was learned")
    _close(learner(task), first, "adapting twice gives two answers")
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name]), f"adapting changed {name!r} of the learner"
    assert not learner.training, "adapting changed the learner's mode"


def check_phi(case: Case) -> None:
    """``phi`` is a nesting of tensors whose first dimension is the task, and can be sliced."""
    learner, task = case.learner(), case.task(tasks=3)
    phi = _adapt(learner, task)
    for value in _tensors(phi):
        assert value.shape[:1] == (3,), f"phi has a tensor of shape {list(value.shape)}, T=3"

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[1:2]
        if isinstance(value, dict):
            return {k: cut(v) for k, v in value.items()}
        return type(value)(cut(v) for v in value)

    alone = learner.predict(cut(phi), task.query_x[1:2])
    _close(alone, learner(task)[1:2], "one task's phi answers differently alone")


def check_support_order(case: Case) -> None:
    """The support's order does not matter, or is declared to."""
    learner, task = case.learner(), case.task(shot=3)
    order = torch.randperm(task.support_x.shape[1], generator=torch.Generator().manual_seed(1))
    phi = learner.adapt(task.support_x[:, order], task.support_y[:, order], task.n_way)
    shuffled, logits = learner.predict(phi, task.query_x), learner(task)
    if learner.order_invariant:
        _close(shuffled, logits, "the order of the support matters, though order_invariant is set")
    else:
        assert not torch.allclose(shuffled, logits), "declared sensitive to order, but is not"


def check_queries_independent(case: Case) -> None:
    """A query alone gets the answer it gets among others, or the learner says transductive."""
    learner, task = case.learner(), case.task()
    logits, phi = learner(task), _adapt(learner, task)
    queries = torch.split(task.query_x, 2 if learner.transductive else 1, dim=1)
    alone = torch.cat([learner.predict(phi, x) for x in queries], dim=1)
    if learner.transductive:
        assert not torch.allclose(alone, logits), "declared transductive, but is not"
    else:
        _close(alone, logits, "an answer depends on other queries, though not transductive")


def check_tasks_independent(case: Case) -> None:
    """A batch of tasks is answered as each task alone."""
    learner, task = case.learner(), case.task(tasks=3)
    alone = torch.cat([learner(task[t : t + 1]) for t in range(3)])
    _close(learner(task), alone, "a task is answered differently in a batch")


def check_label_equivariance(case: Case) -> None:
    """Renaming the classes renames the logits, or is declared not to."""
    if case.way is None:
        return
    learner, task = case.learner(), case.task()
    rename = torch.arange(case.way).roll(1)
    phi = learner.adapt(task.support_x, rename[task.support_y], task.n_way)
    renamed, logits = learner.predict(phi, task.query_x)[..., rename], learner(task)
    if learner.label_equivariant:
        _close(renamed, logits, "renaming the classes changes the answer")
    else:
        assert not torch.allclose(renamed, logits), "declared sensitive to label names, but is not"


def check_way_and_shot_vary(case: Case) -> None:
    """One learner takes tasks of other ways and shots, imbalanced ones included."""
    learner = case.learner()
    for shot in (1, 3):
        ways: tuple[int | None, ...] = (None,) if case.way is None else (2, case.way)
        for way in ways:
            task = make_task(case.example_shape, way, 2, shot, 2, 0, case.target_size)
            last = case.target_size if way is None else way
            assert learner(task).shape[-1] == last, f"way {way}, shot {shot} does not work"
    if case.way is not None:
        task = case.task(shot=3)
        keep = torch.cat(
            [(task.support_y[0] == 0).nonzero()[:1], (task.support_y[0] > 0).nonzero()]
        )
        phi = learner.adapt(task.support_x[:, keep[:, 0]], task.support_y[:, keep[:, 0]], case.way)
        assert bool(torch.isfinite(learner.predict(phi, task.query_x)).all()), "imbalanced support"


def check_class_balance(case: Case) -> None:
    """Ten times the same example of a class make it hardly likelier, or are declared to."""
    learner = case.learner()
    if case.way is None or learner.transductive:  # batch norm's statistics follow the large class
        return
    task = case.task(shot=1)
    first = task.support_y == 0
    x, y = task.support_x[first].unsqueeze(1), task.support_y[first].unsqueeze(1)
    phi = learner.adapt(
        torch.cat([task.support_x, *[x] * 9], dim=1),
        torch.cat([task.support_y, *[y] * 9], dim=1),
        task.n_way,
    )
    often = learner.predict(phi, task.query_x).softmax(-1)[..., 0]
    once = learner(task).softmax(-1)[..., 0]
    more = float((often - once).detach().mean())
    if learner.class_balanced:
        assert more < 0.1, f"ten times the same example make its class likelier by {more:.2f}"
    else:
        assert not torch.allclose(often, once), "declared sensitive to class sizes, but is not"


def check_gradients(case: Case) -> None:
    """The outer loss sends a gradient to every parameter."""
    learner = case.learner().train()
    for shot in (1, 2):
        learner.zero_grad()
        if any(p.requires_grad for p in learner.parameters()):
            learner.loss(case.task(shot=shot)).backward()  # type: ignore[no-untyped-call]
        for name, p in learner.named_parameters():
            if p.requires_grad:
                assert p.grad is not None, f"no gradient reaches {name!r}"
                assert bool(torch.isfinite(p.grad).all()), f"the gradient of {name!r} is not finite"


def check_ways_of_working(case: Case) -> None:
    """However a batch is worked through, and whatever is repeated, the gradients are the same.

    With eight inner steps: each has its share in the gradient of what is learned about steps
    (rates, an inner optimiser). Learners that take no inner steps work in one way only.
    """
    learner, task = case.learner(), case.task(tasks=3)
    parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    if not parameters:
        return
    steps: dict[str, Any] = {"inner_steps": 8} if hasattr(learner, "inner_steps") else {}
    ways: tuple[dict[str, Any], ...] = (
        {"graphs": None, "tasks_at_once": 3, "stacked": False},
        {"graphs": 3, "tasks_at_once": 2},
    )
    by_way: list[dict[str, Tensor | None]] = []
    with temporarily(learner, **steps):
        for way in ways:
            with executing(**way):
                gradients = torch.autograd.grad(
                    learner.loss(task), list(parameters.values()), allow_unused=True
                )
            by_way.append(dict(zip(parameters, gradients, strict=True)))
    for way, other in zip(ways[1:], by_way[1:], strict=True):
        for name, expected in by_way[0].items():
            got = other[name]
            assert (got is None) == (expected is None), f"{way}: {name!r} gets {got}"
            if expected is not None and got is not None:
                _close(got, expected, f"with {way} the gradient of {name!r} is another")


def check_no_grad(case: Case) -> None:
    """Under ``torch.no_grad`` the answer is the same; ``phi`` holds no graph, and is a copy."""
    learner, task = case.learner(), case.task()
    with torch.no_grad():
        phi = _adapt(learner, task)
        logits = learner.predict(phi, task.query_x)
    assert not any(v.requires_grad for v in _tensors(phi)), "phi keeps a graph under no_grad"
    own = {v.untyped_storage().data_ptr() for v in learner.state_dict().values()}
    shared = any(v.untyped_storage().data_ptr() in own for v in _tensors(phi))
    assert not shared, "phi is a view of the learner's own tensors: training on would change it"
    _close(logits, learner(task), "the answer differs under no_grad")


def check_state_dict(case: Case) -> None:
    """Weights loaded into a new learner give the same answers."""
    learner, task = case.learner(), case.task()
    torch.manual_seed(99)
    other = case.build().double().eval()
    other.load_state_dict(learner.state_dict())
    _close(other(task), learner(task), "a learner with the same state_dict answers differently")


def check_dtypes(case: Case) -> None:
    """float64, float32 and bfloat16 work, and agree within their precision."""
    task = case.task()
    exact = case.learner()(task).detach()
    for dtype, tolerance in ((torch.float32, 1e-3), (torch.bfloat16, 0.5)):
        logits = case.learner().to(dtype)(task.to(dtype)).detach()
        assert logits.dtype == dtype, f"{dtype} in, {logits.dtype} out"
        error = float((logits.double() - exact).abs().max() / (1 + exact.abs().max()))
        assert error < tolerance, f"{dtype} is off by {error:.2g}"


def check_meta_device(case: Case) -> None:
    """Shapes can be had without computing anything."""
    learner, task = case.learner(), case.task()
    expected = learner(task).shape
    assert learner.to("meta")(task.to("meta")).shape == expected


def check_bad_support(case: Case) -> None:
    """A class without examples and a way too large are refused, in words."""
    if case.way is None:
        return
    learner, task = case.learner(), case.task()
    _refuses(
        lambda: learner.adapt(task.support_x, task.support_y.clamp(max=1), task.n_way), "class"
    )
    _refuses(lambda: learner.adapt(task.support_x, task.support_y * 0, 1), "n_way")
    wrong = torch.inf if learner.takes_missing else torch.nan
    _refuses(lambda: learner.adapt(task.support_x * wrong, task.support_y, task.n_way), "NaN")
    if learner.max_way is not None:
        wide = make_task(case.example_shape, learner.max_way + 1)
        _refuses(lambda: _adapt(learner, wide), str(learner.max_way))


def _refuses(call: Callable[[], object], word: str) -> None:
    try:
        call()
    except ValueError as error:
        message = str(error)
    else:
        raise AssertionError(f"bad input ({word}) was accepted")
    assert word in message, f"the error does not mention {word!r}: {message}"


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_shapes,
    check_adapt_is_pure,
    check_phi,
    check_support_order,
    check_queries_independent,
    check_tasks_independent,
    check_label_equivariance,
    check_way_and_shot_vary,
    check_class_balance,
    check_gradients,
    check_ways_of_working,
    check_no_grad,
    check_state_dict,
    check_dtypes,
    check_meta_device,
    check_bad_support,
)
