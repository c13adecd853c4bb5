"""CKD704: objects from modules that are no part of Keras or of a model."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.file.malice import findings, problems_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD704",
    name="foreign-modules",
    severity=Severity.ERROR,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    A configuration that names functions of the system or of unrelated modules as layers, losses or callables.
    ## Why it matters
    Keras never writes them. Loading would import the module and call the function with arguments from the file.
    ## How to confirm
    Read `config.json` at the named address.
    ## How to fix
    Do not load this file. Ask its sender.
    ## References
    CVE-2025-1550, CVE-2025-8747.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    problems = problems_of(evidence, "foreign_module")
    yield from findings("CKD704", Severity.ERROR, problems, "Do not load this file.")
