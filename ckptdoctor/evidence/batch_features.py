"""Moments, outliers and codes for missing values of each feature of a recorded array."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import FeatureStats

MAX_LISTED = 256
MIN_CODED = 24
"""Values below which a repeated extreme says nothing (hand-chosen)."""
CODE_REPEATS = 3
"""Times a value stands before it counts as repeated, and other values there must be (hand-chosen)."""
CODE_GAP = 10.0
"""Distance from all other values, in ranges of those, from which a repeated extreme is taken for a code (hand-chosen)."""

Floats = NDArray[np.float64]


class Features:
    """Moments per index along the last axis."""

    def __init__(self, width: int) -> None:
        self.nonfinite = np.zeros(width, np.int64)
        self.count = np.zeros(width, np.int64)
        self.min = np.full(width, np.inf)
        self.max = np.full(width, -np.inf)
        self.mean = np.zeros(width)
        self.squares = np.zeros(width)
        self.kept: list[Floats] = []

    def take(self, flat: Floats, finite: NDArray[np.bool_], keep_every: int) -> None:
        """`flat` has shape (values, width)."""
        count = finite.sum(axis=0)
        self.nonfinite += len(flat) - count
        self.min = np.minimum(self.min, np.where(finite, flat, np.inf).min(axis=0, initial=np.inf))
        self.max = np.maximum(self.max, np.where(finite, flat, -np.inf).max(axis=0, initial=-np.inf))
        scale = np.maximum(np.maximum(np.abs(self.min), np.abs(self.max)), 1.0)
        scale = np.where(np.isfinite(scale), scale, 1.0)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            values = np.where(finite, flat, 0.0)
            mean = np.where(count > 0, (values / scale).sum(axis=0) / np.maximum(count, 1) * scale, 0.0)
            squares = (np.where(finite, flat - mean, 0.0) ** 2).sum(axis=0)
            total = np.maximum(self.count + count, 1)
            delta = mean - self.mean
            self.squares += squares + delta * delta * self.count * count / total
            self.mean += delta * count / total
        self.count += count
        self.kept.append(flat[::keep_every])

    def stats(self, limit: int) -> tuple[FeatureStats, ...]:
        kept = np.concatenate(self.kept) if self.kept else np.empty((0, len(self.count)))
        z = _outlier_z(kept, self.min, self.max)
        found = []
        for i in range(min(len(self.count), limit)):
            some = self.count[i] > 0
            found.append(
                FeatureStats(
                    index=i,
                    nonfinite=int(self.nonfinite[i]),
                    min=float(self.min[i]) if some else None,
                    max=float(self.max[i]) if some else None,
                    mean=number(self.mean[i]) if some else None,
                    std=number(np.sqrt(self.squares[i] / self.count[i])) if some else None,
                    outlier_z=z[i],
                    **_code(kept[:, i]),
                    **_common(kept[:, i]),
                )
            )
        return tuple(found)

    def constant(self) -> tuple[int, ...]:
        same = (self.min == self.max) & (self.nonfinite == 0) & (self.count > 1)
        return tuple(np.flatnonzero(same)[:MAX_LISTED].tolist())


def _outlier_z(kept: Floats, low: Floats, high: Floats) -> list[float | None]:
    """Largest robust z-score of each feature: distance of its extremes from the median over 1.4826 MAD.

    1.4826 makes the MAD of a normal distribution its standard deviation. None where more than half of the values are
    equal: the MAD is then 0 and nothing can be said.
    """
    found: list[float | None] = []
    for i in range(kept.shape[1]):
        column = kept[:, i]
        column = column[np.isfinite(column)]
        if len(column) < 8 or not np.isfinite(low[i]):
            found.append(None)
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            middle = float(np.median(column))
            spread = 1.4826 * float(np.median(np.abs(column - middle)))
            z = max(high[i] - middle, middle - low[i]) / spread if spread > 0 else np.nan
        found.append(float(z) if np.isfinite(z) else None)
    return found


def _code(column: Floats) -> dict[str, Any]:
    """A value that stands in for missing ones, as keyword arguments of `FeatureStats`; empty where there is none."""
    column = column[np.isfinite(column)]
    for extreme in (column.max(), column.min()) if len(column) >= MIN_CODED else ():
        rest = column[column != extreme]
        count = len(column) - len(rest)
        if count < CODE_REPEATS or count > len(column) // 2 or len(np.unique(rest)) < CODE_REPEATS:
            continue
        with np.errstate(over="ignore"):
            gap = min(abs(extreme - rest.max()), abs(extreme - rest.min()))
            if gap > CODE_GAP * (rest.max() - rest.min()):
                return {"code": float(extreme), "code_count": count}
    return {}


def _common(column: Floats) -> dict[str, Any]:
    """The most frequent value and its share, as keyword arguments of `FeatureStats`."""
    column = column[np.isfinite(column)]
    if not len(column):
        return {}
    values, counts = np.unique(column, return_counts=True)
    most = int(counts.argmax())
    return {"common": float(values[most]), "common_share": float(counts[most]) / len(column)}


def number(value: np.floating[Any] | float) -> float | None:
    return float(value) if np.isfinite(value) else None
