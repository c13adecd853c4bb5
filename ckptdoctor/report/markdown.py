"""The report as Markdown for an issue tracker: the page's story in the page's order, below 60,000 characters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ckptdoctor.model import Missing, RankedCause, Replay, Report, Severity, Status
from ckptdoctor.report import numbers, story
from ckptdoctor.report.document.run import first_nonfinite, main_log
from ckptdoctor.report.document.tensors import LayerView, layers_of
from ckptdoctor.report.escape import markdown as md
from ckptdoctor.report.escape import markdown_code as code
from ckptdoctor.report.escape import markdown_fence as fence
from ckptdoctor.report.recording import recorded

MOST_CHARACTERS = 59_000  # GitHub refuses a comment of 65,536 characters; trackers that count bytes get some room
_LONGEST_TEXT = 600  # of one stranger's text
_MOST_ROWS = 20

_MARKS = {Severity.ERROR: "✗ error", Severity.WARNING: "! warning", Severity.INFO: "i info"}


def render_markdown(report: Report) -> str:
    """The report as Markdown. Sections that no longer fit are dropped from the end, and that is said."""
    sections = [
        _verdict(report),
        _what_to_do(report),
        _where(report),
        _when(report),
        _how(report),
        _tried(report),
        _why(report),
        _findings(report),
        _data(report),
        _not_checked(report),
        _files(report),
    ]
    return _joined([s for s in sections if s])


def _joined(sections: Sequence[str]) -> str:
    text = ""
    for n, section in enumerate(sections):
        grown = f"{text}\n\n{section}" if text else section
        if len(grown) > MOST_CHARACTERS:
            left = numbers.count(len(sections) - n, "section")
            return f"{text[:MOST_CHARACTERS]}\n\n_{left} left out: an issue tracker takes no more. The page has all._\n"
        text = grown
    return text + "\n"


def _cut(text: object) -> str:
    text = str(text)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…"


def _text(value: object) -> str:
    return md(_cut(value))


def _code(value: object) -> str:
    return code(_cut(value))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], aligned: str = "") -> str:
    """A table; `aligned` has one letter per column, `r` for numbers."""
    rule = ["--:" if aligned[n : n + 1] == "r" else "---" for n in range(len(head))]
    lines = [head, rule, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _section(title: str, *parts: str) -> str:
    filled = [p for p in parts if p]
    return "\n\n".join([f"### {title}", *filled]) if filled else ""


def _more(total: int, noun: str) -> str:
    return f"_and {numbers.count(total - _MOST_ROWS, f'more {noun}')}_" if total > _MOST_ROWS else ""


# --- sections in the order of a reader's questions -------------------------------------------------------------


def _verdict(report: Report) -> str:
    verdict = report.verdict
    title = f"## {verdict.status.value.capitalize()}: {_code(story.subject_name(report))}"
    lines = [title, f"**{_text(verdict.headline)}**"]
    if verdict.status is Status.SICK:
        lines.append(
            f"Cause: **{story.cause_title(verdict.cause)}** ({code(verdict.cause.value)}, {verdict.group.value}) · "
            f"**{verdict.grade.value}** ({story.GRADE_WORDS[verdict.grade]}) · {story.chances(verdict.confidence)}"
        )
    return "\n\n".join(lines)


def _what_to_do(report: Report) -> str:
    verdict, fix = report.verdict, story.fix(report)
    parts = [_text(verdict.next_step)]
    if fix is not None and verdict.status is Status.SICK:
        tested = "tested by replay: the failure is gone" if fix.tested else "not tested"
        parts.append(f"{_text(story.fix_words(report))} (_{tested}_)".strip())
        parts.append(fence(_cut(fix.code), "python") if fix.code else "")
        parts.append(f"Watch: {_text(fix.watch)}" if fix.watch else "")
    resume = story.resume(report)
    if resume is not None:
        parts.append(
            f"Resume from {_code(resume.path)}: {_text(resume.reason)}" if resume.path else _text(resume.reason)
        )
    return _section("What to do now", *parts)


def _where(report: Report) -> str:
    origin = report.diagnosis.origin
    place = story.where(origin)
    line = f"{_text(place)} (known by: {_text(origin.how)})" if place and origin.how else _text(place)
    fingerprint = report.evidence.fingerprint
    patterns = () if isinstance(fingerprint, Missing) else fingerprint.patterns[:5]
    bad = [view for view in layers_of(report) if view.nonfinite]
    table = ""
    if bad:
        rows = [_layer_row(view) for view in bad[:_MOST_ROWS]]
        table = _table(("Layer", "Class", "Non-finite", "of"), rows, "llrr")
    return _section(
        "Where", line, "\n".join(f"- {_text(p.message)}" for p in patterns), table, _more(len(bad), "layer")
    )


def _layer_row(view: LayerView) -> tuple[str, ...]:
    return (
        _code(view.name),
        _text(view.spec.class_name if view.spec else "–"),
        f"{view.nonfinite:,}",
        f"{view.size:,}",
    )


def _when(report: Report) -> str:
    log, timeline = main_log(report), report.evidence.timeline
    lines = [_text(story.when(report.diagnosis.origin)), _text(recorded(report))]
    if not isinstance(log, Missing) and (bad := first_nonfinite(log)) is not None and bad.first_nonfinite:
        step, value = bad.first_nonfinite
        lines.append(
            f"First non-finite value in the log: {_code(bad.name)} = {numbers.number(value)} at {bad.axis} {numbers.number(step)}."
        )
    table = ""
    if not isinstance(timeline, Missing):
        rows = [
            (
                _code(story.last_part(p.path)),
                numbers.number(p.epoch),
                numbers.number(p.step),
                p.status.value,
                f"{p.nonfinite:,}",
            )
            for p in timeline.points[-_MOST_ROWS:]
        ]
        table = _table(("Checkpoint", "Epoch", "Step", "State", "Non-finite"), rows, "lrrlr")
        lines += [f"- {_text(_growth)}" for _growth in story.growth(timeline)[:3]]
    return _section("When", "\n".join(line for line in lines if line), table)


def _how(report: Report) -> str:
    replay = report.evidence.replay
    if isinstance(replay, Missing):
        return ""
    chain = replay.first_bad.chain if replay.first_bad else ()
    rows = [
        (
            link.phase.value,
            _code(link.layer or ""),
            _text(link.what),
            f"{link.nonfinite:,} of {link.size:,}",
            story.span(link.min, link.max),
        )
        for link in chain[:_MOST_ROWS]
    ]
    table = _table(("Phase", "Layer", "Tensor", "Non-finite", "Finite range"), rows, "lllrr") if rows else ""
    return _section("How: the replay", _text(story.replay_sentence(report)), table, _more(len(chain), "station"))


def _tried(report: Report) -> str:
    replay = report.evidence.replay
    if not isinstance(replay, Replay) or not (replay.experiments or replay.skipped_experiments):
        return ""
    rows = []
    for e in replay.experiments[:_MOST_ROWS]:
        outcome = story.outcome(e)
        after = numbers.number(e.loss_after)
        rows.append((outcome.sign, _text(e.change), outcome.word, f"{e.steps_survived:,} of {e.steps:,}", after))
    table = _table(("", "Change", "Outcome", "Finite steps", "Last loss"), rows, "lllrr") if rows else ""
    skipped = [
        f"- not tried: {_text(change)} ({_text(why)})" for change, why in replay.skipped_experiments[:_MOST_ROWS]
    ]
    return _section("What was tried", table, "\n".join(skipped))


def _why(report: Report) -> str:
    if report.verdict.status is not Status.SICK or not report.diagnosis.causes:
        return ""
    ranking = _table(
        ("Cause", "Confidence", "Log-odds"),
        [
            (code(c.cause.value), numbers.percent(c.confidence), f"{c.log_odds:+.1f}")
            for c in report.diagnosis.causes[:6]
        ],
        "lrr",
    )
    best = story.winner(report)
    return _section("Why this cause and not another", ranking, _sum(best) if best else "")


def _sum(cause: RankedCause) -> str:
    terms = sorted(cause.contributions, key=lambda c: -abs(c.weight))
    rows = [(f"{t.weight:+.1f}", _text(t.reason), _code(t.finding_id or "")) for t in terms[:_MOST_ROWS]]
    return _table((f"Log-odds of {code(cause.cause.value)}", "Because", "Finding"), rows, "rll")


def _findings(report: Report) -> str:
    ranked = story.by_severity(report.findings)
    rows = [
        (_code(f.id or f.rule), _MARKS[f.severity], _text(f.message), _text(story.measurement(f)))
        for f in ranked[: 2 * _MOST_ROWS]
    ]
    more = len(ranked) - 2 * _MOST_ROWS
    table = _table(("Finding", "Severity", "What", "Measured"), rows) if rows else ""
    return _section("Findings", table, f"_and {numbers.count(more, 'more finding')}_" if more > 0 else "")


def _data(report: Report) -> str:
    batches = report.evidence.batches
    if isinstance(batches, Missing):
        return ""
    rows = [
        (
            _code(a.name),
            a.kind,
            numbers.shape(a.shape),
            _text(a.dtype),
            f"{a.nonfinite:,}",
            story.span(a.min, a.max),
            numbers.number(a.mean),
            numbers.number(a.std),
        )
        for a in (*batches.inputs, *batches.targets, *batches.sample_weights)
    ]
    head = ("Array", "Kind", "Shape", "dtype", "Non-finite", "Finite range", "Mean", "Std")
    return _section("The last batches", _table(head, rows[:_MOST_ROWS], "llllrrrr"))


def _not_checked(report: Report) -> str:
    lines = [f"- **{gap.title}**: {_text(gap.reason)}. {md(gap.how)}".rstrip() for gap in story.not_checked(report)]
    lines += [
        f"- rules {', '.join(codes[:_MOST_ROWS])}{' …' if len(codes) > _MOST_ROWS else ''}: {_text(reason)}"
        for reason, codes in story.skipped_by_reason(report)[:_MOST_ROWS]
    ]
    lines += [f"- rule {_code(f.rule)} crashed: {_text(f.error)}" for f in report.failures[:_MOST_ROWS]]
    return _section("What was not checked", "\n".join(lines))


def _files(report: Report) -> str:
    files = report.evidence.files
    lines = [f"- inspected: {_code(files.path)}"]
    lines += [f"- unreadable: {_code(path)}: {_text(error)}" for path, error in report.evidence.unreadable[:_MOST_ROWS]]
    used = (*files.checkpoints[:1], *files.logs, *files.batches)
    lines.append(
        f"- used: {', '.join(_code(p) for p in used[:_MOST_ROWS])} ({numbers.count(len(files.checkpoints), 'checkpoint')})"
    )
    lines += [f"- {_text(name)}: {_text(version)}" for name, version in story.versions(report)]
    return _section("Files and versions", "\n".join(lines))
