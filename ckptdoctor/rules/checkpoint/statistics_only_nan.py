"""CKD106: only BatchNormalization statistics are bad."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import fingerprint_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD106",
    name="statistics-only-nan",
    severity=Severity.ERROR,
    needs={"census", "fingerprint"},
    since="0.1.0",
    doc="""
    ## What it finds
    Moving mean or variance of BatchNormalization are non-finite, and nothing else is.
    ## Why it matters
    Training looks fine, since a training step normalises with the batch's own statistics; every prediction is NaN. The
    usual reason is a batch with a single element per channel, whose unbiased variance is 0/0.
    ## How to confirm
    `model.evaluate` gives NaN while `fit` shows a finite loss; look for a last batch of size one.
    ## How to fix
    Drop the remainder of the data set (`drop_remainder=True`) or use LayerNormalization; reset the statistics by training on
    from the last healthy checkpoint.
    ## References
    Bessel's correction n/(n-1) is infinite at n = 1; measured on Keras 3.15.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for pattern in fingerprint_of(evidence).patterns:
        if pattern.kind != "statistics_only":
            continue
        yield Finding(
            rule="CKD106",
            severity=Severity.ERROR,
            message=pattern.message,
            layer=pattern.layer,
            variable=pattern.variable,
            votes=votes(
                (
                    Cause.ARCHITECTURE,
                    4.0,
                    "only the normalisation statistics failed: a batch of one element per channel",
                ),
                (Cause.LEARNING_RATE, -2.0, "no gradient step touches moving statistics"),
                (Cause.EXPLODING_GRADIENTS, -2.0, "no gradient step touches moving statistics"),
            ),
        )
