"""CKD516: a model that answers otherwise than it was trained."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ckptdoctor.model import Batches, Cause, Evidence, Finding, LayerSpec, Severity
from ckptdoctor.rules.batches.input_scale import rms
from ckptdoctor.rules.courses import training_accuracy
from ckptdoctor.rules.parts import replay_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import iterations, went_nonfinite

MOST = 0.99
"""Momentum that Keras gives a BatchNormalization layer."""


@rule(
    code="CKD516",
    name="inference-differs",
    severity=Severity.ERROR,
    needs={"replay", "logs", "spec"},
    since="0.1.0",
    thresholds={
        "gap": Threshold(
            0.2,
            unit="accuracy",
            source="hand-chosen: dropout and an epoch's running mean make up less, and the other way",
        ),
        "steps": Threshold(
            100.0, unit="optimizer steps", source="hand-chosen: moving statistics need about 1 / (1 - 0.99) steps"
        ),
    },
    doc="""
    ## What it finds
    A model with BatchNormalization whose accuracy on recorded training rows, in inference mode, lies far below the accuracy
    that was logged while training.
    ## Why it matters
    In training the layer uses the batch's own mean and variance, for predictions the moving ones. Where these have not
    followed (a momentum too near one, too few steps) or are ruled by a few rows of another scale, a model that learned
    answers like one that did not. Validation then looks like overfitting.
    ## How to confirm
    `model.evaluate(x_train, y_train)` against the last line of the log.
    ## How to fix
    A momentum of 0.9 to 0.99, larger batches, inputs of one scale; LayerNormalization has no moving statistics.
    ## References
    Ioffe & Szegedy 2015; keras#6977.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    replay, spec = replay_of(evidence), spec_of(evidence)
    logged = training_accuracy(evidence)
    norms = [layer for layer in spec.layers if layer.class_name == "BatchNormalization" and layer.trainable]
    if not norms or went_nonfinite(evidence) or replay.skill is None or replay.skill.accuracy is None or logged is None:
        return
    values = [v for v in logged.values if 0 <= v <= 1]
    taken = iterations(evidence)
    slow = max(norms, key=_momentum)
    unusual = _momentum(slow) > MOST
    young = taken is not None and taken < limits["steps"] and not unusual
    if not values or replay.custom_loss or replay.left_out or young:
        return
    before, now = median(values[-3:]), replay.skill.accuracy
    if before - now < limits["gap"]:
        return
    uneven = _uneven(evidence)
    why = f"training reached an accuracy of {before:.2f}, predictions for the same kind of rows {now:.2f}"
    yield Finding(
        rule="CKD516",
        severity=Severity.ERROR,
        message=f"In the log the accuracy is {before:.2f}, on recorded training rows in inference mode {now:.2f}: {slow.name} normalises with moving statistics that do not fit.",
        layer=slow.name,
        measured=before - now,
        threshold=limits["gap"],
        unit="accuracy",
        votes=votes(
            (Cause.ARCHITECTURE, 4.0 if unusual else 1.5 if uneven else 2.5, why),
            (Cause.DATA_SCALE, 3.0 if uneven and not unusual else 0.5, why),
            (Cause.VANISHING_GRADIENTS, -1.0, "it learned"),
            (Cause.LEARNING_RATE, -0.5, "it learned"),
        ),
        data={"locates": unusual},
    )


def _momentum(layer: LayerSpec) -> float:
    value = layer.config.get("momentum", MOST)
    return float(value) if isinstance(value, int | float) else MOST


def _uneven(evidence: Evidence) -> bool:
    """Inputs of which few are of another scale: their size is ruled by their extremes."""
    arrays = evidence.batches.inputs if isinstance(evidence.batches, Batches) else ()
    return any(any((f.outlier_z or 0.0) > 15 for f in a.features) or (rms(a) or 0.0) > 8 for a in arrays)
