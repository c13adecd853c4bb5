"""CKD511: the recorded batches do not bring the failure back."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, ReplayStatus, Severity
from ckptdoctor.rules.parts import losses_of, maybe_spec, replay_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import went_nonfinite
from ckptdoctor.rules.timeline.went_bad import began_nonfinite


@rule(
    code="CKD511",
    name="not-reproduced",
    severity=Severity.INFO,
    needs={"replay"},
    since="0.1.0",
    doc="""
    ## What it finds
    A run that went non-finite, whose recorded batches train without failure from the last healthy checkpoint.
    ## Why it matters
    The step size alone is then not to blame: something that is not in the recorded batches is, a bad row or a rare batch.
    ## How to confirm
    Keep the failing batch itself (the flight recorder does) and inspect again.
    ## How to fix
    See the ranking.
    ## References
    A divergence by step size comes back on almost any batch of the same data.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    replay = replay_of(evidence)
    if replay.status is not ReplayStatus.NOT_REPRODUCED or not went_nonfinite(evidence) or replay.custom_loss:
        return
    if replay.left_out:
        return  # what was replayed was not the run: CKD515
    if replay.start is not None and replay.start.healed and began_nonfinite(evidence):
        return  # it was replayed without the fault: weights that were not numbers before the first step, see CKD301
    own = any(known.custom for known in losses_of(maybe_spec(evidence)))
    why = "recorded batches train well from the last healthy checkpoint"
    yield Finding(
        rule="CKD511",
        severity=Severity.INFO,
        message=f"{replay.steps} replayed steps on the recorded batches stay finite ({replay.mode}).",
        measured=float(replay.steps),
        unit="finite steps",
        votes=votes(
            (Cause.DATA_NONFINITE, 0.8 if own else 1.5, why),
            (Cause.LOSS_FUNCTION, 1.0 if own else 0.0, "its loss may be another than the one of that name in Keras"),
            (Cause.LABELS, 0.5, why),
            (Cause.LEARNING_RATE, -1.0, why),
            (Cause.EXPLODING_GRADIENTS, -0.5, why),
            (Cause.DATA_SCALE, -1.0, why),
            (Cause.INITIALIZATION, -0.5, why),
        ),
    )
