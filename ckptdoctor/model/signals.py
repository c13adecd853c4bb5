"""What a curve of a training log shows, as numbers. Opinions are the rules' business."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FirstNonfinite:
    """The first NaN or infinity in a log.

    Attributes:
        metric: the series it stands in: a loss where a loss went first or at the same time.
        value: NaN or an infinity.
        epoch: from 0, None where no epoch is logged. step: on the log's step axis, None where there is none.
        batch: batch of that epoch, from 0, named by a TerminateOnNaN line.
        readings_before: finite readings of that series before it.
        last_finite: the reading before it, None if there is none.
        at_start: the very first reading is already non-finite.
    """

    metric: str
    value: float
    epoch: int | None
    step: float | None
    batch: int | None
    readings_before: int
    last_finite: float | None
    at_start: bool


@dataclass(frozen=True, slots=True)
class BlowUp:
    """How far and how fast a series rose from its lowest point to the last finite one.

    Attributes:
        lowest, lowest_at: the minimum. highest, highest_at: the maximum after it.
        last, last_at: the last finite reading before the first non-finite one (or of all).
        factor: highest over lowest; None where the lowest is not positive.
        fastest: largest factor between readings at most `span` units of the axis apart, None likewise.
        doubling: units of the axis per doubling, by a straight line through log2 from lowest to last; None if
            it does not rise, or with fewer than 3 points.
        r2: of that line.
        ends_nonfinite: a non-finite reading follows the last one.
    """

    metric: str
    axis: str
    lowest: float
    lowest_at: float
    highest: float
    highest_at: float
    last: float
    last_at: float
    factor: float | None
    fastest: float | None
    span: float
    doubling: float | None
    r2: float | None
    ends_nonfinite: bool


@dataclass(frozen=True, slots=True)
class Spike:
    """A reading far above those before it.

    Attributes:
        at: value of the axis. z: distance from the running median in robust standard deviations. ratio: over that median.
    """

    metric: str
    at: float
    value: float
    baseline: float
    z: float
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Plateau:
    """How much a series still moved over its last part.

    Attributes:
        start, stop: part of the axis. points: readings in it.
        level: median there. relative_change: (median of its first third - median of its last third) / |level|;
            positive means falling.
        spread: (max - min) / |level|.
        slope: least-squares slope per unit of the axis over |level|.
        constant_tail: trailing readings of the whole series equal within 1e-6 of their size.
        total_change: (first reading of the whole series - level) / |first reading|.
    """

    metric: str
    start: float
    stop: float
    points: int
    level: float
    relative_change: float
    spread: float
    slope: float
    constant_tail: int
    total_change: float


@dataclass(frozen=True, slots=True)
class StuckAt:
    """How a series keeps to one given level.

    Attributes:
        share: of the readings within `tolerance` of the level. trailing: readings in a row at the end that are.
        distance: median distance from the level over its last half, relative to the level.
    """

    metric: str
    level: float
    tolerance: float
    share: float
    trailing: int
    points: int
    distance: float


@dataclass(frozen=True, slots=True)
class Negative:
    """Readings below zero."""

    metric: str
    count: int
    points: int
    first_at: float
    lowest: float
    falling: bool  # the last third lies below the first


@dataclass(frozen=True, slots=True)
class Oscillation:
    """Going up and down.

    Attributes:
        reversals: share of neighbouring changes with opposite signs (about 2/3 for pure noise).
        swing: median size of a change over the median size of the readings.
        large: share of changes larger than `limit`. limit: as asked for, in the metric's own units.
        trend: |last third - first third| over the median size of a change; small means no net progress.
    """

    metric: str
    points: int
    reversals: float
    swing: float
    large: float
    limit: float
    trend: float


@dataclass(frozen=True, slots=True)
class Gap:
    """Training against validation at the last common place of the axis.

    Attributes:
        relative: (validation - training) / |training|. best: the best validation reading. best_at: where.
        rise: (last validation - best) / |best|.
    """

    train: float
    validation: float
    at: float
    relative: float
    best: float
    best_at: float
    rise: float


@dataclass(frozen=True, slots=True)
class RateChange:
    """The learning rate went from one value to another."""

    at: float
    axis: str
    before: float
    after: float

    @property
    def factor(self) -> float:
        """After over before; infinite from zero."""
        return self.after / self.before if self.before else float("inf")


@dataclass(frozen=True, slots=True)
class Level:
    """The size of a series early and late.

    Attributes:
        early: median of the first quarter (at least 3 readings). late: of the last quarter.
        highest, highest_at: the largest finite reading.
        ratio: highest over early, None where early is not positive.
    """

    metric: str
    early: float
    late: float
    highest: float
    highest_at: float
    ratio: float | None
    points: int
