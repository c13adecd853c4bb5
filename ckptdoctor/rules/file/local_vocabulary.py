"""CKD707: a vocabulary that stands in a file of the machine."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.file.malice import findings, leaves_machine, problems_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD707",
    name="local-vocabulary",
    severity=Severity.WARNING,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    A lookup layer whose vocabulary is the path of a file.
    ## Why it matters
    The path is read when the model is loaded: on another machine it is another file, or none.
    ## How to confirm
    Read `config.json` at the named address.
    ## How to fix
    Save the model again with the vocabulary inside (the default of `.keras`).
    ## References
    CVE-2025-12058.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    problems = [p for p in problems_of(evidence, "outside_file") if not leaves_machine(p)]
    yield from findings("CKD707", Severity.WARNING, problems, "It was not opened.")
