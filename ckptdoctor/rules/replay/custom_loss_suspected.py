"""CKD510: a custom loss that could only be replayed by a stand-in."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, ReplayStatus, Severity
from ckptdoctor.rules.checkpoint.learning_rate_unusual import ADAPTIVE
from ckptdoctor.rules.parts import maybe_spec, optimizer_spec_of, replay_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import optimizer_class, went_nonfinite


@rule(
    code="CKD510",
    name="custom-loss-suspected",
    severity=Severity.WARNING,
    needs={"replay"},
    since="0.1.0",
    doc="""
    ## What it finds
    A failed run with an own loss, whose model, data and optimizer stay finite under a built-in stand-in; or which fails
    the same way under the usual formula of that name.
    ## Why it matters
    What remains when everything else works is the loss. It is a suspicion, not a proof: its code was not at hand.
    ## How to confirm
    `--custom-objects MODULE` replays the loss itself.
    ## How to fix
    Guard square roots, logarithms and divisions in the loss.
    ## References
    keras#1172, tensorflow/addons#2447.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    replay = replay_of(evidence)
    spec, free = optimizer_spec_of(maybe_spec(evidence)), False
    if not replay.custom_loss or not went_nonfinite(evidence):
        return
    if replay.suspected is not None:
        text = (
            replay.suspected.message
            or f"The usual formula of {replay.custom_loss} goes non-finite on the recorded batches."
        )
        weight, why = 3.5, "the usual formula of that name fails on these batches"
    elif replay.status is ReplayStatus.NOT_REPRODUCED:
        text = f"With a built-in loss in place of {replay.custom_loss} the recorded batches stay finite."
        # Another loss is of another size, and so are the steps of plain descent: a sum over outputs takes far larger ones.
        free = optimizer_class(evidence) not in ADAPTIVE and not (spec is not None and spec.clips)
        weight, why = (
            (1.0, "everything but the loss works, or its size") if free else (2.0, "everything but the loss works")
        )
    else:
        return
    against = (
        "a loss that sums takes steps that are too large" if free else "model and optimizer work with another loss"
    )
    yield Finding(
        rule="CKD510",
        severity=Severity.WARNING,
        message=text,
        measured=replay.custom_loss,
        votes=votes(
            (Cause.LOSS_FUNCTION, weight, why),
            (Cause.LEARNING_RATE, 0.6 if free else -1.0, against),
            (Cause.EXPLODING_GRADIENTS, 0.6 if free else -1.0, against),
            (Cause.DATA_SCALE, 0.0 if free else -0.7, against),
        ),
    )
