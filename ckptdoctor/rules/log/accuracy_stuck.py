"""CKD206: the loss falls, the accuracy does not move at all."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.courses import training_accuracy
from ckptdoctor.rules.log.series import finite, loss
from ckptdoctor.rules.parts import maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import BINARY, CATEGORICAL, main_loss, targets


@rule(
    code="CKD206",
    name="accuracy-contradicts-loss",
    severity=Severity.WARNING,
    needs={"logs"},
    since="0.1.0",
    thresholds={
        "epochs": Threshold(4.0, unit="epochs", source="hand-chosen"),
        "fall": Threshold(0.5, unit="relative fall of the loss", source="hand-chosen"),
        "accuracy": Threshold(
            0.9, unit="accuracy", source="hand-chosen: above it the accuracy has little room to move"
        ),
    },
    doc="""
    ## What it finds
    A training accuracy that is the same number in every epoch while the loss falls by half or more.
    ## Why it matters
    The predictions do not change although the weights do: the output activation flattens them. Keras computes cross-entropy from
    the cached logits, so the loss may fall while the predictions are constant.
    ## How to confirm
    `np.ptp(model.predict(x), axis=0)`.
    ## How to fix
    Match the output activation to the loss: one unit wants a sigmoid.
    ## References
    Measured on Keras 3.15: softmax over one unit.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series, accuracy = loss(evidence), training_accuracy(evidence)
    if series is None or accuracy is None or series.nonfinite:
        return
    values, hits = finite(series), finite(accuracy)
    if min(len(values), len(hits)) < limits["epochs"] or math.isclose(values[0], 0.0):
        return
    fall = (values[0] - values[-1]) / abs(values[0])
    if max(hits) != min(hits) or fall < limits["fall"] or hits[0] > limits["accuracy"]:
        return
    if not _counts_classes(evidence, hits[0]):
        return
    yield Finding(
        rule="CKD206",
        severity=Severity.ERROR,
        message=f"{accuracy.name} is {hits[0]:.4g} in every epoch although {series.name} fell by {fall:.0%}: predictions do not change.",
        measured=hits[0],
        threshold=hits[0],
        unit="accuracy",
        votes=votes(
            (Cause.ACTIVATION, 2.5, "the output flattens what the weights learn"),
            (Cause.LOSS_FUNCTION, 1.2, "loss and predictions do not belong together"),
        ),
    )


def _counts_classes(evidence: Evidence, accuracy: float) -> bool:
    """Whether the accuracy can mean anything: numbers are hardly ever hit exactly, so that of a regression is 0 for ever."""
    known, array = main_loss(maybe_spec(evidence)), targets(evidence)
    if known is not None and known.name in CATEGORICAL | BINARY:
        return True
    if array is not None and not array.integral and not array.row_sums_to_one:
        return False
    return accuracy > 0 or (array is not None and len(array.classes) > 1)
