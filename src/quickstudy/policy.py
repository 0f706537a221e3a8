"""The policies of batch norm by name, apart from `quickstudy.nn`, which takes long to import."""

from typing import Literal

__all__ = ["Policy"]

Policy = Literal["inductive", "transductive"]
"""Whether a query's answer may depend on the other queries; see `quickstudy.nn.norm.BatchNorm`."""
