"""CKD515: without a part of the user's own the run works."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, LeftOut, Replay, ReplayStatus, Severity, Vote
from ckptdoctor.rules.parts import replay_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite

LEARNS = 0.5  # score of the rebuilt run, where the recorded one stands still; hand-chosen


@rule(
    code="CKD515",
    name="left-out-code",
    severity=Severity.INFO,
    needs={"replay"},
    since="0.1.0",
    doc="""
    ## What it finds
    A failed run that was rebuilt without a regularizer, constraint or initializer of the user's own, whose code is not in the
    checkpoint, and that works so.
    ## Why it matters
    Everything but that part was repeated, and did no harm. A penalty is part of the loss and has a gradient of its own: the
    slope of a square root or a norm at zero is 0/0.
    ## How to confirm
    `ckptdoctor inspect RUN --custom-objects MODULE`, which replays with it; or train some steps without it.
    ## How to fix
    Put an epsilon under the root, or use one of Keras' own.
    ## References
    The gradient of the norm at zero: tensorflow#12071.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    replay = replay_of(evidence)
    if replay.status is not ReplayStatus.NOT_REPRODUCED or not replay.left_out or replay.custom_loss:
        return
    failed = went_nonfinite(evidence)
    if not failed and not (standstill(evidence) is not None and _learns(replay)):
        return
    part = replay.left_out[0]
    yield Finding(
        rule="CKD515",
        severity=Severity.WARNING,
        message=f"Without the {part.kind} {part.name} of {part.layer}, whose code is not at hand, the recorded batches {'stay finite' if failed else 'are learned'}.",
        layer=part.layer or None,
        measured=part.name,
        votes=_votes(part),
        data={"locates": bool(part.layer)},
    )


def _votes(part: LeftOut) -> tuple[Vote, ...]:
    why = f"everything but the {part.kind} {part.name} works"
    cast = {
        "regularizer": (Cause.LOSS_FUNCTION, 3.0),
        "constraint": (Cause.ARCHITECTURE, 2.0),
        "initializer": (Cause.INITIALIZATION, 3.0),
    }
    cause, weight = cast.get(part.kind, (Cause.ARCHITECTURE, 1.0))
    return votes((cause, weight, why), (Cause.LEARNING_RATE, -1.0, why), (Cause.DATA_SCALE, -1.0, why))


def _learns(replay: Replay) -> bool:
    after = replay.baseline.after if replay.baseline is not None else None
    return after is not None and after.score is not None and after.score >= LEARNS
