"""What a score is: its name, which way is better, and how it is written."""

import math
from enum import StrEnum

__all__ = ["Metric"]


class Metric(StrEnum):
    """What was measured; a member is also the string that saved evaluations hold.

    Example:
        >>> Metric.ACCURACY.figure(0.9858, 0.0022), Metric.ACCURACY.label
        ('98.58 ± 0.22', 'accuracy, %')
        >>> Metric("mean squared error").figure(0.355, 0.034)
        '0.3550 ± 0.0340'
    """

    ACCURACY = "accuracy"
    SQUARED_ERROR = "mean squared error"

    @property
    def higher_is_better(self) -> bool:
        return self is Metric.ACCURACY

    @property
    def scale(self) -> int:
        """What a score is multiplied by to be written: accuracy is kept in 0..1, written in %."""
        return 100 if self is Metric.ACCURACY else 1

    @property
    def unit(self) -> str:
        """Of a written score; empty if it has none."""
        return "%" if self is Metric.ACCURACY else ""

    @property
    def label(self) -> str:
        """Name and unit, for the head of a column or an axis."""
        return f"{self}, {self.unit}" if self.unit else str(self)

    def figure(self, mean: float, ci95: float, *, sign: str = "") -> str:
        """A score and half its interval as text, without the unit.

        Args:
            mean: as in `Evaluation`.
            ci95: as in `Evaluation`.
            sign: ``"+"`` to write the sign of a positive number, too.
        """
        digits = 2 if self is Metric.ACCURACY else 4
        text = f"{self.scale * mean:{sign}.{digits}f}"
        return text if math.isnan(ci95) else f"{text} ± {self.scale * ci95:.{digits}f}"

    def better(self, new: float, old: float) -> bool:
        """Whether the first of two scores is the better one."""
        return new > old if self.higher_is_better else new < old
