"""How much the graphs of inner steps hold, and how many of them to hold at a time."""

import math
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from quickstudy.execution import execution

__all__ = ["graph_bytes", "graphs_at_once"]

MOST = 512 << 20
"""Bytes of graphs that are held, if that saves repeating steps."""

_MEASURED: weakref.WeakKeyDictionary[nn.Module, dict[Hashable, tuple[int, int]]]
_MEASURED = weakref.WeakKeyDictionary()


def graphs_at_once(
    network: nn.Module, x: Tensor, steps: int, step: Callable[[], Any]
) -> int | None:
    """How many inner steps' graphs to hold at a time, ``None`` for all of them.

    With ``L`` steps whose graphs hold ``g`` bytes each, and whose results hold ``p``, ``k`` graphs
    at a time and what every ``k``-th step started from take ``k g + L p / k``, which is least at
    ``k = sqrt(L p / g)``.

    Args:
        network: what adapts; remembers what is measured.
        x: the examples of a step, of whose shape and type it depends.
        steps: ``L``.
        step: takes one, and returns what the next starts from.
    """
    chosen = execution().graphs
    if chosen != "auto" or steps <= 3 or x.is_meta:
        return 3 if chosen == "auto" else chosen
    kind = x.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    key = (x.shape, x.dtype, x.device, autocast, execution())
    known = _MEASURED.setdefault(network, {})
    if key not in known:
        with torch.random.fork_rng([x.device] if kind == "cuda" else []):
            known[key] = graph_bytes(step, [x, *network.parameters()])
    graph, result = known[key]
    if steps * graph <= MOST:
        return None
    return max(1, MOST // graph, round(math.sqrt(steps * result / graph)))


def graph_bytes(call: Callable[[], Any], besides: Iterable[Tensor]) -> tuple[int, int]:
    """Bytes of the tensors that the graph of ``call()`` keeps alive, and of those it returns.

    Args:
        call: its value is a nesting of tensors.
        besides: tensors that do not count.
    """
    alive = weakref.WeakSet[_Saved]()

    def pack(tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        alive.add(saved)
        return saved

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor)
    with torch.enable_grad(), hooks:
        value = call()
    sizes: dict[int, int] = {}
    for saved in alive:
        storage = saved.tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    for tensor in besides:
        sizes.pop(tensor.untyped_storage().data_ptr(), None)
    result = sum(v.numel() * v.element_size() for v in tree_leaves(value) if isinstance(v, Tensor))
    return sum(sizes.values()), result  # until here `value` holds the graph


class _Saved:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
