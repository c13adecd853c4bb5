"""CKD415: a plain recurrence over many time steps."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import batches_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD415",
    name="long-plain-recurrence",
    severity=Severity.INFO,
    needs={"batches", "spec"},
    since="0.1.0",
    thresholds={"steps": Threshold(25.0, unit="time steps", source="0.9 to the power of 25 is 0.07; hand-chosen")},
    doc="""
    ## What it finds
    A SimpleRNN over sequences of 25 time steps or more.
    ## Why it matters
    The gradient is multiplied by the recurrent kernel and the slope of tanh at every step: after many it has vanished, or
    exploded. Gated layers carry it.
    ## How to confirm
    The gradient of the loss with respect to the first time steps.
    ## How to fix
    LSTM or GRU, shorter sequences, an orthogonal recurrent kernel with clipping.
    ## References
    Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and Bengio 2013.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    plain = [layer for layer in spec_of(evidence).layers if layer.class_name == "SimpleRNN"]
    lengths = [a.shape[2] for a in batches_of(evidence).inputs if len(a.shape) >= 3]
    if not plain or not lengths or max(lengths) < limits["steps"]:
        return
    stuck, failing = standstill(evidence) is not None, went_nonfinite(evidence)
    why = f"{max(lengths)} time steps through a plain recurrence"
    yield Finding(
        rule="CKD415",
        severity=Severity.INFO,
        message=f"{plain[0].name} (SimpleRNN) runs over {max(lengths)} time steps.",
        layer=plain[0].name,
        measured=float(max(lengths)),
        threshold=limits["steps"],
        unit="time steps",
        votes=votes(
            (Cause.VANISHING_GRADIENTS, 2.0 if stuck else 0.0, why),
            (Cause.EXPLODING_GRADIENTS, 0.8 if failing else 0.0, why),
        ),
    )
