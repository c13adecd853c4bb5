"""CKD301: when the run went bad, and what happened in between."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ckptdoctor.model import Cause, Census, Evidence, Finding, Role, Severity, Timeline, TimelinePoint, Vote
from ckptdoctor.rules.parts import timeline_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD301",
    name="went-bad",
    severity=Severity.ERROR,
    needs={"timeline"},
    since="0.1.0",
    doc="""
    ## What it finds
    The first checkpoint with non-finite values, and the last healthy one before it.
    ## Why it matters
    It dates the failure, and names the checkpoint to continue from.
    ## How to confirm
    `ckptdoctor inspect` on each of the two.
    ## How to fix
    Remove the cause, then continue from the last healthy checkpoint.
    ## References
    keras#21771 asks to keep the last good state.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    timeline = timeline_of(evidence)
    if timeline.first_bad is None:
        return
    bad = timeline.points[timeline.first_bad]
    good = timeline.points[timeline.last_healthy] if timeline.last_healthy is not None else None
    before = (
        f"; {_name(good)} before it is healthy" if good is not None else "; no healthy checkpoint was kept before it"
    )
    yield Finding(
        rule="CKD301",
        severity=Severity.ERROR,
        message=f"{_name(bad)} is the first checkpoint with non-finite values ({bad.nonfinite:,}){before}.",
        epoch=bad.epoch,
        step=bad.step,
        measured=float(bad.nonfinite),
        threshold=0.0,
        unit="non-finite entries",
        votes=_before_training(bad, timeline) or _late(good),
    )


def _name(point: TimelinePoint) -> str:
    return os.path.basename(point.path)


def began_nonfinite(evidence: Evidence) -> bool:
    """Whether weights were not finite before the first step."""
    timeline = evidence.timeline
    if not isinstance(timeline, Timeline) or timeline.first_bad is None:
        return False
    bad = timeline.points[timeline.first_bad].census
    return isinstance(bad, Census) and _untrained(bad, timeline) and any(t.nonfinite for t in bad.of_role(Role.WEIGHT))


def _before_training(bad: TimelinePoint, timeline: Timeline) -> tuple[Vote, ...]:
    """Weights that are not numbers before any step was taken did not become so by training."""
    if not isinstance(bad.census, Census) or not _untrained(bad.census, timeline):
        return ()
    weights = [t for t in bad.census.of_role(Role.WEIGHT) if t.nonfinite]
    if not weights:
        return ()
    why = "these weights were not finite before the first step"
    rows = all("embedding" in t.info.variable for t in weights)
    return votes(
        (Cause.INITIALIZATION, 4.5 if rows else 6.0, why),
        (Cause.DATA_NONFINITE, 4.8 if rows else 1.0, "the vectors that were loaded hold NaN" if rows else why),
        (Cause.ACTIVATION, -3.0, why),
        (Cause.LOSS_FUNCTION, -3.0, why),
        (Cause.LEARNING_RATE, -3.0, why),
        (Cause.EXPLODING_GRADIENTS, -3.0, why),
    )


def _untrained(census: Census, timeline: Timeline) -> bool:
    """No step was taken: by the count, or because the optimizer had no state yet where it has in later checkpoints."""
    if census.iterations is not None:
        return census.iterations == 0
    later = any(isinstance(p.census, Census) and p.census.iterations for p in timeline.points)
    return later and not census.of_role(Role.SLOT, Role.OPTIMIZER)


def _late(good: TimelinePoint | None) -> tuple[Vote, ...]:
    """A run that trained well for a while before it failed did not start from a broken set-up."""
    if good is None or not good.epoch or good.epoch < 2:
        return ()
    return votes(
        (Cause.INITIALIZATION, -1.5, "it trained for epochs before it failed"),
        (Cause.DATA_SCALE, -0.7, "it trained for epochs before it failed"),
        (Cause.DATA_NONFINITE, -0.3, "bad rows would usually be met in the first epoch"),
    )
