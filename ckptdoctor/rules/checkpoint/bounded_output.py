"""CKD123: a regression head that cannot give every number."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import REGRESSION, head, main_loss


@rule(
    code="CKD123",
    name="relu-output",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    A regression head that ends in relu.
    ## Why it matters
    Where its input is negative for every row the unit outputs 0 and receives no gradient any more: it is dead for good. For
    targets that are never negative it can work; for others it cannot.
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
    if found is None or loss is None or found[2] != "relu" or loss.name not in REGRESSION:
        return
    yield Finding(
        rule="CKD123",
        severity=Severity.INFO,
        message=f"The regression head {found[0].name} ends in relu: it cannot predict negative values and can die.",
        layer=found[1].name,
        measured="relu",
        threshold="linear",
        votes=votes((Cause.ACTIVATION, 1.0, "a relu head can die")),
    )
