"""Every way a task can be wrong has its own words."""

from typing import Any

import pytest
import torch

from quickstudy.task import Task

GOOD: dict[str, Any] = {
    "support_x": torch.rand(2, 4, 3),
    "support_y": torch.tensor([[0, 1, 1, 1], [1, 0, 0, 1]]),
    "query_x": torch.rand(2, 5, 3),
    "query_y": torch.zeros(2, 5, dtype=torch.int64),
    "n_way": 2,
}


def nan_at(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[1, 2, 0] = torch.nan
    return x


def test_good_task() -> None:
    task = Task(**GOOD)
    assert len(task) == 2
    assert repr(task) == "Task(T=2, N=2, S=4, Q=5, x=[3])"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"support_x": [[1.0]]}, "support_x must be a torch tensor, not list"),
        ({"support_x": torch.zeros(2, 4, 3, dtype=torch.uint8)}, "support_x has dtype torch.uint8"),
        ({"support_x": torch.rand(2, 4)}, r"support_x has shape \[2, 4\]"),
        ({"support_x": nan_at(GOOD["support_x"])}, r"support_x has a NaN.*\[1, 2, 0\]"),
        ({"query_x": nan_at(GOOD["query_x"])}, r"query_x has a NaN.*\[1, 2, 0\]"),
        ({"query_x": torch.rand(2, 5, 4)}, "must agree in the number of tasks"),
        ({"query_x": torch.rand(3, 5, 3)}, "must agree in the number of tasks"),
        ({"query_x": torch.rand(2, 0, 3)}, "query_x of shape .* is empty"),
        ({"support_y": ["a", "b"]}, "support_y must be a torch tensor, not list"),
        ({"support_y": GOOD["support_y"].float()}, "expects int64 labels"),
        (
            {"support_y": GOOD["support_y"][:, :3]},
            r"support_y has shape \[2, 3\]; expected \[2, 4\]",
        ),
        ({"support_y": GOOD["support_y"] + 1}, "labels from 1 to 2; expected 0..1"),
        ({"query_y": GOOD["query_y"] - 1}, "query_y has labels from -1 to -1"),
        ({"support_y": GOOD["support_y"] * 0}, "task 0 has no example of class 1"),
        ({"n_way": 1, "support_y": GOOD["support_y"] * 0}, "at least 2 classes"),
        ({"n_way": None}, "expects float targets"),
        ({"classes": torch.zeros(2, 3)}, r"classes has shape \[2, 3\]; expected \[2, 2\]"),
    ],
)
def test_bad_task(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Task(**{**GOOD, **change})


def test_classes_stay_with_their_tasks() -> None:
    task = Task(**GOOD, classes=torch.tensor([[7, 3], [5, 9]]))
    for moved in (task[1:2], task[1:].to(torch.float64), task.to("cpu")[1:2]):
        assert moved.classes is not None
        assert moved.classes.tolist() == [[5, 9]]


def test_regression_targets_must_agree() -> None:
    x = torch.rand(1, 4, 2)
    with pytest.raises(ValueError, match=r"query_y has targets of shape \[2\]"):
        Task(x, torch.rand(1, 4, 1), x, torch.rand(1, 4, 2), None)
    with pytest.raises(ValueError, match="support_y has a NaN"):
        Task(x, torch.full((1, 4, 1), torch.nan), x, torch.rand(1, 4, 1), None)


def test_to_keeps_labels_integer() -> None:
    task = Task(**GOOD).to(torch.float64)
    assert task.support_x.dtype == task.query_x.dtype == torch.float64
    assert task.support_y.dtype == task.query_y.dtype == torch.int64


def test_slicing() -> None:
    task = Task(**GOOD)
    second = task[1:2]
    assert len(second) == 1
    assert torch.equal(second.support_x[0], task.support_x[1])
    assert torch.equal(second.query_y[0], task.query_y[1])
    with pytest.raises(IndexError):
        task[5:6]
    with pytest.raises(TypeError, match=r"task\[0:1\]"):
        task[0]  # type: ignore[index]
