"""Series of millions of points in constant memory: exact counts, and points kept for display."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import CkptDoctorError, Series, TrainingLog

BUCKETS = 512
"""A series is kept whole up to twice this many points; beyond, it is summed up in this many to twice as many buckets,
each with its minimum, maximum and first non-finite point. 512 buckets are one a pixel of a wide drawing."""

MAX_CHANGES = 256
"""Changes between finite and non-finite that are kept to the point, both sides; a healthy log has none."""

MAX_SERIES = 2000
MAX_NAME = 256
MAX_NOTES = 60
MAX_RESTARTS = 1000
_BUFFER = 4096

Floats = NDArray[np.float64]


class LogError(CkptDoctorError):
    """A file that cannot be read as a training log at all."""


class SeriesBuilder:
    """Takes the points of one metric in the order of the log and keeps what a `Series` needs.

    Memory is bounded by about 100 KB whatever the number of points. Kept for display: the first and the last point, the
    extremes, both sides of every change between finite and non-finite (the first `MAX_CHANGES`), and of each
    of the 512 to 1024 stretches of equal length the smallest, the largest and the first non-finite point.
    """

    def __init__(self, name: str, axis: str) -> None:
        self.name = name[:MAX_NAME]
        self.axis = axis
        self._steps: list[float] = []
        self._values: list[float] = []
        self._taken = 0  # points that left the buffer
        self._nonfinite = 0
        self._first_nonfinite: tuple[float, float] | None = None
        self._min: float | None = None
        self._max: float | None = None
        self._last: tuple[float, float] | None = None
        self._pins: list[tuple[int, float, float]] = []  # (index, step, value)
        self._changes = 0
        self._width = 1  # points a bucket
        self._rest_steps: Floats = np.empty(0)
        self._rest_values: Floats = np.empty(0)
        self._buckets = _Buckets.empty()

    def add(self, step: float, value: float) -> None:
        """One point."""
        self._steps.append(step)
        self._values.append(value)
        if len(self._values) >= _BUFFER:
            self._flush()

    def extend(self, steps: Sequence[float] | Floats, values: Sequence[float] | Floats) -> None:
        """Many points; both of one length."""
        if len(values) < 64:
            for step, value in zip(steps, values, strict=True):
                self.add(float(step), float(value))
            return
        self._flush()
        self._take(np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64))

    @property
    def count(self) -> int:
        """Points taken so far."""
        return self._taken + len(self._values)

    def shift(self, offset: float) -> None:
        """Move all steps by `offset` (a log whose first epoch is told at its end)."""
        self._flush()
        self._rest_steps = self._rest_steps + offset
        self._buckets.steps += offset
        self._pins = [(i, s + offset, v) for i, s, v in self._pins]
        if self._last is not None:
            self._last = (self._last[0] + offset, self._last[1])
        if self._first_nonfinite is not None:
            self._first_nonfinite = (self._first_nonfinite[0] + offset, self._first_nonfinite[1])

    def build(self) -> Series:
        """The series so far."""
        self._flush()
        kept = {i: (s, v) for i, s, v in self._pins}
        kept.update(self._buckets.points())
        start = self._taken - len(self._rest_values)
        rest = zip(self._rest_steps.tolist(), self._rest_values.tolist(), strict=True)
        kept.update({start + i: point for i, point in enumerate(rest)})
        if self._last is not None:
            kept[self._taken - 1] = self._last
        order = sorted(kept)
        return Series(
            name=self.name,
            axis=self.axis,
            steps=tuple(kept[i][0] for i in order),
            values=tuple(kept[i][1] for i in order),
            count=self._taken,
            nonfinite=self._nonfinite,
            first_nonfinite=self._first_nonfinite,
            min=self._min,
            max=self._max,
        )

    def _flush(self) -> None:
        if self._values:
            steps, values = np.array(self._steps, dtype=np.float64), np.array(self._values, dtype=np.float64)
            self._steps, self._values = [], []
            self._take(steps, values)

    def _take(self, steps: Floats, values: Floats) -> None:
        if not len(values):
            return
        finite = np.isfinite(values)
        self._count(steps, values, finite)
        self._pin_changes(steps, values, finite)
        if self._taken == 0:
            self._pins.append((0, float(steps[0]), float(values[0])))
        self._last = (float(steps[-1]), float(values[-1]))
        self._taken += len(values)
        self._reduce(np.concatenate([self._rest_steps, steps]), np.concatenate([self._rest_values, values]))

    def _count(self, steps: Floats, values: Floats, finite: NDArray[np.bool_]) -> None:
        bad = len(values) - int(finite.sum())
        if bad:
            if self._first_nonfinite is None:
                at = int(np.argmin(finite))
                self._first_nonfinite = (float(steps[at]), float(values[at]))
            self._nonfinite += bad
            values = values[finite]
        if len(values):
            low, high = float(values.min()), float(values.max())
            self._min = low if self._min is None else min(low, self._min)
            self._max = high if self._max is None else max(high, self._max)

    def _pin_changes(self, steps: Floats, values: Floats, finite: NDArray[np.bool_]) -> None:
        before = bool(np.isfinite(self._last[1])) if self._last is not None else bool(finite[0])
        changed = np.flatnonzero(np.diff(finite.astype(np.int8), prepend=np.int8(before)))
        for i in changed[: MAX_CHANGES - self._changes].tolist():
            if i > 0:
                self._pins.append((self._taken + i - 1, float(steps[i - 1]), float(values[i - 1])))
            elif self._last is not None:
                self._pins.append((self._taken - 1, *self._last))
            self._pins.append((self._taken + i, float(steps[i]), float(values[i])))
            self._changes += 1

    def _reduce(self, steps: Floats, values: Floats) -> None:
        start = self._taken - len(values)
        while len(values) >= self._width:
            room = 2 * BUCKETS - len(self._buckets)
            full = min(len(values) // self._width, room)
            used = full * self._width
            if full:
                self._buckets.append(_Buckets.of(start, steps[:used], values[:used], self._width))
            start, steps, values = start + used, steps[used:], values[used:]
            if len(self._buckets) == 2 * BUCKETS:
                self._buckets.halve()
                self._width *= 2
        self._rest_steps, self._rest_values = steps.copy(), values.copy()


class _Buckets:
    """Rows of three points each: smallest, largest, first non-finite. `index` is -1 where there is none."""

    def __init__(self, index: NDArray[np.int64], steps: Floats, values: Floats) -> None:
        self.index, self.steps, self.values = index, steps, values

    @classmethod
    def empty(cls) -> _Buckets:
        return cls(np.empty((0, 3), np.int64), np.empty((0, 3)), np.empty((0, 3)))

    @classmethod
    def of(cls, start: int, steps: Floats, values: Floats, width: int) -> _Buckets:
        rows = len(values) // width
        s, v = steps.reshape(rows, width), values.reshape(rows, width)
        finite = np.isfinite(v)
        at = np.stack(
            [
                np.where(finite, v, np.inf).argmin(axis=1),
                np.where(finite, v, -np.inf).argmax(axis=1),
                finite.argmin(axis=1),
            ],
            axis=1,
        )
        some, bad = finite.any(axis=1), ~finite.all(axis=1)
        present = np.stack([some, some, bad], axis=1)
        index = np.where(present, start + np.arange(rows)[:, None] * width + at, -1)
        return cls(index, np.take_along_axis(s, at, axis=1), np.take_along_axis(v, at, axis=1))

    def __len__(self) -> int:
        return len(self.index)

    def append(self, other: _Buckets) -> None:
        self.index = np.concatenate([self.index, other.index])
        self.steps = np.concatenate([self.steps, other.steps])
        self.values = np.concatenate([self.values, other.values])

    def halve(self) -> None:
        """Merge neighbours two by two; the number of buckets is even."""
        a, b = slice(0, None, 2), slice(1, None, 2)
        va, vb = self.values[a], self.values[b]
        has_a, has_b = self.index[a] >= 0, self.index[b] >= 0
        better = np.stack([vb[:, 0] < va[:, 0], vb[:, 1] > va[:, 1], np.zeros(len(va), dtype=np.bool_)], axis=1)
        take_b = has_b & (better | ~has_a)
        self.index = np.where(take_b, self.index[b], self.index[a])
        self.steps = np.where(take_b, self.steps[b], self.steps[a])
        self.values = np.where(take_b, vb, va)

    def points(self) -> dict[int, tuple[float, float]]:
        present = self.index >= 0
        index, steps, values = self.index[present], self.steps[present], self.values[present]
        return dict(zip(index.tolist(), zip(steps.tolist(), values.tolist(), strict=True), strict=True))


class LogBuilder:
    """Collects the series of one log, with what was skipped and why. Bounded whatever the log holds."""

    def __init__(self, source: str, kind: str) -> None:
        self.source = source
        self.kind = kind
        self.terminated: tuple[int | None, int] | None = None
        self.running_average = False
        self._series: dict[str, SeriesBuilder] = {}
        self._notes: dict[str, int] = {}
        self._restarts: list[float] = []

    def series(self, name: str, axis: str) -> SeriesBuilder | None:
        """The builder of that name; None where the log has too many series."""
        name = name[:MAX_NAME]
        builder = self._series.get(name)
        if builder is None:
            if len(self._series) >= MAX_SERIES:
                self.note(f"more than {MAX_SERIES:,} series: the others were not read")
                return None
            builder = self._series[name] = SeriesBuilder(name, axis)
        return builder

    def adopt(self, builder: SeriesBuilder) -> None:
        """Take a series that was built apart."""
        if len(self._series) < MAX_SERIES:
            self._series.setdefault(builder.name, builder)

    def names(self) -> tuple[str, ...]:
        """Names of the series so far."""
        return tuple(self._series)

    def drop(self, name: str) -> None:
        """Forget a series."""
        self._series.pop(name, None)

    def note(self, text: str, count: int = 1) -> None:
        """Remember that something was skipped; the same text is counted."""
        if text in self._notes or len(self._notes) < MAX_NOTES:
            self._notes[text] = self._notes.get(text, 0) + count

    def restart(self, value: float) -> None:
        """The axis starts again at `value`."""
        if len(self._restarts) < MAX_RESTARTS:
            self._restarts.append(value)

    def build(self) -> TrainingLog:
        """The log. Series without a point are left out."""
        return TrainingLog(
            source=self.source,
            format=self.kind,
            series=tuple(b.build() for b in self._series.values() if b.count),
            terminated=self.terminated,
            restarts=tuple(self._restarts),
            notes=tuple(text if n == 1 else f"{text} ({n:,} times)" for text, n in self._notes.items()),
            running_average=self.running_average,
        )
