"""CKD117: weights that are finite but on their way."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Role, Severity
from ckptdoctor.rules.parts import census_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule


@rule(
    code="CKD117",
    name="huge-weights",
    severity=Severity.WARNING,
    needs={"census"},
    since="0.1.0",
    thresholds={
        "rms": Threshold(
            1e3,
            unit="rms",
            source="hand-chosen: initialisers give at most about 1; TheDeepChecker calls mean |w| 1e8 diverged",
        ),
        "error": Threshold(1e8, unit="rms", source="TheDeepChecker: mean |w| above 1e8 is diverging"),
    },
    doc="""
    ## What it finds
    Kernels whose root mean square is thousands of times that of any initialiser.
    ## Why it matters
    Such weights are the last stage before an overflow, or its remains after a single huge step.
    ## How to confirm
    Compare with the checkpoint before it.
    ## How to fix
    Continue from an earlier checkpoint with a smaller rate or clipping.
    ## References
    TheDeepChecker's divergence check.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    kernels = [
        t
        for t in census_of(evidence).of_role(Role.WEIGHT)
        if t.rms is not None and len(t.info.shape) > 1 and t.rms > limits["rms"] and "embedding" not in t.info.variable
    ]
    if not kernels:
        return
    worst = max(kernels, key=lambda t: t.rms or 0.0)
    diverged = (worst.rms or 0.0) > limits["error"]
    yield Finding(
        rule="CKD117",
        severity=Severity.ERROR if diverged else Severity.WARNING,
        message=f"{len(kernels)} kernel{'s' if len(kernels) > 1 else ''} grew huge; rms {worst.rms:.3g} in {worst.info.label}.",
        layer=worst.info.layer,
        variable=worst.info.variable,
        measured=worst.rms,
        threshold=limits["error"] if diverged else limits["rms"],
        unit="rms",
        votes=votes(
            (Cause.LEARNING_RATE, 1.2, "weights grew until they left every usual scale"),
            (Cause.EXPLODING_GRADIENTS, 1.0, "weights grew until they left every usual scale"),
            (Cause.DATA_SCALE, 0.6, "weights grew until they left every usual scale"),
            (Cause.DATA_NONFINITE, -1.0, "bad data poisons without growth"),
        ),
    )
