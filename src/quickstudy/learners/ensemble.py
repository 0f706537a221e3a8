"""Ensembles: several learners are asked, and answer together."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from quickstudy.learner import MetaLearner, Phi, class_labels, ways
from quickstudy.task import Task

if TYPE_CHECKING:
    from quickstudy.experiments.architecture import LearnerSpec

__all__ = ["Ensemble"]


def _of_members(name: str) -> Any:
    """An attribute that is that of all members which have one, such as ``inner_steps``.

    It is a tuple of theirs if they differ, and may be set to one.
    """

    def get(self: "Ensemble") -> Any:
        values = tuple(getattr(member, name) for member in self._with(name))
        return values[0] if len({*values}) == 1 else values

    def set_all(self: "Ensemble", value: Any) -> None:
        members = self._with(name)
        values = value if isinstance(value, tuple) else (value,) * len(members)
        for member, own in zip(members, values, strict=True):
            setattr(member, name, own)

    return property(get, set_all)


class Ensemble(MetaLearner):
    """Learners that were trained apart, asked together (Lakshminarayanan et al. 2017,
    arXiv:1612.01474, who train one network from several first weights)::

        phi       = (phi_1, ..., phi_K), each member's own
        p(y | x)  = 1/K sum_k p_k(y | x)                                         (section 2.4)
        f(x)      = 1/K sum_k f_k(x)                                             (regression)

    Where members make different mistakes, together they make fewer, whatever kinds they are of.

    Trained as one, each member learns as it would alone: the loss is the sum of theirs.

    Args:
        members: learners of the same inputs. What one of them does not promise, the ensemble does
            not, and it takes as many classes as the one that takes fewest.

    ``phi``: ``{"members": {"0": phi_0, "1": phi_1, ...}, "classes": [T,N]}``.

    Raises:
        TypeError: a member is no learner.
        ValueError: there is no member, or one is there twice.

    Example:
        >>> from quickstudy.learners import MatchingNetwork, ProtoNet
        >>> from quickstudy.nn import Conv4
        >>> learner = Ensemble([ProtoNet(Conv4()), MatchingNetwork(Conv4())])
    """

    refine = _of_members("refine")
    balanced = _of_members("balanced")
    inner_steps = _of_members("inner_steps")

    def __init__(self, members: Iterable[MetaLearner]) -> None:
        super().__init__()
        members = list(members)
        for member in members:
            if not isinstance(member, MetaLearner):
                raise TypeError(f"a member is a {type(member).__name__}; expected a MetaLearner")
        if len({*map(id, members)}) != len(members) or not members:
            raise ValueError(
                f"there are {len(members)} members; expected one or more, all distinct"
            )
        self.members = nn.ModuleList(members)
        self.order_invariant = all(member.order_invariant for member in self._all)
        self.label_equivariant = all(member.label_equivariant for member in self._all)
        self.class_balanced = all(member.class_balanced for member in self._all)
        self.takes_missing = all(member.takes_missing for member in self._all)

    @property
    def _all(self) -> list[MetaLearner]:
        members: Any = self.members
        return [*members]

    def _with(self, name: str) -> list[MetaLearner]:
        found = [member for member in self._all if hasattr(member, name)]
        if not found:
            raise AttributeError(f"no member of this ensemble has {name}")
        return found

    @property
    def described(self) -> "LearnerSpec | None":  # type: ignore[override]
        """Its members' descriptions as one; ``None`` if that cannot be had."""
        first, *others = (member.described for member in self._all)
        if first is None or first.others:
            return None
        try:
            return first.replace(others=[spec and spec.model_dump() for spec in others])
        except ValueError:  # another is not described, takes other images or is an ensemble itself
            return None

    @property
    def max_way(self) -> int | None:
        return min((m.max_way for m in self._all if m.max_way is not None), default=None)

    @property
    def transductive(self) -> bool:
        return any(member.transductive for member in self._all)

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        adapted = (member.adapt(support_x, support_y, n_way) for member in self._all)
        members = {str(i): phi for i, phi in enumerate(adapted)}
        return {"members": members, **class_labels(support_y, n_way)}

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        answers = [
            member.predict(phi["members"][str(i)], query_x) for i, member in enumerate(self._all)
        ]
        if ways(phi) is None:
            return torch.stack(answers).mean(0)
        logs = torch.stack([logits.log_softmax(-1) for logits in answers])
        return logs.logsumexp(0) - math.log(len(answers))

    def loss(self, task: Task) -> Tensor:
        """The sum of the members' own losses."""
        return torch.stack([member.loss(task) for member in self._all]).sum()

    def tasks_in_memory(self, task: Task) -> int:
        return max(member.tasks_in_memory(task) for member in self._all)
