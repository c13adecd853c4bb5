"""CKD202: the loss was never finite."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import Batches, Cause, Evidence, Finding, Severity, Vote
from ckptdoctor.rules.checkpoint.learning_rate_unusual import ADAPTIVE
from ckptdoctor.rules.log.series import loss
from ckptdoctor.rules.parts import losses_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import REGRESSION, learning_rate, optimizer_class


@rule(
    code="CKD202",
    name="nonfinite-from-start",
    severity=Severity.WARNING,
    needs={"logs"},
    since="0.1.0",
    doc="""
    ## What it finds
    A loss that is non-finite at the first point of the log.
    ## Why it matters
    Nothing had time to drift. An adaptive optimizer moves each weight by about the learning rate a step and cannot
    overflow that fast, so the data, the labels or a formula is the suspect; plain SGD on a squared error can
    diverge within a few steps when rate and data do not fit.
    ## How to confirm
    `model.evaluate` on one batch before training.
    ## How to fix
    Check inputs and labels with `np.isfinite`, ranges and encodings; then the loss.
    ## References
    losslint and runmedic: NaN from the first step points to data or loss.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series = loss(evidence)
    if series is None or series.first_nonfinite is None or series.nonfinite == 0 or not series.steps:
        return
    if series.first_nonfinite[0] > series.steps[0]:
        return
    adaptive = optimizer_class(evidence) in ADAPTIVE
    squared = any(known.name in REGRESSION for known in losses_of(maybe_spec(evidence)))
    first = f"{series.axis} {series.steps[0]:g}"
    rate = learning_rate(evidence)
    at = f", at learning rate {rate:g}" if rate is not None else ""
    word = "infinite" if math.isinf(series.first_nonfinite[1]) else "NaN"
    yield Finding(
        rule="CKD202",
        severity=Severity.WARNING,
        message=f"{series.name} was never finite: it is {word} from {first} on{at}.",
        epoch=int(series.steps[0]) if series.axis == "epoch" else None,
        measured=str(series.first_nonfinite[1]),
        votes=_adaptive(large=_large_inputs(evidence)) if adaptive else _plain(squared),
    )


def _adaptive(*, large: bool) -> tuple[Vote, ...]:
    why = "non-finite from the start under an optimizer whose steps are bounded"
    return votes(
        (Cause.DATA_NONFINITE, 1.2, why),
        (Cause.LABELS, 0.8, why),
        (Cause.LOSS_FUNCTION, 0.8, why),
        (Cause.ACTIVATION, 0.4, why),
        (Cause.DATA_SCALE, 0.5 if large else 0.0, "the first step sees inputs that are not scaled"),
        (Cause.LEARNING_RATE, -1.0, why),
        (Cause.EXPLODING_GRADIENTS, -0.8, why),
    )


def _large_inputs(evidence: Evidence) -> bool:
    """Whether recorded inputs reach ten times what initialisers assume, and no embedding looks them up."""
    arrays = evidence.batches.inputs if isinstance(evidence.batches, Batches) else ()
    return any(((a.max or 0.0) > 10 and not a.integral) or (a.max or 0.0) == 255 for a in arrays)


def _plain(squared: bool) -> tuple[Vote, ...]:
    why = "non-finite in the first epoch under an optimizer whose steps grow with the gradient"
    return votes(
        (Cause.DATA_SCALE, 1.2 if squared else 0.4, why),
        (Cause.LEARNING_RATE, 1.0 if squared else 0.4, why),
        (Cause.EXPLODING_GRADIENTS, 0.8 if squared else 0.3, why),
        (Cause.DATA_NONFINITE, 0.5, "non-finite in the first epoch"),
        (Cause.LABELS, 0.3, "non-finite in the first epoch"),
    )
