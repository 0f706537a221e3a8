"""Inner optimisers and learned rates: what makes a step of a gradient, differentiated through.

Every update is a new value; nothing is changed in place.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = [
    "SGD",
    "Adam",
    "InnerOptimizer",
    "LearnedRates",
    "Parameters",
    "State",
    "check_inner",
]

Parameters = dict[str, Tensor]
State = dict[str, Parameters]


class InnerOptimizer(Protocol):
    """Turns gradients into directions to move against, as `torch.optim` would: `SGD`, `Adam`.

    ``direction(gradients, state, step)`` returns the directions and the next state, which holds
    for each parameter as many numbers as it has; ``step`` counts from 0, where ``state`` is empty.
    """

    def direction(
        self, gradients: Parameters, state: State, step: int
    ) -> tuple[Parameters, State]: ...


@dataclass(frozen=True)
class SGD:
    """Gradient descent, with momentum as in `torch.optim.SGD`: ``v <- momentum * v + g``."""

    momentum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; expected at least 0 and below 1")

    def direction(self, gradients: Parameters, state: State, step: int) -> tuple[Parameters, State]:
        if not self.momentum:
            return gradients, {}
        if not step:
            return gradients, {"velocity": gradients}
        before = state["velocity"]
        velocity = {k: self.momentum * before[k] + g for k, g in gradients.items()}
        return velocity, {"velocity": velocity}


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1), as in `torch.optim.Adam`.

    A gradient of exactly zero (a dead unit) gets a direction and a derivative of zero, where the
    formula's square root would give an infinite derivative. Reptile uses ``beta1=0``.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps > 0):
            raise ValueError(f"{self}: expected betas of at least 0 and below 1, and eps above 0")

    def direction(self, gradients: Parameters, state: State, step: int) -> tuple[Parameters, State]:
        first, second, directions = {}, {}, {}
        root = 1 / math.sqrt(1 - self.beta2 ** (step + 1))
        scale = 1 / ((1 - self.beta1 ** (step + 1)) * root)
        for k, g in gradients.items():
            first[k] = g if not self.beta1 else (1 - self.beta1) * g
            if step and self.beta1:
                first[k] = torch.add(first[k], state["first"][k], alpha=self.beta1)
            before = self.beta2 * state["second"][k] if step else torch.zeros_like(g)
            second[k] = torch.addcmul(before, g, g, value=1 - self.beta2)
            deviation = second[k].clamp_min(torch.finfo(g.dtype).tiny).sqrt()
            directions[k] = scale * first[k] / (deviation + self.eps / root)
        return directions, {"first": first, "second": second} if self.beta1 else {"second": second}


def check_inner(
    inner_lr: float, inner_steps: int, inner_optimizer: InnerOptimizer | None = None
) -> None:
    """Raise ``ValueError`` for a rate, a number of steps or an optimiser that makes no sense."""
    if not isinstance(inner_lr, int | float) or not inner_lr > 0:
        raise ValueError(f"inner_lr is {inner_lr}; expected a positive number")
    if inner_steps < 0:
        raise ValueError(f"inner_steps is {inner_steps}; expected 0 or more")
    usable = hasattr(inner_optimizer, "direction") and not isinstance(inner_optimizer, type)
    if inner_optimizer is not None and not usable:
        raise ValueError(
            f"inner_optimizer is {inner_optimizer!r}; expected an InnerOptimizer such as SGD()"
        )


class LearnedRates(nn.Module):
    """Inner learning rates that are parameters themselves, found by the outer loop.

    Args:
        parameters: the parameters they are for, by name.
        initial: where every rate starts.
        per: ``"parameter"``, a rate for every single number, sign included (Meta-SGD), or
            ``"tensor"``, one for each weight tensor (MAML++).
        steps: this many steps have different rates; later steps repeat the last.
            Default: the same at every step.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        initial: float,
        *,
        per: str,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        if per not in ("parameter", "tensor"):
            raise ValueError(f"per is {per!r}; expected 'parameter' or 'tensor'")
        self.index = {name: i for i, name in enumerate(parameters)}
        self.rates = nn.ParameterList(
            nn.Parameter(
                p.new_full((steps or 1, *(p.shape if per == "parameter" else ())), initial)
            )
            for p in parameters.values()
        )

    def forward(self, step: int, name: str) -> Tensor:
        rates: Tensor = self.rates[self.index[name]]
        return rates[min(step, len(rates) - 1)]
