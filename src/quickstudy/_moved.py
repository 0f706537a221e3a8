"""Modules by the names they had before: imports of them go on working, and say the new name."""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MOVED", "forward", "names_from", "refused_from"]

MOVED = {
    "quickstudy.card": "quickstudy.experiments.card",
    "quickstudy.cli_model": "quickstudy.cli.model",
    "quickstudy.data.files": "quickstudy.files",
    "quickstudy.data.images": "quickstudy.images",
    "quickstudy.experiment": "quickstudy.experiments.spec",
    "quickstudy.nn.operations": "quickstudy.inner.operations",
    "quickstudy.nn.stacked": "quickstudy.inner.stacked",
    "quickstudy.pretrained": "quickstudy.experiments.pretrained",
    "quickstudy.recipe": "quickstudy.experiments.recipe",
    "quickstudy.reproduce": "quickstudy.experiments.reproduce",
    "quickstudy.run": "quickstudy.experiments.run",
    "quickstudy.runlog": "quickstudy.training.loggers",
    "quickstudy.tables": "quickstudy.cli.tables",
}
"""The new name of each module that has moved."""


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        new = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is now {new}", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(new)


def forward() -> None:
    """From now on, find moved modules by their old names, too."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def names_from(module: str, moved: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for names that have moved.

    Args:
        module: where the names were.
        moved: the module that each is in now, as ``"module"``, or ``"module:NewName"`` where it
            has been renamed, too.
    """

    def find(name: str) -> Any:
        if name not in moved:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, renamed = moved[name].partition(":")
        new = renamed or name
        warnings.warn(f"{module}.{name} is now {home}.{new}", DeprecationWarning, 2)
        return getattr(importlib.import_module(home), new)

    return find


def refused_from(module: str, gone: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` for names that are gone, each with what to use instead.

    Raises:
        ImportError: on asking for one of them; says what to use.
    """

    def find(name: str) -> Any:
        if name in gone:
            raise ImportError(f"{module}.{name} is gone; use {gone[name]}")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
