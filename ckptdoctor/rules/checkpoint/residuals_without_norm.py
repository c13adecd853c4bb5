"""CKD145: residual sums that are never normalised."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import NORMALISING
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD145",
    name="residuals-without-norm",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    thresholds={
        "sums": Threshold(4.0, unit="Add layers", source="hand-chosen: four doublings are a factor of sixteen")
    },
    doc="""
    ## What it finds
    In a run that went non-finite: four or more residual sums in a model without one normalisation.
    ## Why it matters
    Each sum adds the variance of its branch to that of the trunk, and what the trunk grows to, the gradients grow to as well:
    with every block they may double.
    ## How to confirm
    The spread of each sum's output on a batch before training.
    ## How to fix
    A normalisation before each branch, or branches scaled by 0.1; clip gradients meanwhile.
    ## References
    Zhang, Dauphin and Ma 2019 (Fixup) on residual nets without normalisation; EDSR scales its branches by 0.1.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    sums = [layer for layer in spec.layers if layer.class_name == "Add" and len(layer.inbound) > 1]
    normal = any(layer.class_name in NORMALISING or "Normalization" in layer.class_name for layer in spec.layers)
    if len(sums) < limits["sums"] or normal or not went_nonfinite(evidence):
        return
    why = f"{len(sums)} residual sums follow one another without a normalisation"
    yield Finding(
        rule="CKD145",
        severity=Severity.INFO,
        message=f"{len(sums)} residual sums, first {sums[0].name}, and no normalisation in the model.",
        measured=float(len(sums)),
        threshold=limits["sums"],
        unit="Add layers",
        votes=votes((Cause.EXPLODING_GRADIENTS, 1.2, why), (Cause.ARCHITECTURE, 0.8, why)),
    )
