"""CKD418: a class id that stands for "no label", in a run whose loss is not known."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import batches_of, losses_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import unlabelled_code, went_nonfinite


@rule(
    code="CKD418",
    name="unlabelled-code",
    severity=Severity.INFO,
    needs={"batches"},
    since="0.1.0",
    doc="""
    ## What it finds
    A run that went non-finite, without a saved loss, whose targets are class ids from 0 on but for one that is used for rows
    without a label: -1, 255 or -100.
    ## Why it matters
    A cross-entropy over class ids looks its row up: outside the head it is NaN on a GPU and under XLA.
    ## How to confirm
    `np.unique(y)` against the head's units.
    ## How to fix
    `SparseCategoricalCrossentropy(ignore_class=-1)`, or a sample weight of 0 and any valid id for such rows.
    ## References
    Keras' `ignore_class`; 255 in Pascal VOC, -100 in PyTorch's default.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    if losses_of(maybe_spec(evidence)) or not went_nonfinite(evidence):
        return
    for array in batches_of(evidence).targets:
        code = unlabelled_code(array)
        if code is None:
            continue
        count = next(n for value, n in array.classes if value == code)
        why = f"{code:g} stands for rows without a label"
        yield Finding(
            rule="CKD418",
            severity=Severity.WARNING,
            message=f"Targets {array.name} are class ids from 0 on, and {code:g} in {count} rows.",
            measured=code,
            unit="class id",
            votes=votes((Cause.LABELS, 3.5, why), (Cause.LOSS_FUNCTION, 0.5, why), (Cause.DATA_NONFINITE, -0.5, why)),
        )
        return
