"""CKD601: a finite run that does not learn."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.standstill_log import MOVING, NO_BETTER


@rule(
    code="CKD601",
    name="not-learning",
    severity=Severity.ERROR,
    needs=set(),
    since="0.1.0",
    thresholds={
        "no_better": Threshold(
            NO_BETTER, unit="loss ÷ loss of the best constant", source="hand-chosen: 3 % is within an epoch's noise"
        ),
        "moving": Threshold(
            MOVING, unit="relative fall over the last half", source="hand-chosen; TheDeepChecker asks 5 % a window"
        ),
    },
    doc="""
    ## What it finds
    A run whose predictions, after several epochs, are no better than always predicting one value, and whose loss is not
    falling any more.
    ## Why it matters
    Nothing is NaN, so nothing stops it: such runs burn their whole budget. The best constant prediction is the honest
    yardstick; a flat loss alone is none, since a converged run is flat too.
    ## How to confirm
    Compare the loss with the variance of the targets (squared error) or the entropy of the classes (cross-entropy).
    ## How to fix
    Depends on the cause; the ranking and the experiments tell.
    ## References
    Loss at ln k for an even guess: Karpathy's recipe and TheDeepChecker; R² against the mean.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    found = standstill(evidence)
    if found is None:
        return
    constant = found.kind == "constant_output"
    yield Finding(
        rule="CKD601",
        severity=Severity.ERROR,
        message=found.message,
        measured=found.measured,
        threshold=found.threshold,
        unit=found.unit,
        confidence=found.sure,
        votes=votes(
            (Cause.VANISHING_GRADIENTS, 0.4, "the run is finite but stands still"),
            (
                Cause.ACTIVATION,
                0.6 if constant else 0.2,
                "one output for every input" if constant else "the run stands still",
            ),
            (Cause.LABELS, 1.5 if found.kind == "by_heart" else 0.0, "rows are learned by heart, nothing transfers"),
            (Cause.EXPLODING_GRADIENTS, -2.5, "nothing overflowed"),
            (Cause.DATA_NONFINITE, -2.5, "nothing is non-finite"),
            (Cause.MIXED_PRECISION, -0.5, "nothing overflowed"),
        ),
        data={"kind": found.kind},
    )
