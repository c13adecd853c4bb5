"""CKD207: the loss is the same number in every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import head, units_can_die
from ckptdoctor.rules.log.series import finite, loss
from ckptdoctor.rules.parts import maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import nonfinite_weights, nothing_moved, own_losses

CLIPS = (-math.log(1e-7), -math.log(2.0**-23))
"""Cross-entropy of a probability at Keras' epsilon of 1e-7, and of what float32 makes of 1 - (1 - 1e-7)."""
AT_THE_CLIP = 1e-4  # relative distance; the mean over rows of equal numbers


@rule(
    code="CKD207",
    name="frozen-loss",
    severity=Severity.ERROR,
    needs={"logs"},
    since="0.1.0",
    thresholds={
        "epochs": Threshold(4.0, unit="epochs", source="hand-chosen"),
        "relative": Threshold(
            1e-6,
            unit="relative change",
            source="float32 resolves 1.2e-7; sums over shuffled batches differ by about 1e-6",
        ),
        "converged": Threshold(1e-4, unit="loss", source="hand-chosen: below it there is nothing left to learn"),
    },
    doc="""
    ## What it finds
    A training loss that does not change by more than rounding over the last epochs, and is not near zero.
    ## Why it matters
    Even a converged model's loss trembles with the order of the batches. A loss that does not move at all gets no gradient: a dead
    output, a frozen model, or a learning rate of zero.
    ## How to confirm
    Compare weights of two epochs; look for outputs that are all equal.
    ## How to fix
    A dead relu head: use a linear one. Everything frozen: set `trainable`.
    ## References
    Dying relu; measured on re-created public failures.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series = loss(evidence)
    if series is None or series.nonfinite or series.axis != "epoch" or nonfinite_weights(evidence):
        return
    values = finite(series)
    tail = values[-max(int(limits["epochs"]), len(values) // 2) :]
    if len(tail) < limits["epochs"] or abs(tail[-1]) < limits["converged"]:
        return
    change = (max(tail) - min(tail)) / abs(tail[-1])
    if change > limits["relative"]:
        return
    spec = maybe_spec(evidence)
    clipped = any(abs(tail[-1] / limit - 1) < AT_THE_CLIP for limit in CLIPS)
    found, dying = head(spec), units_can_die(spec) and not nothing_moved(evidence)
    dead_head = found is not None and found[2] == "relu"
    yield Finding(
        rule="CKD207",
        severity=Severity.ERROR,
        message=f"{series.name} is {tail[-1]:.6g} in each of the last {len(tail)} epochs: {'that of probabilities that are certain and wrong, ' if clipped else ''}no gradient reaches the weights.",
        layer=found[1].name if found is not None and dead_head else None,
        measured=change,
        threshold=limits["relative"],
        unit="relative change",
        votes=votes(
            (
                Cause.ACTIVATION,
                3.0 if dead_head else 1.5 if dying else 0.0,
                "no gradient: a dead output" if dead_head else "no gradient: dead units",
            ),
            (
                Cause.LOSS_FUNCTION,
                1.5 if own_losses(spec) and not dying else 0.0,
                "a loss of one's own may have no slope",
            ),
            (
                Cause.VANISHING_GRADIENTS,
                3.5 if clipped else 0.0,
                "every probability is saturated at the wrong end, where the cross-entropy is cut off and flat",
            ),
            (Cause.LEARNING_RATE, 0.3, "a rate of zero moves nothing"),
            (Cause.LABELS, -0.5, "unrelated labels still give gradients"),
        ),
        data={"locates": dead_head},
    )
