"""The recorded batches: one table of arrays, one of features with their ranges drawn on a common scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ckptdoctor.model import ArrayStats, Batches, FeatureStats, Missing
from ckptdoctor.report import numbers

MOST_FEATURES = 48
WIDTH = 120  # pixels of a range drawing


@dataclass(frozen=True, slots=True)
class Whisker:
    """A range drawing: smallest to largest, mean ± std as a box, the mean as a line; places in pixels."""

    low: float
    high: float
    box: float
    box_width: float
    mean: float


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One feature over all rows."""

    index: int
    nonfinite: str
    bad: bool
    low: str
    high: str
    mean: str
    std: str
    outlier: str
    whisker: Whisker | None
    note: str


@dataclass(frozen=True, slots=True)
class ClassBar:
    """One value of whole-number data with its share of the rows in twentieths."""

    value: str
    count: str
    bar: int


@dataclass(frozen=True, slots=True)
class ArrayView:
    """One array with its features and classes."""

    name: str
    kind: str
    shape: str
    dtype: str
    nonfinite: str
    bad: bool
    low: str
    high: str
    mean: str
    std: str
    notes: tuple[str, ...]
    features: tuple[FeatureRow, ...]
    hidden: int
    classes: tuple[ClassBar, ...]
    hidden_classes: int
    scale: str


def array_views(batches: Batches) -> tuple[ArrayView, ...]:
    """Inputs, targets and sample weights."""
    return tuple(_array(a) for a in (*batches.inputs, *batches.targets, *batches.sample_weights))


def association_words(batches: Batches) -> str:
    """Whether the inputs predict the targets, in a sentence."""
    a = batches.association
    if isinstance(a, Missing):
        return f"Whether the inputs predict the targets was not measured: {a.reason.rstrip('.')}."
    return (
        f"Do the inputs predict the targets? Explained out of sample: {numbers.percent(max(a.score, 0.0))} "
        f"({a.method}, {numbers.count(a.rows, 'row')}); by chance: {numbers.percent(max(a.chance, 0.0))} "
        f"± {100 * a.chance_std:.1f}."
    )


def _array(a: ArrayStats) -> ArrayView:
    features = _chosen(a.features)
    spread = _scale(features)
    classes = sorted(a.classes, key=lambda pair: -pair[1])
    total = sum(n for _, n in classes)
    from ckptdoctor.report.charts.bars import share

    return ArrayView(
        a.name,
        a.kind.replace("_", " "),
        numbers.shape(a.shape),
        a.dtype,
        f"{a.nonfinite:,}",
        a.nonfinite > 0,
        numbers.number(a.min),
        numbers.number(a.max),
        numbers.number(a.mean),
        numbers.number(a.std),
        tuple(_notes(a)),
        tuple(_feature(f, spread, f.index in a.constant_features) for f in features),
        len(a.features) - len(features),
        tuple(ClassBar(numbers.number(v), f"{n:,}", share(n, total)) for v, n in classes[:12]),
        max(len(classes) - 12, 0),
        _scale_words(spread),
    )


def _notes(a: ArrayStats) -> list[str]:
    notes = []
    if a.bad_rows:
        rows = ", ".join(f"batch {b} row {r}" for b, r in a.bad_rows[:6])
        more = f" and {a.bad_row_count - 6:,} more" if a.bad_row_count > 6 else ""
        notes.append(f"non-finite in {rows}{more}")
    if a.bad_features:
        notes.append(f"non-finite in feature {numbers.indices(a.bad_features)}")
    if a.constant_features:
        notes.append(f"constant: feature {numbers.indices(a.constant_features)}")
    if a.duplicate_rows:
        notes.append(numbers.count(a.duplicate_rows, "duplicate row"))
    if a.row_sums_to_one:
        notes.append("rows sum to 1")
    if a.sampled:
        notes.append("sampled: the array was too large to read whole")
    return notes


def _chosen(features: Sequence[FeatureStats]) -> list[FeatureStats]:
    """All features, or the non-finite ones and those of the largest magnitudes, in order."""
    if len(features) <= MOST_FEATURES:
        return list(features)

    def rank(f: FeatureStats) -> tuple[bool, float]:
        size = max(abs(f.min or 0.0), abs(f.max or 0.0))
        return (not f.nonfinite, -size)

    chosen = {f.index for f in sorted(features, key=rank)[:MOST_FEATURES]}
    return [f for f in features if f.index in chosen]


def _scale(features: Sequence[FeatureStats]) -> tuple[float, float] | None:
    values = [v for f in features for v in (f.min, f.max) if v is not None and math.isfinite(v)]
    if not values or min(values) >= max(values):
        return None
    return _squash(min(values)), _squash(max(values))


def _squash(value: float) -> float:
    """Signed logarithm: linear near zero, so that features of very different sizes fit one drawing."""
    return math.asinh(value)


def _scale_words(spread: tuple[float, float] | None) -> str:
    if spread is None:
        return ""
    low, high = math.sinh(spread[0]), math.sinh(spread[1])
    return f"Ranges are drawn from {numbers.short(low)} to {numbers.short(high)} (linear near 0, logarithmic beyond)."


def _feature(f: FeatureStats, spread: tuple[float, float] | None, constant: bool) -> FeatureRow:
    return FeatureRow(
        f.index,
        f"{f.nonfinite:,}",
        f.nonfinite > 0,
        numbers.number(f.min, 3),
        numbers.number(f.max, 3),
        numbers.number(f.mean, 3),
        numbers.number(f.std, 3),
        numbers.number(f.outlier_z, 3),
        _whisker(f, spread),
        "constant" if constant else "",
    )


def _whisker(f: FeatureStats, spread: tuple[float, float] | None) -> Whisker | None:
    if spread is None or f.min is None or f.max is None:
        return None

    def place(value: float) -> float:
        share = (_squash(value) - spread[0]) / (spread[1] - spread[0])
        return round(min(max(share, 0.0), 1.0) * WIDTH, 1)

    mean = f.mean if f.mean is not None else (f.min + f.max) / 2
    std = f.std or 0.0
    box = place(max(mean - std, f.min))
    return Whisker(place(f.min), place(f.max), box, round(place(min(mean + std, f.max)) - box, 1), place(mean))
