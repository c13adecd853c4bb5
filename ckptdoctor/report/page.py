"""Everything that the HTML page shows, prepared: the templates only lay it out."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from ckptdoctor.causes import CAUSE_DOCS
from ckptdoctor.model import Batches, Cause, ChainLink, Missing, NonfinitePoint, Pattern, Phase, Replay, Report, Status
from ckptdoctor.report import numbers, story
from ckptdoctor.report.charts import curves, features, graph, heat, rulebook, sums, tables
from ckptdoctor.report.charts.bars import share
from ckptdoctor.report.charts.lines import LineChart
from ckptdoctor.report.document.run import main_log
from ckptdoctor.report.document.tensors import census_of, layers_of, parameters
from ckptdoctor.report.recording import recorded
from ckptdoctor.resume import Resume


@dataclass(frozen=True, slots=True)
class Fact:
    """A labelled line under the headline; `detail` is smaller, `mono` text is a name from the files."""

    label: str
    text: str
    detail: str
    mono: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """One tensor on the way from the first non-finite value to the weights."""

    layer: str
    what: str
    nonfinite: str
    bar: int
    span: str


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive tensors of one phase of the training step. `hidden` more are not shown."""

    phase: str
    links: tuple[Link, ...]
    hidden: int


@dataclass(frozen=True, slots=True)
class ReplayView:
    """What replay showed."""

    sentence: str
    start: str
    message: str
    operands: tuple[tuple[str, str, str, str, str], ...]  # name, shape, dtype, non-finite, range
    chain: tuple[Stage, ...]
    chart: LineChart | None
    activity: tuple[tables.ActivityRow, ...]
    notes: tuple[str, ...]
    experiments: tuple[curves.ExperimentView, ...]
    experiment_axes: str
    skipped: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """The whole page, section by section."""

    name: str
    status: str
    cause: str
    cause_title: str
    cause_plain: str
    group: str
    grade: str
    grade_words: str
    chances: str
    squares: tuple[float, ...]  # filled widths, in pixels of 9, of ten squares
    headline: str
    next_step: str
    facts: tuple[Fact, ...]
    has_fix: bool
    fix_text: str
    fix_code: str
    fix_tested: bool
    fix_watch: str
    resume: Resume | None
    how_known: str
    patterns: tuple[Pattern, ...]
    graph: graph.Graph | None
    tensors: tables.TensorTable | None
    gradients: tuple[tables.GradientRow, ...]
    optimizer: tuple[tuple[str, str], ...]
    log: curves.LogView | None
    strip: curves.Strip | None
    recorded: str
    growth: tuple[str, ...]
    timeline_notes: tuple[str, ...]
    heat: tuple[heat.HeatMap, ...]
    replay: ReplayView | None
    sums: tuple[sums.CauseSum, ...]
    margin: str
    decide: str
    rules: tuple[rulebook.RuleView, ...]
    anchors: frozenset[str]
    batches: Batches | None
    arrays: tuple[features.ArrayView, ...]
    association: str
    gaps: tuple[story.NotChecked, ...]
    skipped: tuple[tuple[str, tuple[str, ...]], ...]
    failures: tuple[tuple[str, str], ...]
    subject: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    used: tuple[tuple[str, str], ...]
    hidden_files: int
    unreadable: tuple[tuple[str, str], ...]
    ignored: tuple[tuple[str, str], ...]
    problems: tuple[tuple[str, str], ...]
    tool_version: str
    seconds: str


def build_page(report: Report) -> Page:
    """Prepare every section."""
    verdict, evidence = report.verdict, report.evidence
    fix = story.fix(report) if verdict.status is Status.SICK else None
    log = main_log(report)
    view, strip = (None, curves.strip(report, None, "")) if isinstance(log, Missing) else curves.log_view(report, log)
    timeline = evidence.timeline
    views = rulebook.rule_views(report)
    batches = None if isinstance(evidence.batches, Missing) else evidence.batches
    return Page(
        name=story.subject_name(report),
        status=verdict.status.value,
        cause=verdict.cause.value,
        cause_title=story.cause_title(verdict.cause),
        cause_plain=CAUSE_DOCS[verdict.cause].plain if verdict.status is Status.SICK else "",
        group=verdict.group.value,
        grade=verdict.grade.value,
        grade_words=story.GRADE_WORDS[verdict.grade],
        chances=story.chances(verdict.confidence),
        squares=tuple(round(9 * min(max(10 * verdict.confidence - n, 0.0), 1.0), 1) for n in range(10)),
        headline=verdict.headline,
        next_step=verdict.next_step,
        facts=tuple(_facts(report)),
        fix_text=story.fix_words(report) if fix else "",
        has_fix=fix is not None,
        fix_code=fix.code if fix else "",
        fix_tested=fix.tested if fix else False,
        fix_watch=fix.watch if fix else "",
        resume=story.resume(report),
        how_known=report.diagnosis.origin.how,
        patterns=() if isinstance(evidence.fingerprint, Missing) else evidence.fingerprint.patterns[:8],
        graph=graph.model_graph(report),
        tensors=tables.tensor_table(report),
        gradients=tables.gradient_rows(report),
        optimizer=tuple(_optimizer(report)),
        log=view,
        strip=strip,
        recorded=recorded(report),
        growth=() if isinstance(timeline, Missing) else story.growth(timeline)[:3],
        timeline_notes=() if isinstance(timeline, Missing) else timeline.notes,
        heat=heat.heat_maps(report),
        replay=_replay(report),
        sums=sums.cause_sums(report) if verdict.status is Status.SICK else (),
        margin=sums.margin(report),
        decide=_decide(report),
        rules=views,
        anchors=rulebook.shown_ids(views),
        batches=batches,
        arrays=features.array_views(batches) if batches else (),
        association=features.association_words(batches) if batches else "",
        gaps=story.not_checked(report),
        skipped=story.skipped_by_reason(report),
        failures=tuple((f.rule, f.error) for f in report.failures),
        subject=tuple(_subject(report)),
        versions=tuple(story.versions(report)),
        used=_used(report)[:60],
        hidden_files=max(len(_used(report)) - 60, 0),
        unreadable=evidence.unreadable[:60],
        ignored=tuple((f.path, f.reason) for f in evidence.files.ignored[:60]),
        problems=_problems(report),
        tool_version=report.tool_version,
        seconds=numbers.seconds(report.seconds),
    )


def _facts(report: Report) -> list[Fact]:
    """Where, when, why and what removes it, in a word each."""
    if report.verdict.status is not Status.SICK:
        return []
    origin, replay = report.diagnosis.origin, report.evidence.replay
    place = "/".join(p for p in (origin.layer, origin.variable) if p)
    rest = ", ".join(p for p in story.where(origin).split(", ") if p and p != place)
    facts = [Fact("Where", place or rest or "not known", rest if place else "", mono=bool(place))]
    time = story.when(origin).split(", ")
    facts.append(Fact("When", time[0] or "not known", ", ".join(time[1:])))
    facts.append(
        Fact(
            "Why",
            story.cause_title(report.verdict.cause),
            f"{report.verdict.cause.value}, {report.verdict.group.value}",
        )
    )
    return [*facts, Fact("What removes it", *_remedy(report.verdict.cause, replay))]


def _remedy(cause: Cause, replay: Replay | Missing) -> tuple[str, str]:
    """The change that removed the failure, best one of the verdict's cause, and how many did."""
    if not isinstance(replay, Replay) or not replay.experiments:
        return "nothing was tried", ""
    tried = len(replay.experiments)
    if cause is Cause.LOSS_FUNCTION and replay.learns_under_another_loss:
        return "another loss", f"under the usual one in place of {replay.custom_loss} the same run learns"
    healed = [e for e in replay.experiments if e.removes_failure]
    if not healed:
        return "no change that was tried", f"{tried} tried"
    best = max(healed, key=lambda e: (bool(e.learns), e.cause is cause))
    return best.change.partition(": ")[0], f"{len(healed)} of {numbers.count(tried, 'tried change')} removed it"


def _decide(report: Report) -> str:
    """The measurement that would raise a weak verdict."""
    verdict = report.verdict
    if verdict.status is not Status.SICK or verdict.grade.value in ("confirmed", "likely"):
        return ""
    return CAUSE_DOCS[verdict.cause].decide


def _optimizer(report: Report) -> list[tuple[str, str]]:
    state = report.evidence.optimizer
    if isinstance(state, Missing):
        return []
    rate = state.learning_rate
    rows = [("optimizer", state.class_name or "unknown"), ("steps taken", numbers.number(state.iterations))]
    shown = numbers.ABSENT if isinstance(rate, Missing) else f"{numbers.number(rate)} ({state.learning_rate_source})"
    rows.append(("learning rate", shown))
    for label, value in (
        ("gradient of first over last kernel", state.profile_ratio),
        ("loss scale", state.loss_scale),
        ("updates skipped by loss scaling", state.skipped_updates),
    ):
        if value is not None:
            rows.append((label, numbers.number(value)))
    if state.untouched_slots:
        rows.append(("slots", "all exactly 0 although steps were taken"))
    return rows + [("note", note) for note in state.notes]


def _replay(report: Report) -> ReplayView | None:
    replay = report.evidence.replay
    if isinstance(replay, Missing):
        return None
    bad = replay.first_bad
    return ReplayView(
        story.replay_sentence(report),
        _start(replay),
        bad.message if bad else "",
        _operands(bad) if bad else (),
        _chain(bad) if bad else (),
        curves.replay_chart(replay),
        tables.activity_rows(replay),
        replay.findings_notes,
        curves.experiment_views(replay)[:40],
        curves.experiment_axes(replay) if replay.experiments else "",
        replay.skipped_experiments,
    )


_PHASES = {
    Phase.INPUT: "input",
    Phase.FORWARD: "forward pass",
    Phase.LOSS: "loss",
    Phase.BACKWARD: "backward pass",
    Phase.UPDATE: "update",
}


def _start(replay: Replay) -> str:
    start = replay.start
    if start is None:
        return ""
    words = {"last_healthy": "the last healthy checkpoint", "healed": "a checkpoint with its non-finite entries drawn again", "fresh": "freshly drawn weights"}  # fmt: skip
    text = f"It started from {words.get(start.kind, start.kind)}"
    if start.checkpoint:
        text += f" ({story.last_part(start.checkpoint)})"
    text += ", with the optimizer's state" if start.slots_restored else ", without the optimizer's state"
    return f"{text}; loss: {start.loss}."


def _operands(bad: NonfinitePoint) -> tuple[tuple[str, str, str, str, str], ...]:
    return tuple(
        (o.name, numbers.shape(o.shape), o.dtype, f"{o.nonfinite:,}", story.span(o.min, o.max))
        for o in bad.operands[:8]
    )


def _chain(bad: NonfinitePoint) -> tuple[Stage, ...]:
    """The chain by phases, in the order of the step: at most six stages of five tensors.

    Where the chain begins after the place that went bad, what went into that place stands before it.
    """
    links = bad.chain
    if links and links[0].phase is not bad.phase:
        entered = (
            ChainLink(bad.phase, None, o.name, o.nonfinite, math.prod(o.shape), o.min, o.max)
            for o in bad.operands
            if o.nonfinite
        )
        links = (*entered, *links)
    stages = [(phase, list(members)) for phase, members in itertools.groupby(links, key=lambda link: link.phase)]
    return tuple(
        Stage(_PHASES[phase], tuple(_link(link) for link in members[:5]), max(len(members) - 5, 0))
        for phase, members in stages[:6]
    )


def _link(link: ChainLink) -> Link:
    return Link(
        link.layer or "",
        link.what,
        f"{link.nonfinite:,} of {link.size:,}",
        share(link.nonfinite, link.size),
        story.span(link.min, link.max),
    )


def _subject(report: Report) -> list[tuple[str, str]]:
    rows = [("inspected", report.evidence.files.path)]
    census = census_of(report)
    if census is None:
        return rows
    info = census.info
    rows += [("checkpoint", info.path), ("format", info.format.value), ("size", numbers.size(info.size_bytes))]
    rows += [
        (label, value)
        for label, value in (
            ("saved by Keras", info.keras_version),
            ("saved at", info.saved_at),
            ("backend", info.backend),
        )
        if not isinstance(value, Missing)
    ]
    spec = report.evidence.spec
    if not isinstance(spec, Missing):
        rows.append(("model", f"{spec.class_name}, {spec.global_policy}"))
        if not isinstance(spec.compile, Missing) and spec.compile.losses:
            rows.append(
                ("loss", ", ".join(x.name + (" (from logits)" if x.from_logits else "") for x in spec.compile.losses))
            )
    rows += [("layers", f"{len(layers_of(report)):,}"), ("parameters", numbers.number(parameters(report)))]
    if info.coverage < 1:
        rows.append(("could be read", numbers.percent(info.coverage)))
    return rows


def _used(report: Report) -> tuple[tuple[str, str], ...]:
    files = report.evidence.files
    return (
        *((path, "checkpoint") for path in files.checkpoints),
        *((path, "log") for path in files.logs),
        *((path, "batches") for path in files.batches),
    )


def _problems(report: Report) -> tuple[tuple[str, str], ...]:
    census = census_of(report)
    problems = census.info.problems if census else ()
    return tuple((p.kind.value, f"{p.message}{f' ({p.where})' if p.where else ''}") for p in problems[:40])
