"""Records (one dictionary a row, keys may differ from row to row) turned into series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ckptdoctor.logs.axes import BATCH_NAMES, EPOCH_NAMES, STEP_NAMES, is_clock, normal
from ckptdoctor.logs.series import LogBuilder
from ckptdoctor.logs.spelling import is_missing, to_number

MAX_DEPTH = 8
_BIGGEST = 1.7976931348623157e308


class RecordSink:
    """Takes records in the order of the log.

    The axis is the first of: a step count, the epoch, the batch, the record's position. The first record that has one
    decides; a later record without it stands at the value last seen.
    """

    def __init__(self, log: LogBuilder, positions: str = "step") -> None:
        self.log = log
        self.positions = positions  # what the position of a record counts where it has no axis
        self.kind: str | None = None
        self._last: float | None = None
        self._columns: dict[str, str] = {}  # key as spelled -> kind of axis, "clock" or ""
        self.records = 0

    def take(self, record: Mapping[str, object], position: int) -> None:
        """One record; nested dictionaries become `outer/inner`, anything that is not a number is left out."""
        numbers: dict[str, float] = {}
        axes: dict[str, tuple[str, float]] = {}
        for name, value in flatten(record):
            kind = self._kind_of(name)
            if kind == "clock":
                continue
            number = as_number(value)
            if number is None:
                if value is None and not kind:
                    self.log.note(
                        f"{name!r} is null in places: some writers put null for NaN, it cannot be told from a missing value"
                    )
                continue
            if kind:
                axes[kind] = (name, number)
            else:
                numbers[name] = number
        if not numbers:
            return
        self.records += 1
        step = self._place(axes, position)
        for kind, (name, number) in axes.items():
            if kind != self.kind:
                numbers[name] = number
        for name, number in numbers.items():
            builder = self.log.series(name, self.positions if self.kind in (None, "position") else self.kind)
            if builder is not None:
                builder.add(step, number)

    def _place(self, axes: Mapping[str, tuple[str, float]], position: int) -> float:
        if self.kind is None:
            if "step" in axes:
                self.kind = "step"
            elif "epoch" in axes and "batch" in axes:
                self.kind = "position"
            else:
                self.kind = "epoch" if "epoch" in axes else "batch" if "batch" in axes else "position"
        own = axes.get(self.kind)
        if own is None:
            return float(position) if self.kind == "position" or self._last is None else self._last
        step = own[1]
        if not abs(step) <= _BIGGEST:
            return float(position) if self._last is None else self._last
        if self._last is not None and step < self._last:
            self.log.restart(step)
        self._last = step
        return step

    def _kind_of(self, name: str) -> str:
        kind = self._columns.get(name)
        if kind is None:
            plain = normal(name)
            if plain in STEP_NAMES:
                kind = "step"
            elif plain in EPOCH_NAMES:
                kind = "epoch"
            elif plain in BATCH_NAMES:
                kind = "batch"
            else:
                kind = "clock" if is_clock(name) else ""
            if len(self._columns) < 10_000:
                self._columns[name] = kind
        return kind


def flatten(record: Mapping[str, object], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries with their path joined by `/`; lists and deeper nests are left out."""
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            if depth < MAX_DEPTH:
                yield from flatten(value, name + "/", depth + 1)
        elif not isinstance(value, list):
            yield name, value


def as_number(value: object) -> float | None:
    """The number in a JSON value: numbers, and strings that spell one (`"NaN"`)."""
    if isinstance(value, float):
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return None
    if isinstance(value, str) and not is_missing(value):
        return to_number(value)
    return None
