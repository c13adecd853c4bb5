"""Norms per layer over checkpoints, as a table whose cells are shaded on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ckptdoctor.model import Census, Missing, Report, Role, TensorStats, TimelinePoint
from ckptdoctor.report import numbers, story

MOST_ROWS = 40
MOST_COLUMNS = 16
SHADES = 8
_GRADIENT_SLOTS = ("velocity", "accumulator")  # slots that keep squared gradients: Adam and RMSprop; Adagrad


@dataclass(frozen=True, slots=True)
class Cell:
    """One layer at one checkpoint: what it says, its shade (0 to `SHADES` - 1, -1 for none), its state."""

    text: str
    shade: int
    state: str  # finite, bad, absent


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One layer."""

    layer: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """The whole table. `hidden` rows and columns were left out."""

    title: str
    columns: tuple[tuple[str, str, str], ...]  # short name, full name, state
    rows: tuple[HeatRow, ...]
    hidden_rows: int
    hidden_columns: int
    legend: str


Norm = Callable[[Sequence[TensorStats]], tuple[float | None, int]]


def heat_maps(report: Report) -> tuple[HeatMap, ...]:
    """Norms of weights, and of gradients as far as the optimizer's state remembers them."""
    timeline = report.evidence.timeline
    if isinstance(timeline, Missing) or len(timeline.points) < 2:
        return ()
    keep = {timeline.first_bad, timeline.last_healthy, timeline.resume_from}
    points = _columns(timeline.points, {k for k in keep if k is not None})
    hidden = len(timeline.points) - len(points)
    maps = (
        _map("Norm of the weights", points, hidden, _weights, _weight_norm, report),
        _map("Size of the gradients, from the optimizer's memory", points, hidden, _slots, _gradient_rms, report),
    )
    return tuple(m for m in maps if m is not None)


def _columns(points: Sequence[TimelinePoint], keep: set[int]) -> list[TimelinePoint]:
    """At most `MOST_COLUMNS` of the checkpoints: the ends, the telling ones, the others evenly."""
    if len(points) <= MOST_COLUMNS:
        return list(points)
    chosen = {0, len(points) - 1, *keep}
    rest = [n for n in range(len(points)) if n not in chosen]
    room = MOST_COLUMNS - len(chosen)
    chosen |= {rest[(2 * n + 1) * len(rest) // (2 * room)] for n in range(room)}
    return [points[n] for n in sorted(chosen)]


def _weights(census: Census) -> tuple[TensorStats, ...]:
    return census.of_role(Role.WEIGHT)


def _slots(census: Census) -> tuple[TensorStats, ...]:
    return tuple(t for t in census.of_role(Role.SLOT) if t.info.slot in _GRADIENT_SLOTS)


def _weight_norm(tensors: Sequence[TensorStats]) -> tuple[float | None, int]:
    norms = [t.norm for t in tensors if t.norm is not None]
    return (math.hypot(*norms) if norms else None), sum(t.nonfinite for t in tensors)


def _gradient_rms(tensors: Sequence[TensorStats]) -> tuple[float | None, int]:
    """Root of the mean squared gradient: the slots hold running means of squares."""
    known = [(t.mean, t.finite) for t in tensors if t.mean is not None and t.mean >= 0]
    size = sum(n for _, n in known)
    return (math.sqrt(sum(m * n for m, n in known) / size) if size else None), sum(t.nonfinite for t in tensors)


def _map(
    title: str,
    points: Sequence[TimelinePoint],
    hidden_columns: int,
    select: Callable[[Census], tuple[TensorStats, ...]],
    norm: Norm,
    report: Report,
) -> HeatMap | None:
    by_layer = [None if isinstance(p.census, Missing) else _by_layer(select(p.census)) for p in points]
    layers = list(dict.fromkeys(name for column in by_layer if column for name in column))
    if not layers:
        return None
    values = {(name, n): norm(column[name]) for n, column in enumerate(by_layer) if column for name in column}
    finite = [v for v, _ in values.values() if v is not None and v > 0 and math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (1.0, 1.0)
    rows = [
        HeatRow(name, tuple(_cell(values.get((name, n)), low, high) for n in range(len(points))))
        for name in _rows(layers, values, len(points), report)
    ]
    columns = tuple((_short(p), story.point_name(p), p.status.value) for p in points)
    legend = f"Shades from {numbers.short(low)} (light) to {numbers.short(high)} (strong), logarithmic."
    return HeatMap(title, columns, tuple(rows), len(layers) - len(rows), hidden_columns, legend)


def _by_layer(tensors: Sequence[TensorStats]) -> dict[str, list[TensorStats]]:
    layers: dict[str, list[TensorStats]] = {}
    for tensor in tensors:
        layers.setdefault(tensor.info.layer or tensor.info.variable, []).append(tensor)
    return layers


def _rows(
    layers: list[str], values: dict[tuple[str, int], tuple[float | None, int]], columns: int, report: Report
) -> list[str]:
    """At most `MOST_ROWS` layers: the origin, first bad ones, then those that changed most, in the model's order."""
    if len(layers) <= MOST_ROWS:
        return layers
    bad = [name for name in layers if any(values.get((name, n), (None, 0))[1] for n in range(columns))]

    def change(name: str) -> float:
        seen = [v for n in range(columns) if (v := values.get((name, n), (None, 0))[0])]
        return abs(math.log(seen[-1] / seen[0])) if len(seen) > 1 and seen[0] > 0 and seen[-1] > 0 else 0.0

    chosen = {layers[0], layers[-1], *bad[: MOST_ROWS // 4]}
    origin = report.diagnosis.origin.layer
    if origin in layers:
        chosen.add(origin)
    for name in sorted(layers, key=change, reverse=True):
        if len(chosen) >= MOST_ROWS:
            break
        chosen.add(name)
    return [name for name in layers if name in chosen]


def _cell(value: tuple[float | None, int] | None, low: float, high: float) -> Cell:
    if value is None:
        return Cell(numbers.ABSENT, -1, "absent")
    norm, nonfinite = value
    if nonfinite:
        return Cell("✗ all" if norm is None else f"✗ {numbers.short(norm)}", -1, "bad")
    if norm is None:
        return Cell(numbers.ABSENT, -1, "absent")
    share = 0.0 if norm <= 0 or high <= low else math.log(norm / low) / math.log(high / low)
    return Cell(numbers.short(norm), min(max(round(share * (SHADES - 1)), 0), SHADES - 1), "finite")


def _short(point: TimelinePoint) -> str:
    if point.epoch is not None:
        return f"{point.epoch:,}"
    return f"{point.step:,}" if point.step is not None else story.last_part(point.path)
