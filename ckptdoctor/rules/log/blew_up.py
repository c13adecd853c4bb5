"""CKD203: the loss grew before it failed, or simply grew."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.log.series import before_first_nonfinite, growth_before_failure, loss
from ckptdoctor.rules.parts import votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import trivial_loss


@rule(
    code="CKD203",
    name="loss-blew-up",
    severity=Severity.WARNING,
    needs={"logs"},
    since="0.1.0",
    thresholds={
        "growth": Threshold(
            5.0,
            unit="× its minimum",
            source="runmedic takes 3 times the early median, TheDeepChecker 2 times the minimum; measured",
        ),
        "diverged": Threshold(
            1e3, unit="× its minimum", source="hand-chosen: no healthy run ends a thousand times above its best"
        ),
    },
    doc="""
    ## What it finds
    A loss that rose to several times its minimum, before it became non-finite or until the end of the log.
    ## Why it matters
    Growth before the failure means that steps were too large for the curvature: a matter of rate, gradients and scale. Bad
    data strikes without warning.
    ## How to confirm
    The loss curve; per-batch losses where they were logged.
    ## How to fix
    Lower the rate or clip; continue from before the growth.
    ## References
    runmedic, TheDeepChecker.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series = loss(evidence)
    if series is None:
        return
    growth, values = growth_before_failure(series), before_first_nonfinite(series)
    if growth is None or growth < limits["growth"] or values[-1] <= 0:
        return
    constant = trivial_loss(evidence)
    failing = series.first_nonfinite is not None
    if not failing and (growth < limits["diverged"] or (constant is not None and values[-1] <= constant[0])):
        return
    yield Finding(
        rule="CKD203",
        severity=Severity.WARNING if failing else Severity.ERROR,
        message=f"{series.name} rose to {values[-1]:.4g}, {growth:.3g} times its minimum{', before it became non-finite' if failing else ''}.",
        measured=growth,
        threshold=limits["growth"],
        unit="× its minimum",
        votes=votes(
            (Cause.LEARNING_RATE, 1.6, "the loss grew before it failed"),
            (Cause.EXPLODING_GRADIENTS, 1.4, "the loss grew before it failed"),
            (Cause.DATA_SCALE, 0.5, "the loss grew before it failed"),
            (Cause.DATA_NONFINITE, -2.0, "bad data strikes without warning"),
            (Cause.LABELS, -1.0, "the loss grew before it failed"),
        ),
    )
