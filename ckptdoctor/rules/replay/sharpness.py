"""CKD509: steps larger than the curvature allows."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.checkpoint.learning_rate_unusual import ADAPTIVE
from ckptdoctor.rules.parts import replay_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import learning_rate, optimizer_class, went_nonfinite


@rule(
    code="CKD509",
    name="rate-times-sharpness",
    severity=Severity.INFO,
    needs={"replay"},
    since="0.1.0",
    thresholds={
        "product": Threshold(2.0, unit="rate × sharpness", source="gradient descent on a quadratic diverges above 2")
    },
    doc="""
    ## What it finds
    For SGD: the learning rate times the curvature of the loss along the gradient, measured in replay.
    ## Why it matters
    Above 2 each step overshoots by more than it came: the loss climbs.
    ## How to confirm
    A smaller rate; the loss must fall then.
    ## How to fix
    A rate below 2 divided by the sharpness, or standardised inputs, which lower the sharpness.
    ## References
    Cohen et al. 2021 on the edge of stability (healthy runs hover about 2).
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    rate = learning_rate(evidence)
    values = [r.sharpness for r in replay_of(evidence).records[:20] if r.sharpness is not None]
    if rate is None or not values or optimizer_class(evidence) in ADAPTIVE or not went_nonfinite(evidence):
        return
    product = rate * median(values)
    if not product > 2 * limits["product"]:  # healthy runs hover about 2
        return
    yield Finding(
        rule="CKD509",
        severity=Severity.WARNING,
        message=f"Learning rate times curvature is {product:.3g}; above 2 every step overshoots.",
        measured=product,
        threshold=limits["product"],
        unit="rate × sharpness",
        votes=votes(
            (Cause.LEARNING_RATE, 1.0, "steps are larger than the curvature allows"),
            (Cause.DATA_SCALE, 0.6, "large inputs make the loss sharp"),
            (Cause.LOSS_FUNCTION, -0.5, "the step size explains it"),
        ),
    )
