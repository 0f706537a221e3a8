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

_Measured = dict[Hashable, tuple[int, int] | None]
_MEASURED: weakref.WeakKeyDictionary[nn.Module, _Measured] = weakref.WeakKeyDictionary()


def graphs_at_once(
    learner: nn.Module, x: Tensor, steps: int, step: Callable[[], Any], parts: int = 1
) -> int | None:
    """How many inner steps' graphs to hold at a time, ``None`` for all of them.

    With ``L`` steps whose graphs hold ``g`` bytes each, and whose results hold ``p``, ``k`` graphs
    at a time and what every ``k``-th step started from take ``k g + L p / k``, which is least at
    ``k = sqrt(L p / g)``.

    All are held where a step cannot be repeated, because it changes a buffer of the learner's.

    Args:
        learner: remembers what is measured, until its modes or what it trains change.
        x: the examples of a step, on whose shape and type it depends.
        steps: ``L``.
        step: takes one, and returns what the next starts from.
        parts: how many such graphs there will be beside each other.
    """
    chosen = execution().graphs
    if chosen != "auto" or steps <= 3 or x.is_meta:
        return 3 if chosen == "auto" else chosen
    kind = x.device.type
    autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
    trained = tuple(p.requires_grad for p in learner.parameters())
    modes = tuple(module.training for module in learner.modules())
    key = (x.shape, x.dtype, x.device, autocast, execution(), trained, modes)
    known = _MEASURED.setdefault(learner, {})
    try:
        if key not in known:
            known[key] = _measure(learner, x, step)
    except RuntimeError:  # within torch.func, where graphs cannot be looked into
        return None
    if (measured := known[key]) is None:
        return None
    graph, result = measured
    most = MOST // parts
    if steps * graph <= most:
        return None
    return max(1, most // graph, round(math.sqrt(steps * result / graph)))


def _measure(learner: nn.Module, x: Tensor, step: Callable[[], Any]) -> tuple[int, int] | None:
    """Bytes of a step's graph and of its result; ``None`` where it is not to be repeated."""
    before = [(b, b._version, b.clone()) for b in learner.buffers()]
    with torch.random.fork_rng([x.device] if x.is_cuda else []):
        found = graph_bytes(step, [x, *learner.parameters()])
    changed = [(buffer, old) for buffer, version, old in before if buffer._version != version]
    with torch.no_grad():
        for buffer, old in changed:
            buffer.copy_(old)
    return None if changed else found


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
