"""CKD705: a configuration that asks for safety to be switched off."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.file.malice import findings, problems_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD705",
    name="unsafe-switches",
    severity=Severity.ERROR,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    Keys that switch off safe loading, stored inside the file itself.
    ## Why it matters
    A file must not decide how it is opened. Keras does not write these keys.
    ## How to confirm
    Search `config.json` for the named key.
    ## How to fix
    Do not load this file. Ask its sender.
    ## References
    CVE-2025-9906.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    problems = problems_of(evidence, "unsafe_switch")
    yield from findings("CKD705", Severity.ERROR, problems, "Do not load this file.")
