"""The lecture's claim, shown: who has learned other tasks before learns a new one from less.

Every learner meets the same frozen tasks, with growing numbers of examples and of gradient steps,
beside one that learns each task from scratch.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quickstudy.data import EpisodeSampler
from quickstudy.evaluation import (
    Comparison,
    Evaluation,
    FrozenTasks,
    compare,
    evaluate,
    task_scores,
)
from quickstudy.experiments.spec import DataName, Experiment, SplitName
from quickstudy.experiments.targets import (
    BASELINES,
    build_baseline,
    find_target,
    tasks_to_test,
    with_data,
)
from quickstudy.learner import MetaLearner, temporarily
from quickstudy.plots import plot_curves, plot_regression, plot_task
from quickstudy.task import Task

__all__ = [
    "Study",
    "compare_learners",
    "compare_runs",
    "compare_saved",
    "draw_study",
    "example_task",
    "study",
]

Say = Callable[[str], None]
STEPS = (0, 1, 3, 5, 10)


@dataclass(frozen=True)
class Study:
    """What `study` measured.

    Attributes:
        what: the tasks, in a word or two: ``"5-way"``, ``"sinusoids"``.
        by_shot: evaluation by learner and number of examples.
        by_step: evaluation by learner and number of gradient steps, at the fewest examples; only
            learners that take steps.
        example: one task of two classes never seen (or of one sinusoid).
        names: of the example's classes.
        answers: each learner's output for the example's queries ``[1,Q,N]``.
        stages: in regression, the same before and after 1 and 10 steps, by label; for a
            learner that takes no steps, only after reading the support.
        baseline: the learner that learns from scratch.
    """

    what: str
    by_shot: dict[str, dict[int, Evaluation]]
    by_step: dict[str, dict[int, Evaluation]]
    example: Task
    names: list[str] | None
    answers: dict[str, Tensor]
    stages: dict[str, dict[str, Tensor]]
    baseline: str

    def example_scores(self) -> dict[str, float]:
        """Accuracy (or squared error) of each learner on the example."""
        return {
            name: float(task_scores(output, self.example.query_y))
            for name, output in self.answers.items()
        }

    def against_baseline(self, learner: str, shot: int) -> Comparison:
        """A learner against learning from scratch, paired over the tasks of ``shot`` examples."""
        return compare(self.by_shot[learner][shot], self.by_shot[self.baseline][shot])

    def rows(self) -> list[dict[str, Any]]:
        """The study as plain values, one row per learner: ``quickstudy compare --json``."""
        scores = self.example_scores()
        return [
            {
                "learner": name,
                "by_shot": {shot: e.as_dict() for shot, e in row.items()},
                "by_step": {step: e.as_dict() for step, e in self.by_step.get(name, {}).items()},
                "against_scratch": {
                    shot: asdict(self.against_baseline(name, shot)) for shot in row
                },
                "example": scores[name],
            }
            for name, row in self.by_shot.items()
        ]


def compare_runs(
    targets: Sequence[str | os.PathLike[str]],
    *,
    way: int | None = None,
    shots: Sequence[int] | None = None,
    query: int = 15,
    steps: Sequence[int] = STEPS,
    n_tasks: int = 200,
    frozen: FrozenTasks | None = None,
    data: DataName | None = None,
    root: str | os.PathLike[str] | None = None,
    split: SplitName | None = None,
    seed: int = 0,
    say: Say = print,
) -> Study:
    """Compare runs with each other and with learning from scratch: ``quickstudy compare``.

    Args:
        targets: run folders, shipped weights, and ``"nearest"`` for nearest neighbour beside them.
            Learning from scratch is always there. The first run says what data, unless ``data``,
            ``root`` or ``split`` do.
        way: classes of a task; default: as the first run was trained.
        shots: see `compare_learners`, also for the arguments below.
        query: query examples of a class.
        steps: numbers of gradient steps to try.
        n_tasks: test tasks of each figure.
        frozen: measure on these tasks.
        data: where the classes come from.
        root: folder or zip with the data.
        split: how classes are split.
        seed: decides the tasks.
        say: called with progress messages.

    Raises:
        ValueError: there is no run among the targets, or an argument does not suit the data.
        FileNotFoundError: a target does not exist; lists the names there are.
    """
    names = [os.fspath(target) for target in targets]
    runs = [name for name in names if name not in BASELINES]
    if not runs:
        raise ValueError("compare needs at least one run to compare with the baselines")
    short = [Path(run).name for run in runs]
    loaded = {
        name if short.count(name) == 1 else run: find_target(run)
        for name, run in zip(short, runs, strict=True)
    }
    first, _ = next(iter(loaded.values()))
    return compare_learners(
        {name: learner for name, (_, learner) in loaded.items()},
        with_data(first, data, root, split, way=way),
        shots=shots,
        query=query,
        steps=steps,
        n_tasks=n_tasks,
        frozen=frozen,
        nearest="nearest" in names,
        seed=seed,
        say=say,
    )


def compare_learners(
    learners: Mapping[str, MetaLearner],
    experiment: Experiment,
    *,
    shots: Sequence[int] | None = None,
    query: int = 15,
    steps: Sequence[int] = STEPS,
    n_tasks: int = 200,
    frozen: FrozenTasks | None = None,
    nearest: bool = False,
    seed: int = 0,
    say: Say = print,
) -> Study:
    """Compare learners with learning from scratch, on unseen classes of an experiment's data.

    Args:
        learners: by the names they are to have in the study.
        experiment: the data, the way, and the network that learns from scratch.
        shots: numbers of support examples of a class; default: 1 and 5 (sinusoids: 5 and 10).
        query: query examples of a class.
        steps: numbers of gradient steps to try, for learners that take steps.
        n_tasks: test tasks of each figure.
        frozen: measure on these tasks and their way; then ``shots`` and ``query`` do not count.
        nearest: also compare with nearest neighbour on pixels.
        seed: decides the tasks.
        say: called with progress messages.

    Raises:
        ValueError: nearest neighbour is asked for, but the tasks are of regression.
    """
    tasks: dict[int, FrozenTasks] = {}
    if frozen is not None:
        tasks[int(frozen.about.get("shot", 1))] = frozen
        experiment = with_data(experiment, way=frozen[0].n_way)
    else:
        default = (5, 10) if experiment.regression else (1, 5)
        for shot in default if shots is None else shots:
            source, about = tasks_to_test(experiment, shot=shot, query=query, seed=seed)
            tasks[shot] = FrozenTasks.freeze(source, n_tasks, about)
    everyone = {"scratch": build_baseline("scratch", experiment), **learners}
    if nearest:
        everyone["nearest"] = build_baseline("nearest", experiment)
    example, names = example_task(experiment, seed)
    return study(
        everyone,
        tasks,
        example,
        baseline="scratch",
        what="sinusoids" if experiment.regression else f"{experiment.way}-way",
        names=names,
        steps=steps,
        n_tasks=n_tasks,
        say=say,
    )


def compare_saved(
    paths: Sequence[str | os.PathLike[str]],
) -> list[tuple[Evaluation, Comparison]]:
    """Saved evaluations, each with its paired comparison with the first.

    Raises:
        ValueError: there are fewer than two, a file is not an evaluation, or the tasks differ.
    """
    if len(paths) < 2:
        raise ValueError("compare needs at least two evaluations")
    results = [Evaluation.load(path) for path in paths]
    return [(result, compare(result, results[0])) for result in results]


def example_task(experiment: Experiment, seed: int = 0) -> tuple[Task, list[str] | None]:
    """One task to look at, with the names of its classes.

    Two classes never seen, one example of each; or one sinusoid, seen all along, without names.
    """
    if experiment.regression:
        return experiment.sampler("test", shot=10, query=200, tasks=1, seed=seed)[0], None
    sampler = experiment.sampler("test", way=2, shot=1, query=1, tasks=1, seed=seed)
    assert isinstance(sampler, EpisodeSampler)
    sampler.query = min(6, int(sampler.dataset.sizes.min()) - 1)
    return sampler[0], sampler.class_names(0)[0]


def study(
    learners: Mapping[str, MetaLearner],
    tasks: Mapping[int, FrozenTasks],
    example: Task,
    *,
    baseline: str,
    what: str = "",
    names: list[str] | None = None,
    steps: Sequence[int] = (),
    n_tasks: int = 200,
    say: Say = print,
) -> Study:
    """Measure every learner on the same tasks.

    Args:
        learners: by name; restored afterwards, even after an error.
        tasks: frozen tasks by number of support examples of a class.
        example: one task to look at.
        baseline: which of the learners learns from scratch.
        what: the tasks, in a word or two.
        names: of the example's classes.
        steps: numbers of gradient steps, for learners that have ``inner_steps``.
        n_tasks: of each figure.
        say: called with progress messages.
    """
    by_shot: dict[str, dict[int, Evaluation]] = {}
    by_step: dict[str, dict[int, Evaluation]] = {}
    answers: dict[str, Tensor] = {}
    stages: dict[str, dict[str, Tensor]] = {}
    fewest = min(tasks)

    def score(name: str, shot: int) -> Evaluation:
        about = {"learner": name, "shot": shot, "tasks": tasks[shot].fingerprint}
        return evaluate(learners[name], tasks[shot], n_tasks=n_tasks, about=about)

    for name, learner in learners.items():
        say(f"{name} ...")
        by_shot[name] = {shot: score(name, shot) for shot in tasks}
        if _takes_steps(learner) and steps:
            by_step[name] = {}
            for step in steps:
                with temporarily(learner, inner_steps=step):
                    by_step[name][step] = score(name, fewest)
        answers[name] = _answer(learner, example)
        if example.n_way is None:
            stages[name] = _before_and_after(learner, example)
    return Study(what, by_shot, by_step, example, names, answers, stages, baseline)


def draw_study(result: Study, folder: str | os.PathLike[str], title: str = "") -> list[Path]:
    """The study's pictures: against examples, against steps, and the example.

    Args:
        result: what was measured.
        folder: for the pictures.
        title: above the curves.

    Returns:
        The files written.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    folder = Path(folder)
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
        pictures.append(folder / "adaptation.png")
        plot_regression(result.example, result.stages, pictures[-1])
    elif result.example.support_x.dim() == 5:
        pictures.append(folder / "two-classes.png")
        plot_task(result.example, result.answers, pictures[-1], names=result.names, queries=12)
    return pictures


def _takes_steps(learner: MetaLearner) -> bool:
    return getattr(learner, "inner_steps", None) is not None


@torch.no_grad()
def _answer(learner: MetaLearner, task: Task, **attributes: Any) -> Tensor:
    with temporarily(learner, training=False, **attributes):
        output: Tensor = learner(task)
    return output


def _before_and_after(learner: MetaLearner, task: Task) -> dict[str, Tensor]:
    """The learner's curve; before and after 1 and 10 steps if it takes steps."""
    if not _takes_steps(learner):
        return {"after reading the support": _answer(learner, task)}
    stages = {"before": 0, "after 1 step": 1, "after 10 steps": 10}
    return {label: _answer(learner, task, inner_steps=n) for label, n in stages.items()}
