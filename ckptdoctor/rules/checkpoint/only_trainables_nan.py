"""CKD104: every trainable weight is bad, every BatchNormalization statistic is fine."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import fingerprint_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD104",
    name="only-trainables-nan",
    severity=Severity.WARNING,
    needs={"census", "fingerprint"},
    since="0.1.0",
    thresholds={},
    doc="""
    ## What it finds
    All trainable weights are non-finite while all moving statistics of BatchNormalization are finite.
    ## Why it matters
    Moving statistics are updated in the forward pass. If they are finite, the forward pass was: the NaN was born in the
    loss or on the way back, so the target or the loss is the suspect, not an input.
    ## How to confirm
    Replay the batch with checks on, or compute the loss per sample.
    ## How to fix
    Look for NaN or out-of-range targets first, then at the loss's formula.
    ## References
    Measured on Keras 3.15: one step with a NaN label against one with a NaN input.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    fingerprint = fingerprint_of(evidence)
    for pattern in fingerprint.patterns:
        if pattern.kind != "trainables_only":
            continue
        yield Finding(
            rule="CKD104",
            severity=Severity.WARNING,
            message=pattern.message,
            layer=pattern.layer,
            votes=votes(
                (Cause.LABELS, 1.2, "the forward pass was finite: the NaN was born in the loss"),
                (Cause.LOSS_FUNCTION, 1.2, "the forward pass was finite: the NaN was born in the loss"),
                (Cause.DATA_NONFINITE, 0.3, "a NaN target leaves the statistics finite; a NaN input does not"),
                (Cause.ACTIVATION, -1.0, "a forward overflow would have reached the statistics"),
            ),
        )
