"""Findings by rule, each with what its rule's documentation says."""

from __future__ import annotations

from dataclasses import dataclass

from ckptdoctor.model import Finding, Report
from ckptdoctor.report import story
from ckptdoctor.rules.registry import Rule, all_rules

_MOST_FINDINGS = 60  # shown of one rule
_MOST_ALL = 300
_SECTIONS = ("Why it matters", "How to confirm", "How to fix", "References")


@dataclass(frozen=True, slots=True)
class FindingView:
    """One finding."""

    id: str
    severity: str
    message: str
    place: str
    time: str
    measurement: str


@dataclass(frozen=True, slots=True)
class RuleView:
    """A rule with its findings; `sections` are (heading, paragraphs) of its documentation."""

    code: str
    name: str
    summary: str
    severity: str
    findings: tuple[FindingView, ...]
    hidden: int
    sections: tuple[tuple[str, tuple[str, ...]], ...]
    thresholds: tuple[tuple[str, str, str], ...]


def rule_views(report: Report) -> tuple[RuleView, ...]:
    """The rules that found something, the worst first."""
    rules = {rule.code: rule for rule in all_rules()}
    groups: dict[str, list[Finding]] = {}
    for finding in story.by_severity(report.findings):
        groups.setdefault(finding.rule, []).append(finding)
    left = _MOST_ALL
    views = []
    for code, findings in groups.items():
        shown = findings[: min(_MOST_FINDINGS, left)]
        left -= len(shown)
        views.append(_view(code, findings, shown, rules.get(code)))
    return tuple(views)


def shown_ids(views: tuple[RuleView, ...]) -> frozenset[str]:
    """The ids that are anchors on the page; others must not be linked."""
    return frozenset(f.id for view in views for f in view.findings)


def _view(code: str, findings: list[Finding], shown: list[Finding], rule: Rule | None) -> RuleView:
    return RuleView(
        code,
        rule.name if rule else "",
        rule.summary if rule else "",
        story.SEVERITY_WORDS[findings[0].severity],
        tuple(_finding(f) for f in shown),
        len(findings) - len(shown),
        tuple((title, _paragraphs(rule.section(title))) for title in _SECTIONS) if rule else (),
        tuple((n, f"{t.value:g} {t.unit}".strip(), t.source) for n, t in rule.thresholds.items()) if rule else (),
    )


def _paragraphs(text: str) -> tuple[str, ...]:
    return tuple(" ".join(part.split()) for part in text.split("\n\n") if part.strip())


def _finding(f: Finding) -> FindingView:
    place = "/".join(p for p in (f.layer, f.variable) if p)
    time = ", ".join(f"{name} {value:,}" for name, value in (("epoch", f.epoch), ("step", f.step)) if value is not None)
    return FindingView(f.id or f.rule, story.SEVERITY_WORDS[f.severity], f.message, place, time, story.measurement(f))
