"""CKD113: dynamic loss scaling that gave up."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.courses import training_loss
from ckptdoctor.rules.parts import optimizer_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule


@rule(
    code="CKD113",
    name="loss-scale-collapsed",
    severity=Severity.ERROR,
    needs={"optimizer"},
    since="0.1.0",
    thresholds={
        "scale": Threshold(
            1.0,
            unit="loss scale",
            source="Keras starts at 32,768 and halves on every overflow; below 1 it no longer helps",
        ),
        "skipped": Threshold(
            0.5, unit="share of steps", source="hand-chosen: a healthy run skips the first few and then one in 2,000"
        ),
        "epochs": Threshold(2.0, unit="epochs", source="hand-chosen: two epochs without one applied update"),
        "steps": Threshold(20.0, unit="steps", source="hand-chosen: halving from 32,768 to below 1 takes 15 steps"),
    },
    doc="""
    ## What it finds
    A dynamic loss scale that collapsed, or most updates skipped since gradients were non-finite at every scale.
    ## Why it matters
    With loss scaling a non-finite gradient is skipped silently: the loss may look finite, or NaN, and no weight moves. The run
    stands still without an error.
    ## How to confirm
    `optimizer.dynamic_scale` and `optimizer.inner_optimizer.iterations` against `optimizer.iterations`.
    ## How to fix
    Find the non-finite gradient in float32 (`keras.mixed_precision.set_global_policy("float32")`); it is usually not
    a matter of precision when no scale helps. Use bfloat16 where range is the problem.
    ## References
    Keras' LossScaleOptimizer; keras#16100 asks for a floor.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    state = optimizer_of(evidence)
    if state.loss_scale is None:
        return
    skipped = state.skipped_updates or 0
    steps = max(state.iterations or 0, skipped)
    series = training_loss(evidence)
    never = steps == 0 and series is not None and series.axis == "epoch" and series.count >= limits["epochs"]
    none_applied = never or (steps >= limits["steps"] and skipped >= limits["skipped"] * steps)
    if not (none_applied or state.loss_scale < limits["scale"]):
        return
    yield Finding(
        rule="CKD113",
        severity=Severity.ERROR,
        message=f"The loss scale is {state.loss_scale:g} and "
        + ("no update was ever applied." if never else f"{skipped:,} of {steps:,} updates were skipped as non-finite."),
        variable="dynamic_scale",
        measured=state.loss_scale,
        threshold=limits["scale"],
        unit="loss scale",
        votes=votes((Cause.MIXED_PRECISION, 3.5, "loss scaling found no scale at which gradients are finite")),
    )
