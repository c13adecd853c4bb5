"""Rows of the page's tables: tensors, optimizer memory, layer activity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckptdoctor.model import GradientScale, LayerActivity, Missing, Replay, Report, Role, TensorStats
from ckptdoctor.report import numbers
from ckptdoctor.report.charts.bars import LogBars, share
from ckptdoctor.report.document.tensors import census_of

MOST_TENSORS = 300


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One stored tensor."""

    layer: str
    variable: str
    shape: str
    dtype: str
    size: str
    nonfinite: str
    bad: int  # length of the bar
    kinds: str
    rms: str
    scale: int  # length of the bar
    low: str
    high: str
    zeros: str
    gradient: str
    update: str
    note: str
    state: str  # bad, finite, error


@dataclass(frozen=True, slots=True)
class Summary:
    """Tensors that have no row of their own, summed up by variable and dtype."""

    what: str
    tensors: str
    entries: str
    nonfinite: str
    rms: str


@dataclass(frozen=True, slots=True)
class TensorTable:
    """The tensors of the checkpoint, the most telling ones where there are too many."""

    rows: tuple[TensorRow, ...]
    hidden: int
    rest: tuple[Summary, ...]
    gradients: bool
    sampled: bool


def tensor_table(report: Report) -> TensorTable | None:
    """Weights, statistics and state of the checkpoint that the verdict is about."""
    census = census_of(report)
    if census is None:
        return None
    tensors = [t for t in census.tensors if t.info.role in (Role.WEIGHT, Role.STATISTIC, Role.STATE)]
    if not tensors:
        return None
    state = report.evidence.optimizer
    gradients = {} if isinstance(state, Missing) else {g.path: g for g in state.gradients}
    shown = _shown(tensors, report)
    kept = set(map(id, shown))
    rest = [t for t in tensors if id(t) not in kept]
    bars = LogBars.over(t.rms for t in tensors)
    rows = tuple(_row(t, gradients.get(t.info.path), bars) for t in shown)
    known = any(g.gradient_rms is not None or g.update_ratio is not None for g in gradients.values())
    return TensorTable(rows, len(rest), _summaries(rest), known, any(t.sampled for t in tensors))


def _shown(tensors: list[TensorStats], report: Report) -> list[TensorStats]:
    """All, or the `MOST_TENSORS` most telling: unreadable, of the origin, in findings, non-finite, extreme in scale."""
    if len(tensors) <= MOST_TENSORS:
        return tensors
    named = {f.layer for f in report.findings[:50]}
    origin = report.diagnosis.origin.layer
    by_scale = sorted((t for t in tensors if t.rms), key=lambda t: t.rms or 0.0)
    extreme = {id(t) for t in (*by_scale[:30], *by_scale[-30:])}

    def rank(tensor: TensorStats) -> int:
        if tensor.error or tensor.info.layer == origin:
            return 0
        if id(tensor) in extreme:
            return 1
        return 2 if tensor.nonfinite and tensor.info.layer in named else 3 if tensor.nonfinite else 4

    chosen = set(map(id, sorted(tensors, key=rank)[:MOST_TENSORS]))
    return [t for t in tensors if id(t) in chosen]


def _row(t: TensorStats, gradient: GradientScale | None, bars: LogBars) -> TensorRow:
    kinds = [f"{n:,} {name}" for n, name in ((t.nan, "NaN"), (t.posinf, "+Inf"), (t.neginf, "-Inf")) if n]
    return TensorRow(
        layer=t.info.layer or numbers.ABSENT,
        variable=t.info.variable,
        shape=numbers.shape(t.info.shape),
        dtype=t.info.dtype,
        size=f"{t.info.size:,}",
        nonfinite=f"{t.nonfinite:,}",
        bad=share(t.nonfinite, t.info.size),
        kinds=", ".join(kinds),
        rms=numbers.number(t.rms, 3),
        scale=bars.length(t.rms),
        low=numbers.number(t.min, 3),
        high=numbers.number(t.max, 3),
        zeros=numbers.percent(t.zeros, t.info.size) if t.zeros else "0",
        gradient=numbers.number(gradient.gradient_rms, 3) if gradient else "",
        update=numbers.number(gradient.update_ratio, 2) if gradient else "",
        note=t.error or ("sampled" if t.sampled else ""),
        state="error" if t.error else "bad" if t.nonfinite else "finite",
    )


def _summaries(tensors: Sequence[TensorStats]) -> tuple[Summary, ...]:
    groups: dict[tuple[str, str, bool], list[TensorStats]] = {}
    for t in tensors:
        groups.setdefault((t.info.variable, t.info.dtype, bool(t.nonfinite)), []).append(t)
    rows = []
    for (variable, dtype, bad), members in list(groups.items())[:40]:
        scales = [t.rms for t in members if t.rms is not None]
        rows.append(
            Summary(
                f"{variable}, {dtype}{', non-finite' if bad else ''}",
                f"{len(members):,}",
                f"{sum(t.info.size for t in members):,}",
                f"{sum(t.nonfinite for t in members):,}",
                f"{numbers.number(min(scales), 3)} … {numbers.number(max(scales), 3)}" if scales else numbers.ABSENT,
            )
        )
    return tuple(rows)


# --- optimizer memory ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GradientRow:
    """One weight's gradient as the optimizer remembers it, in the model's order."""

    name: str
    gradient: str
    bar: int
    update: str
    weight: str
    bad: bool


def gradient_rows(report: Report) -> tuple[GradientRow, ...]:
    """The gradient profile along the depth: at most 40 weights, evenly taken."""
    state = report.evidence.optimizer
    if isinstance(state, Missing):
        return ()
    scales = [g for g in state.gradients if g.gradient_rms is not None or g.momentum_rms is not None]
    every = max(-(-len(scales) // 40), 1)
    bars = LogBars.over(g.gradient_rms for g in scales)
    return tuple(
        GradientRow(
            "/".join(p for p in (g.layer, g.variable) if p),
            numbers.number(g.gradient_rms, 3),
            bars.length(g.gradient_rms),
            numbers.number(g.update_ratio, 2),
            numbers.number(g.weight_rms, 3),
            g.gradient_rms is None,
        )
        for g in scales[::every]
    )


# --- activity --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ActivityRow:
    """One layer's output during replay."""

    layer: str
    kind: str
    output: str
    before: str
    dead: str
    dead_bar: int
    saturated: str
    saturated_bar: int
    spread: str
    gradient: str


def activity_rows(replay: Replay) -> tuple[ActivityRow, ...]:
    """What each layer put out on a recorded batch, at most 60 layers, evenly taken."""
    source = replay.activity_end or replay.activity
    every = max(-(-len(source) // 60), 1)
    return tuple(_activity(a) for a in source[::every])


def _activity(a: LayerActivity) -> ActivityRow:
    bad = f" ✗ {a.output.nonfinite:,} non-finite" if a.output.nonfinite else ""
    return ActivityRow(
        a.layer,
        ", ".join(p for p in (a.class_name, a.activation) if p),
        _range(a.output.min, a.output.max) + bad,
        _range(a.pre_min, a.pre_max),
        numbers.ABSENT if a.dead_fraction is None else numbers.percent(a.dead_fraction),
        share(a.dead_fraction or 0.0, 1.0),
        numbers.ABSENT if a.saturated_fraction is None else numbers.percent(a.saturated_fraction),
        share(a.saturated_fraction or 0.0, 1.0),
        numbers.number(a.row_std, 3),
        numbers.number(a.gradient_rms, 3),
    )


def _range(low: float | None, high: float | None) -> str:
    return numbers.ABSENT if low is None or high is None else f"{numbers.number(low, 3)} … {numbers.number(high, 3)}"
