"""CKD406: targets that the loss cannot take."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import ArrayStats, Cause, Evidence, Finding, LossSpec, Severity, Vote
from ckptdoctor.rules.anatomy import head
from ckptdoctor.rules.parts import batches_of, losses_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import BINARY, main_loss, targets

NOISE = 0.15  # beyond 0 or 1; hand-chosen: noise that is added to labels stays below it
TINY = 0.02
"""Largest target of a binary cross-entropy below which no row is said to be of the class (hand-chosen)."""


@rule(
    code="CKD406",
    name="targets-outside-loss",
    severity=Severity.ERROR,
    needs={"batches", "spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    Targets outside what the loss is defined for: cross-entropies want numbers from 0 to 1 (over classes: rows that sum
    to 1), a Poisson or logarithmic loss wants none below zero.
    ## Why it matters
    Binary cross-entropy with a target of 2 has no minimum: the loss falls below zero without bound while the accuracy
    stays at chance. A logarithm of a negative number is NaN.
    ## How to confirm
    `y.min(), y.max()`, and `y.sum(axis=-1)` for one-hot rows.
    ## How to fix
    Encode targets as the loss wants them, or choose the loss that fits: C classes need C units with softmax and
    (sparse_)categorical_crossentropy; labels -1 and 1 need a hinge loss or a shift to 0 and 1.
    ## References
    Keras' loss documentation.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for loss, array, name in _pairs(evidence):
        judged = _judge(loss, array) if array.min is not None and array.max is not None else None
        if judged is None:
            continue
        text, severity, cast = judged
        yield Finding(
            rule="CKD406",
            severity=severity,
            message=text,
            layer=name,
            measured=array.max if (array.max or 0.0) > 1 else array.min,
            threshold="0 to 1" if "crossentropy" in loss.name else "0 or more",
            unit="target",
            votes=cast,
            data={"locates": True},
        )


def _pairs(evidence: Evidence) -> Iterator[tuple[LossSpec, ArrayStats, str | None]]:
    """Each loss with its recorded targets and the name of its output layer; those of several outputs by their names."""
    spec = spec_of(evidence)
    loss, array = main_loss(spec), targets(evidence)
    if loss is not None and array is not None:
        found = head(spec)
        yield loss, array, found[0].name if found is not None else None
        return
    arrays = {one.name.removeprefix("y_"): one for one in batches_of(evidence).targets}
    for one in losses_of(spec):
        if one.output is not None and one.output in arrays:
            yield one, arrays[one.output], one.output if spec.layer(one.output) is not None else None


def _judge(loss: LossSpec, array: ArrayStats) -> tuple[str, Severity, tuple[Vote, ...]] | None:
    low, high = array.min or 0.0, array.max or 0.0
    outside = low < 0 or high > 1
    span = f"Targets {array.name} run from {low:g} to {high:g}"
    if loss.name in BINARY and outside and low >= -NOISE and high <= 1 + NOISE and not array.integral:
        reason = "noise on labels of 0 and 1 takes some a little outside"
        return (
            f"{span}, a little outside of 0 to 1, from where {loss.name} has no lower bound.",
            Severity.WARNING,
            votes((Cause.LABELS, 1.0, reason), (Cause.LOSS_FUNCTION, 0.8, reason)),
        )
    if loss.name in BINARY and outside:
        ids = array.integral and low >= 0 and len(array.classes) > 2
        reason = "class ids under a binary loss" if ids else "targets outside 0 to 1 under a binary cross-entropy"
        return (
            f"{span}, but {loss.name} is only defined from 0 to 1{'; they look like class ids' if ids else ''}.",
            Severity.ERROR,
            votes(
                (Cause.LOSS_FUNCTION, 5.0, reason),
                (Cause.LABELS, 4.5 if ids else 5.2, reason),
                (Cause.ACTIVATION, 0.5, reason),
            ),
        )
    if loss.name in BINARY and low >= 0 and 0 < high < TINY:
        reason = "targets that were 0 and 1 were scaled like the inputs"
        bytes_of_one = abs(255 * high - 1) < 0.01
        return (
            f"{span}{', one 255th' if bytes_of_one else ''}: under {loss.name} the answer they ask for is 0 everywhere.",
            Severity.ERROR if bytes_of_one else Severity.WARNING,
            votes((Cause.LABELS, 5.0 if bytes_of_one else 2.0, reason), (Cause.DATA_SCALE, 1.5, reason)),
        )
    if loss.name == "categorical_crossentropy" and outside:
        reason = "rows are no distributions over classes"
        return (
            f"{span}, but {loss.name} wants rows that are distributions.",
            Severity.ERROR,
            votes((Cause.LABELS, 4.5, reason), (Cause.LOSS_FUNCTION, 4.0, reason)),
        )
    if loss.name == "categorical_crossentropy" and not array.row_sums_to_one and array.shape[-1] > 1:
        reason = "rows do not sum to 1"
        return (
            f"Rows of {array.name} do not sum to 1 under {loss.name}.",
            Severity.WARNING,
            votes((Cause.LABELS, 1.5, reason), (Cause.LOSS_FUNCTION, 1.2, reason)),
        )
    if loss.name == "mean_absolute_percentage_error" and low <= 0 <= high and (array.integral or low == 0 or high == 0):
        reason = "the loss divides by targets that are 0"
        return (
            f"{span}; {loss.name} divides by them, so a target of 0 weighs as 1e7.",
            Severity.ERROR,
            votes((Cause.LOSS_FUNCTION, 5.0, reason), (Cause.LABELS, 1.0, reason), (Cause.DATA_SCALE, 0.5, reason)),
        )
    if loss.name == "cosine_similarity" and (len(array.shape) == 2 or array.shape[-1] == 1) and not loss.custom:
        reason = "a single number brought to length one is 1 or -1, whatever it was"
        return (
            f"{loss.name} compares directions, and {array.name} holds one number a row: {reason}.",
            Severity.ERROR,
            votes((Cause.LOSS_FUNCTION, 6.0, reason), (Cause.ARCHITECTURE, 1.5, reason)),
        )
    if loss.name in ("poisson", "mean_squared_logarithmic_error", "kl_divergence") and low < 0:
        reason = "the loss takes a logarithm of the targets"
        return (
            f"{span}, but {loss.name} is not defined below zero.",
            Severity.ERROR,
            votes((Cause.LOSS_FUNCTION, 4.5, reason), (Cause.LABELS, 4.0, reason)),
        )
    return None
