"""CKD123: a regression head that cannot give every number."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import head
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import REGRESSION, main_loss

FLATTENING = {
    "relu": "it cannot predict negative values and can die",
    "exponential": "one step too far multiplies the predictions, and back below zero it has no slope",
}


@rule(
    code="CKD123",
    name="relu-output",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    A regression head that ends in relu; in a run that stands still, one that ends in exp.
    ## Why it matters
    Where its input is negative for every row the unit outputs 0 and receives no gradient any more: it is dead for good. For
    targets that are never negative it can work; for others it cannot. An exponential turns steps into factors: what overshoots
    comes back to where exp is 0 and has no slope.
    ## How to confirm
    `model.predict` gives exactly 0 for all rows.
    ## How to fix
    A linear output; for positive targets `softplus` or `exp` of a bounded input.
    ## References
    Dying relu; common in the DeepLocalize and DeepFD collections.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    found, loss = head(spec), main_loss(spec)
    if found is None or loss is None or found[2] not in FLATTENING or loss.name not in REGRESSION:
        return
    activation, stuck = found[2], standstill(evidence) is not None
    if activation == "exponential" and not stuck:
        return
    yield Finding(
        rule="CKD123",
        severity=Severity.INFO,
        message=f"The regression head {found[0].name} ends in {activation}: {FLATTENING[activation]}.",
        layer=found[1].name,
        measured=activation,
        threshold="linear",
        votes=votes((Cause.ACTIVATION, 2.2 if activation == "exponential" else 1.0, FLATTENING[activation])),
    )
