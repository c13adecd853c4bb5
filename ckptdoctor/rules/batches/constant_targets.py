"""CKD409: recorded targets or inputs without any variation."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.courses import training_accuracy
from ckptdoctor.rules.parts import batches_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill


@rule(
    code="CKD409",
    name="constant-data",
    severity=Severity.INFO,
    needs={"batches"},
    since="0.1.0",
    thresholds={
        "rows": Threshold(16.0, unit="rows", source="hand-chosen: a smaller sample may be constant by chance"),
        "proof": Threshold(
            128.0, unit="rows", source="hand-chosen: with an accuracy of exactly 1, or targets that are no classes"
        ),
    },
    doc="""
    ## What it finds
    Recorded targets, or inputs, that have one value throughout; and single features that do.
    ## Why it matters
    A constant target teaches a constant; a constant input teaches nothing. Batches of one class come from data sorted
    by class and not shuffled.
    ## How to confirm
    `np.unique(y)` over an epoch.
    ## How to fix
    Shuffle before batching; look for a pipeline that zeroes its output.
    ## References
    Keras' `fit(shuffle=True)` does not shuffle generators and tf.data sets.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    batches = batches_of(evidence)
    stuck = standstill(evidence) is not None
    for array in (*batches.inputs, *batches.targets):
        rows = array.shape[0] * (array.shape[1] if len(array.shape) > 1 else 1)
        alike = array.kind == "target" and array.duplicate_rows == rows - 1 and not array.sampled  # one-hot ones, too
        if (array.std == 0 or alike) and rows >= limits["rows"]:
            what = "inputs" if array.kind == "input" else "targets"
            cause = Cause.LABELS if array.kind == "target" else Cause.DATA_SCALE
            proved = array.kind == "target" and rows >= limits["proof"] and _learnt(evidence, integral=array.integral)
            yield Finding(
                rule="CKD409",
                severity=Severity.ERROR if proved else Severity.WARNING,
                message=f"All recorded {what} {array.name} {'are the same' if alike and array.std else f'have the value {array.min}'}.",
                measured=0.0,
                unit="standard deviation",
                votes=votes(
                    (cause, _weight(array.kind, proved=proved, stuck=stuck), f"{what} do not vary"),
                    (Cause.ACTIVATION, -1.0 if stuck and array.kind == "input" else 0.0, "dead units follow from it"),
                ),
            )
        elif array.kind == "input" and array.constant_features:
            yield Finding(
                rule="CKD409",
                severity=Severity.INFO,
                message=f"{len(array.constant_features)} features of {array.name} have one value throughout (first: {array.constant_features[0]}).",
                measured=float(len(array.constant_features)),
                unit="constant features",
            )


def _weight(kind: str, *, proved: bool, stuck: bool) -> float:
    """From inputs that are one number nothing whatever can be learned; a batch may be of one class by chance."""
    if kind == "input":
        return 6.0 if stuck else 0.5
    return 4.0 if proved else 2.5 if stuck else 0.5


def _learnt(evidence: Evidence, *, integral: bool) -> bool:
    """All of the data is so, not only the recorded rows: classes are told perfectly, or the target is one real number."""
    accuracy = training_accuracy(evidence)
    if accuracy is None:
        return not integral
    return len(accuracy.values) >= 3 and all(v == 1.0 for v in accuracy.values[-3:])
