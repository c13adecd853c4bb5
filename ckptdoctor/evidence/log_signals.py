"""Measurements on the curves of a training log: numbers for rules to judge.

Series with more than about a thousand readings arrive thinned out with their extremes kept (see `ckptdoctor.logs.series`): spreads and
swings measured on those are upper bounds of what was logged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from statistics import median

from ckptdoctor.evidence.log_series import (
    accuracy_series,
    batch_loss_series,
    gradient_norm_series,
    is_loss_name,
    is_validation_name,
    learning_rate_series,
    loss_scale_series,
    loss_series,
    validation_accuracy_series,
    validation_loss_series,
)
from ckptdoctor.model import Series, TrainingLog
from ckptdoctor.model.signals import (
    BlowUp,
    FirstNonfinite,
    Gap,
    Level,
    Negative,
    Oscillation,
    Plateau,
    RateChange,
    Spike,
    StuckAt,
)

__all__ = [
    "accuracy_series",
    "batch_loss_series",
    "blow_up",
    "epoch_at",
    "first_nonfinite",
    "gap",
    "gradient_norm_series",
    "is_loss_name",
    "is_validation_name",
    "learning_rate_series",
    "level",
    "loss_scale_series",
    "loss_series",
    "negative",
    "oscillation",
    "plateau",
    "rate_change_before",
    "rate_changes",
    "spikes",
    "stuck_at",
    "validation_accuracy_series",
    "validation_loss_series",
]

_WINDOW = 50
"""Readings before one that a spike is judged by."""


def first_nonfinite(log: TrainingLog) -> FirstNonfinite | None:
    """The first NaN or infinity of a log, with epoch and step as far as they are logged.

    A loss is preferred to other metrics, which may be undefined by themselves, unless the loss stays finite.
    """
    bad = [s for s in log.series if s.first_nonfinite is not None and not _is_bookkeeping(s.name)]
    losses = [s for s in bad if is_loss_name(s.name) and not is_validation_name(s.name)]
    candidates = losses or bad
    if not candidates:
        return None
    by_epoch = [s for s in candidates if s.axis == "epoch"]
    by_step = [s for s in candidates if s.axis != "epoch"]
    chosen = min(by_step or by_epoch, key=_first_bad_step)
    step = _first_bad_step(chosen) if by_step else None
    epoch: int | None = int(min(map(_first_bad_step, by_epoch))) if by_epoch else None
    if epoch is None and step is not None:
        epoch = epoch_at(log, step)
    batch = None
    if log.terminated is not None and (epoch is None or log.terminated[0] in (None, epoch)):
        batch = log.terminated[1]
    before = _before_first_nonfinite(chosen)
    assert chosen.first_nonfinite is not None
    return FirstNonfinite(
        metric=chosen.name,
        value=chosen.first_nonfinite[1],
        epoch=epoch,
        step=step,
        batch=batch,
        readings_before=len(before),
        last_finite=before[-1][1] if before else None,
        at_start=not before,
    )


def epoch_at(log: TrainingLog, step: float) -> int | None:
    """The epoch that a log by steps names at or just before a step."""
    epochs = next(
        (s for s in log.series if s.name.lower().rsplit("/", 1)[-1] in ("epoch", "epochs") and s.axis != "epoch"), None
    )
    if epochs is None:
        return None
    known = [
        value for at, value in zip(epochs.steps, epochs.values, strict=True) if at <= step and math.isfinite(value)
    ]
    return int(known[-1]) if known else None


def blow_up(series: Series, *, span: float = 5.0) -> BlowUp | None:
    """How a series rose before it ended or went non-finite. None with fewer than 2 finite readings before that.

    Args:
        series: a loss or a norm.
        span: units of the axis within which the fastest rise is sought.
    """
    points = _before_first_nonfinite(series)
    if len(points) < 2:
        return None
    low = min(range(len(points)), key=lambda i: points[i][1])
    high = max(range(low, len(points)), key=lambda i: points[i][1])
    rising = [p for p in points[low:] if p[1] > 0]
    line = _line([(at, math.log2(v)) for at, v in rising]) if len(rising) >= 3 else None
    doubling = 1.0 / line[0] if line is not None and line[0] > 1e-12 else None
    lowest, highest = points[low][1], points[high][1]
    return BlowUp(
        metric=series.name,
        axis=series.axis,
        lowest=lowest,
        lowest_at=points[low][0],
        highest=highest,
        highest_at=points[high][0],
        last=points[-1][1],
        last_at=points[-1][0],
        factor=_ratio(highest, lowest),
        fastest=_fastest(points, span),
        span=span,
        doubling=doubling,
        r2=line[1] if line is not None and doubling is not None else None,
        ends_nonfinite=series.nonfinite > 0,
    )


def spikes(series: Series, *, at_least: float = 4.0, most: int = 16) -> tuple[Spike, ...]:
    """Readings far above the running median of up to 50 readings before them, largest z first.

    z is the distance in robust standard deviations (1.4826 MAD, not less than 1 % of the median), so it needs no
    normality; at least 8 readings must precede.
    """
    points = [p for p in zip(series.steps, series.values, strict=True) if math.isfinite(p[1])]
    found: list[Spike] = []
    for i in range(8, len(points)):
        at, value = points[i]
        before = [v for _, v in points[max(0, i - _WINDOW) : i]]
        baseline = median(before)
        if value <= baseline:
            continue
        spread = 1.4826 * median(abs(v - baseline) for v in before)
        spread = max(spread, 0.01 * abs(baseline), 1e-300)
        z = (value - baseline) / spread
        if z >= at_least:
            found.append(Spike(series.name, at, value, baseline, z, _ratio(value, baseline)))
    return tuple(sorted(found, key=lambda s: -s.z)[:most])


def plateau(series: Series, *, last: float = 0.5) -> Plateau | None:
    """How much the last part of a series still moves. None with fewer than 3 finite readings in it.

    Args:
        series: any metric.
        last: the share of the readings that is looked at, from the end.
    """
    points = _finite(series)
    part = points[-max(3, math.ceil(len(points) * last)) :]
    if len(part) < 3:
        return None
    values = [v for _, v in part]
    level = median(values)
    size = max(abs(level), 1e-300)
    third = max(1, len(values) // 3)
    line = _line(part)
    first = points[0][1]
    return Plateau(
        metric=series.name,
        start=part[0][0],
        stop=part[-1][0],
        points=len(part),
        level=level,
        relative_change=(median(values[:third]) - median(values[-third:])) / size,
        spread=(max(values) - min(values)) / size,
        slope=line[0] / size if line is not None else 0.0,
        constant_tail=_constant_tail([v for _, v in points]),
        total_change=(first - level) / max(abs(first), 1e-300),
    )


def stuck_at(series: Series, level: float, *, tolerance: float) -> StuckAt | None:
    """How closely a series keeps to a level, such as ln k for k classes, or an accuracy of 1/k. None without finite readings.

    Args:
        series: any metric.
        level: where it may be stuck.
        tolerance: relative to |level| (absolute where the level is 0).
    """
    values = [v for _, v in _finite(series)]
    if not values:
        return None
    size = abs(level) or 1.0
    near = [abs(v - level) <= tolerance * size for v in values]
    trailing = next((i for i, n in enumerate(reversed(near)) if not n), len(near))
    late = values[len(values) // 2 :]
    return StuckAt(
        metric=series.name,
        level=level,
        tolerance=tolerance,
        share=sum(near) / len(near),
        trailing=trailing,
        points=len(values),
        distance=median(abs(v - level) for v in late) / size,
    )


def negative(series: Series) -> Negative | None:
    """Readings below zero; None where there is none."""
    points = _finite(series)
    below = [p for p in points if p[1] < 0]
    if not below:
        return None
    third = max(1, len(points) // 3)
    values = [v for _, v in points]
    return Negative(
        metric=series.name,
        count=len(below),
        points=len(points),
        first_at=below[0][0],
        lowest=min(v for _, v in below),
        falling=median(values[-third:]) < median(values[:third]),
    )


def oscillation(series: Series, *, limit: float) -> Oscillation | None:
    """How much a series goes up and down. None with fewer than 4 finite readings.

    Args:
        series: any metric.
        limit: size of a change that counts as large, in the metric's units (0.03 of accuracy in AUTOTRAINER).
    """
    values = [v for _, v in _finite(series)]
    if len(values) < 4:
        return None
    changes = [b - a for a, b in itertools.pairwise(values)]
    turns = sum(a * b < 0 for a, b in itertools.pairwise(changes))
    typical = median(map(abs, changes))
    third = max(1, len(values) // 3)
    progress = abs(median(values[-third:]) - median(values[:third]))
    return Oscillation(
        metric=series.name,
        points=len(values),
        reversals=turns / (len(changes) - 1),
        swing=typical / max(median(map(abs, values)), 1e-300),
        large=sum(abs(c) > limit for c in changes) / len(changes),
        limit=limit,
        trend=progress / typical if typical > 0 else 0.0,
    )


def gap(train: Series, validation: Series) -> Gap | None:
    """Training against validation. None without a common finite place on one axis."""
    if train.axis != validation.axis:
        return None
    left, right = dict(_finite(train)), dict(_finite(validation))
    common = sorted(left.keys() & right.keys())
    if not common:
        return None
    at = common[-1]
    best_at = min(right, key=lambda step: right[step])
    return Gap(
        train=left[at],
        validation=right[at],
        at=at,
        relative=(right[at] - left[at]) / max(abs(left[at]), 1e-300),
        best=right[best_at],
        best_at=best_at,
        rise=(right[at] - right[best_at]) / max(abs(right[best_at]), 1e-300),
    )


def rate_changes(series: Series, *, at_least: float = 1.05) -> tuple[RateChange, ...]:
    """Where the learning rate changed by more than a factor, up or down.

    Args:
        series: the learning rate.
        at_least: the factor; schedules that change a little each epoch are left out.
    """
    points = _finite(series)
    found = []
    for (_, before), (at, after) in itertools.pairwise(points):
        small, large = sorted((abs(before), abs(after)))
        if large > 0 and (small == 0 or large / small >= at_least):
            found.append(RateChange(at, series.axis, before, after))
    return tuple(found)


def rate_change_before(series: Series, at: float, *, within: float, at_least: float = 1.05) -> RateChange | None:
    """The last change of the learning rate at or before a place on its axis.

    Args:
        series: the learning rate. at: the place, e.g. of a spike.
        within: how far before, in units of the axis. at_least: factor of the change.
    """
    found = [c for c in rate_changes(series, at_least=at_least) if at - within <= c.at <= at]
    return found[-1] if found else None


def level(series: Series) -> Level | None:
    """The size of a series early and late; for gradient norms. None with fewer than 3 finite readings."""
    points = _finite(series)
    if len(points) < 3:
        return None
    quarter = max(3, len(points) // 4)
    values = [v for _, v in points]
    early = median(values[:quarter])
    highest_at, highest = max(points, key=lambda p: p[1])
    return Level(
        metric=series.name,
        early=early,
        late=median(values[-quarter:]),
        highest=highest,
        highest_at=highest_at,
        ratio=_ratio(highest, early),
        points=len(points),
    )


# --- parts -------------------------------------------------------------------------------------


def _is_bookkeeping(name: str) -> bool:
    """Series that say nothing about the health of the model by being non-finite."""
    return name.lower().rsplit("/", 1)[-1] in ("epoch", "epochs", "batch", "step")


def _first_bad_step(series: Series) -> float:
    assert series.first_nonfinite is not None
    return series.first_nonfinite[0]


def _finite(series: Series) -> list[tuple[float, float]]:
    return [p for p in zip(series.steps, series.values, strict=True) if math.isfinite(p[1])]


def _before_first_nonfinite(series: Series) -> list[tuple[float, float]]:
    return list(_until_nonfinite(series))


def _until_nonfinite(series: Series) -> Iterator[tuple[float, float]]:
    for at, value in zip(series.steps, series.values, strict=True):
        if not math.isfinite(value):
            return
        yield at, value


def _ratio(value: float, base: float) -> float | None:
    if base <= 0:
        return None
    try:
        return value / base
    except OverflowError:
        return math.inf


def _fastest(points: Sequence[tuple[float, float]], span: float) -> float | None:
    """Largest later/earlier over pairs at most `span` apart, both positive."""
    best: float | None = None
    for i, (at, value) in enumerate(points):
        if value <= 0:
            continue
        for later_at, later in points[i + 1 :]:
            if later_at - at > span:
                break
            ratio = _ratio(later, value)
            if ratio is not None and (best is None or ratio > best):
                best = ratio
    return best


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """Least-squares slope and r² of a straight line; None where the places do not differ."""
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    sxx = sum((x - mean_x) * (x - mean_x) for x, _ in points)
    syy = sum((y - mean_y) * (y - mean_y) for _, y in points)
    sxy = sum((x - mean_x) * (y - mean_y) for x, y in points)
    if not (0 < sxx < math.inf) or not math.isfinite(sxy):
        return None
    return sxy / sxx, (sxy * sxy / (sxx * syy) if 0 < syy < math.inf else 0.0)


def _constant_tail(values: Sequence[float]) -> int:
    last = values[-1]
    size = max(abs(last), 1e-300)
    return next((i for i, v in enumerate(reversed(values)) if abs(v - last) > 1e-6 * size), len(values))
