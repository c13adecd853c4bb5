"""CKD121: softmax over a single unit."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import head
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD121",
    name="softmax-single-unit",
    severity=Severity.ERROR,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    An output of one unit with softmax.
    ## Why it matters
    Softmax over one number is 1, whatever the number: every prediction is the same. The loss may still fall, since Keras
    computes it from the cached logits; the accuracy tells.
    ## How to confirm
    `model.predict` gives 1.0 for every row.
    ## How to fix
    `Dense(1, activation="sigmoid")` with `binary_crossentropy`, or two units with softmax.
    ## References
    Definition of softmax; among the most reported faults in the DeepFD and NeuraLint collections.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    found = head(spec_of(evidence))
    if found is None or found[2] != "softmax" or found[0].units != 1:
        return
    yield Finding(
        rule="CKD121",
        severity=Severity.ERROR,
        message=f"The output {found[0].name} applies softmax to a single unit: it predicts 1 for every row.",
        layer=found[1].name,
        measured=1.0,
        threshold=2.0,
        unit="units under softmax",
        votes=votes(
            (Cause.ACTIVATION, 6.0, "softmax of one number is always 1"),
            (Cause.LOSS_FUNCTION, 1.0, "head and loss do not form a pair"),
            (Cause.ARCHITECTURE, 1.0, "one unit where two classes need two, or a sigmoid"),
        ),
    )
