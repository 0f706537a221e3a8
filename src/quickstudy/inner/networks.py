"""One network with each task's own weights, on each task's own examples."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from quickstudy.execution import execution
from quickstudy.inner.optimizers import Parameters
from quickstudy.inner.stacked import can_stack, run_stacked
from quickstudy.nn.norm import Source, statistics_from

__all__ = ["call_with", "run_tasks", "stacks"]


def run_tasks(
    network: nn.Module, state: Parameters, x: Tensor, source: Source
) -> tuple[Tensor, Parameters]:
    """Each task's network on its own examples: ``[T,n,...] -> [T,n,outputs]``.

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

    with statistics_from(network, source):
        if len(x) > 1:
            several: tuple[Tensor, Parameters] = vmap(run, randomness="different")(state, x)
            return several
        output, recorded = run({name: p[0] for name, p in state.items()}, x[0])
    return output.unsqueeze(0), {name: value.unsqueeze(0) for name, value in recorded.items()}


def call_with(network: nn.Module, state: Parameters, x: Tensor) -> Tensor:
    """One network with other parameters and buffers: ``[n,...] -> [n,outputs]``.

    A parameter that several layers share is in ``state`` once, by its first name. What the network
    changes in its buffers is put into ``state``. (`torch.func.functional_call` does the same, but
    where one layer stands in two places it leaves the network with the other parameters.)
    """
    names = {id(p): n for n, p in (*network.named_parameters(), *network.named_buffers())}
    for prefix, module in network.named_modules():
        for attribute, value in (*module._parameters.items(), *module._buffers.items()):
            place = f"{prefix}.{attribute}" if prefix else attribute
            if value is not None and place not in state and names[id(value)] in state:
                state[place] = state[names[id(value)]]
    output: Tensor = functional_call(network, state, (x,), tie_weights=False)
    return output


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
