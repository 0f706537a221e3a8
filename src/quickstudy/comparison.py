"""The lecture's claim, shown: who has learned other tasks before learns a new one from less.

Every learner meets the same frozen tasks, with growing numbers of examples and of gradient steps,
beside one that learns each task from scratch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from quickstudy.evaluation import Evaluation, FrozenTasks, evaluate, task_scores
from quickstudy.learner import MetaLearner
from quickstudy.plots import plot_curves, plot_regression, plot_task
from quickstudy.task import Task

__all__ = ["Study", "draw_study", "study"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Study:
    """What `study` measured.

    Attributes:
        by_shot: evaluation by learner and number of examples.
        by_step: evaluation by learner and number of gradient steps, at the fewest examples; only
            learners that take steps.
        example: one task of two classes never seen (or of one sinusoid).
        names: of the example's classes.
        answers: each learner's output for the example's queries ``[1,Q,N]``.
        baseline: the learner that learns from scratch.
    """

    by_shot: dict[str, dict[int, Evaluation]]
    by_step: dict[str, dict[int, Evaluation]]
    example: Task
    names: list[str] | None
    answers: dict[str, Tensor]
    baseline: str

    def example_scores(self) -> dict[str, float]:
        """Accuracy (or squared error) of each learner on the example."""
        return {
            name: float(task_scores(output, self.example.query_y))
            for name, output in self.answers.items()
        }


def study(
    learners: Mapping[str, MetaLearner],
    tasks: Mapping[int, FrozenTasks],
    example: Task,
    *,
    baseline: str,
    names: list[str] | None = None,
    steps: Sequence[int] = (),
    n_tasks: int = 200,
    say: Say = print,
) -> Study:
    """Measure every learner on the same tasks.

    Args:
        learners: in evaluation mode or not, by name. A number of inner steps set for the study is
            put back.
        tasks: frozen tasks by number of support examples of a class.
        example: one task to look at.
        baseline: which of the learners learns from scratch.
        names: of the example's classes.
        steps: numbers of gradient steps, for learners that have ``inner_steps``.
        n_tasks: of each figure.
        say: told what is going on.
    """
    by_shot: dict[str, dict[int, Evaluation]] = {}
    by_step: dict[str, dict[int, Evaluation]] = {}
    answers: dict[str, Tensor] = {}
    fewest = min(tasks)

    def score(name: str, shot: int) -> Evaluation:
        about = {"learner": name, "shot": shot, "tasks": tasks[shot].fingerprint}
        return evaluate(learners[name], tasks[shot], n_tasks=n_tasks, about=about)

    for name, learner in learners.items():
        say(f"{name} ...")
        by_shot[name] = {shot: score(name, shot) for shot in tasks}
        own = getattr(learner, "inner_steps", None)
        if own is not None and steps:
            by_step[name] = {}
            for step in steps:
                learner.inner_steps = step  # type: ignore[assignment]
                by_step[name][step] = score(name, fewest)
            learner.inner_steps = own
        answers[name] = _answer(learner, example)
    return Study(by_shot, by_step, example, names, answers, baseline)


def draw_study(
    result: Study, learners: Mapping[str, MetaLearner], folder: Path, title: str = ""
) -> list[Path]:
    """The study's pictures: against examples, against steps, and the example.

    Returns:
        The files written.
    """
    pictures = [folder / "examples.png"]
    regression = result.example.n_way is None
    of_each = "support examples" if regression else "support examples of each class"
    if len(next(iter(result.by_shot.values()))) > 1:
        plot_curves(result.by_shot, pictures[0], x=of_each, title=title, baseline=result.baseline)
    else:
        pictures = []
    if result.by_step:
        pictures.append(folder / "steps.png")
        x = "gradient steps on the support"
        plot_curves(result.by_step, pictures[-1], x=x, title=title, baseline=result.baseline)
    if regression:
        curves = {
            name: _before_and_after(learner, result.example) for name, learner in learners.items()
        }
        pictures.append(folder / "adaptation.png")
        plot_regression(result.example, curves, pictures[-1])
    elif result.example.support_x.dim() == 5:
        pictures.append(folder / "two-classes.png")
        plot_task(result.example, result.answers, pictures[-1], names=result.names, queries=12)
    return pictures


@torch.no_grad()
def _answer(learner: MetaLearner, task: Task) -> Tensor:
    training = learner.training
    output: Tensor = learner.eval()(task)
    learner.train(training)
    return output


def _before_and_after(learner: MetaLearner, task: Task) -> dict[str, Tensor]:
    """The learner's curve; before and after 1 and 10 steps if it takes steps."""
    own = getattr(learner, "inner_steps", None)
    if own is None:
        return {"after reading the support": _answer(learner, task)}
    curves = {}
    for step, label in ((0, "before"), (1, "after 1 step"), (10, "after 10 steps")):
        learner.inner_steps = step  # type: ignore[assignment]
        curves[label] = _answer(learner, task)
    learner.inner_steps = own
    return curves
