"""CKD706: paths and addresses that lead outside the file."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.file.malice import findings, leaves_machine, problems_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD706",
    name="outside-files",
    severity=Severity.ERROR,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    Layer or asset names that climb out of their directory, and URLs where a vocabulary or weights belong.
    ## Why it matters
    Loading would read or write files of the machine, or call a server.
    ## How to confirm
    Read `config.json` at the named address.
    ## How to fix
    Do not load this file. Ask its sender.
    ## References
    CVE-2025-12058, CVE-2025-12060, CVE-2025-12638, CVE-2026-12479.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    problems = [
        p for p in problems_of(evidence, "traversal", "outside_file") if p.kind == "traversal" or leaves_machine(p)
    ]
    yield from findings("CKD706", Severity.ERROR, problems, "Do not load this file.")
