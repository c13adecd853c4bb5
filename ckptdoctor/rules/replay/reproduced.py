"""CKD501: the failure was reproduced; where it began."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, NonfinitePoint, Phase, Replay, ReplayStatus, Severity, Vote
from ckptdoctor.rules.anatomy import computes_in_half
from ckptdoctor.rules.parts import maybe_spec, replay_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import THROWN_FAR, largest_kernel, replay_start

FORMULA_OPS = ("Log", "Sqrt", "Rsqrt", "Div", "Reciprocal", "Pow", "Xdivy", "Xlogy", "Acos", "Asin", "Atanh", "Select")
LINEAR_OPS = ("MatMul", "BatchMatMul", "Einsum", "Conv", "DepthwiseConv", "Mean", "Sum", "Add", "BiasAdd", "AvgPool")
EXPONENTIAL_OPS = ("Exp", "Expm1", "Sinh", "Cosh", "Softplus")


@rule(
    code="CKD501",
    name="failure-reproduced",
    severity=Severity.ERROR,
    needs={"replay"},
    since="0.1.0",
    thresholds={
        "growth": Threshold(
            8.0,
            unit="last finite loss ÷ first loss",
            source="hand-chosen; runmedic warns at 3, DeepLocalize-like tools at 10",
        ),
    },
    doc="""
    ## What it finds
    A training step, repeated from a healthy checkpoint on the recorded batches, whose loss, gradients or weights became
    non-finite; and the first place in that step that did: phase, layer, operation, rows.
    ## Why it matters
    What can be repeated can be repaired: experiments then tell which single change removes it. Whether the loss grew
    before it, or the NaN came out of a clear sky, separates too large steps from bad data and bad formulas.
    ## How to confirm
    The chain in the report names every station from the origin to the weights.
    ## How to fix
    See the experiments.
    ## References
    `tf.debugging.check_numerics`; only values that reach the loss, a gradient or a weight count.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    replay = replay_of(evidence)
    if replay.status is not ReplayStatus.REPRODUCED or replay.first_bad is None:
        return
    bad = replay.first_bad
    growth = loss_growth(replay)
    yield Finding(
        rule="CKD501",
        severity=Severity.ERROR,
        message=bad.message or f"Replay reproduced the failure in the {bad.phase.value} phase of step {bad.step}.",
        layer=bad.layer,
        variable=bad.variable,
        step=bad.optimizer_step,
        measured=growth if growth is not None else f"step {bad.step}",
        threshold=limits["growth"],
        unit="last finite loss ÷ first loss",
        votes=_votes(
            bad,
            growth,
            limits["growth"],
            thrown=largest_kernel(replay_start(evidence)),
            half=computes_in_half(maybe_spec(evidence)),
        ),
        data={"confirms": Cause.DATA_NONFINITE.value} if bad.phase is Phase.INPUT else {},
    )


def loss_growth(replay: Replay) -> float | None:
    """Last finite loss over the first one, of the replayed steps; None with fewer than two finite losses."""
    losses = [r.loss for r in replay.records if math.isfinite(r.loss)]
    if len(losses) < 2 or losses[0] == 0:
        return None
    return abs(losses[-1]) / abs(losses[0])


def _votes(bad: NonfinitePoint, growth: float | None, limit: float, *, thrown: float, half: bool) -> tuple[Vote, ...]:
    op = bad.op or ""
    if bad.phase is Phase.INPUT:
        return votes(
            (Cause.DATA_NONFINITE, 5.0, "the bad value came in with the batch"),
            (Cause.LEARNING_RATE, -2.0, "the data explains it"),
        )
    diverged = growth is not None and growth > limit
    if diverged:
        why = f"the loss grew {growth:.3g}-fold in the steps before"
        return votes(
            (Cause.LEARNING_RATE, 1.5, why),
            (Cause.EXPLODING_GRADIENTS, 1.3, why),
            (Cause.DATA_SCALE, 1.0, why),
            (Cause.OPTIMIZER, 0.5, why),
            (Cause.DATA_NONFINITE, -3.0, why),
            (Cause.LABELS, -1.5, why),
            (Cause.LOSS_FUNCTION, -1.2, why),
        )
    if thrown > THROWN_FAR and bad.phase is not Phase.LOSS:
        why = f"weights had grown to {thrown:.1e} before: what overflowed is only where it showed"
        return votes(
            (Cause.LEARNING_RATE, 1.2, why),
            (Cause.EXPLODING_GRADIENTS, 1.2, why),
            (Cause.DATA_SCALE, 0.6, why),
            (Cause.DATA_NONFINITE, -2.0, why),
        )
    calm = growth is not None and bad.step > 0
    cast: list[tuple[Cause, float, str]] = []
    if calm:
        cast += [
            (Cause.LEARNING_RATE, -1.5, "the loss did not grow before it"),
            (Cause.EXPLODING_GRADIENTS, -1.2, "the loss did not grow before it"),
        ]
    if bad.phase is Phase.LOSS:
        cast += [
            (Cause.LOSS_FUNCTION, 1.8, "every layer's output was finite, the loss was not"),
            (Cause.LABELS, 1.2, "every layer's output was finite, the loss was not"),
            (Cause.DATA_NONFINITE, -0.5, "the inputs were finite"),
        ]
    elif bad.phase is Phase.FORWARD:
        exponential = op.startswith(EXPONENTIAL_OPS)
        if op.startswith(LINEAR_OPS) and not half:
            why = f"{op} only adds and multiplies: what it was given had grown before"
            return votes(
                *cast,
                (Cause.EXPLODING_GRADIENTS, 1.2, why),
                (Cause.DATA_SCALE, 0.8, why),
                (Cause.INITIALIZATION, 0.4, why),
                (Cause.ARCHITECTURE, 0.6, why),
                (Cause.LABELS, -1.5, "targets play no part in the forward pass"),
                (Cause.LOSS_FUNCTION, -1.0, "the loss plays no part in the forward pass"),
                (Cause.DATA_NONFINITE, -1.5, "the inputs were finite"),
            )
        cast += [
            (
                Cause.ACTIVATION,
                2.5 if exponential else 1.2,
                f"{op or 'an operation'} in the forward pass overflowed or divided by zero",
            ),
            (Cause.ARCHITECTURE, 1.0, "born inside the model"),
            (Cause.LABELS, -1.5, "targets play no part in the forward pass"),
            (Cause.LOSS_FUNCTION, -1.0, "the loss plays no part in the forward pass"),
            (Cause.DATA_NONFINITE, -1.5, "the inputs were finite"),
        ]
    elif bad.phase is Phase.BACKWARD:
        formula = any(word in op for word in FORMULA_OPS)
        cast += [
            (Cause.LOSS_FUNCTION, 2.0 if bad.layer is None or formula else 0.8, "loss finite, its gradient not"),
            (Cause.ACTIVATION, 1.0 if bad.layer is not None else 0.0, "loss finite, a gradient inside the model not"),
            (Cause.DATA_NONFINITE, -1.5, "the inputs were finite"),
        ]
    elif bad.phase is Phase.UPDATE:
        cast += [
            (Cause.OPTIMIZER, 1.8, "gradients were finite, the update was not"),
            (Cause.LEARNING_RATE, 0.8, "gradients were finite, the update was not"),
            (Cause.MIXED_PRECISION, 0.8, "gradients were finite, the update was not"),
            (Cause.DATA_NONFINITE, -1.5, "the inputs were finite"),
        ]
    return votes(*cast)
