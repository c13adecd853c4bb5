"""CKD103: embedding rows of single tokens."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import fingerprint_of, votes
from ckptdoctor.rules.registry import Limits, rule

PADDING = (0,)
"""The id that Keras' text layers and `pad_sequences` use for padding."""


@rule(
    code="CKD103",
    name="nan-token-rows",
    severity=Severity.WARNING,
    needs={"census", "fingerprint"},
    since="0.1.0",
    doc="""
    ## What it finds
    An embedding whose non-finite rows are those of a few token ids.
    ## Why it matters
    Only the tokens of a sample receive a gradient in that step. The rows therefore name the tokens of the sample, or batch,
    whose gradient was NaN: the sample can be found in the data by them.
    ## How to confirm
    Search the training data for samples that hold these ids together.
    ## How to fix
    Look at that sample: its target, its length (an empty sequence?), its weight.
    ## References
    Gradient of an embedding lookup: a scatter into the rows that were looked up.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for pattern in fingerprint_of(evidence).patterns:
        if pattern.kind != "embedding_rows":
            continue
        named = ", ".join(str(i) for i in pattern.indices[:12]) + (", …" if pattern.count > 12 else "")
        yield Finding(
            rule="CKD103",
            severity=Severity.WARNING,
            message=(
                f"In {pattern.layer}/{pattern.variable} {pattern.count} of {pattern.of} token rows are non-finite "
                f"({named}): they name the tokens of the batch whose gradient was NaN."
            ),
            layer=pattern.layer,
            variable=pattern.variable,
            measured=float(pattern.count),
            unit=f"of {pattern.of} token ids",
            votes=votes(
                (
                    Cause.ARCHITECTURE,
                    1.4 if tuple(pattern.indices) == PADDING else 0.0,
                    "only the id of padding: a sample with nothing but padding leaves a masked softmax or mean empty",
                ),
                (Cause.DATA_NONFINITE, 0.5, "a single bad sample touches only its own tokens"),
                (Cause.LABELS, 0.5, "a single bad sample touches only its own tokens"),
                (Cause.LOSS_FUNCTION, 0.5, "a loss that fails on one batch touches only its tokens"),
            ),
            data={"tokens": pattern.indices},
        )
