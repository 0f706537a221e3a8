"""How good is a learner, how sure are we, and is it better than another?"""

import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from quickstudy import functional
from quickstudy.checkpoint import reading, write_atomically
from quickstudy.data.sampler import TaskSource, batch_of
from quickstudy.frozen_tasks import FrozenTasks
from quickstudy.learner import MetaLearner, temporarily
from quickstudy.metric import Metric
from quickstudy.nn.norm import Policy, batch_norm_policies
from quickstudy.plain import read_file, to_json
from quickstudy.policy import company
from quickstudy.task import Task

__all__ = [
    "Comparison",
    "Evaluation",
    "FrozenTasks",
    "Reader",
    "accuracy_by_instance",
    "choose",
    "compare",
    "evaluate",
    "result_path",
    "task_scores",
]

_NUMBERS_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Evaluation:
    """Scores of one learner on test tasks.

    Attributes:
        scores: one number per task: accuracy 0..1, or the mean squared error of a regression task.
        metric: ``"accuracy"`` or ``"mean squared error"``, see `Metric`.
        batch_norm: ``"inductive"``, ``"transductive"`` or ``None`` (no batch norm). It is
            ``"transductive"`` wherever a query's answer changes with the other queries of its task,
            whatever layer did that.
        about: what was evaluated on what; free text and numbers for the reader. ``refine`` of a
            `ProtoNet` is there, with which queries move its means, and ``balanced``: whatever batch
            norm does, queries are then answered together.
    """

    scores: tuple[float, ...]
    metric: Metric = Metric.ACCURACY
    batch_norm: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric", Metric(self.metric))

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)

    @property
    def ci95(self) -> float:
        """Half the width of the 95% confidence interval of the mean over tasks (Student's t)."""
        return _ci95(self.scores)

    @property
    def figure(self) -> str:
        """Mean and half its interval as text, in % if an accuracy, without the unit."""
        return self.metric.figure(self.mean, self.ci95)

    @property
    def company(self) -> str:
        """How queries saw each other beside batch norm, such as ``queries together``; or empty."""
        return company(self.about.get("refine"), self.about.get("balanced"))

    def __str__(self) -> str:
        unit = self.metric.unit
        text = f"{self.figure}{unit}" if unit else f"{self.metric} {self.figure}"
        policy = f", batch norm {self.batch_norm}" if self.batch_norm else ""
        policy += f", {self.company}" if self.company else ""
        n = len(self.scores)
        return f"{text} ({n} task{'s' * (n != 1)}{policy})"

    def better_than(self, other: "Evaluation") -> bool:
        """Whether this mean is the better one."""
        return self.metric.better(self.mean, other.mean)

    def as_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "ci95": self.ci95, "tasks": len(self.scores), **asdict(self)}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything, every task's score included, as readable JSON."""
        write_atomically(path, to_json(self.as_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Evaluation":
        """Read what `save` wrote.

        Raises:
            ValueError: the file is not an evaluation.
        """
        with reading(path, "a saved evaluation"):
            data = json.loads(read_file(path))
            scores = tuple(float(score) for score in data["scores"])
            if not scores or not all(map(math.isfinite, scores)):
                raise ValueError("expected scores, and finite ones")
            return cls(scores, Metric(data["metric"]), data["batch_norm"], dict(data["about"]))


@dataclass(frozen=True)
class Comparison:
    """Two learners on the same tasks: ``difference`` is first minus second, task by task."""

    difference: float
    ci95: float
    p_value: float
    tasks: int
    metric: Metric = Metric.ACCURACY

    @property
    def figure(self) -> str:
        """The difference and half its interval, in percentage points if of an accuracy."""
        points = " points" if self.metric.unit == "%" else ""
        return self.metric.figure(self.difference, self.ci95, sign="+") + points

    def __str__(self) -> str:
        return f"{self.figure} (paired over {self.tasks} tasks, p = {self.p_value:.2g})"


def task_scores(output: Tensor, y: Tensor) -> Tensor:
    """Score of each task ``[T]``: accuracy of logits ``[T,Q,N]``, or squared error ``[T,Q,d]``."""
    if y.is_floating_point():
        return (output - y).square().flatten(1).mean(1)
    return (output.argmax(-1) == y).to(torch.float64).mean(1)


def evaluate(
    learner: MetaLearner | nn.Module,
    tasks: TaskSource,
    *,
    n_tasks: int = 600,
    batch_norm: Policy | None = None,
    balanced: bool = False,
    about: dict[str, Any] | None = None,
    on_batch: Callable[[int], object] | None = None,
) -> Evaluation:
    """Score a learner on the first ``n_tasks`` tasks of a source, in evaluation mode.

    The learner's mode and batch norm policy are put back afterwards, and no random number
    generator moves, so evaluating in the middle of a training changes nothing in it.

    Args:
        learner: any learner; tasks are moved to its device.
        tasks: batches of any size; the last batch is cut to fit.
        n_tasks: at least 600 for a figure to publish.
        batch_norm: evaluate with this policy instead of the learner's own.
        balanced: let answers make use of it that all classes are equally many among the queries
            of a task, see `quickstudy.functional.balanced`; a learner's attribute ``balanced`` is
            true meanwhile, if it has one. Nobody knows that of what is to be sorted; many published
            figures suppose it.
        about: kept with the result.
        on_batch: called before each batch with the number of tasks scored so far, to show it, or
            to end the evaluation by raising.

    Raises:
        ValueError: ``n_tasks`` is not positive, a learner without batch norm gets a policy, the
            tasks of a balanced evaluation are not, or a learner's answers are not one for each
            query.
        TypeError: ``tasks`` gives no `Task`.
        Exception: what ``on_batch`` raised.
    """
    if n_tasks < 1:
        raise ValueError(f"n_tasks is {n_tasks}; expected at least 1")
    if isinstance(tasks, FrozenTasks) and tasks.n_tasks < n_tasks:
        raise ValueError(f"n_tasks is {n_tasks}, and there are {tasks.n_tasks} frozen tasks")
    scores: list[float] = []
    none, metric = False, Metric.ACCURACY
    own = {"balanced": True} if balanced and hasattr(learner, "balanced") else {}
    with temporarily(learner, training=False, batch_norm=batch_norm, **own):
        policies = {*batch_norm_policies(learner).values()}  # an ensemble may have both
        policy: str | None = max(policies, default=None)
        with torch.no_grad(), torch.random.fork_rng():
            for batch in _batches(tasks, n_tasks):
                if on_batch is not None:
                    on_batch(len(scores))
                task = batch.to(_device(learner))
                metric = Metric.ACCURACY if task.n_way is not None else Metric.SQUARED_ERROR
                if not scores and policy != "transductive" and _queries_meet(learner, task[:1]):
                    policy = "transductive"
                if balanced:
                    _check_balanced(task)
                answers = learner(task)
                _check_answers(answers, task)
                if balanced:
                    answers = functional.balanced(answers)
                none = none or bool(answers.isnan().any())
                scores += task_scores(answers, task.query_y).tolist()
    if none:
        warnings.warn("some answers are no numbers (NaN): the figure means nothing", stacklevel=2)
    done = {"refine": getattr(learner, "refine", 0), "balanced": balanced}
    said = {**(about or {}), **done}  # what was done counts, not what is said of the tasks
    known = {name: value for name, value in said.items() if value or name not in done}
    return Evaluation(tuple(scores[:n_tasks]), metric, policy, known)


def _check_answers(answers: Tensor, task: Task) -> None:
    """That a learner of one's own gives one for each query, of each class."""
    expected = task.query_y.shape
    if task.n_way is not None:
        expected = torch.Size((*expected, task.n_way))
    if answers.shape != expected:
        raise ValueError(
            f"the learner answers {[*task.query_y.shape[:2]]} queries with {[*answers.shape]}; "
            f"expected {[*expected]}"
        )


def _check_balanced(task: Task) -> None:
    if task.n_way is None:
        raise ValueError("balanced is of classes; these tasks ask for numbers")
    counts = functional.class_sizes(task.query_y, task.n_way)
    if (counts != counts[:, :1]).any():
        some = ", ".join(map(str, sorted({*counts.flatten().tolist()})))
        raise ValueError(
            f"balanced: the classes of a task have {some} queries; expected as many of each"
        )


def _queries_meet(learner: nn.Module, task: Task) -> bool:
    """Whether it says so, or its layers answer a query differently alone than in company."""
    if not isinstance(learner, MetaLearner) or task.query_x.shape[1] < 2:
        return False
    plain: dict[str, Any] = {"refine": 0} if hasattr(learner, "refine") else {}
    with temporarily(learner, **plain):
        if learner.transductive:
            return True
        with torch.random.fork_rng():
            phi = learner.adapt(task.support_x, task.support_y, task.n_way)
        ends = [0, task.query_x.shape[1] - 1]  # a sequence may be read from either
        together = learner.predict(phi, task.query_x)
        _check_answers(together, task)
        together = together[:, ends]
        try:
            alone = [learner.predict(phi, task.query_x[:, i : i + 1]) for i in ends]
        except ValueError:  # one example cannot be normalised by its own batch
            return True
    return not torch.allclose(torch.cat(alone, 1), together, rtol=1e-3, atol=1e-3, equal_nan=True)


def result_path(result: Evaluation, folder: str | os.PathLike[str]) -> Path:
    """Where ``quickstudy evaluate`` keeps a result: under a name that says what was measured.

    Args:
        result: its ``about`` says of what: ``part``, ``way`` and ``shot``, and ``inner_steps``,
            ``refine`` and ``nearest`` if the learner was tested with values other than in training,
            ``with`` and ``balanced``.
        folder: of the run.

    Example:
        >>> about = {"part": "test", "way": 5, "shot": 1, "inner_steps": 3}
        >>> result_path(Evaluation((1.0, 0.5), batch_norm="inductive", about=about), "r").as_posix()
        'r/evaluations/test-5-1-inner_steps3-inductive.json'
    """
    about = result.about
    parts = [str(about[k]) for k in ("part", "way", "shot") if k in about] or ["frozen"]
    parts += [f"{k}{about[k]}" for k in ("inner_steps", "refine", "nearest") if k in about]
    parts += ["balanced"] if about.get("balanced") else []
    parts += [result.batch_norm or "plain"]
    parts += ["with", *about["with"]] if "with" in about else []
    name = re.sub(r"[^\w.+-]", "_", "-".join(parts))
    if len(name) > 200 or "with" in about:  # several lists of names may read alike
        name = f"{name[:180]}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]}"
    return Path(folder) / "evaluations" / f"{name}.json"


def _device(learner: nn.Module) -> torch.device:
    return next((p.device for p in learner.parameters()), torch.device("cpu"))


def _batches(tasks: TaskSource, n_tasks: int) -> Iterator[Task]:
    """Batches of a source, small ones of one shape joined: many tasks at once are faster."""
    waiting: list[Task] = []
    numbers = count = index = 0
    while count < n_tasks:
        if isinstance(tasks, list | tuple) and index == len(tasks):
            raise ValueError(f"n_tasks is {n_tasks}, and there are {count} tasks")
        task = batch_of(tasks, index)
        size = task.support_x.numel() + task.query_x.numel()
        if waiting and (numbers + size > _NUMBERS_AT_ONCE or not _alike(task, waiting[0])):
            yield _joined(waiting)
            waiting, numbers = [], 0
        waiting.append(task)
        numbers, count, index = numbers + size, count + len(task), index + 1
    yield _joined(waiting)


def _alike(a: Task, b: Task) -> bool:
    pairs = zip(a.tensors(), b.tensors(), strict=True)
    return a.n_way == b.n_way and all(x.shape[1:] == y.shape[1:] for x, y in pairs)


def _joined(tasks: list[Task]) -> Task:
    if len(tasks) == 1:
        return tasks[0]
    fields = zip(*(task.tensors() for task in tasks), strict=True)
    return Task.trusted(*(torch.cat(field) for field in fields), n_way=tasks[0].n_way)


class Reader(Protocol):
    """A learner that answers each example of a sequence when it first sees it (`MANN.read`)."""

    def read(self, x: Tensor, y: Tensor, n_way: int | None) -> Tensor: ...


def choose(
    learner: MetaLearner, name: str, values: Sequence[Any], tasks: TaskSource, *, n_tasks: int
) -> Any:
    """Give a learner the value that does best on validation tasks, such as an inner rate.

    Args:
        learner: whose attribute is set; unchanged if an evaluation fails.
        name: of the attribute.
        values: to try; of equally good ones the first is taken.
        tasks: not the training's, and not those to report on.
        n_tasks: how many of them, the same for each value.

    Returns:
        The value.
    """
    if not values or not hasattr(learner, name):
        raise ValueError(
            f"{type(learner).__name__} has no {name} to choose, or there are no values"
        )
    best: tuple[Evaluation, Any] | None = None
    for value in values:
        with temporarily(learner, **{name: value}):
            evaluation = evaluate(learner, tasks, n_tasks=n_tasks)
        if best is None or evaluation.better_than(best[0]):
            best = evaluation, value
    assert best is not None
    setattr(learner, name, best[1])
    return best[1]


def accuracy_by_instance(
    learner: Reader | nn.Module,
    tasks: TaskSource,
    *,
    n_tasks: int = 600,
    about: dict[str, Any] | None = None,
) -> dict[int, Evaluation]:
    """Accuracy on the 1st, 2nd, ... example of each class in a sequence (Santoro 2016, table 1).

    The sequence is the support of a task, in its order. On the first example of a class there is
    nothing to go by but which classes have been seen; what follows shows one-shot learning.

    Args:
        learner: one that reads sequences; it does so in evaluation mode.
        tasks: classification tasks; queries are not used. As many instances are reported as every
            class has in every task.
        n_tasks: how many.
        about: kept with each result.

    Raises:
        ValueError: the learner or its protocol gives no answers while it reads.
    """
    if not hasattr(learner, "read"):
        raise ValueError(f"{type(learner).__name__} does not read sequences: it has no `read`")
    scores: dict[int, list[float]] = {}
    done = index = 0
    reader: Any = learner
    module = learner if isinstance(learner, nn.Module) else nn.Module()
    with temporarily(module, training=False), torch.no_grad(), torch.random.fork_rng():
        while done < n_tasks:
            task = batch_of(tasks, index).to(_device(module))
            output = reader.read(task.support_x, task.support_y, task.n_way)
            right = (output.argmax(-1) == task.support_y).double()
            member = nn.functional.one_hot(task.support_y, task.n_way or 0)
            instance = member.cumsum(1).gather(2, task.support_y.unsqueeze(2)).squeeze(2)
            shots = int(member.sum(1).min())
            for j in range(1, shots + 1):
                at = (instance == j).double()
                scores.setdefault(j, []).extend(((right * at).sum(1) / at.sum(1)).tolist())
            done += len(task)
            index += 1
    return {
        j: Evaluation(tuple(s[:n_tasks]), about=about or {})
        for j, s in scores.items()
        if len(s) >= n_tasks
    }


def compare(first: Evaluation, second: Evaluation) -> Comparison:
    """Paired comparison: the mean difference over the *same* tasks, and Student's paired test.

    Raises:
        ValueError: the two were not measured on the same tasks, as far as can be told.
    """
    for name, a, b in (
        ("number of tasks", len(first.scores), len(second.scores)),
        ("metric", first.metric, second.metric),
        ("tasks", first.about.get("tasks"), second.about.get("tasks")),
    ):
        if a != b:
            raise ValueError(f"these evaluations cannot be paired: {name} {a!r} against {b!r}")
    differences = [a - b for a, b in zip(first.scores, second.scores, strict=True)]
    n, mean, error = len(differences), sum(differences) / len(differences), _error(differences)
    if error == 0:
        p_value = float(differences[0] == 0)
    else:
        from scipy.special import stdtr

        p_value = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return Comparison(mean, _ci95(differences), p_value, n, first.metric)


def _ci95(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    from scipy.special import stdtrit  # a second less than scipy.stats takes to import

    return float(stdtrit(len(values) - 1, 0.975)) * _error(values)


def _error(values: Sequence[float]) -> float:
    """The standard error of their mean."""
    n = len(values)
    if max(values) == min(values):
        return 0.0
    mean = sum(values) / n
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1) / n)
