"""The curves of a report: loss and learning rate of the log, the replayed steps, the experiments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ckptdoctor.model import Experiment, Missing, Replay, Report, Series, Timeline, TrainingLog
from ckptdoctor.report import numbers, story
from ckptdoctor.report.charts.lines import Curve, LineChart, line_chart
from ckptdoctor.report.charts.scale import LOG_FROM, Scale, counting_scale, scale_for
from ckptdoctor.report.document.run import first_nonfinite

_MOST_CURVES = 4
_LONGEST_NAME = 18  # of a metric in a drawing; the legend has it in full
_RATES = ("learning_rate", "lr", "epoch_learning_rate", "epoch_lr", "train/learning_rate", "optimizer/learning_rate")


@dataclass(frozen=True, slots=True)
class StripMark:
    """One checkpoint on the strip: place in percent, state, its name, and a word where it matters."""

    at: float
    status: str
    title: str
    tag: str


@dataclass(frozen=True, slots=True)
class Strip:
    """The checkpoints in order; `aligned` where they share the axis of the curves above."""

    marks: tuple[StripMark, ...]
    aligned: bool
    axis: str


@dataclass(frozen=True, slots=True)
class LogView:
    """The drawings of one log."""

    source: str
    panels: tuple[LineChart, ...]
    notes: tuple[str, ...]


def _is_loss(name: str) -> bool:
    word = name.rpartition("/")[2]
    return word in ("loss", "val_loss", "epoch_loss", "batch_loss", "train_loss", "valid_loss", "eval_loss")


def _is_norm(name: str) -> bool:
    word = name.lower()
    return "norm" in word and "grad" in word


def log_view(report: Report, log: TrainingLog) -> tuple[LogView, Strip | None]:
    """Curves of a log above each other on one axis, and the checkpoints below them."""
    losses = [s for s in log.series if _is_loss(s.name)]
    shown = losses or list(log.series[:1])
    if not shown:
        return LogView(log.source, (), log.notes), strip(report, None, "")
    axis = shown[0].axis
    shown = [s for s in shown if s.axis == axis][:_MOST_CURVES]
    rates = [s for s in log.series if s.name in _RATES and s.axis == axis]
    norms = [s for s in log.series if _is_norm(s.name) and s.axis == axis][:_MOST_CURVES]
    steps = [s for one in (*shown, *rates, *norms) for s in one.steps]
    timeline = report.evidence.timeline
    steps += [] if isinstance(timeline, Missing) else [p for p in _places(timeline, axis) if p is not None]
    x = counting_scale(steps, 0, 100)
    guides = _guides(log, axis)
    panels = [line_chart("loss" if losses else shown[0].name, _curves(shown), axis=axis, x=x, guides=guides)]
    if norms:
        panels.append(line_chart("gradient norm", _curves(norms), axis=axis, x=x, height=96))
    if rates and len({v for s in rates for v in s.values}) > 1:
        panels.append(line_chart("learning rate", _curves(rates), axis=axis, x=x, height=72))
    return LogView(log.source, tuple(panels), _log_notes(log, rates)), strip(report, x, axis)


def _curves(series: Sequence[Series]) -> list[Curve]:
    return [Curve(s.name, s.steps, s.values) for s in series]


def _guides(log: TrainingLog, axis: str) -> list[tuple[float, str, str]]:
    guides: list[tuple[float, str, str]] = []
    bad = first_nonfinite(log)
    if bad is not None and bad.first_nonfinite and bad.axis == axis:
        step, value = bad.first_nonfinite
        name = bad.name if len(bad.name) <= _LONGEST_NAME else bad.name[: _LONGEST_NAME - 1] + "…"
        guides.append((step, f"first {numbers.number(value)}: {name}, {axis} {numbers.number(step)}", "bad"))
    guides += [(step, "log starts again", "quiet") for step in log.restarts[:3]]
    return guides


def _log_notes(log: TrainingLog, rates: Sequence[Series]) -> tuple[str, ...]:
    notes = list(log.notes)
    if rates and len({v for s in rates for v in s.values}) == 1:
        notes.insert(0, f"The learning rate was {numbers.number(rates[0].values[0])} throughout.")
    if log.running_average:
        notes.append("Losses are running averages within an epoch, as the console shows them.")
    if log.terminated is not None:
        epoch, batch = log.terminated
        place = f"batch {batch:,}" if epoch is None else f"batch {batch:,} of epoch {epoch:,}"
        notes.append(f"TerminateOnNaN stopped the run at {place}.")
    return tuple(notes)


def _places(timeline: Timeline, axis: str) -> list[float | None]:
    attribute = "epoch" if axis == "epoch" else "step"
    values = [getattr(p, attribute) for p in timeline.points]
    return [None if v is None else float(v) for v in values]


def strip(report: Report, x: Scale | None, axis: str) -> Strip | None:
    """The run's checkpoints as marks, on the scale of the curves where they count the same."""
    timeline = report.evidence.timeline
    if isinstance(timeline, Missing) or not timeline.points:
        return None
    places = _places(timeline, axis) if x is not None else [None]
    aligned = x is not None and all(p is not None for p in places)
    last = max(len(timeline.points) - 1, 1)
    resume = story.resume(report)
    chosen = resume.path if resume is not None else None
    marks = []
    for n, point in enumerate(timeline.points):
        place = places[n] if aligned else None
        at = x.at(place) if x is not None and place is not None else round(100 * n / last, 1)
        marks.append(StripMark(at, point.status.value, _mark_title(timeline, n), _tag(timeline, n, chosen)))
    return Strip(tuple(marks), aligned, axis if aligned else "in order")


def _mark_title(timeline: Timeline, n: int) -> str:
    point = timeline.points[n]
    words = f"{story.point_name(point)}: {point.status.value}"
    return (
        f"{words}, {numbers.count(point.nonfinite, 'non-finite entry', 'non-finite entries')}"
        if point.nonfinite
        else words
    )


def _tag(timeline: Timeline, n: int, chosen: str | None) -> str:
    if timeline.points[n].path == chosen:
        return "resume here"
    if n == timeline.last_healthy and timeline.first_bad is not None:
        return "last healthy"
    return "first bad" if n == timeline.first_bad else ""


# --- replay and experiments ----------------------------------------------------------------------------------------


def replay_chart(replay: Replay) -> LineChart | None:
    """Loss and gradient norm of the replayed steps."""
    records = replay.records
    if len(records) < 2:
        return None
    steps = [float(r.step) for r in records]
    curves = [Curve("loss", steps, [r.loss for r in records])]
    if any(r.gradient_norm for r in records):
        curves.append(Curve("gradient norm", steps, [r.gradient_norm for r in records]))
    return line_chart("replayed steps", curves, axis="replayed step", height=150)


@dataclass(frozen=True, slots=True)
class ExperimentView:
    """One experiment: what was changed, how it ended, its curve over the baseline's."""

    change: str
    outcome: story.Outcome
    code: str
    note: str
    facts: str
    chart: LineChart | None


def experiment_views(replay: Replay) -> tuple[ExperimentView, ...]:
    """Experiments as small multiples: one scale for all, so that they can be compared by eye."""
    frame = _frame(replay)
    return tuple(_experiment(e, frame) for e in replay.experiments)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The axes that all experiments share, the unchanged run, and whether something lies outside."""

    x: Scale
    y: Scale
    low: float
    high: float
    baseline: Curve | None
    cut: bool


def _frame(replay: Replay) -> _Frame:
    """Axes made for the experiments that removed the failure, so that one can see whether they learn.

    Of the others only what lies near is drawn: a loss on its way to infinity would press everything else flat, and a run
    ten times as long would push the others into a corner.
    """
    baseline = _baseline(replay)
    curves = [_losses(e) for e in replay.experiments if e.losses]
    healed = [_losses(e) for e in replay.experiments if e.removes_failure and e.losses]
    leading = healed or curves
    last = max((c.steps[-1] for c in leading), default=1.0)
    focus = [v for c in leading for v in c.values if math.isfinite(v)]
    everything = [v for c in (*curves, *([baseline] if baseline else [])) for v in c.values if math.isfinite(v)]
    low, high = _near(focus, everything)
    y = scale_for([low, high], 66, 18)
    cut = any(v > high or v < low for v in everything) or any(c.steps[-1] > last for c in curves)
    return _Frame(Scale(0, max(last, 1.0), 0, 100), y, low, high, baseline, cut)


def _near(focus: Sequence[float], everything: Sequence[float]) -> tuple[float, float]:
    """The range of `focus`, and of `everything` up to its span beyond it."""
    if not focus:
        return (min(everything), max(everything)) if everything else (0.0, 1.0)
    low, high = min(focus), max(focus)
    if low > 0 and high / low > LOG_FROM:  # drawn logarithmically: a decade more on either side
        return max(min(everything), low / 10), min(max(everything), high * 10)
    room = (high - low) or abs(high) or 1.0
    return max(min(everything), low - room), min(max(everything), high + room)


def _losses(experiment: Experiment) -> Curve:
    """The curve of an experiment, on the axis of its steps although at most 200 of them are kept."""
    return _spread("with the change", experiment.losses, experiment.steps)


def _spread(name: str, losses: Sequence[float], steps: int) -> Curve:
    last = max(steps, len(losses)) - 1
    every = last / (len(losses) - 1) if len(losses) > 1 else 1.0
    return Curve(name, [n * every for n in range(len(losses))], losses)


def _baseline(replay: Replay) -> Curve | None:
    if replay.baseline is not None and replay.baseline.losses:
        return _spread("unchanged", replay.baseline.losses, replay.baseline.steps + replay.baseline.failed)
    if replay.records:
        return Curve("unchanged", [float(r.step) for r in replay.records], [r.loss for r in replay.records])
    return None


def _experiment(experiment: Experiment, frame: _Frame) -> ExperimentView:
    curves = [_losses(experiment), *([frame.baseline] if frame.baseline else [])]
    shown = [_until(c, frame.x.high) for c in curves]
    chart = (
        line_chart(experiment.change, shown, axis="step", height=72, x=frame.x, y=frame.y)
        if experiment.losses
        else None
    )
    facts = []
    if experiment.steps:
        facts.append(f"{experiment.steps_survived:,} of {numbers.count(experiment.steps, 'step')} finite")
    if experiment.loss_before is not None and experiment.loss_after is not None:
        facts.append(f"loss {numbers.number(experiment.loss_before)} → {numbers.number(experiment.loss_after)}")
    if experiment.accuracy_after is not None:
        facts.append(f"accuracy {numbers.percent(experiment.accuracy_after)}")
    if experiment.score is not None and math.isfinite(experiment.score):
        facts.append(f"skill {numbers.short(experiment.score)}")
    return ExperimentView(
        experiment.change, story.outcome(experiment), experiment.code, experiment.note, ", ".join(facts), chart
    )


def _until(curve: Curve, last: float) -> Curve:
    """A curve up to the right end of the drawing."""
    kept = [(s, v) for s, v in zip(curve.steps, curve.values, strict=False) if s <= last]
    return Curve(curve.name, [s for s, _ in kept], [v for _, v in kept])


def experiment_axes(replay: Replay) -> str:
    """The scale that all experiment drawings share, in words."""
    frame = _frame(replay)
    kind = "logarithmic" if frame.y.log else "linear"
    words = f"The same axes everywhere: {numbers.number(round(frame.x.high) + 1)} steps, loss from {numbers.short(frame.low)} "
    words += f"to {numbers.short(frame.high)}, {kind}"
    return f"{words}; curves that leave went beyond that." if frame.cut else f"{words}."
