"""CKD507: replay met class ids that the head does not have."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import replay_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD507",
    name="replay-label-range",
    severity=Severity.ERROR,
    needs={"replay"},
    since="0.1.0",
    doc="""
    ## What it finds
    A training step that refuses the recorded labels, or gives NaN for them, since a class id is out of range.
    ## Why it matters
    The CPU raises an error; a GPU, and XLA, return NaN and train on.
    ## How to confirm
    `y.min(), y.max()` against the units of the head.
    ## How to fix
    Shift the ids to begin at 0, or give the head the missing units.
    ## References
    tensorflow#8484.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    span = replay_of(evidence).label_range
    if span is None:
        return
    low, high, classes = span
    yield Finding(
        rule="CKD507",
        severity=Severity.ERROR,
        message=f"Recorded class ids run from {low} to {high}; the head has {classes} classes (0 to {classes - 1}).",
        measured=float(high if high >= classes else low),
        threshold=float(classes - 1),
        unit="class id",
        votes=votes((Cause.LABELS, 2.0, "the step cannot take these labels")),
        data={"confirms": Cause.LABELS.value},
    )
