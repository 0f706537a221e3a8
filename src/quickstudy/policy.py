"""Choices by name, and words for them, apart from modules that take long to import."""

from typing import Literal

__all__ = ["Policy", "Precision", "company"]

Policy = Literal["inductive", "transductive"]
"""Whether a query's answer may depend on the other queries; see `quickstudy.nn.norm.BatchNorm`."""

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Of a training step's operations, by Lightning Fabric's names; weights are in single precision."""


def company(refine: object, balanced: object) -> str:
    """How queries are answered if not each alone, in words for a table; empty if each is."""
    together = "queries together" if refine or balanced else ""
    return f"{together}, balanced" if balanced else together
