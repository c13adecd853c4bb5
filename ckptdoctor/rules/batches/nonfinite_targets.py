"""CKD402: NaN or infinity in the recorded targets."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.batches.nonfinite_inputs import rows_and_features
from ckptdoctor.rules.parts import batches_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD402",
    name="nonfinite-targets",
    severity=Severity.ERROR,
    needs={"batches"},
    since="0.1.0",
    doc="""
    ## What it finds
    NaN or infinite entries in the recorded targets, with their rows.
    ## Why it matters
    The loss of such a row is NaN, and so is the gradient of every trainable weight. Missing targets must be masked
    inside the loss or by sample weights, not stored as NaN.
    ## How to confirm
    `np.argwhere(~np.isfinite(y))` on the recorded batch.
    ## How to fix
    Drop the rows, or mask them: replace NaN by 0 and multiply the error by `isfinite(y)`; NaN times a weight of 0 is NaN.
    ## References
    keras#1628.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for array in batches_of(evidence).targets:
        if not array.nonfinite:
            continue
        masked = not went_nonfinite(evidence)
        yield Finding(
            rule="CKD402",
            severity=Severity.WARNING if masked else Severity.ERROR,
            message=f"{array.nonfinite:,} entries of {array.name} are not finite: {rows_and_features(array)}."
            + (" The run stayed finite, so its loss seems to mask them." if masked else ""),
            measured=float(array.nonfinite),
            threshold=0.0,
            unit="non-finite entries",
            votes=votes(
                (Cause.DATA_NONFINITE, 6.0, "the bad values stand in the recorded targets"),
                (Cause.LABELS, 2.0, "the bad values are targets"),
                (Cause.LOSS_FUNCTION, 0.5, "the loss does not mask missing targets"),
                (Cause.LEARNING_RATE, -1.5, "the data explains the NaN"),
                (Cause.EXPLODING_GRADIENTS, -1.5, "the data explains the NaN"),
            ),
            data={}
            if masked
            else {"confirms": Cause.DATA_NONFINITE.value, "array": array.name, "rows": array.bad_rows[:64]},
        )
