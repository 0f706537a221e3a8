"""One network with each task's own weights, on each task's own examples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import RLock
from typing import Any, TypeVar, cast
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from quickstudy.embedding import check_tensor
from quickstudy.execution import execution
from quickstudy.inner.optimizers import Parameters
from quickstudy.inner.stacked import can_stack, run_stacked
from quickstudy.nn.norm import Source, statistics_from

__all__ = ["call_with", "goes_alone", "in_turn", "run_tasks", "stacks"]

_ALONE: WeakSet[nn.Module] = WeakSet()
_TURN = RLock()  # held while a network's own modules have weights that are not its own

Method = TypeVar("Method", bound=Callable[..., Any])


def in_turn(method: Method) -> Method:
    """A learner's ``adapt`` or ``predict``, for which threads wait: `call_with` changes the network
    they share for as long as it runs. Where tasks are stacked nothing is changed, and none waits.
    """

    @wraps(method)
    def waiting(learner: Any, *given: Any, **named: Any) -> Any:
        network: nn.Module | None = getattr(learner, "network", None)
        x = next((v for v in (*given, *named.values()) if isinstance(v, Tensor)), None)
        if network is not None and x is not None and stacks(network, x):
            return method(learner, *given, **named)
        with _TURN:
            return method(learner, *given, **named)

    return cast(Method, waiting)


def run_tasks(
    network: nn.Module, state: Parameters, x: Tensor, source: Source
) -> tuple[Tensor, Parameters]:
    """Each task's network on its own examples: ``[T,n,...] -> [T,n,outputs]``.

    A network that `torch.func.vmap` cannot run (that looks at its numbers to decide, changes its
    buffers, or has a layer without a batched form) is run task by task. Where a gradient is wanted,
    attention is computed by plain products, whose derivatives have derivatives.

    Args:
        network: its own parameters are not used.
        state: parameters and buffers by name, each ``[T,...]``.
        x: ``[T,n,...]``.
        source: whose statistics normalise, see `quickstudy.nn.statistics_from`.

    Returns:
        The outputs, and the statistics by name if ``source`` is ``"record"``.
    """
    if stacks(network, x):
        return run_stacked(network, state, x, source)
    buffers = [name for name, _ in network.named_buffers()] if source == "record" else []

    def run(state: Parameters, x: Tensor) -> tuple[Tensor, Parameters]:
        updated = dict(state)
        output: Tensor = call_with(network, updated, x)
        return output, {name: updated[name] for name in buffers}

    with _TURN, statistics_from(network, source), _differentiable_attention():
        failed = False
        if len(x) > 1 and not goes_alone(network):
            try:
                several: tuple[Tensor, Parameters] = vmap(run, randomness="different")(state, x)
            except (NotImplementedError, RuntimeError, ValueError):
                failed = True  # the network's own errors will be raised again below
            else:
                return several
        each = [run({k: p[i] for k, p in state.items()}, x[i]) for i in range(len(x))]
    if failed:
        _ALONE.add(network)
    outputs, recorded = zip(*each, strict=True)
    return torch.stack(outputs), {k: torch.stack([r[k] for r in recorded]) for k in buffers}


@contextmanager
def _differentiable_attention() -> Iterator[None]:
    """Within the block, attention is made of what has second derivatives and batched forms."""
    if not torch.is_grad_enabled():
        yield
        return
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def goes_alone(network: nn.Module) -> bool:
    """Whether `torch.func.vmap` has failed on this network, which since goes task by task."""
    return network in _ALONE


def call_with(network: nn.Module, state: Parameters, x: Tensor) -> Tensor:
    """One network with other parameters and buffers: ``[n,...] -> [n,outputs]``.

    A parameter that several layers share is in ``state`` once, by its first name. What the network
    changes in its buffers is put into ``state``. (`torch.func.functional_call` does the same, but
    where one layer stands in two places it leaves the network with the other parameters.)
    """
    with _TURN:
        names = {id(p): n for n, p in (*network.named_parameters(), *network.named_buffers())}
        for prefix, module in network.named_modules():
            for attribute, value in (*module._parameters.items(), *module._buffers.items()):
                place = f"{prefix}.{attribute}" if prefix else attribute
                if value is not None and place not in state and names[id(value)] in state:
                    state[place] = state[names[id(value)]]
        output = functional_call(network, state, (x,), tie_weights=False)
    return check_tensor(output, "network")


def stacks(network: nn.Module, x: Tensor) -> bool:
    """Whether `run_tasks` uses `run_stacked` here, and not vmap or the network itself."""
    usual = execution().stacked and x.device.type == "cpu" and not torch.compiler.is_compiling()
    return usual and can_stack(network) and _takes_vectors(network) in (None, x.dim() == 3)


def _takes_vectors(network: nn.Module) -> bool | None:
    """Whether the first layer takes vectors, ``[n,D]``; ``None`` if it takes anything."""
    first = network
    while isinstance(first, nn.Sequential) and len(first):
        first = first[0]
    return True if isinstance(first, nn.Linear) else None
