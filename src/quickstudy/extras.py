"""Packages that only a part of quickstudy needs."""

import importlib
from typing import Any

__all__ = ["need"]


def need(module: str, extra: str) -> Any:
    """A module that comes with an extra, ``quickstudy[extra]``.

    Raises:
        ModuleNotFoundError: it, or something that it needs, is not installed; says how to do so.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this needs {error.name}, which is not installed: pip install '.[{extra}]' in the "
            "folder of quickstudy"
        ) from error
