"""Kernel machines on tables: exact without a row, and blind to what must not matter."""

import math

import pytest
import torch
from torch import Tensor

import quickstudy
from quickstudy.data import TableSampler
from quickstudy.learners import TableKernels
from quickstudy.learners.tables import _PENALTY, _TEMPERATURE, _log_density, _ridge


def shaken() -> TableKernels:
    torch.manual_seed(0)
    learner = TableKernels().double()
    with torch.no_grad():
        for p in learner.parameters():
            p += 0.3 * torch.randn_like(p)
    return learner.eval()


def table(rows: int = 12, columns: int = 4, ways: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(1, rows + 5, columns, generator=rng, dtype=torch.float64)
    return x[:, :rows], torch.arange(rows)[None] % ways, x[:, rows:]


def answer(learner: TableKernels, x: Tensor, y: Tensor, query: Tensor, ways: int = 3) -> Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(x, y, ways), query)


def test_the_order_of_columns_rows_and_classes_does_not_matter() -> None:
    learner, (x, y, query) = shaken(), table()
    x[0, 3, 1] = torch.nan
    wanted = answer(learner, x, y, query)
    columns, rows, names = (torch.randperm(n) for n in (4, 12, 3))
    got = answer(learner, x[:, rows][..., columns], names[y[:, rows]], query[..., columns])
    assert wanted.std() > 0.1
    torch.testing.assert_close(got[..., names], wanted)


def test_the_unit_of_a_column_and_of_a_target_does_not_matter() -> None:
    learner, (x, y, query) = shaken(), table()
    unit, zero = torch.tensor([1e-6, 1.0, 1e6, 3.0]), torch.tensor([5.0, -1.0, 0.0, 100.0])
    wanted = answer(learner, x, y, query)
    got = answer(learner, x * unit + zero, y, query * unit + zero)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    y = x[..., :2].clone()
    with torch.no_grad():
        plain = learner.predict(learner.adapt(x, y, None), query)
        scaled = learner.predict(learner.adapt(x, 1000 * y + 5, None), query)
        alone = learner.predict(learner.adapt(x, y[..., 1:], None), query)
        constant = learner.predict(learner.adapt(x, torch.full_like(y, 3.0), None), query)
    torch.testing.assert_close(scaled, 1000 * plain + 5, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(plain[..., 1:], alone)
    torch.testing.assert_close(constant, torch.full_like(constant, 3.0), rtol=0, atol=1e-4)


def test_what_a_ridge_says_of_a_row_without_it_is_exact() -> None:
    learner, (x, y, _) = shaken(), table()
    Y = torch.nn.functional.one_hot(y, 3).double() - 1 / 3
    with torch.no_grad():
        phi = learner.adapt(x, y, 3)
        gram = learner._gram(phi["cells"], phi)
        penalty = torch.rand(gram.shape[:3]).double() + 0.05
        _, missed = _ridge(gram, penalty, Y)
        for i in range(12):
            rest = [j for j in range(12) if j != i]
            weights, _ = _ridge(gram[..., rest, :][..., rest], penalty[..., rest], Y[:, rest])
            said = gram[..., i, rest].unsqueeze(2) @ weights
            torch.testing.assert_close(Y[:, None, i] - said[:, :, 0], missed[:, :, i])


def test_what_naive_bayes_says_of_a_row_without_it_is_exact() -> None:
    """But for the variance that all classes share, which the row stays in."""
    learner, (x, y, _) = shaken(), table()
    Y = torch.nn.functional.one_hot(y, 3).double()
    with torch.no_grad():
        phi = learner.adapt(x, y, 3)
        values = phi["cells"][:, 0]
        said = learner._densities(values, Y, phi)
        pool = _pool(values, Y)
        for i in range(12):
            without = Y.clone()
            without[0, i] = 0
            own = int(y[0, i])
            kept = values[0, without[0, :, own] > 0]
            mean = kept.sum(0) / (len(kept) + 0.5)
            for k, drawn in enumerate(phi["settings"][0, 1, -2:].exp()):
                square = (kept - kept.mean(0)).square().sum(0)
                variance = (square + drawn * pool) / (len(kept) - 1 + drawn)
                variance = variance * (1 + 1 / (len(kept) + 0.5))
                far = (values[0, i] - mean) ** 2 / variance + variance.log()
                wanted = -0.5 * far.sum() / 4**0.25
                torch.testing.assert_close(said[0, k, i, own], wanted)
        every = _log_density(values, phi)
    others = Y[:, None].expand_as(every) == 0
    torch.testing.assert_close(said[others], every[others])


def _pool(values: Tensor, Y: Tensor) -> Tensor:
    within = [
        (v - v.mean(0)).square().sum(0) for v in (values[0, Y[0, :, n] > 0] for n in range(3))
    ]
    return torch.stack(within).sum(0) / (len(values[0]) - 3)


def test_the_machine_that_is_right_is_trusted() -> None:
    """Where classes are two rings, the linear ones are wrong."""
    rng = torch.Generator().manual_seed(0)
    angle, y = 6.283 * torch.rand(1, 60, generator=rng), torch.arange(60)[None] % 2
    x = torch.stack([angle.cos(), angle.sin()], -1) * (1 + 2 * y.unsqueeze(-1))
    learner = TableKernels()
    phi = learner.adapt(x[:, :40], y[:, :40], 2)
    right = learner.predict(phi, x[:, 40:]).argmax(-1) == y[:, 40:]
    first = sum(learner.kinds[:2])
    assert right.float().mean() > 0.9
    assert phi["trust"][0, first : first + learner.kinds[2]].exp().sum() < 1e-3


def test_a_class_of_one_row_is_answered_beside_one_of_ten() -> None:
    learner, rng = quickstudy.load("tables"), torch.Generator().manual_seed(0)
    y = torch.tensor([0] * 10 + [1, 2])[None]
    truth = torch.arange(3).repeat(30)[None]
    centres = 2.5 * torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    right = torch.zeros(3)
    for _ in range(20):
        x, query = (centres[z] + torch.randn(*z.shape, 2, generator=rng) for z in (y, truth))
        answers = learner.predict(learner.adapt(x, y, 3), query).argmax(-1)
        right += torch.stack([(answers == n)[truth == n].float().mean() for n in range(3)]) / 20
    assert right.min() > 0.5, right


def test_it_is_near_the_best_rule_there_can_be_where_that_is_known() -> None:
    """Two normal classes of one covariance: the best rule is linear and knows means and shape."""
    learner, rng = quickstudy.load("tables"), torch.Generator().manual_seed(0)
    ours, best = 0.0, 0.0
    for _ in range(30):
        mix = torch.randn(4, 4, generator=rng) + torch.eye(4)
        apart = torch.randn(4, generator=rng) @ mix
        y = torch.arange(300)[None] % 2
        x = torch.randn(1, 300, 4, generator=rng) @ mix + y.unsqueeze(-1) * apart
        rule = (x - apart / 2) @ torch.linalg.solve(mix.T @ mix, apart) > 0
        answers = learner.predict(learner.adapt(x[:, :100], y[:, :100], 2), x[:, 100:]).argmax(-1)
        ours += (answers == y[:, 100:]).float().mean().item() / 30
        best += (rule == y)[:, 100:].float().mean().item() / 30
    assert best - 0.05 < ours < best


def test_it_learns_what_to_trust_from_invented_tables() -> None:
    learner = TableKernels()
    with torch.no_grad():
        learner.base[0, _TEMPERATURE] -= 2
        learner.base[1, _PENALTY] += 2
    tasks = TableSampler(way=(2, 4), shot=(2, 8), features=(1, 8), query=32, tasks=8, numbers=0.2)
    new = [TableSampler(way=3, shot=2, features=(1, 8), tasks=8, seed=9)[i] for i in range(10)]
    numbers = [TableSampler(shot=9, numbers=1, tasks=8, seed=9)[i] for i in range(10)]

    def losses() -> tuple[float, float]:
        with torch.no_grad():
            return tuple(sum(map(learner.loss, part)).item() / 10 for part in (new, numbers))  # type: ignore[return-value, arg-type, union-attr]

    before = losses()
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-2)
    for step in range(60):
        optimizer.zero_grad()
        learner.loss(tasks[step]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = losses()
    assert after[0] < before[0] - 0.02
    assert after[0] < math.log(3) - 0.05
    assert after[1] < before[1] - 0.005


@pytest.mark.parametrize("columns", [1, 3000])
def test_any_number_of_columns_and_classes(columns: int) -> None:
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(60)[None] % 15
    x = torch.randn(1, 60, columns, generator=rng) * 0.2 + y.unsqueeze(-1)
    learner = TableKernels()
    got = learner.predict(learner.adapt(x, y, 15), x).argmax(-1)
    assert (got == y).float().mean() > (0.4 if columns == 1 else 0.95)


def test_it_has_as_many_machines_and_numbers_as_is_said() -> None:
    learner = TableKernels()
    assert learner.kinds == [8, 4, 3, 2]
    assert sum(p.numel() for p in learner.parameters()) == 730


def test_many_rows_of_few_values_are_learned_exactly() -> None:
    """Rows that come again make a matrix that single precision cannot invert."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(0, 5, (1, 500, 2), generator=rng).double()
    query = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0))[None].double()

    def wanted(x: Tensor) -> Tensor:
        return x[..., :1] + 2 * x[..., 1:]

    learner = quickstudy.load("tables")
    for unit, zero in ((1.0, 0.0), (1e-12, 0.0), (1.0, 1e12), (1e300, 0.0)):
        y = wanted(x) * unit + zero
        got = (learner.predict(learner.adapt(x, y, None), query) - zero) / unit
        error = (got - wanted(query)).square().mean().sqrt()
        assert error < 0.01, (unit, zero, error)


def test_one_number_out_of_all_proportion_takes_no_other_away() -> None:
    learner, (x, y, query) = shaken(), table(rows=30)
    x[0, 7, 1] = 4.0
    ranks = learner.adapt(x, y, 3)["cells"][0, 1, :, 1]
    wanted = answer(learner, x, y, query)
    for large in (1e9, 1e300):
        x[0, 7, 1] = large
        torch.testing.assert_close(learner.adapt(x, y, 3)["cells"][0, 1, :, 1], ranks)
        assert (answer(learner, x, y, query).softmax(-1) - wanted.softmax(-1)).abs().max() < 0.05


@pytest.mark.parametrize("number", [7.0, torch.nan])
def test_columns_in_which_all_rows_are_alike_change_nothing(number: float) -> None:
    learner, (x, y, query) = shaken(), table()
    more = torch.full((1, 12, 50), number, dtype=torch.float64)
    got = answer(learner, torch.cat([x, more], 2), y, torch.cat([query, 9 * more[:, :5]], 2))
    torch.testing.assert_close(got, answer(learner, x, y, query))


def test_what_is_far_from_all_rows_is_not_familiar() -> None:
    learner, (x, y, query) = shaken(), table()
    near, far = answer(learner, x, y, query), answer(learner, x, y, 20 * query.sign())
    assert far.max() < near.max(-1).values.min()
    p = near.softmax(-1)
    assert (p.max(-1).values.log() > near.max(-1).values).all(), "less than the probability says"


def test_evidence_is_of_classes_of_which_a_row_can_be_left_out() -> None:
    learner, (x, _, _) = shaken(), table()
    alone = torch.tensor([[0] * 11 + [1]])
    with torch.no_grad():
        phi = learner.adapt(x, alone, 2)
        prior = phi["settings"][:, 3].log_softmax(1)
        torch.testing.assert_close(phi["trust"][..., 0], prior)
        three = torch.tensor([[0] * 6 + [1] * 5 + [2]])
        phi = learner.adapt(x, three, 3)
        assert not torch.allclose(phi["trust"][..., 0], phi["settings"][:, 3].log_softmax(1))


def test_more_rows_than_can_be_compared_are_refused() -> None:
    y = torch.arange(3001)[None] % 2
    with pytest.raises(ValueError, match=r"takes at most 3,000; here are 3,001: give it a part"):
        TableKernels().adapt(torch.zeros(1, 3001, 1), y, 2)
