"""CKD213: training and validation go apart."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.evidence.log_signals import validation_loss_series
from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.log.series import finite, loss
from ckptdoctor.rules.parts import logs_of
from ckptdoctor.rules.registry import Limits, Threshold, rule


@rule(
    code="CKD213",
    name="validation-gap",
    severity=Severity.INFO,
    needs={"logs"},
    since="0.1.0",
    thresholds={
        "gap": Threshold(
            0.5,
            unit="(val - train) ÷ train",
            source="SageMaker Debugger takes 0.1, which most good models pass; hand-chosen",
        )
    },
    doc="""
    ## What it finds
    A validation loss well above the training loss at the end of the log.
    ## Why it matters
    The model fits what it has seen. That is no failure of the numbers.
    ## How to confirm
    The two curves.
    ## How to fix
    More data, regularisation, earlier stop.
    ## References
    SageMaker Debugger's overfit rule.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    train = loss(evidence)
    held = next((s for log in logs_of(evidence) if (s := validation_loss_series(log)) is not None), None)
    if train is None or held is None:
        return
    a, b = finite(train), finite(held)
    if not a or not b or a[-1] <= 0:
        return
    gap = (b[-1] - a[-1]) / a[-1]
    if gap > limits["gap"]:
        yield Finding(
            rule="CKD213",
            severity=Severity.INFO,
            message=f"The validation loss ends at {b[-1]:.4g}, the training loss at {a[-1]:.4g}.",
            measured=gap,
            threshold=limits["gap"],
            unit="(val - train) ÷ train",
        )
