"""How tensors change over the checkpoints of a run: exponential growth, its end, and weights that never move."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ckptdoctor.model import Census, Growth, Role, TensorStats

MAX_FITS = 64
MIN_POINTS = 3
_MATERIAL = 0.01
"""A tensor whose rms changes by less than this between first and last checkpoint is not fitted: nothing is growing."""
_GOOD_FIT = 0.8
_FARTHEST = 10_000.0

LARGEST = {
    "float16": 65504.0,
    "bfloat16": 3.3895313892515355e38,
    "float32": 3.4028234663852886e38,
    "float64": 1.7976931348623157e308,
    "float8_e4m3fn": 448.0,
    "float8_e5m2": 57344.0,
}
"""Largest finite number of each float dtype."""

Place = tuple[float, Census]
"""A checkpoint and where it stands on the axis."""


def fit_growth(places: Sequence[Place], axis: str) -> tuple[Growth, ...]:
    """Exponential fits of rms over time for weights, statistics and slots, steepest growth first, at most 64.

    A straight line is fitted through log2(rms), once over all checkpoints and once over the later half (at least 3): a run may
    be calm for long before it grows. The later half is taken where its line is good (r2 of 0.8) and steeper.

    Args:
        places: healthy checkpoints in order, axis ascending.
        axis: `epoch`, `step` or `checkpoint`.
    """
    fits: list[Growth] = []
    for track in _tracks(places):
        if len(track) < MIN_POINTS:
            continue
        fit = _fit(track, axis)
        if fit is not None:
            fits.append(fit)
    fits.sort(key=lambda g: -1.0 / g.doubling)
    return tuple(fits[:MAX_FITS])


def unmoved_weights(places: Sequence[Place]) -> tuple[str, ...]:
    """Paths of weights whose minimum, maximum, mean and rms are the same in all checkpoints though steps passed.

    Weights that the file says are frozen are left out. Empty with fewer than two checkpoints at different places.
    """
    if len(places) < 2 or places[0][0] == places[-1][0]:
        return ()
    still = {
        s.info.path: s
        for s in places[0][1].of_role(Role.WEIGHT)
        if s.info.trainable is not False and s.rms is not None and s.error is None
    }
    for _, census in places[1:]:
        table = _by_path(census)
        still = {path: s for path, s in still.items() if path in table and _same(s, table[path])}
        if not still:
            break
    return tuple(still)


def _tracks(places: Sequence[Place]) -> Iterator[list[tuple[float, TensorStats]]]:
    """For each tensor its statistics over time, where it has a positive rms."""
    if not places:
        return
    tables = [(at, _by_path(census)) for at, census in places]
    for path, stats in tables[-1][1].items():
        if stats.info.role in (Role.WEIGHT, Role.STATISTIC, Role.SLOT) and stats.info.dtype in LARGEST:
            track = [(at, table[path]) for at, table in tables if path in table]
            yield [(at, s) for at, s in track if s.rms is not None and s.rms > 0 and s.info.shape == stats.info.shape]


def _by_path(census: Census) -> dict[str, TensorStats]:
    return {s.info.path: s for s in census.tensors}


def _fit(track: list[tuple[float, TensorStats]], axis: str) -> Growth | None:
    first, last = track[0][1], track[-1][1]
    assert first.rms is not None
    assert last.rms is not None
    half = track[-max(MIN_POINTS, math.ceil(len(track) / 2)) :]
    whole_line, half_line = _line(track), _line(half)
    line = whole_line
    if half_line is not None and half_line[1] >= _GOOD_FIT and (line is None or half_line[0] > line[0]):
        line = half_line
    if line is None or (abs(math.log(last.rms / first.rms)) < _MATERIAL and line is whole_line):
        return None
    slope, r2 = line
    if slope == 0 or abs(1.0 / slope) == math.inf:
        return None
    return Growth(
        path=last.info.path,
        layer=last.info.layer,
        variable=last.info.variable if last.info.slot is None else f"{last.info.variable} {last.info.slot}",
        doubling=1.0 / slope,
        r2=r2,
        overflow_at=_overflow(track[-1][0], last, slope),
        axis=axis,
        first=first.rms,
        last=last.rms,
    )


def _overflow(at: float, stats: TensorStats, slope: float) -> float | None:
    """Where on the axis the largest magnitude reaches the dtype's largest number if growth goes on."""
    size = stats.absmax
    if slope <= 0 or not size:
        return None
    ahead = (math.log2(LARGEST[stats.info.dtype]) - math.log2(size)) / slope
    return at + max(ahead, 0.0) if ahead <= _FARTHEST else None


def _line(track: Sequence[tuple[float, TensorStats]]) -> tuple[float, float] | None:
    """Slope of log2(rms) and r2 by least squares; None where the places do not differ."""
    points = [(at, math.log2(s.rms)) for at, s in track if s.rms]
    n = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / n, sum(y for _, y in points) / n
    sxx = sum((x - mean_x) ** 2 for x, _ in points)
    syy = sum((y - mean_y) ** 2 for _, y in points)
    sxy = sum((x - mean_x) * (y - mean_y) for x, y in points)
    if sxx <= 0:
        return None
    return sxy / sxx, sxy * sxy / (sxx * syy) if syy > 0 else 0.0


def _same(a: TensorStats, b: TensorStats) -> bool:
    return (a.min, a.max, a.mean, a.rms, a.zeros) == (b.min, b.max, b.mean, b.rms, b.zeros)
