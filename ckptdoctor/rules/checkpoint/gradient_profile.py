"""CKD115: gradients that shrink or grow along the depth, as the optimizer remembers them."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import optimizer_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD115",
    name="gradient-profile",
    severity=Severity.WARNING,
    needs={"optimizer"},
    since="0.1.0",
    thresholds={
        "vanishing": Threshold(
            1e-3, unit="first ÷ last kernel", source="AUTOTRAINER: first/last gradient norm below 1e-3"
        ),
        "first": Threshold(1e-4, unit="gradient rms", source="AUTOTRAINER: and the first below 1e-4"),
        "exploding": Threshold(1e2, unit="first ÷ last kernel", source="hand-chosen; AUTOTRAINER takes a ratio of 70"),
        "exploding_floor": Threshold(
            1.0, unit="gradient rms", source="hand-chosen: a large ratio of tiny gradients harms nobody"
        ),
    },
    doc="""
    ## What it finds
    A gradient scale that differs by orders of magnitude between the first and the last kernel. It is read from the
    optimizer's second moments, a running record of squared gradients, so the data is not needed.
    ## Why it matters
    A first layer that receives a thousandth of the last one's gradient does not learn; one that receives a hundredfold is torn.
    ## How to confirm
    Gradient norms per layer on one batch; replay shows them.
    ## How to fix
    Vanishing: relu-like activations with He initialisation, normalisation, residual connections. Exploding: clip, normalise.
    ## References
    Adam's second moment estimates E[g²]; AUTOTRAINER's thresholds.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    state = optimizer_of(evidence)
    scales = [g for g in state.gradients if g.gradient_rms is not None and g.variable == "kernel"]
    if state.profile_ratio is None or len(scales) < 3:
        return
    first, last = scales[0].gradient_rms or 0.0, scales[-1].gradient_rms or 0.0
    if state.profile_ratio < limits["vanishing"] and first < limits["first"]:
        yield Finding(
            rule="CKD115",
            severity=Severity.WARNING,
            message=(
                f"Gradients vanish towards the input: rms {first:.1e} at {scales[0].layer} against {last:.1e} at "
                f"{scales[-1].layer} (from the optimizer's second moments)."
            ),
            layer=scales[0].layer,
            variable=scales[0].variable,
            measured=state.profile_ratio,
            threshold=limits["vanishing"],
            unit="first ÷ last kernel",
            votes=votes(
                (
                    Cause.VANISHING_GRADIENTS,
                    2.5,
                    "the first kernel receives under a thousandth of the last one's gradient",
                ),
                (Cause.EXPLODING_GRADIENTS, -1.5, "gradients shrink, they do not grow"),
            ),
        )
    if state.profile_ratio > limits["exploding"] and first > limits["exploding_floor"]:
        yield Finding(
            rule="CKD115",
            severity=Severity.WARNING,
            message=(
                f"Gradients grow towards the input: rms {first:.1e} at {scales[0].layer} against {last:.1e} at "
                f"{scales[-1].layer} (from the optimizer's second moments)."
            ),
            layer=scales[0].layer,
            variable=scales[0].variable,
            measured=state.profile_ratio,
            threshold=limits["exploding"],
            unit="first ÷ last kernel",
            votes=votes(
                (Cause.EXPLODING_GRADIENTS, 2.0 if went_nonfinite(evidence) else 1.0, "gradients grow along the depth")
            ),
        )
