"""CKD301: when the run went bad, and what happened in between."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity, TimelinePoint, Vote
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
        votes=_late(good),
    )


def _name(point: TimelinePoint) -> str:
    return os.path.basename(point.path)


def _late(good: TimelinePoint | None) -> tuple[Vote, ...]:
    """A run that trained well for a while before it failed did not start from a broken set-up."""
    if good is None or not good.epoch or good.epoch < 2:
        return ()
    return votes(
        (Cause.INITIALIZATION, -1.5, "it trained for epochs before it failed"),
        (Cause.DATA_SCALE, -0.7, "it trained for epochs before it failed"),
        (Cause.DATA_NONFINITE, -0.3, "bad rows would usually be met in the first epoch"),
    )
