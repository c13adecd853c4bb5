"""CKD506: gradients along the depth, measured on the recorded batch."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Phase, Severity
from ckptdoctor.rules.parts import replay_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD506",
    name="gradients-along-depth",
    severity=Severity.INFO,
    needs={"replay"},
    since="0.1.0",
    thresholds={
        "vanishing": Threshold(
            2e-3, unit="first ÷ last layer", source="AUTOTRAINER takes 1e-3 for kernels; outputs differ in width"
        ),
        "exploding": Threshold(1e2, unit="first ÷ last layer", source="AUTOTRAINER takes 70"),
    },
    doc="""
    ## What it finds
    The size of the gradient that flows into each layer's output, first layer against last, before training.
    ## Why it matters
    It is the vanishing, or exploding, itself, not a sign of it.
    ## How to confirm
    Gradient norms per layer on one batch.
    ## How to fix
    Vanishing: relu-like activations with He initialisation, normalisation. Exploding: clip, smaller initial weights.
    ## References
    Glorot and Bengio 2010; AUTOTRAINER.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    activity = [a for a in replay_of(evidence).activity if a.gradient_rms is not None]
    if len(activity) < 3 or not activity[-1].gradient_rms:
        return
    first, last = activity[0].gradient_rms or 0.0, activity[-1].gradient_rms or 0.0
    ratio = first / last
    stuck, failing = standstill(evidence) is not None, went_nonfinite(evidence)
    if ratio < limits["vanishing"]:
        # A gradient of exactly zero does not vanish by and by: units between are dead, which CKD504 tells.
        cause, weight, word = Cause.VANISHING_GRADIENTS, (2.2 if first > 0 else 1.2) if stuck else 0.0, "shrink"
    elif ratio > limits["exploding"]:
        cause, weight, word = Cause.EXPLODING_GRADIENTS, 1.8 if failing else 0.0, "grow"
    else:
        return
    yield Finding(
        rule="CKD506",
        severity=Severity.WARNING if weight else Severity.INFO,
        message=f"Gradients {word} towards the input: rms {first:.1e} at {activity[0].layer} against {last:.1e} at {activity[-1].layer}.",
        layer=activity[0].layer,
        measured=ratio,
        threshold=limits["vanishing"] if ratio < 1 else limits["exploding"],
        unit="first ÷ last layer",
        votes=votes((cause, weight, f"gradients {word} along the depth")),
        data={"phase": Phase.BACKWARD.value},
    )
