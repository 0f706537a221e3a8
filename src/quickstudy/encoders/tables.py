"""Rows of tables to numbers."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from quickstudy.columns import Columns
from quickstudy.encoders.encoder import Kind, row_of
from quickstudy.examples import Example

__all__ = ["TableEncoder"]


class TableEncoder:
    """Rows of a table as numbers, see `quickstudy.columns`: of columns that were learned from.

    Args:
        columns: what they hold.
        label: the column with the labels, if it has another name than usual.
    """

    kind: Kind = "table"
    name = "table"

    def __init__(self, columns: Columns, label: str | None = None) -> None:
        self.columns, self.label = columns, label
        plain = json.dumps(columns.plain())
        self.fingerprint = hashlib.sha256(plain.encode()).hexdigest()

    @classmethod
    def of(cls, examples: Sequence[Example], label: str | None = None) -> "TableEncoder":
        """For the columns that these examples have.

        Raises:
            ValueError: one is no row of a table, or there is no column to learn from.
        """
        return cls(Columns.fit([row_of(example) for example in examples]), label)

    def __call__(self, examples: Sequence[Example]) -> NDArray[Any]:
        try:
            return self.columns.numbers([row_of(example) for example in examples])
        except ValueError as fault:
            raise ValueError(f"{examples[0].where}: {fault}") from fault
