"""CKD116: a last update as large as the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import optimizer_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD116",
    name="update-ratio",
    severity=Severity.WARNING,
    needs={"optimizer"},
    since="0.1.0",
    thresholds={
        "high": Threshold(
            0.5,
            unit="update ÷ weight",
            source="DeepDiagnosis calls 0.1 high, SageMaker Debugger 10; hand-chosen between",
        ),
        "share": Threshold(0.5, unit="share of kernels", source="hand-chosen: most of the model, not one odd layer"),
    },
    doc="""
    ## What it finds
    A last update whose size is comparable to the weights it changed, in most kernels.
    ## Why it matters
    A healthy step changes weights by about a thousandth. A step of half their size forgets what was learned.
    ## How to confirm
    `lr · m̂ / (√v̂ + ε)` against the weights; replay measures the ratio step by step.
    ## How to fix
    Lower the learning rate by the ratio's factor over 0.01.
    ## References
    Update of Adam from its stored moments; thresholds of DeepDiagnosis and SageMaker Debugger.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    kernels = [g for g in optimizer_of(evidence).gradients if g.update_ratio is not None and "bias" not in g.variable]
    large = [g for g in kernels if (g.update_ratio or 0.0) > limits["high"]]
    if not kernels or len(large) < limits["share"] * len(kernels):
        return
    worst = max(large, key=lambda g: g.update_ratio or 0.0)
    yield Finding(
        rule="CKD116",
        severity=Severity.WARNING,
        message=(
            f"The last update was {worst.update_ratio:.2g} times as large as the weights of {worst.layer}/{worst.variable}, "
            f"and above {limits['high']:g} in {len(large)} of {len(kernels)} kernels."
        ),
        layer=worst.layer,
        variable=worst.variable,
        measured=worst.update_ratio,
        threshold=limits["high"],
        unit="update ÷ weight",
        votes=votes(
            (Cause.LEARNING_RATE, 2.0 if went_nonfinite(evidence) else 1.2, "steps are as large as the weights")
        ),
    )
