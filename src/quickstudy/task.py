"""The unit of meta-learning: a batch of tasks, each a small training set and a test set.

Shape legend, used everywhere in quickstudy::

    T  tasks in a batch         N  ways (classes of one task)    K  shots (of each class)
    S  support examples         Q  query examples                D  size of an embedding

    support_x [T,S,...]   support_y [T,S]   query_x [T,Q,...]   query_y [T,Q]   logits [T,Q,N]

``S`` equals ``N*K`` when the support is balanced. It need not be: any order and any number of
examples per class (at least one) is a valid support. Regression tasks have ``n_way=None`` and
float targets ``[T,S,d]`` and ``[T,Q,d]``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Task", "check_query", "check_support"]


@dataclass(frozen=True, eq=False)
class Task:
    """A batch of ``T`` tasks of one shape: ``D_tr`` is the support, ``D_ts`` the query.

    Args:
        support_x: inputs the learner may adapt to, float ``[T,S,...]``.
        support_y: labels in ``0..n_way-1``, int64 ``[T,S]``; or targets, float ``[T,S,d]``.
        query_x: inputs to predict, float ``[T,Q,...]``.
        query_y: the answers, in the form of ``support_y``.
        n_way: classes of each task, or ``None`` for regression.
        classes: which class of the data set each label stands for, int64 ``[T,N]``, where that
            is known: only learners that pretrain on all classes at once need it.

    Raises:
        ValueError: a shape, dtype, label or value that no learner could use, naming the field.

    Example:
        >>> x, y = torch.rand(1, 4, 2), torch.tensor([[0, 1, 1, 1]])
        >>> task = Task(x, y, torch.rand(1, 3, 2), torch.tensor([[0, 1, 0]]), n_way=2)
        >>> task
        Task(T=1, N=2, S=4, Q=3, x=[2])
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    n_way: int | None
    classes: Tensor | None = None

    def __post_init__(self) -> None:
        check_support(self.support_x, self.support_y, self.n_way)
        check_query(self.query_x, self.support_x)
        _check_targets("query", self.query_x, self.query_y, self.n_way)
        if self.n_way is None and self.query_y.shape[2:] != self.support_y.shape[2:]:
            raise ValueError(
                f"query_y has targets of shape {list(self.query_y.shape[2:])} an example, but "
                f"support_y has {list(self.support_y.shape[2:])}"
            )
        if self.classes is not None and self.classes.shape != (len(self), self.n_way or 0):
            raise ValueError(
                f"classes has shape {list(self.classes.shape)}; expected "
                f"{[len(self), self.n_way]}, the class of each label of each task"
            )

    def __len__(self) -> int:
        return self.support_x.shape[0]

    def __getitem__(self, tasks: slice) -> "Task":
        """A batch of some of the tasks: ``task[3:4]`` is the fourth, alone."""
        if not isinstance(tasks, slice):
            raise TypeError(f"index a Task with a slice, such as task[0:1], not {tasks!r}")
        if not len(range(len(self))[tasks]):
            raise IndexError(f"{tasks} selects no task of a batch of {len(self)}")
        classes = None if self.classes is None else self.classes[tasks]
        return Task.trusted(
            *(field[tasks] for field in self.tensors()), n_way=self.n_way, classes=classes
        )

    def to(self, *args: object, **kwargs: object) -> "Task":
        """Move, or cast as ``Tensor.to`` does; integer labels never change their dtype."""
        moved = [
            field.to(*args, **kwargs)  # type: ignore[call-overload]
            for field in self.tensors()
        ]
        if self.n_way is not None:
            moved[1], moved[3] = moved[1].to(torch.int64), moved[3].to(torch.int64)
        classes = None if self.classes is None else self.classes.to(moved[0].device)
        return Task.trusted(*moved, n_way=self.n_way, classes=classes)

    def pin_memory(self) -> "Task":
        """The same task in page-locked memory, for faster copies to a GPU."""
        classes = None if self.classes is None else self.classes.pin_memory()
        return Task.trusted(
            *(field.pin_memory() for field in self.tensors()), n_way=self.n_way, classes=classes
        )

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``support_x, support_y, query_x, query_y``."""
        return self.support_x, self.support_y, self.query_x, self.query_y

    @staticmethod
    def trusted(*tensors: Tensor, n_way: int | None, classes: Tensor | None = None) -> "Task":
        """A task of four tensors known to be valid, as a sampler's are: nothing is checked."""
        task = object.__new__(Task)
        names = ("support_x", "support_y", "query_x", "query_y")
        for name, tensor in zip(names, tensors, strict=True):
            object.__setattr__(task, name, tensor)
        object.__setattr__(task, "n_way", n_way)
        object.__setattr__(task, "classes", classes)
        return task

    def __repr__(self) -> str:
        kind = "regression" if self.n_way is None else f"N={self.n_way}"
        return (
            f"Task(T={len(self)}, {kind}, S={self.support_x.shape[1]}, "
            f"Q={self.query_x.shape[1]}, x={list(self.support_x.shape[2:])})"
        )


def check_support(x: Tensor, y: Tensor, n_way: int | None, *, missing: bool = False) -> None:
    """Raise ``ValueError`` unless ``(x, y)`` is a support set a learner can adapt to.

    Args:
        x: as ``support_x``.
        y: as ``support_y``.
        n_way: as in `Task`.
        missing: whether the learner takes ``NaN`` for a value that is missing.
    """
    _check_targets("support", x.nan_to_num(0, torch.inf, -torch.inf) if missing else x, y, n_way)
    if n_way is None or y.is_meta:
        return
    if n_way < 2:
        raise ValueError(f"n_way is {n_way}; a classification task needs at least 2 classes")
    present = torch.zeros(y.shape[0], n_way, device=y.device).scatter_(1, y, 1.0)
    if not bool(present.all()):
        task, label = (present == 0).nonzero()[0].tolist()
        raise ValueError(
            f"support_y of task {task} has no example of class {label}: every one of the "
            f"n_way={n_way} classes needs at least one (a shot of zero cannot be learned)"
        )


def check_query(x: Tensor, support_x: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` is a query set of the kind the support has."""
    _check_inputs("query", x)
    if x.shape[0] != support_x.shape[0] or x.shape[2:] != support_x.shape[2:]:
        raise ValueError(
            f"query_x has shape {list(x.shape)}, support_x {list(support_x.shape)}: they must "
            "agree in the number of tasks and in the shape of one example"
        )


def _check_inputs(part: str, x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"{part}_x must be a torch tensor, not {type(x).__name__}")
    if not x.is_floating_point():
        raise ValueError(f"{part}_x has dtype {x.dtype}; expected a float dtype")
    if x.dim() < 3:
        raise ValueError(
            f"{part}_x has shape {list(x.shape)}; expected [tasks, examples, ...] with at least "
            "one dimension for the example itself"
        )
    if x.numel() == 0:
        raise ValueError(f"{part}_x of shape {list(x.shape)} is empty")
    _check_finite(f"{part}_x", x)


def _check_targets(part: str, x: Tensor, y: Tensor, n_way: int | None) -> None:
    _check_inputs(part, x)
    if not isinstance(y, Tensor):
        raise ValueError(f"{part}_y must be a torch tensor, not {type(y).__name__}")
    if y.shape[:2] != x.shape[:2]:
        raise ValueError(
            f"{part}_y has shape {list(y.shape)}; expected {list(x.shape[:2])} to match "
            f"{part}_x of shape {list(x.shape)}"
        )
    if n_way is None:
        if y.dim() != 3 or not y.is_floating_point():
            raise ValueError(
                f"{part}_y is {y.dtype} {list(y.shape)}; regression (n_way=None) expects float "
                "targets [tasks, examples, d]"
            )
        _check_finite(f"{part}_y", y)
        return
    if y.dim() != 2 or y.dtype != torch.int64:
        raise ValueError(
            f"{part}_y is {y.dtype} {list(y.shape)}; classification expects int64 labels "
            "[tasks, examples]"
        )
    if not y.is_meta and bool(((y < 0) | (y >= n_way)).any()):
        raise ValueError(
            f"{part}_y has labels from {int(y.min())} to {int(y.max())}; expected 0..{n_way - 1} "
            f"for n_way={n_way}"
        )


def _check_finite(name: str, x: Tensor) -> None:
    if x.is_meta or bool(torch.isfinite(x).all()):
        return
    where = (~torch.isfinite(x)).nonzero()[0].tolist()
    raise ValueError(f"{name} has a NaN or infinite value, the first at index {where}")
