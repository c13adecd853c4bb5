"""CKD205: a loss below zero where none can be."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Batches, Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import head
from ckptdoctor.rules.courses import training_accuracy
from ckptdoctor.rules.log.series import loss
from ckptdoctor.rules.parts import losses_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import BINARY, BOUNDED_BELOW_BY_ZERO, CATEGORICAL, main_loss, targets


@rule(
    code="CKD205",
    name="negative-loss",
    severity=Severity.ERROR,
    needs={"logs"},
    since="0.1.0",
    thresholds={"below": Threshold(-1e-3, unit="loss", source="rounding of a loss near zero stays above this")},
    doc="""
    ## What it finds
    A negative training loss under a built-in loss that cannot be negative.
    ## Why it matters
    Cross-entropies and distances are never negative for targets in their range. Below zero the targets are outside it (class
    ids under a binary loss), and the loss has no minimum. Nothing is said where recorded targets are in the range: then rows
    have weights below zero, as policy gradients have, and the sum may be negative.
    ## How to confirm
    `y.min(), y.max()`.
    ## How to fix
    Class ids: one unit a class, softmax, sparse_categorical_crossentropy. Other targets: a loss that is defined for them.
    ## References
    AUTOTRAINER: a negative loss means a wrong loss. Own losses may rightly be negative (a log-likelihood).
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series, spec = loss(evidence), maybe_spec(evidence)
    losses = losses_of(spec)
    if series is None or series.min is None or series.min >= limits["below"]:
        return
    if any(known.custom or known.name not in BOUNDED_BELOW_BY_ZERO for known in losses):
        return
    if not losses and training_accuracy(evidence) is None:
        return  # an unknown loss may rightly be negative; one that is logged beside an accuracy is a cross-entropy
    if _weighed(evidence):
        return  # rows that count less than nothing, as disadvantages do: the sum may rightly be negative
    found = head(spec)
    name = losses[0].name if losses else "the loss of a classifier"
    why = f"{name} is never negative for targets in its range"
    yield Finding(
        rule="CKD205",
        severity=Severity.ERROR,
        message=f"{series.name} falls to {series.min:.4g}, but {why}.",
        layer=found[0].name if found is not None else None,
        measured=series.min,
        threshold=0.0,
        unit="loss",
        votes=votes(
            (Cause.LOSS_FUNCTION, 4.0, why),
            (Cause.LABELS, 3.9, why),
            (Cause.LEARNING_RATE, -1.5, "no rate makes a distance negative"),
        ),
        data={"locates": True},
    )


def _weighed(evidence: Evidence) -> bool:
    """Whether recorded rows have weights below zero, or targets in the loss's range leave nothing else to explain the sign."""
    if not isinstance(evidence.batches, Batches):
        return False
    if any(a.min is not None and a.min < 0 for a in evidence.batches.sample_weights):
        return True
    known, array, found = main_loss(maybe_spec(evidence)), targets(evidence), head(maybe_spec(evidence))
    if known is None or array is None or array.min is None or array.max is None or array.nonfinite:
        return False
    if known.name == "sparse_categorical_crossentropy":
        units = found[0].units if found is not None else None
        return array.integral and array.min >= 0 and units is not None and array.max < units
    return known.name in BINARY | CATEGORICAL and array.min >= 0 and array.max <= 1
