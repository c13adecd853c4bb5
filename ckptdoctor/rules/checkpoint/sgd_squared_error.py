"""CKD131: a squared error under an optimizer that does not adapt."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, ModelSpec, Severity
from ckptdoctor.rules.checkpoint.learning_rate_unusual import ADAPTIVE
from ckptdoctor.rules.parts import maybe_spec, optimizer_of, optimizer_spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import REGRESSION, main_loss, nonfinite_weights, optimizer_class


@rule(
    code="CKD131",
    name="sgd-squared-error",
    severity=Severity.INFO,
    needs={"optimizer"},
    since="0.1.0",
    doc="""
    ## What it finds
    A run with non-finite weights that was trained by SGD without clipping, on a squared error (or an unknown loss, for files
    that hold no configuration).
    ## Why it matters
    The gradient of a squared error grows with the error, and SGD's step with the gradient: once a step overshoots, the
    next one does so more. Unscaled data or a slightly too large rate is enough.
    ## How to confirm
    Standardised inputs and targets; or a hundredth of the rate; or clipping.
    ## How to fix
    Standardise first; then choose the rate.
    ## References
    Gradient descent on a quadratic diverges when rate × curvature passes 2.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec: ModelSpec | None = maybe_spec(evidence)
    optimizer, loss = optimizer_spec_of(spec), main_loss(spec)
    if not nonfinite_weights(evidence) or optimizer_class(evidence) in ADAPTIVE:
        return
    if spec is not None and (optimizer is None or optimizer.clips or loss is None or loss.name not in REGRESSION):
        return
    if spec is None and (
        optimizer_of(evidence).gradients and any(g.gradient_rms is not None for g in optimizer_of(evidence).gradients)
    ):
        return
    momentum = bool(optimizer is not None and optimizer.momentum)
    why = "nothing bounds the steps of SGD on a squared error"
    yield Finding(
        rule="CKD131",
        severity=Severity.INFO,
        message="The weights were trained by SGD without clipping" + (f" on {loss.name}." if loss is not None else "."),
        measured=loss.name if loss is not None else None,
        votes=votes(
            (Cause.DATA_SCALE, 1.0, why),
            (Cause.LEARNING_RATE, 1.0, why),
            (Cause.EXPLODING_GRADIENTS, 1.2 if momentum else 0.8, why),
            (Cause.OPTIMIZER, 0.3, why),
        ),
    )
