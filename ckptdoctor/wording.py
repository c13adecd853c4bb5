"""The verdict in plain language: one headline, one next step."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

from ckptdoctor.causes import CAUSE_DOCS
from ckptdoctor.model import (
    Association,
    Batches,
    Cause,
    Census,
    Evidence,
    Finding,
    Grade,
    Missing,
    RankedCause,
    Replay,
    ReplayStatus,
    Severity,
    Status,
    Timeline,
    Verdict,
)
from ckptdoctor.resume import where_to_resume
from ckptdoctor.rules.standstill import NOTHING_FOUND
from ckptdoctor.rules.standstill_log import MIN_ROWS


def verdict_words(
    status: Status,
    cause: Cause,
    grade: Grade,
    confidence: float,
    causes: Sequence[RankedCause],
    findings: Sequence[Finding],
    evidence: Evidence,
) -> Verdict:
    """The verdict with its sentences."""
    if status is Status.UNREADABLE:
        return Verdict(status, cause, grade, confidence, _unreadable(evidence), _unreadable_step(evidence))
    if status is Status.HEALTHY:
        return Verdict(status, cause, grade, confidence, _healthy(evidence), _healthy_step(evidence))
    if cause is Cause.UNKNOWN:
        return Verdict(status, cause, grade, confidence, _unknown(findings), _deciding(causes, evidence))
    headline = f"{CAUSE_DOCS[cause].title}: {_strongest(cause, findings)}"
    step = _next_step(causes[0], evidence, findings)
    return Verdict(status, cause, grade, confidence, headline, step)


def _strongest(cause: Cause, findings: Sequence[Finding]) -> str:
    """The message of the finding that speaks loudest for the cause."""
    best = max(findings, key=lambda f: (sum(v.weight for v in f.votes if v.cause is cause), f.severity), default=None)
    return best.message if best is not None else CAUSE_DOCS[cause].plain


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [f for f in findings if f.severity is Severity.ERROR]


def _unknown(findings: Sequence[Finding]) -> str:
    errors = _errors(findings)
    first = errors[0].message if errors else CAUSE_DOCS[Cause.UNKNOWN].plain
    return f"{first} What is left does not tell why."


def _deciding(causes: Sequence[RankedCause], evidence: Evidence) -> str:
    """The one measurement that would decide between the leading causes."""
    if isinstance(evidence.batches, Missing):
        return f"To decide, record {CAUSE_DOCS[Cause.DATA_NONFINITE].decide}: train with ckptdoctor.FlightRecorder('run/')."
    replay = evidence.replay
    if isinstance(replay, Missing) or (
        isinstance(replay, Replay) and replay.status in (ReplayStatus.NOT_RUN, ReplayStatus.FAILED)
    ):
        return f"To decide, replay the last batches: {replay.reason}"
    if causes:
        return f"To decide, look at {CAUSE_DOCS[causes[0].cause].decide}."
    return CAUSE_DOCS[Cause.UNKNOWN].how_to_fix


def _next_step(best: RankedCause, evidence: Evidence, findings: Sequence[Finding]) -> str:
    resume = where_to_resume(evidence, findings)
    return f"{best.fix.text} {resume.sentence if resume is not None else ''}".rstrip()


def _healthy(evidence: Evidence) -> str:
    seen = []
    if isinstance(evidence.timeline, Timeline):
        seen.append(f"{len(evidence.timeline.points)} checkpoints")
    elif isinstance(evidence.census, Census):
        seen.append(f"{len(evidence.census.tensors)} tensors")
    if isinstance(evidence.logs, tuple):
        seen.append("the log")
    if isinstance(evidence.batches, Batches):
        seen.append("the last batches")
    if isinstance(evidence.replay, Replay) and evidence.replay.status is ReplayStatus.NOT_REPRODUCED:
        seen.append("a replay")
    return f"Nothing wrong was found in {_and(seen)}."


def _healthy_step(evidence: Evidence) -> str:
    if isinstance(evidence.batches, Missing):
        return "Nothing to do. Without recorded batches a model that is finite but does not learn could not be told."
    if loss := unjudged_loss(evidence):
        return (
            f"Whether it learned could not be judged, since the code of its loss {loss!r} is not at hand: name it "
            "with --custom-objects MODULE if the loss does not fall."
        )
    if unrelated_rows(evidence):
        return (
            "Nothing to do, if rows that were not trained on are predicted too: simple models find nothing of the targets in the "
            "recorded inputs, and the log holds no validation that would tell learning from learning by heart."
        )
    return "Nothing to do."


def unrelated_rows(evidence: Evidence) -> bool:
    """Whether simple models find nothing of the targets in the inputs, and no validation is logged."""
    measured = evidence.batches.association if isinstance(evidence.batches, Batches) else None
    logs = evidence.logs if isinstance(evidence.logs, tuple) else ()
    if not isinstance(measured, Association) or measured.rows < MIN_ROWS or measured.score >= NOTHING_FOUND:
        return False
    return not any(s.name.startswith("val_") and any(map(math.isfinite, s.values)) for log in logs for s in log.series)


def unjudged_loss(evidence: Evidence) -> str | None:
    """The name of the loss, where a replay ran that could not tell what it asks for because its code is missing.

    Either predictions could not be put beside targets, or they are no better than a constant by the usual loss: by its own the
    run may have learned all the same.
    """
    replay = evidence.replay
    if not isinstance(replay, Replay) or replay.skill is None:
        return None
    return replay.custom_loss if replay.skill.score is None or replay.skill.score < 0 else None


def _unreadable(evidence: Evidence) -> str:
    if isinstance(evidence.census, Missing):
        return evidence.census.reason
    info = evidence.census.info
    problem = info.problems[0].message if info.problems else "parts of it are missing"
    return (
        f"{os.path.basename(info.path)} is damaged ({problem}); {info.coverage:.0%} of its tensor bytes could be read."
    )


def _unreadable_step(evidence: Evidence) -> str:
    resume = where_to_resume(evidence, ())
    if resume is None or resume.path is None:
        return "Inspect the checkpoint saved before it."
    return resume.sentence


def _and(words: Sequence[str]) -> str:
    if not words:
        return "what was given"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
