"""CKD110: a learning rate that is no number."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import optimizer_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD110",
    name="learning-rate-nonfinite",
    severity=Severity.ERROR,
    needs={"optimizer"},
    since="0.1.0",
    doc="""
    ## What it finds
    A learning rate of NaN or infinity, or a negative one.
    ## Why it matters
    The next step multiplies every gradient by it: all weights become NaN, or climb the loss.
    ## How to confirm
    `model.optimizer.learning_rate`.
    ## How to fix
    Look at the schedule or callback that computes it: a division by zero steps, a logarithm, a negative step count.
    ## References
    Keras stores the rate as an optimizer variable, or evaluates the schedule at the saved iteration.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    rate = optimizer_of(evidence).learning_rate
    if not isinstance(rate, float) or (math.isfinite(rate) and rate >= 0):
        return
    yield Finding(
        rule="CKD110",
        severity=Severity.ERROR,
        message=f"The learning rate is {rate} ({optimizer_of(evidence).learning_rate_source}).",
        variable="learning_rate",
        measured=rate,
        threshold="a finite number, zero or larger",
        votes=votes(
            (Cause.LEARNING_RATE, 5.0, "the rate itself is not a usable number"),
            (Cause.OPTIMIZER, 1.5, "the optimizer's own state is broken"),
        ),
    )
