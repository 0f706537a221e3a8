"""The one interface: a meta-learner is a function of a training set."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from quickstudy.checkpoint import save_weights
from quickstudy.functional import example_loss
from quickstudy.hub import Shareable
from quickstudy.nn.norm import (
    BatchNorm,
    Policy,
    batch_norm_policies,
    batch_norm_policy,
    mixes_examples,
    set_batch_norm_policy,
)
from quickstudy.task import Task, check_support

if TYPE_CHECKING:
    from quickstudy.experiments.architecture import LearnerSpec

__all__ = ["MetaLearner", "Phi", "class_labels", "temporarily", "ways"]

Phi = dict[str, Any]
"""The state of adapted tasks: a (nested) dict of tensors, the first dimension of each ``T``."""


def class_labels(support_y: Tensor, n_way: int | None) -> dict[str, Tensor]:
    """How ``phi`` remembers its ways: ``{"classes": [T,N]}``, nothing in regression."""
    if n_way is None:
        return {}
    return {"classes": torch.arange(n_way, device=support_y.device).expand(len(support_y), -1)}


def ways(phi: dict[str, Any]) -> int | None:
    """The ``n_way`` that `class_labels` put into ``phi``, ``None`` in regression."""
    return int(phi["classes"].shape[1]) if "classes" in phi else None


class MetaLearner(Shareable, nn.Module, ABC):
    """``f(D_tr, x) -> y`` in two steps, after the lecture's ``phi_i = f_theta(D_i_tr)``::

        phi    = learner.adapt(support_x, support_y, n_way)
        logits = learner.predict(phi, query_x)

    A learner is an ordinary `torch.nn.Module`; ``phi`` is an explicit value and is never stored
    on it, so one learner can serve many tasks at once. Train it with any optimiser on `loss`.

    A subclass says what it does *not* promise, and the contract suite tests it as declared:

    Attributes:
        order_invariant: the order of the support examples does not matter.
        label_equivariant: renaming the classes renames the logits and changes nothing else.
        class_balanced: a class with more examples is not thereby likelier: to give the same ones
            again changes little. (Batch norm, where it is transductive, may still do that.)
        takes_missing: ``NaN`` in its inputs is a value that is missing, and no mistake.
        max_way: most classes a task may have (in regression: the size of a target), ``None`` for
            any number.
        described: what it was built from (a `quickstudy.experiments.architecture.LearnerSpec`), if
            it was: from this, files of its weights open by themselves.
    """

    imported_from = ("quickstudy", "MetaLearner")
    described: "LearnerSpec | None" = None
    order_invariant: bool = True
    label_equivariant: bool = True
    class_balanced: bool = True
    takes_missing: bool = False

    @property
    def max_way(self) -> int | None:
        return None

    @property
    def transductive(self) -> bool:
        """Whether the answer to a query depends on the other queries of its task."""
        return batch_norm_policy(self) == "transductive" or mixes_examples(self)

    @abstractmethod
    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        """Learn each task from its support set.

        Args:
            support_x: float ``[T,S,...]``.
            support_y: labels int64 ``[T,S]`` in ``0..n_way-1``, or targets float ``[T,S,d]``.
            n_way: number of classes, ``None`` for regression.

        Returns:
            ``phi``, the state of the ``T`` adapted tasks.

        Raises:
            ValueError: the support is not one this learner can adapt to.
        """

    @abstractmethod
    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        """Answer queries with adapted tasks.

        Args:
            phi: what `adapt` returned for these ``T`` tasks.
            query_x: float ``[T,Q,...]``.

        Returns:
            Class logits ``[T,Q,N]``, or the regression output ``[T,Q,d]``.
        """

    def forward(self, task: Task) -> Tensor:
        """``predict(adapt(support), query)``: logits ``[T,Q,N]``."""
        phi = self.adapt(task.support_x, task.support_y, task.n_way)
        return self.predict(phi, task.query_x)

    def loss(self, task: Task) -> Tensor:
        """The outer loss, a scalar: mean over tasks and queries of ``-log p(y | x, D_tr)``."""
        return example_loss(self(task), task.query_y)

    def tasks_in_memory(self, task: Task) -> int:
        """How many tasks of a batch have their graph in memory at the same time in training."""
        return len(task)

    @final
    def check_task(
        self, support_x: Tensor, support_y: Tensor, n_way: int | None, *, regression: bool = False
    ) -> None:
        """Raise ``ValueError`` unless this learner can adapt to that support.

        Args:
            support_x: as in `adapt`.
            support_y: as in `adapt`.
            n_way: as in `adapt`.
            regression: whether this learner can also do regression.
        """
        self.check_way(n_way, regression=regression)
        check_support(support_x, support_y, n_way, missing=self.takes_missing)
        if self.takes_missing:  # numbers as they are, in any unit: it chooses how exact
            return
        own = {p.dtype: None for p in self.parameters() if p.is_floating_point()}
        device = support_x.device.type
        mixed = device != "meta" and torch.is_autocast_enabled(device)
        if own and support_x.dtype not in own and not mixed:
            dtype = next(iter(own))
            raise ValueError(
                f"support_x is {support_x.dtype}, and this {type(self).__name__} computes in "
                f"{dtype}; convert one of them: support_x.to({dtype})"
            )
        d = support_y.shape[-1]
        if n_way is None and self.max_way not in (None, d):
            raise ValueError(
                f"the task has targets of size {d}, but this {type(self).__name__} was built for "
                f"{self.max_way}"
            )

    @final
    def check_way(self, n_way: int | None, *, regression: bool = False) -> None:
        """Raise ``ValueError`` if this learner cannot take tasks of ``n_way`` classes.

        Args:
            n_way: classes of the task, ``None`` for regression.
            regression: whether this learner can also do regression.
        """
        name = type(self).__name__
        if n_way is None and not regression:
            raise ValueError(f"{name} classifies; it cannot learn a regression task (n_way=None)")
        if n_way is not None and self.max_way is not None and n_way > self.max_way:
            raise ValueError(
                f"the task has n_way={n_way} classes, but this {name} was built for at most "
                f"{self.max_way}"
            )

    def _write_file(self, path: Path) -> dict[str, Any]:
        if self.described is None:
            raise ValueError(
                f"nothing says how to build this {type(self).__name__} again: build it by a "
                "LearnerSpec or an Experiment, or keep its weights by checkpoint.save_weights"
            )
        about = self.described.model_dump()
        save_weights(path, self, about=about)
        return about

    @classmethod
    def _read_file(cls, path: Path) -> "MetaLearner":
        from quickstudy.experiments.pretrained import load

        return load(path)


@contextmanager
def temporarily(
    learner: nn.Module,
    *,
    training: bool | None = None,
    batch_norm: Policy | None = None,
    **attributes: Any,
) -> Iterator[None]:
    """Within the block, a learner has another mode, batch norm policy, or other attributes.

    At the end everything is put back, the last change first, even if the block raises an error.
    Each module gets back its own mode: one that was frozen in evaluation mode stays frozen.

    Args:
        learner: changed within the block.
        training: training mode or evaluation mode; ``None`` leaves the mode as it is.
        batch_norm: the policy of every batch norm layer; ``None`` leaves it as it is.
        attributes: new values by name, such as ``inner_steps=5``.

    Raises:
        ValueError: the learner has no such attribute, or no batch norm layer to give a policy.

    Example:
        >>> from quickstudy.learners import MAML
        >>> learner = MAML(nn.Linear(4, 5), inner_steps=1)
        >>> with temporarily(learner, training=False, inner_steps=10):
        ...     learner.training, learner.inner_steps
        (False, 10)
        >>> learner.training, learner.inner_steps
        (True, 1)
    """
    for name in attributes:
        if not hasattr(learner, name):
            raise ValueError(
                f"{type(learner).__name__} takes no {name.replace('_', ' ')}: "
                f"it has no attribute {name!r}"
            )
    with ExitStack() as afterwards:
        if training is not None:
            afterwards.callback(_set_modes, learner, {m: m.training for m in learner.modules()})
            learner.train(training)
        if batch_norm is not None:
            policies = batch_norm_policies(learner)
            if not policies:
                raise ValueError(
                    "this learner has no quickstudy.nn.BatchNorm: batch_norm does not apply"
                )
            afterwards.callback(_set_policies, policies)
            set_batch_norm_policy(learner, batch_norm)
        for name, value in attributes.items():
            inherited = hasattr(type(learner), name) and name not in vars(learner)
            if inherited and not isinstance(getattr(type(learner), name), property):
                afterwards.callback(delattr, learner, name)
            else:
                afterwards.callback(setattr, learner, name, getattr(learner, name))
            setattr(learner, name, value)
        yield


def _set_policies(policies: dict[BatchNorm, Policy]) -> None:
    for layer, policy in policies.items():
        layer.policy = policy


def _set_modes(learner: nn.Module, modes: dict[nn.Module, bool]) -> None:
    learner.train(modes[learner])  # a module may do more in `train` than set its flag
    for module, training in modes.items():
        module.training = training
