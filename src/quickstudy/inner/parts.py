"""Parts of a batch: as many tasks at a time as are fast, and their graphs one after the other."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function

from quickstudy.execution import execution
from quickstudy.inner.networks import goes_alone, stacks
from quickstudy.inner.repeated import check_reached, differentiable_once
from quickstudy.task import Task

__all__ = ["part_by_part", "split_tasks", "tasks_at_once"]


Loss = TypeVar("Loss", bound=Callable[[Any, Task], Tensor])


def part_by_part(loss: Loss) -> Loss:
    """The same loss, a mean over tasks, with its derivative found part by part of the batch.

    No part's graph outlives it, so memory does not grow with the number of tasks. The result can
    be differentiated once, by the parameters of the learner, whose ``network`` is what adapts.
    """

    @wraps(loss)
    def by_parts(learner: Any, task: Task) -> Tensor:
        parameters = [p for p in learner.parameters() if p.requires_grad]
        size = tasks_at_once(learner.network, task.support_x, task.query_x)
        # A hook on a parameter is to see its gradient, and not that of each part.
        hooked = any(p._backward_hooks for p in parameters)
        undivided = size >= len(task) or any(x.requires_grad for x in task.tensors())
        if undivided or hooked or not torch.is_grad_enabled() or not parameters:
            return loss(learner, task)
        parts = [task[i : i + size] for i in range(0, len(task), size)]
        total: Tensor = _PartByPart.apply(loss, learner, parts, *parameters)  # type: ignore[no-untyped-call]
        return total

    return cast(Loss, by_parts)


class _PartByPart(Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: Callable[[Any, Task], Tensor],
        learner: Any,
        parts: list[Task],
        *parameters: Tensor,
    ) -> Tensor:
        tasks = sum(len(part) for part in parts)
        total = parameters[0].new_zeros(())
        sums = [torch.zeros_like(p) for p in parameters]
        for part in parts:
            with torch.enable_grad():
                share = loss(learner, part) * (len(part) / tasks)
                check_reached([share], parameters)
                gradients = torch.autograd.grad(share, parameters, materialize_grads=True)
            total += share.detach()
            torch._foreach_add_(sums, gradients)
        ctx.save_for_backward(*sums)
        return total

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, outer: Tensor) -> Any:
        return None, None, None, *(outer * gradient for gradient in ctx.saved_tensors)


def split_tasks(network: nn.Module, *x: Tensor) -> list[tuple[Tensor, ...]]:
    """Tensors ``[T,...]`` in parts of tasks that are to go through the network together.

    The first of them, the examples ``[T,n,...]``, decides how many.
    """
    size = tasks_at_once(network, x[0])
    return list(zip(*(torch.split(part, size) for part in x), strict=True))


def tasks_at_once(network: nn.Module, *x: Tensor) -> int:
    """How many tasks to put through the network together, with the examples ``x`` of each.

    Taking many small tasks at once saves time; with large ones there is none to save. Networks with
    layers that change themselves when they run, or that vmap does not know, go task by task.
    """
    tasks, stacked = len(x[0]), stacks(network, x[0])
    alone = (nn.modules.batchnorm._BatchNorm, nn.RNNBase)
    if (
        tasks == 1
        or goes_alone(network)
        or (not stacked and any(isinstance(part, alone) for part in network.modules()))
    ):
        return 1
    if (chosen := execution().tasks_at_once) is not None:
        return chosen
    limit = 1 << (19 if stacked else 16)
    size = limit // max(1, sum(part[0].numel() for part in x))
    return math.ceil(tasks / math.ceil(tasks / size)) if size > 2 else 1
