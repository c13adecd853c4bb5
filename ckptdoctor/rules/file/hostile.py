"""CKD702: a file that tries to reach outside itself or to exhaust its reader."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, ProblemKind, Severity
from ckptdoctor.rules.parts import census_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD702",
    name="file-hostile",
    severity=Severity.ERROR,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    External storage, virtual data sets, links to other files, declared sizes beyond the file, duplicate or traversing
    names, archives that expand without bound. They were refused, not followed.
    ## Why it matters
    Keras never writes them. Older versions follow them when loading, which reads files of the machine or exhausts its memory.
    ## How to confirm
    `h5dump -p` on the HDF5 file, or the listing of the archive.
    ## How to fix
    Do not load this file with Keras. Ask its sender.
    ## References
    CVE-2026-1669, CVE-2026-0897, CVE-2025-12060, CVE-2025-12638.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for problem in [p for p in census_of(evidence).info.problems if p.kind is ProblemKind.HOSTILE][:20]:
        yield Finding(rule="CKD702", severity=Severity.ERROR, message=problem.message, variable=problem.where)
