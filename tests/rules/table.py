"""Rows of (code, what, evidence): a rule fires on the first kind and stays silent on the second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.registry import run_rules


@dataclass(frozen=True)
class Row:
    """One expectation.

    `fires` is evidence on which the rule must speak (for `cause`, if given, most loudly and with `severity`);
    `silent` is a near miss on which it must not, or must not with that severity.
    """

    code: str
    fires: Callable[[], Evidence]
    silent: Callable[[], Evidence]
    cause: Cause | None = None
    severity: Severity | None = None
    says: str = ""


def run(code: str, evidence: Evidence) -> list[Finding]:
    outcome = run_rules(evidence, select=[code])
    assert () == outcome.failures
    assert code not in {s.rule for s in outcome.skipped}, "the evidence lacks what the rule needs"
    return list(outcome.findings)


def fires(row: Row) -> None:
    findings = run(row.code, row.fires())
    assert findings
    finding = findings[0]
    assert row.says in finding.message
    if row.severity is not None:
        assert row.severity is finding.severity
    if row.cause is not None:
        weights = {v.cause: v.weight for v in finding.votes}
        assert row.cause is max(weights, key=lambda c: weights[c])
        assert weights[row.cause] > 0


def stays_silent(row: Row) -> None:
    found = run(row.code, row.silent())
    loud = [f for f in found if row.severity is None or f.severity is row.severity]
    if row.cause is not None:
        loud = [f for f in loud if sum(v.weight for v in f.votes if v.cause is row.cause) > 0 or not f.votes]
    assert [] == loud
