"""CKD708: shapes and nesting that exhaust whoever loads them."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.file.malice import findings, problems_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD708",
    name="shape-bombs",
    severity=Severity.ERROR,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    A layer of more than two thousand million units, or a configuration nested beyond any model.
    ## Why it matters
    Keras allocates a layer before it looks at the stored weights: loading exhausts the memory.
    ## How to confirm
    Read `config.json` at the named address.
    ## How to fix
    Do not load this file.
    ## References
    CVE-2026-0897.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    problems = problems_of(evidence, "bomb", "depth")
    yield from findings("CKD708", Severity.ERROR, problems, "Do not load this file.")
