"""Curves over epochs or steps, with a lane of their own for values that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptdoctor.report import numbers
from ckptdoctor.report.charts.scale import Scale, Tick, counting_scale, counting_ticks, scale_for

_MOST_POINTS = 240  # more than the pixels of a telephone show
LANE = 22  # height of the lane for non-finite values, in pixels
WIDTH = 1000  # of the inner drawing's coordinates; stretched to the room there is


@dataclass(frozen=True, slots=True)
class Curve:
    """Values to draw: `steps` and `values` are equally long."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive values that are not finite, from and to in percent. `kind` is `NaN` or `Inf`."""

    start: float
    end: float
    kind: str
    title: str


@dataclass(frozen=True, slots=True)
class Line:
    """One drawn curve: a path in `WIDTH` × height, single points in percent and pixels, and its non-finite runs."""

    name: str
    style: int
    path: str
    dots: tuple[tuple[float, float], ...]
    runs: tuple[Run, ...]
    last: str


@dataclass(frozen=True, slots=True)
class Guide:
    """A vertical line with a few words."""

    at: float
    label: str
    tone: str
    turned: bool  # the words stand to the left of it


@dataclass(frozen=True, slots=True)
class LineChart:
    """Everything a template needs to draw curves."""

    title: str
    height: int
    top: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    x_label: str
    log: bool
    lines: tuple[Line, ...]
    guides: tuple[Guide, ...]
    summary: str

    @property
    def kinds(self) -> frozenset[str]:
        """Which kinds of non-finite values are drawn."""
        return frozenset(run.kind for line in self.lines for run in line.runs)

    @property
    def empty(self) -> bool:
        """Whether no value is finite."""
        return not self.y_ticks

    @property
    def has_lane(self) -> bool:
        """Whether the lane for non-finite values is there."""
        return self.top >= LANE


def line_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    axis: str,
    height: int = 200,
    x: Scale | None = None,
    y: Scale | None = None,
    guides: Sequence[tuple[float, str, str]] = (),
) -> LineChart:
    """Lay out curves over one axis.

    Args:
        title: names the drawing.
        curves: at least one.
        axis: what the steps count.
        height: pixels.
        x, y: scales shared with other drawings; None to fit the curves.
        guides: (step, words, tone) of vertical lines.
    """
    lane = any(not math.isfinite(v) for c in curves for v in c.values)
    empty = not any(math.isfinite(v) for c in curves for v in c.values)
    top = LANE if lane else 8
    height = top + 22 if empty else height
    x = x or counting_scale([s for c in curves for s in c.steps], 0, 100)
    y = y or scale_for([v for c in curves for v in c.values], height - 4, top + 4)
    lines = tuple(_line(curve, n, x, y) for n, curve in enumerate(curves))
    marks = tuple(Guide(x.at(s), words, tone, x.at(s) > 45) for s, words, tone in guides if x.low <= s <= x.high)
    summary = " ".join(_in_words(c, axis) for c in curves)
    return LineChart(
        title, height, top, counting_ticks(x, 6), () if empty else y.ticks(5), axis, y.log, lines, marks, summary
    )


def _line(curve: Curve, style: int, x: Scale, y: Scale) -> Line:
    path: list[str] = []
    dots: list[tuple[float, float]] = []
    for part in _finite_parts(curve, y):
        places = [(x.at(step), y.at(value)) for step, value in _thinned(part)]
        if len(places) == 1:
            dots.append(places[0])
        else:
            path.append("M" + "L".join(f"{px * WIDTH / 100:g} {py:g}" for px, py in places))
    finite = [v for v in curve.values if math.isfinite(v)]
    last = numbers.number(finite[-1]) if finite else numbers.ABSENT
    return Line(curve.name, style, "".join(path), tuple(dots), tuple(_runs(curve, x)), last)


def _finite_parts(curve: Curve, y: Scale) -> Iterator[list[tuple[float, float]]]:
    """Stretches of finite values; one that leaves the drawing ends with the first point outside and resumes with the last."""
    part: list[tuple[float, float]] = []
    for step, value in zip(curve.steps, curve.values, strict=False):
        if not math.isfinite(value):
            yield from _drawn(part, y)
            part = []
            continue
        if part and not y.low <= value <= y.high and not y.low <= part[-1][1] <= y.high:
            yield from _drawn(part, y)
            part = []
        part.append((step, value))
    yield from _drawn(part, y)


def _drawn(part: list[tuple[float, float]], y: Scale) -> Iterator[list[tuple[float, float]]]:
    """The stretch, unless it is nothing or a single point outside the drawing."""
    if len(part) > 1 or (part and y.low <= part[0][1] <= y.high):
        yield part


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about `_MOST_POINTS` points: of every bucket the lowest and the highest, in their order."""
    if len(points) <= _MOST_POINTS:
        return points
    width = len(points) / (_MOST_POINTS / 2)
    kept = {0, len(points) - 1}
    for bucket in range(_MOST_POINTS // 2):
        indices = range(int(bucket * width), min(int((bucket + 1) * width), len(points)))
        if indices:
            kept.add(min(indices, key=lambda i: points[i][1]))
            kept.add(max(indices, key=lambda i: points[i][1]))
    return [points[i] for i in sorted(kept)]


def _runs(curve: Curve, x: Scale) -> Iterator[Run]:
    start: float | None = None
    end, kind = 0.0, ""
    for step, value in zip(curve.steps, curve.values, strict=False):
        here = "" if math.isfinite(value) else "NaN" if math.isnan(value) else "Inf"
        if start is not None and here != kind:
            yield _run(curve.name, start, end, kind, x)
            start = None
        if here:
            start = step if start is None else start
            end, kind = step, here
    if start is not None:
        yield _run(curve.name, start, end, kind, x)


def _run(name: str, start: float, end: float, kind: str, x: Scale) -> Run:
    place = numbers.number(start) if start == end else f"{numbers.number(start)} to {numbers.number(end)}"
    return Run(x.at(start), x.at(end), kind, f"{name} is {kind} at {place}")


def _in_words(curve: Curve, axis: str) -> str:
    finite = [(s, v) for s, v in zip(curve.steps, curve.values, strict=False) if math.isfinite(v)]
    bad = [(s, v) for s, v in zip(curve.steps, curve.values, strict=False) if not math.isfinite(v)]
    words = f"{curve.name}: "
    if finite:
        low, high = min(v for _, v in finite), max(v for _, v in finite)
        words += f"{numbers.number(finite[0][1])} at {axis} {numbers.number(finite[0][0])}, "
        words += f"{numbers.number(finite[-1][1])} at {axis} {numbers.number(finite[-1][0])}, "
        words += f"between {numbers.number(low)} and {numbers.number(high)}"
    if bad:
        words += f"{'; ' if finite else ''}{numbers.number(bad[0][1])} from {axis} {numbers.number(bad[0][0])}"
    return words + "."
