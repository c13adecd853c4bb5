"""CKD215: a loss of zero for predictions that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ckptdoctor.model import Cause, Census, Evidence, Finding, Role, Severity
from ckptdoctor.rules.anatomy import head
from ckptdoctor.rules.courses import training_accuracy
from ckptdoctor.rules.log.series import finite, loss
from ckptdoctor.rules.parts import maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule


@rule(
    code="CKD215",
    name="zero-loss",
    severity=Severity.ERROR,
    needs={"logs"},
    since="0.1.0",
    thresholds={
        "loss": Threshold(
            1e-5, unit="loss", source="a cross-entropy this small means a certain and right answer for every row"
        ),
        "accuracy": Threshold(0.9, unit="accuracy", source="hand-chosen"),
    },
    doc="""
    ## What it finds
    A loss of zero in every epoch beside an accuracy that is far from 1.
    ## Why it matters
    The loss does not look at the error: a cross-entropy over classes with a single unit is 0 whatever it predicts. There is no
    gradient and nothing is learned.
    ## How to confirm
    `loss(y, model(x))` for a few rows that are predicted wrongly.
    ## How to fix
    One unit: sigmoid with binary_crossentropy. C classes: C units with softmax.
    ## References
    Measured on Keras 3.15: categorical_crossentropy normalises over the last axis, which has one entry.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series, accuracy = loss(evidence), training_accuracy(evidence)
    if series is None or accuracy is None:
        return
    values, hits = finite(series), finite(accuracy)
    if len(values) < 2 or not hits or max(abs(v) for v in values) > limits["loss"] or median(hits) > limits["accuracy"]:
        return
    found = head(maybe_spec(evidence))
    named = found[0].name if found is not None else _single_unit(evidence)
    yield Finding(
        rule="CKD215",
        severity=Severity.ERROR,
        message=f"{series.name} is {values[-1]:.2g} in every epoch although {accuracy.name} is {hits[-1]:.3g}: it does not see the error.",
        layer=named,
        measured=values[-1],
        threshold=limits["loss"],
        unit="loss",
        votes=votes(
            (Cause.LOSS_FUNCTION, 4.0, "the loss is zero for wrong predictions"),
            (Cause.ARCHITECTURE, 1.5, "the head has too few units for the loss"),
            (Cause.LABELS, 0.8, "the loss is zero for wrong predictions"),
        ),
    )


def _single_unit(evidence: Evidence) -> str | None:
    """Without a configuration: the last layer with a kernel, where it has one unit."""
    if not isinstance(evidence.census, Census):
        return None
    kernels = [t for t in evidence.census.of_role(Role.WEIGHT) if len(t.info.shape) > 1]
    return kernels[-1].info.layer if kernels and kernels[-1].info.shape[-1] == 1 else None
