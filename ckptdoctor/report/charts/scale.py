"""Scales and their ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ckptdoctor.report import numbers

_ROOM = 9.0  # percent of the width that two labels need between them
LOG_FROM = 300.0  # largest over smallest value from which a logarithmic axis reads better: two and a half decades


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps `low`…`high` to `start`…`end`, linearly or logarithmically; values outside are clamped to the ends."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a finite value, rounded to a tenth."""
        low, high, value = (math.log10(max(v, 1e-300)) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)  # fmt: skip
        share = 0.5 if high == low else min(max((value - low) / (high - low), 0.0), 1.0)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, most: int) -> tuple[Tick, ...]:
        """At most about `most` ticks at round numbers inside the scale."""
        values = _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)
        return tuple(Tick(self.at(v), numbers.short(v)) for v in values)


def scale_for(values: Iterable[float], start: float, end: float, *, allow_log: bool = True) -> Scale:
    """A scale that holds all finite values: logarithmic where all are positive and span decades, with a little room.

    Args:
        values: any; non-finite ones are left out (they are shown otherwise).
        start, end: places of the smallest and the largest value.
        allow_log: False for axes that count.
    """
    finite = [float(v) for v in values if math.isfinite(v)]
    if not finite:
        return Scale(0.0, 1.0, start, end)
    low, high = min(finite), max(finite)
    if allow_log and low > 0 and high / low >= LOG_FROM:
        room = (high / low) ** 0.04
        return Scale(max(low / room, 1e-300), min(high * room, 1e300), start, end, log=True)
    spread = (high / 2 - low / 2) * 0.16  # halves: the difference of two large floats may overflow
    room = spread or abs(low) * 0.1 or 1.0
    return Scale(max(low - room, -1e300), min(high + room, 1e300), start, end)


def counting_scale(values: Sequence[float], start: float, end: float) -> Scale:
    """A scale for epochs or steps: from the first to the last, without room at the sides."""
    finite = [v for v in values if math.isfinite(v)]
    return Scale(min(finite, default=0.0), max(finite, default=1.0), start, end)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    step = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 5, 10):
        if span / (step * factor) <= most:
            step *= factor
            break
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)][: most + 2]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    every = max(math.ceil((last - first + 1) / most), 1)
    return [10.0**n for n in range(first, last + 1, every)] or [low, high]


def counting_ticks(scale: Scale, most: int) -> tuple[Tick, ...]:
    """Ticks at whole numbers."""
    whole = {round(v) for v in _linear_ticks(scale.low, scale.high, most)} or {round(scale.low)}
    ticks = [Tick(scale.at(v), numbers.number(v)) for v in sorted(whole) if scale.low <= v <= scale.high]
    last = scale.at(scale.high)
    if scale.high == round(scale.high) and (not ticks or last - ticks[-1].at > _ROOM):
        ticks.append(Tick(last, numbers.number(round(scale.high))))
    return tuple(ticks)
