"""CKD701: a file that is damaged or incomplete."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, ProblemKind, Severity
from ckptdoctor.rules.parts import census_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD701",
    name="file-damaged",
    severity=Severity.WARNING,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    A checkpoint that is cut off, whose tensors disagree with their bytes, or that lacks a part.
    ## Why it matters
    A save that was interrupted cannot be loaded by Keras. What could be located was measured; the rest was not.
    ## How to confirm
    `python -m zipfile -t FILE` for a `.keras` archive.
    ## How to fix
    Continue from the checkpoint before it; save to a temporary name and rename.
    ## References
    A zip archive keeps its directory at the end, so a cut file has none.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    info = census_of(evidence).info
    problems = [p for p in info.problems if p.kind in (ProblemKind.DAMAGED, ProblemKind.INCOMPLETE)]
    for problem in problems[:20]:
        yield Finding(
            rule="CKD701",
            severity=Severity.ERROR if problem.kind is ProblemKind.DAMAGED else Severity.WARNING,
            message=problem.message,
            variable=problem.where,
            measured=info.coverage,
            threshold=1.0,
            unit="of the tensor bytes located",
        )
