"""CKD209: a loss that swings."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.log.series import before_first_nonfinite, loss, swings
from ckptdoctor.rules.parts import votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill


@rule(
    code="CKD209",
    name="oscillating-loss",
    severity=Severity.INFO,
    needs={"logs"},
    since="0.1.0",
    thresholds={
        "share": Threshold(
            0.5, unit="share of turning points", source="AUTOTRAINER takes swings in 20 % of epochs; hand-chosen higher"
        ),
        "points": Threshold(6.0, unit="points", source="hand-chosen"),
    },
    doc="""
    ## What it finds
    A loss that goes up and down by more than a tenth of its size in most epochs.
    ## Why it matters
    Steps jump across the valley instead of into it. Healthy runs with few samples may also do so.
    ## How to confirm
    A tenth of the learning rate.
    ## How to fix
    A smaller rate, a larger batch, a decay schedule.
    ## References
    AUTOTRAINER's unstable convergence.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series = loss(evidence)
    if series is None:
        return
    values = before_first_nonfinite(series)
    share = swings(values)
    if len(values) < limits["points"] or share < limits["share"]:
        return
    yield Finding(
        rule="CKD209",
        severity=Severity.INFO,
        message=f"{series.name} turns in {share:.0%} of its points by more than a tenth of its size.",
        measured=share,
        threshold=limits["share"],
        unit="share of turning points",
        votes=votes((Cause.LEARNING_RATE, 1.2 if standstill(evidence) else 0.8, "steps jump across the valley")),
    )
