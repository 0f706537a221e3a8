"""Choices by name: of batch norm and of precision, apart from modules that take long to import."""

from typing import Literal

__all__ = ["Policy", "Precision"]

Policy = Literal["inductive", "transductive"]
"""Whether a query's answer may depend on the other queries; see `quickstudy.nn.norm.BatchNorm`."""

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
"""Of a training step's operations, by Lightning Fabric's names; weights are in single precision."""
