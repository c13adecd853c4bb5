"""Small questions to a series of the log that several rules ask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from ckptdoctor.model import Evidence, Series
from ckptdoctor.rules.courses import training_loss


def finite(series: Series) -> list[float]:
    """Its finite values, in order."""
    return [v for v in series.values if math.isfinite(v)]


def loss(evidence: Evidence) -> Series | None:
    """The training loss."""
    return training_loss(evidence)


def before_first_nonfinite(series: Series) -> list[float]:
    """Finite values before the first one that is not; all of them where every value is finite."""
    values = []
    for v in series.values:
        if not math.isfinite(v):
            break
        values.append(v)
    return values


def growth_before_failure(series: Series) -> float | None:
    """Last finite value before the failure over the smallest before it; None with fewer than two."""
    values = [abs(v) for v in before_first_nonfinite(series)]
    if len(values) < 2:
        return None
    return values[-1] / max(min(values[:-1]), 1e-30)


def swings(values: Sequence[float]) -> float:
    """Share of inner points that are turning points with both sides above a tenth of the median."""
    if len(values) < 3:
        return 0.0
    scale = 0.1 * max(median(abs(v) for v in values), 1e-30)
    turns = sum(
        1
        for a, b, c in zip(values, values[1:], values[2:], strict=False)
        if (b - a) * (c - b) < 0 and min(abs(b - a), abs(c - b)) > scale
    )
    return turns / (len(values) - 2)
