"""Bars in tables: lengths in steps of a twentieth (styled by class, since the page allows no inline styles)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

STEPS = 20


@dataclass(frozen=True, slots=True)
class LogBars:
    """Bar lengths for positive values that may span decades; equal values get half a bar."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float | None]) -> LogBars:
        """Bars that have room for all of these values."""
        known = [v for v in values if v is not None and v > 0 and math.isfinite(v)]
        return cls(min(known), max(known)) if known else cls(1.0, 1.0)

    def length(self, value: float | None) -> int:
        """1 to `STEPS`; 0 for nothing, zero, or a value that is not finite."""
        if value is None or value <= 0 or not math.isfinite(value):
            return 0
        if self.high <= self.low:
            return STEPS // 2
        # Differences of logarithms: the ratio of the largest to the smallest float64 is no float64.
        share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return 1 + round(min(max(share, 0.0), 1.0) * (STEPS - 1))


def share(part: float, whole: float) -> int:
    """A part of a whole as 0 to `STEPS`; at least 1 for anything above nothing, `STEPS` only for all."""
    if whole <= 0 or part <= 0:
        return 0
    if part >= whole:
        return STEPS
    return min(max(round(part / whole * STEPS), 1), STEPS - 1)
