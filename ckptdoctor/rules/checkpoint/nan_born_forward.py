"""CKD108: BatchNormalization statistics split the model into a finite and a non-finite part."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import fingerprint_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD108",
    name="nan-born-forward",
    severity=Severity.WARNING,
    needs={"census", "fingerprint"},
    since="0.1.0",
    doc="""
    ## What it finds
    Moving statistics that are finite before a layer and non-finite after it.
    ## Why it matters
    Statistics are taken in the forward pass, so the first NaN was born between the last finite and the first non-finite
    one: an activation, an op or a layer there overflowed or divided by zero.
    ## How to confirm
    Replay with checks on, or print the range of the outputs between the two layers.
    ## How to fix
    Look at the layers in between: exp, log, division, an unbounded activation.
    ## References
    Measured on Keras 3.15.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for pattern in fingerprint_of(evidence).patterns:
        if pattern.kind != "downstream_only":
            continue
        yield Finding(
            rule="CKD108",
            severity=Severity.WARNING,
            message=pattern.message,
            layer=pattern.layer,
            votes=votes(
                (Cause.ACTIVATION, 1.5, "the NaN was born in the forward pass, inside the model"),
                (Cause.ARCHITECTURE, 0.8, "the NaN was born in the forward pass, inside the model"),
                (Cause.LABELS, -2.0, "targets play no part in the forward pass"),
                (Cause.LOSS_FUNCTION, -2.0, "the loss plays no part in the forward pass"),
                (Cause.DATA_NONFINITE, -1.0, "a bad input would have reached the first statistics too"),
            ),
        )
