"""The best weights so far, and when there is no hope of better ones."""

from collections.abc import Callable
from dataclasses import astuple
from typing import Any

from quickstudy.data.sampler import TaskSource
from quickstudy.evaluation import Evaluation, evaluate
from quickstudy.learner import MetaLearner

__all__ = ["OnValidation", "Validation"]

OnValidation = Callable[[int, Evaluation], object]
"""Called with a step and its evaluation; a true value asks for the end of the training."""


class Validation:
    """Evaluations of a learner during its training, and what follows from them.

    Args:
        tasks: held-out tasks; ``None`` for no validation.
        n_tasks: how many of them.
        every: outer steps between validations; the last step is validated too.
        patience: how many in a row may bring no new best; ``None`` for any number.
        on_validation: called with each.

    Raises:
        ValueError: ``patience`` or ``on_validation`` is given, and there is nothing to validate on.

    Attributes:
        best: the step of the best validation, and the evaluation.
        unimproved: validations since.
        ended: whether ``on_validation`` has asked for the end.
    """

    def __init__(
        self,
        tasks: TaskSource | None,
        *,
        n_tasks: int,
        every: int,
        patience: int | None = None,
        on_validation: OnValidation | None = None,
    ) -> None:
        if tasks is None:
            for name, value in (("patience", patience), ("on_validation", on_validation)):
                if value is not None:
                    raise ValueError(f"{name} needs validation tasks to go by, and there are none")
        self.tasks, self.n_tasks, self.every = tasks, n_tasks, every
        self.patience, self.on_validation = patience, on_validation
        self.best: tuple[int, Evaluation] | None = None
        self.unimproved = 0
        self.ended = False

    def due(self, step: int, steps: int) -> bool:
        """Whether to validate after this step of ``steps``."""
        return self.tasks is not None and (step % self.every == 0 or step == steps)

    def run(
        self, step: int, learner: MetaLearner, on_batch: Callable[[int], object]
    ) -> tuple[Evaluation, bool]:
        """Evaluate the learner; whether that is the best so far.

        Raises:
            BaseException: what ``on_batch`` raised, see `evaluate`. Nothing has changed.
        """
        assert self.tasks is not None
        evaluation = evaluate(learner, self.tasks, n_tasks=self.n_tasks, on_batch=on_batch)
        better = self.best is None or evaluation.better_than(self.best[1])
        self.best = (step, evaluation) if better else self.best
        self.unimproved = 0 if better else self.unimproved + 1
        return evaluation, better

    def tell(self, step: int, evaluation: Evaluation) -> Exception | None:
        """Call ``on_validation``; the error that it ends with, if it does."""
        if self.on_validation is None:
            return None
        try:
            self.ended = bool(self.on_validation(step, evaluation))
        except Exception as error:
            return error
        return None

    @property
    def impatient(self) -> bool:
        """Whether too many validations in a row have brought no new best."""
        return self.patience is not None and self.unimproved >= self.patience

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of this."""
        best = None if self.best is None else [self.best[0], astuple(self.best[1])]
        return {"best": best, "unimproved": self.unimproved, "ended": self.ended}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from what `state` returned; older checkpoints have the best alone."""
        best = saved["best"]
        self.best = None if best is None else (best[0], Evaluation(*best[1]))
        self.unimproved = saved.get("unimproved", 0)
        self.ended = saved.get("ended", False)
