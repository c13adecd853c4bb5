"""CKD517: predictions that run against their targets."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill


@rule(
    code="CKD517",
    name="mirrored-predictions",
    severity=Severity.WARNING,
    needs={"replay"},
    since="0.1.0",
    doc="""
    ## What it finds
    After training, predictions that are large where targets are small, and the other way round.
    ## Why it matters
    A model that learned nothing is unrelated to its targets. One that is opposed to them learned well, the wrong way round: the
    loss has lost its sign, or a similarity is made small that should be made large.
    ## How to confirm
    The loss of the targets themselves, `loss(y, y)`, should be the smallest there is.
    ## How to fix
    Put the minus back: minimise the negative of what should grow.
    ## References
    Keras' cosine_similarity is the negative cosine for that reason.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    found = standstill(evidence)
    if found is None or found.kind != "mirrored":
        return
    yield Finding(
        rule="CKD517",
        severity=Severity.WARNING,
        message=found.message,
        measured=found.measured,
        threshold=found.threshold,
        unit=found.unit,
        votes=votes(
            (Cause.LOSS_FUNCTION, 4.0, "it learned well, the wrong way round"),
            (Cause.LABELS, 1.0, "labels may be turned round"),
            (Cause.LEARNING_RATE, -1.5, "it learned"),
            (Cause.DATA_SCALE, -1.0, "it learned"),
            (Cause.ACTIVATION, -1.0, "it learned"),
        ),
        data={"fix": "Turn the sign of the loss: what should grow is minimised as its negative."},
    )
