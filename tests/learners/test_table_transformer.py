"""The transformer over tables: what its two attentions promise."""

import math

import pytest
import torch
from torch import Tensor

from quickstudy.data import TableSampler
from quickstudy.learners import TableTransformer
from quickstudy.learners.table_transformer import MOST_COLUMNS, _Attention, _codes


def small(**settings: int) -> TableTransformer:
    torch.manual_seed(0)
    learner = TableTransformer(**{"width": 16, "layers": 2, "row_layers": 2, **settings}).double()
    with torch.no_grad():
        for p in learner.parameters():
            p += 0.2 * torch.randn_like(p)
    return learner.eval()


def table(rows: int = 12, columns: int = 4, ways: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(1, rows + 5, columns, generator=rng, dtype=torch.float64)
    return x[:, :rows], torch.arange(rows)[None] % ways, x[:, rows:]


def answer(learner: TableTransformer, x: Tensor, y: Tensor, query: Tensor, ways: int = 3) -> Tensor:
    with torch.no_grad():
        return learner.predict(learner.adapt(x, y, ways), query)


def test_the_order_of_columns_rows_and_classes_does_not_matter() -> None:
    learner, (x, y, query) = small(), table()
    x[0, 3, 1] = torch.nan
    wanted = answer(learner, x, y, query)
    columns, rows, names = (torch.randperm(n) for n in (4, 12, 3))
    got = answer(learner, x[:, rows][..., columns], names[y[:, rows]], query[..., columns])
    assert wanted.std() > 0.01
    torch.testing.assert_close(got[..., names], wanted)


def test_each_column_has_a_mark_of_its_own_wherever_it_stands() -> None:
    learner, (x, y, query) = small(), table(columns=7)
    order = torch.randperm(7)
    places = learner.adapt(x, y, 3)["places"]
    assert sorted(places[0].tolist()) == list(range(7))
    assert torch.equal(learner.adapt(x[..., order], y, 3)["places"], places[:, order])
    alike = torch.cat([x[..., :1], x[..., :1].roll(1, 1)], -1)  # two columns of the same values
    swapped = answer(learner, alike, y, query[..., :2].flip(-1))
    assert not torch.allclose(answer(learner, alike, y, query[..., :2]), swapped)


def test_the_unit_of_a_column_does_not_matter_and_a_constant_one_says_nothing_of_rows() -> None:
    learner, (x, y, query) = small(), table()
    unit, zero = torch.tensor([1e-9, 1.0, 1e9, 3.0]), torch.tensor([5.0, -1.0, 0.0, 100.0])
    wanted = answer(learner, x, y, query)
    got = answer(learner, x * unit + zero, y, query * unit + zero)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
    same = torch.full_like(x[..., :1], 7.0)
    with_one = answer(learner, torch.cat([x, same], -1), y, torch.cat([query, same[:, :5]], -1))
    assert torch.isfinite(with_one).all()


def test_attention_is_that_of_numpy() -> None:
    attention = _Attention(8, 2).double()
    torch.nn.init.normal_(attention.out.weight)
    q, kv = (torch.randn(1, 1, n, 8, dtype=torch.float64) for n in (3, 5))
    with torch.no_grad():
        key, value = attention.keys_values(kv)
        got = attention(q, key, value)[0, 0]
        asked = attention.query(attention.norm(q))[0, 0]
        heads = []
        for part in (slice(0, 4), slice(4, 8)):
            scores = asked[:, part] @ key[0, 0, :, part].T / math.sqrt(4)
            weight = scores.exp() / scores.exp().sum(1, keepdim=True)
            heads.append(weight @ value[0, 0, :, part])
        torch.testing.assert_close(got, attention.out(torch.cat(heads, 1)))


def test_a_missing_value_is_told_from_any_other() -> None:
    learner, (x, y, query) = small(), table()
    hole = query.clone()
    hole[..., 0] = torch.nan
    mean = query.clone()
    mean[..., 0] = x[..., 0].mean()
    with_hole, with_mean = (answer(learner, x, y, q) for q in (hole, mean))
    assert torch.isfinite(with_hole).all()
    assert (with_hole - with_mean).abs().max() > 1e-3
    everything = torch.full_like(query, torch.nan)
    assert torch.isfinite(answer(learner, x, y, everything)).all()
    assert torch.isfinite(answer(learner, torch.full_like(x, torch.nan), y, query)).all()


def test_infinite_values_are_refused() -> None:
    x, y, _ = table()
    x[0, 2, 1] = torch.inf
    with pytest.raises(ValueError, match=r"support_x has a NaN or infinite value.*\[0, 2, 1\]"):
        small().adapt(x, y, 3)


def test_of_many_columns_those_are_read_in_which_classes_differ() -> None:
    learner, (x, y, query) = small(), table(rows=30, columns=MOST_COLUMNS + 40)
    told = torch.tensor([5, 77, 139])
    x[..., told] += 4 * y.unsqueeze(-1)
    phi = learner.adapt(x, y, 3)
    read = phi["columns"][0]
    assert read.shape == (MOST_COLUMNS,)
    assert {*told.tolist()} <= {*read.tolist()}
    short = answer(learner, x[..., read], y, query[..., read])
    torch.testing.assert_close(answer(learner, x, y, query), short)
    targets = x[..., 77:78].clone()
    assert 77 in learner.adapt(x, targets, None)["columns"][0]


def test_more_classes_than_symbols_are_told_apart_by_codes() -> None:
    learner, (x, y, query) = small(codes=3), table(rows=40, ways=20)
    codes = _codes(20, 3, x.device)
    assert learner.adapt(x, y, 20)["ends"].shape[1] == 12
    assert codes.shape == (4 * 3, 20)
    assert codes.max() == 2
    apart = (codes[:, :, None] != codes[:, None, :]).sum(0) + 20 * torch.eye(20)
    assert apart.min() >= 3  # any two classes, in so many codes
    probabilities = answer(learner, x, y, query, 20).softmax(-1)
    assert probabilities.shape == (1, 5, 20)


def test_a_target_has_the_unit_it_came_with() -> None:
    learner, (x, _, query) = small(), table()
    y = x[..., :2].clone()
    with torch.no_grad():
        plain = learner.predict(learner.adapt(x, y, None), query)
        scaled = learner.predict(learner.adapt(x, 1000 * y + 5, None), query)
        alone = learner.predict(learner.adapt(x, y[..., 1:], None), query)
        constant = learner.predict(learner.adapt(x, torch.full_like(y, 3.0), None), query)
    torch.testing.assert_close(scaled, 1000 * plain + 5, rtol=1e-3, atol=1e-2)
    with torch.no_grad():
        for unit in (1e-12, 1e300):
            other = learner.predict(learner.adapt(x, unit * y, None), query) / unit
            torch.testing.assert_close(other, plain, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(plain[..., 1:], alone)
    torch.testing.assert_close(constant, torch.full_like(constant, 3.0), rtol=0, atol=1e-4)


def test_it_learns_from_invented_tables() -> None:
    torch.manual_seed(0)
    learner = TableTransformer(width=32, layers=1, row_layers=1)
    tasks = TableSampler(way=2, shot=10, features=(1, 3), query=16, tasks=16)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        learner.loss(tasks[step]).backward()
        optimizer.step()
    with torch.no_grad():
        losses = [learner.loss(tasks[step]).item() for step in range(1000, 1010)]
    assert sum(losses) / 10 < math.log(2) - 0.03  # of guessing


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="width is 10; expected a multiple of heads, 3"):
        TableTransformer(width=10, heads=3)
    with pytest.raises(ValueError, match="codes 2"):
        TableTransformer(codes=1)
