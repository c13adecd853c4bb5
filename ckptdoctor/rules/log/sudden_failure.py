"""CKD204: the loss fell nicely, and then was NaN."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.log.series import before_first_nonfinite, growth_before_failure, loss
from ckptdoctor.rules.parts import losses_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule


@rule(
    code="CKD204",
    name="sudden-failure",
    severity=Severity.WARNING,
    needs={"logs"},
    since="0.1.0",
    thresholds={"growth": Threshold(1.5, unit="× its minimum", source="hand-chosen: the noise of an epoch's mean")},
    doc="""
    ## What it finds
    A loss that became non-finite from one point to the next without growing before.
    ## Why it matters
    A single batch did it: a NaN in the data, a rare case that the loss does not guard (an empty set, a zero). Steps that are
    too large announce themselves.
    ## How to confirm
    The batch itself, kept by the flight recorder.
    ## How to fix
    Find that batch; guard the loss.
    ## References
    tensorflow/addons#2447; measured on re-created public failures.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series = loss(evidence)
    if series is None or series.first_nonfinite is None:
        return
    values, growth = before_first_nonfinite(series), growth_before_failure(series)
    if len(values) < 2 or growth is None or growth > limits["growth"]:
        return
    custom = any(known.custom for known in losses_of(maybe_spec(evidence)))
    why = "one batch did it: the loss had not grown"
    yield Finding(
        rule="CKD204",
        severity=Severity.WARNING,
        message=f"{series.name} was {values[-1]:.4g} and falling when it became {series.first_nonfinite[1]} at {series.axis} {series.first_nonfinite[0]:g}.",
        epoch=int(series.first_nonfinite[0]) if series.axis == "epoch" else None,
        measured=growth,
        threshold=limits["growth"],
        unit="× its minimum",
        votes=votes(
            (Cause.DATA_NONFINITE, 0.8 if custom else 1.8, why),
            (Cause.LOSS_FUNCTION, 1.5 if custom else 0.8, why),
            (Cause.LABELS, 0.3, why),
            (Cause.LEARNING_RATE, -1.2, why),
            (Cause.DATA_SCALE, -1.2, why),
            (Cause.EXPLODING_GRADIENTS, -0.5, why),
            (Cause.INITIALIZATION, -1.0, why),
        ),
    )
