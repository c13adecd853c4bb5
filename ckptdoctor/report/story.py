"""What every rendering tells, in the order of a reader's questions, as plain data and sentences.

Nothing here judges: causes, grades and fixes are taken from the diagnosis; this module only finds words for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptdoctor.causes import CAUSE_DOCS
from ckptdoctor.model import (
    Cause,
    Experiment,
    Finding,
    Fix,
    Grade,
    Missing,
    Origin,
    RankedCause,
    ReplayStatus,
    Report,
    Severity,
    Status,
    Timeline,
    TimelinePoint,
)
from ckptdoctor.report import numbers
from ckptdoctor.report.recording import repeated, training_versions
from ckptdoctor.resume import Resume, where_to_resume

GRADE_WORDS: dict[Grade, str] = {
    Grade.CONFIRMED: "reproduced or observed directly",
    Grade.LIKELY: "the evidence is well above that of the next cause",
    Grade.POSSIBLE: "it leads, but weakly",
    Grade.UNKNOWN: "not enough evidence",
}

SEVERITY_WORDS: dict[Severity, str] = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "info"}


def cause_title(cause: Cause) -> str:
    """The cause in a few words."""
    return CAUSE_DOCS[cause].title


def subject_name(report: Report) -> str:
    """The last part of the path that was asked about."""
    return last_part(report.evidence.files.path) or "checkpoint"


def last_part(path: str) -> str:
    """The last part of a path or URL, whichever system it is from."""
    return path.rstrip("/\\").replace("\\", "/").rpartition("/")[2]


def chances(confidence: float) -> str:
    """A calibrated confidence as a natural frequency: of so many diagnoses like this one, so many are right."""
    if confidence >= 0.995:
        return "right in more than 99 of 100 such cases"
    if confidence >= 0.95 or confidence < 0.05:
        return f"right in about {max(round(100 * confidence), 1)} of 100 such cases"
    if 0.45 <= confidence < 0.55:
        return "right in about half of such cases"
    return f"right in about {max(round(10 * confidence), 1)} of 10 such cases"


def winner(report: Report) -> RankedCause | None:
    """The ranked cause that the verdict names."""
    return next((c for c in report.diagnosis.causes if c.cause is report.verdict.cause), None)


def fix(report: Report) -> Fix | None:
    """What to do about the verdict's cause."""
    best = winner(report)
    return best.fix if best is not None and (best.fix.text or best.fix.code) else None


def fix_words(report: Report) -> str:
    """The fix in words, unless the next step, which is shown above it, says the same already."""
    advice = fix(report)
    text = advice.text.strip() if advice else ""
    return "" if text.rstrip(".") in report.verdict.next_step else text


def where(origin: Origin) -> str:
    """`dense_1/kernel, forward pass, op Exp`; empty if nothing is known."""
    place = "/".join(part for part in (origin.layer, origin.variable) if part)
    phases = {
        "input": "in the input",
        "forward": "in the forward pass",
        "loss": "in the loss",
        "backward": "in the backward pass",
        "update": "in the update",
    }
    parts = [place, phases[origin.phase.value] if origin.phase else "", f"op {origin.op}" if origin.op else ""]
    return ", ".join(part for part in parts if part)


def when(origin: Origin) -> str:
    """`epoch 3, step 128, recorded batch 2, rows 5 and 9`; empty if nothing is known."""
    parts = [
        f"{name} {value:,}"
        for name, value in (("epoch", origin.epoch), ("step", origin.step), ("recorded batch", origin.batch))
        if value is not None
    ]
    if origin.rows:
        parts.append(f"{'row' if len(origin.rows) == 1 else 'rows'} {numbers.indices(origin.rows)}")
    return ", ".join(parts)


def point_name(point: TimelinePoint) -> str:
    """A checkpoint's file name with its epoch or step."""
    name = last_part(point.path) or point.path
    if point.epoch is not None:
        return f"{name} (epoch {point.epoch:,})"
    return f"{name} (step {point.step:,})" if point.step is not None else name


def resume(report: Report) -> Resume | None:
    """From where to continue training, for a failed run of several checkpoints."""
    if report.verdict.status is not Status.SICK:
        return None
    found = where_to_resume(report.evidence, report.findings)
    if found is None or found.path is None:
        return found
    return Resume(found.path, found.reason.removeprefix(f"{last_part(found.path)}: "), found.untrained)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an experiment ended: a word and a sign for it (never colour alone), and the tone it is drawn in."""

    word: str
    sign: str
    tone: str  # good, partial, bad, open


def outcome(experiment: Experiment) -> Outcome:
    """How an experiment ended, in words."""
    if experiment.removes_failure is None:
        return Outcome("undecided", "?", "open")
    if not experiment.removes_failure:
        return Outcome("still fails", "✗", "bad")
    if experiment.learns is None:
        return Outcome("failure gone", "✓", "good")
    return (
        Outcome("failure gone, learns", "✓", "good")
        if experiment.learns
        else Outcome("finite, learns nothing", "~", "partial")
    )


def replay_sentence(report: Report) -> str:
    """What replay showed, in a few sentences."""
    replay = report.evidence.replay
    if isinstance(replay, Missing):
        return f"Not replayed: {replay.reason}."
    steps = numbers.count(replay.steps, "step")
    sentence = {
        ReplayStatus.REPRODUCED: f"The failure was reproduced after {steps} on {replay.device or 'the CPU'}.",
        ReplayStatus.NOT_REPRODUCED: f"{steps[:1].upper()}{steps[1:]} on {replay.device or 'the CPU'} stayed finite.",
        ReplayStatus.NOT_RUN: f"Not replayed: {replay.reason.rstrip('.')}.",
        ReplayStatus.FAILED: f"The replay failed: {replay.reason.rstrip('.')}.",
    }[replay.status]
    more = replay.disagreement.rstrip(".")
    parts = (sentence, repeated(replay.repeat), f"{more[:1].upper()}{more[1:]}." if more else "")
    return " ".join(part for part in parts if part)


# --- what was not checked ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NotChecked:
    """A part of the evidence that is missing, why, and how to have it the next time."""

    part: str
    title: str
    reason: str
    how: str


_PARTS: dict[str, tuple[str, str]] = {
    "census": ("Weights", "Keep at least one checkpoint: `keras.callbacks.ModelCheckpoint`."),
    "spec": ("Model configuration", "Save the whole model (`model.save('x.keras')`), or name its code with `--build`."),
    "fingerprint": ("Pattern of the non-finite entries", ""),
    "optimizer": ("Optimizer state", "Save the compiled model with its optimizer, not only its weights."),
    "timeline": (
        "Checkpoints over time",
        "Keep one checkpoint an epoch: `ModelCheckpoint('checkpoints/epoch_{epoch:03d}.keras')`.",
    ),
    "logs": ("Training log", "Add `keras.callbacks.CSVLogger('training_log.csv')`."),
    "batches": (
        "Last batches",
        "Record them with `ckptdoctor.FlightRecorder('run/')`, or write `x` and `y` of the failing step to last_batches.npz.",
    ),
    "replay": ("Replay", "Needs recorded batches, a model configuration and `pip install 'ckptdoctor[replay]'`."),
}


def not_checked(report: Report) -> tuple[NotChecked, ...]:
    """The parts of the evidence that are missing, in the order of `Evidence`."""
    found: list[NotChecked] = []
    for part, (title, how) in _PARTS.items():
        value = getattr(report.evidence, part)
        if isinstance(value, Missing):
            found.append(NotChecked(part, title, value.reason, how))
    replay = report.evidence.replay
    if not isinstance(replay, Missing) and replay.status in (ReplayStatus.NOT_RUN, ReplayStatus.FAILED):
        found.append(NotChecked("replay", "Replay", replay.reason or replay.status.value.replace("_", " "), ""))
    return tuple(found)


def skipped_by_reason(report: Report) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Reasons with the codes of the rules that were skipped for them."""
    groups: dict[str, list[str]] = {}
    for skipped in report.skipped:
        groups.setdefault(skipped.reason, []).append(skipped.rule)
    return tuple((reason, tuple(codes)) for reason, codes in groups.items())


def by_severity(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Findings, the worst first, otherwise in their own order."""
    return tuple(sorted(findings, key=lambda f: -int(f.severity)))


def versions(report: Report) -> Iterator[tuple[str, str]]:
    """Name and version of everything that took part: what saved the file, what examined it."""
    yield "ckptdoctor", report.tool_version
    census = report.evidence.census
    if not isinstance(census, Missing) and not isinstance(census.info.keras_version, Missing):
        yield "Keras that saved it", census.info.keras_version
    yield from training_versions(report)
    replay = report.evidence.replay
    if not isinstance(replay, Missing):
        for name, version in replay.environment.items():
            yield f"replay: {name}", version


# --- small sentences ---------------------------------------------------------------------------------------------


def span(low: float | None, high: float | None) -> str:
    """`-2.94 … 2.87`; `–` where no entry is finite."""
    if low is None or high is None:
        return numbers.ABSENT
    return numbers.number(low) if low == high else f"{numbers.number(low)} … {numbers.number(high)}"


def measurement(finding: Finding) -> str:
    """`71 (threshold 10 x over 5 epochs)`; empty where nothing was measured."""
    if finding.measured is None:
        return ""
    unit = f" {finding.unit}" if finding.unit else ""
    if finding.threshold is None:
        return f"{numbers.number(finding.measured)}{unit}"
    return f"{numbers.number(finding.measured)}{unit}, threshold {numbers.number(finding.threshold)}"


def growth(timeline: Timeline) -> tuple[str, ...]:
    """Fitted growth in words: `simple_rnn/recurrent_kernel doubles every 1.4 epochs and overflows at about epoch 178`."""
    sentences = []
    for fit in timeline.growth:
        name = "/".join(part for part in (fit.layer, fit.variable) if part)
        verb = "doubles" if fit.doubling > 0 else "halves"
        sentence = f"{name} {verb} every {numbers.short(abs(fit.doubling))} {fit.axis}s"
        if fit.overflow_at is not None:
            sentence += f" and would overflow at about {fit.axis} {numbers.short(fit.overflow_at)}"
        sentences.append(sentence)
    return tuple(sentences)
