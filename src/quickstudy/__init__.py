"""quickstudy: train once on many tasks, then learn a new one from a handful of examples."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quickstudy.pretrained import load

__all__ = ["load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is first asked for."""
    if name == "load":
        from quickstudy.pretrained import load

        return load
    raise AttributeError(f"module 'quickstudy' has no attribute {name!r}")
