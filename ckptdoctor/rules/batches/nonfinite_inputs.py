"""CKD401: NaN or infinity in the recorded inputs or sample weights."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import ArrayStats, Batches, Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import batches_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import iterations, went_nonfinite


def rows_and_features(array: ArrayStats) -> str:
    """Where the bad entries stand, in words: the first rows and the features."""
    rows = ", ".join(f"{row} of batch {batch}" for batch, row in array.bad_rows[:3])
    more = f" and {array.bad_row_count - 3} more" if array.bad_row_count > 3 else ""
    text = f"row{'s' if array.bad_row_count > 1 else ''} {rows}{more}" if rows else "unknown rows"
    if array.bad_features:
        named = ", ".join(str(f) for f in array.bad_features[:6]) + (", …" if len(array.bad_features) > 6 else "")
        text += f", feature{'s' if len(array.bad_features) > 1 else ''} {named}"
    return text


@rule(
    code="CKD401",
    name="nonfinite-inputs",
    severity=Severity.ERROR,
    needs={"batches"},
    since="0.1.0",
    doc="""
    ## What it finds
    NaN or infinite entries in the recorded inputs or sample weights, with their rows and features.
    ## Why it matters
    One such entry makes the gradient of every weight it touches NaN. A relu or a fused kernel may swallow it on its way to
    the loss, so a finite loss proves nothing. Where weights saved after such a batch are finite, the model fills or masks the
    entries itself, and this is only said as a warning.
    ## How to confirm
    `np.argwhere(~np.isfinite(x))` on the recorded batch.
    ## How to fix
    Repair the pipeline that makes it (a division by zero, a missing cell) or drop the rows.
    ## References
    keras#6921 asks for the batch that caused a NaN.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    batches = batches_of(evidence)
    for array in (*batches.inputs, *batches.sample_weights):
        if not array.nonfinite:
            continue
        kinds = " and ".join(w for w, n in (("NaN", array.nan), ("infinite", array.posinf + array.neginf)) if n)
        number = "entry" if array.nonfinite == 1 else "entries"
        text = f"{array.nonfinite:,} {number} of {array.name} {'is' if array.nonfinite == 1 else 'are'} {kinds}: {rows_and_features(array)}."
        survived = _survived(array, batches, evidence)
        if survived:
            text += " Training went on past them and every weight stayed finite: the model seems to fill or mask them."
        yield Finding(
            rule="CKD401",
            severity=Severity.WARNING if survived else Severity.ERROR,
            message=text,
            measured=float(array.nonfinite),
            threshold=0.0,
            unit="non-finite entries",
            votes=votes(
                (Cause.DATA_NONFINITE, 1.0 if survived else 7.0, "the bad values stand in the recorded batch"),
                (Cause.LEARNING_RATE, 0.0 if survived else -1.5, "the data explains the NaN"),
                (Cause.EXPLODING_GRADIENTS, 0.0 if survived else -1.5, "the data explains the NaN"),
            ),
            data={}
            if survived
            else {"confirms": Cause.DATA_NONFINITE.value, "array": array.name, "rows": array.bad_rows[:64]},
        )


def _survived(array: ArrayStats, batches: Batches, evidence: Evidence) -> bool:
    """Whether a finite checkpoint was saved after a step on a batch with bad rows.

    One bad entry that reaches a kernel makes its gradient NaN, so that something must have kept it from there.
    """
    if went_nonfinite(evidence) or not array.bad_rows or len(batches.steps) != batches.count:
        return False
    first, done = min(batch for batch, _ in array.bad_rows), iterations(evidence)
    return done is not None and first < len(batches.steps) and done > batches.steps[first]
