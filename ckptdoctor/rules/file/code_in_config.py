"""CKD703: layers and functions that run code of their own."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.file.malice import findings, problems_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD703",
    name="code-in-config",
    severity=Severity.WARNING,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    Lambda layers, stored lambdas, and layers that wrap programs of other frameworks, at any depth of the configuration.
    ## Why it matters
    Loading such a model runs code that came with the file. In your own model that is your code; in a stranger's it is theirs.
    ## How to confirm
    Read `config.json` at the named address.
    ## How to fix
    Replace Lambda by a layer class of your own; load a stranger's file only where it may do harm to nothing.
    ## References
    CVE-2024-3660, CVE-2025-1550, CVE-2025-9905, CVE-2025-9906, CVE-2025-49655, CVE-2026-1462, CVE-2026-12481.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    problems = problems_of(evidence, "runs_code")
    yield from findings("CKD703", Severity.WARNING, problems, "It was not run.")
