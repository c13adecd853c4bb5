"""CKD112: a learning rate well inside the usual range speaks against the rate."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.checkpoint.learning_rate_unusual import ADAPTIVE
from ckptdoctor.rules.parts import votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import learning_rate, optimizer_class, went_nonfinite


@rule(
    code="CKD112",
    name="learning-rate-usual",
    severity=Severity.INFO,
    needs={"optimizer"},
    since="0.1.0",
    thresholds={
        "adaptive": Threshold(0.003, unit="learning rate", source="three times Keras' default for Adam and RMSprop"),
        "sgd": Threshold(0.003, unit="learning rate", source="a third of Keras' default for SGD"),
    },
    doc="""
    ## What it finds
    A run that went non-finite with a learning rate that is small for its optimizer.
    ## Why it matters
    It is evidence against the learning rate as the cause: look at the data and the formula first.
    ## How to confirm
    Replay with a tenth of the rate: if it still fails, the rate is not the cause.
    ## How to fix
    Nothing by itself.
    ## References
    Keras' defaults.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    rate, optimizer = learning_rate(evidence), optimizer_class(evidence)
    if rate is None or not rate > 0 or not went_nonfinite(evidence):
        return
    adaptive = optimizer in ADAPTIVE
    limit = limits["adaptive" if adaptive else "sgd"]
    if rate > limit:
        return
    yield Finding(
        rule="CKD112",
        severity=Severity.INFO,
        message=f"The learning rate {rate:g} is ordinary for {optimizer or 'this optimizer'}; by itself it does not explain a NaN.",
        variable="learning_rate",
        measured=rate,
        threshold=limit,
        unit="learning rate",
        votes=votes(
            (Cause.LEARNING_RATE, -1.5 if adaptive else -0.7, "an ordinary rate"),
            (Cause.EXPLODING_GRADIENTS, -0.7 if adaptive else 0.0, "adaptive steps are bounded by the rate"),
        ),
    )
