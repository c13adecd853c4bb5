"""CKD413: very unequal classes, and other facts about the batches worth knowing."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.parts import batches_of
from ckptdoctor.rules.registry import Limits, Threshold, rule


@rule(
    code="CKD413",
    name="class-balance",
    severity=Severity.INFO,
    needs={"batches"},
    since="0.1.0",
    thresholds={
        "ratio": Threshold(10.0, unit="largest ÷ smallest class", source="SageMaker Debugger's class imbalance rule"),
        "duplicates": Threshold(0.5, unit="share of rows", source="hand-chosen"),
    },
    doc="""
    ## What it finds
    Classes of very unequal size in the recorded targets, and inputs of which most rows are copies.
    ## Why it matters
    With unequal classes accuracy says little. It is no failure by itself.
    ## How to confirm
    Count classes over an epoch.
    ## How to fix
    `class_weight`, or a metric that does not depend on the balance.
    ## References
    SageMaker Debugger.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    batches = batches_of(evidence)
    for array in batches.targets:
        counts = [n for _, n in array.classes]
        if 2 <= len(counts) <= 100 and max(counts) > limits["ratio"] * min(counts) and not array.row_sums_to_one:
            yield Finding(
                rule="CKD413",
                severity=Severity.INFO,
                message=f"Classes of {array.name} are unequal: the largest has {max(counts) / min(counts):.3g} times the rows of the smallest.",
                measured=max(counts) / min(counts),
                threshold=limits["ratio"],
                unit="largest ÷ smallest class",
            )
    for array in batches.inputs:
        rows = array.shape[0] * (array.shape[1] if len(array.shape) > 1 else 1)
        if rows and array.duplicate_rows > limits["duplicates"] * rows:
            yield Finding(
                rule="CKD413",
                severity=Severity.INFO,
                message=f"{array.duplicate_rows} of {rows} recorded rows of {array.name} stand more than once.",
                measured=array.duplicate_rows / rows,
                threshold=limits["duplicates"],
                unit="share of rows",
            )
