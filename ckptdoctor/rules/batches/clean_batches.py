"""CKD414: the recorded data is finite although the run is not."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import Batches, Cause, Census, Evidence, Finding, Severity, Timeline
from ckptdoctor.rules.log.series import loss
from ckptdoctor.rules.parts import batches_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD414",
    name="clean-batches",
    severity=Severity.INFO,
    needs={"batches"},
    since="0.1.0",
    doc="""
    ## What it finds
    Recorded batches without a single non-finite value in a run that went non-finite; and whether the failing step is among them.
    ## Why it matters
    If the batch of the failing step is clean, the data is not the cause. If it is not among the recorded ones, clean batches only
    make bad rows less likely.
    ## How to confirm
    The steps stored with the batches against the step of the failure.
    ## How to fix
    Nothing by itself.
    ## References
    A count over every entry of the recorded arrays.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    batches = batches_of(evidence)
    arrays = (*batches.inputs, *batches.targets, *batches.sample_weights)
    if not went_nonfinite(evidence) or not arrays or any(a.nonfinite for a in arrays):
        return
    included = holds_failing_step(evidence, batches)
    yield Finding(
        rule="CKD414",
        severity=Severity.INFO,
        message=f"All {batches.count} recorded batches are finite{', the one of the failing step among them' if included else ''}.",
        measured=0.0,
        threshold=0.0,
        unit="non-finite entries",
        votes=votes((Cause.DATA_NONFINITE, -3.0 if included else -0.8, "recorded inputs and targets are finite")),
    )


def holds_failing_step(evidence: Evidence, batches: Batches) -> bool:
    """The run stopped at its first non-finite step and the last recorded batch is that step's."""
    if not batches.steps or not isinstance(evidence.timeline, Timeline):
        return False
    series = loss(evidence)
    ended_at_once = series is None or (
        series.first_nonfinite is not None and bool(series.steps) and series.first_nonfinite[0] == series.steps[-1]
    )
    timeline = evidence.timeline
    last_is_first_bad = timeline.first_bad is not None and timeline.first_bad == len(timeline.points) - 1
    census = timeline.points[-1].census if timeline.points else None
    step = census.iterations if isinstance(census, Census) else None
    return (
        ended_at_once and last_is_first_bad and step is not None and math.isclose(batches.steps[-1], step, abs_tol=1.0)
    )
