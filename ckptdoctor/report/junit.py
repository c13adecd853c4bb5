"""The report as JUnit XML: one test case a rule, failed where the rule found an error."""

from __future__ import annotations

import re
from xml.sax.saxutils import escape, quoteattr

from ckptdoctor.model import Finding, Report, Severity, Status
from ckptdoctor.report import story
from ckptdoctor.report.escape import block, line

_NOT_XML = re.compile(
    "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)  # what XML 1.0 cannot hold, escaped or not


def render_junit(report: Report) -> str:
    """JUnit XML. Errors are failures, crashed rules are errors, skipped rules are skipped, milder findings are output."""
    from ckptdoctor.rules.registry import all_rules

    names = {rule.code: rule.name for rule in all_rules()}
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(finding.rule, []).append(finding)
    skipped = {s.rule: s.reason for s in report.skipped}
    crashed = {f.rule: f.error for f in report.failures}
    codes = sorted({*names, *found, *skipped, *crashed})
    cases = [_verdict_case(report)]
    for code in codes:
        inner = _inner(found.get(code, []), skipped.get(code), crashed.get(code))
        cases.append(_case(f"{code} {names.get(code, '')}".strip(), inner))
    failures = sum("<failure" in case for case in cases)
    errors = sum("<error" in case for case in cases)
    counts = (
        f'tests="{len(cases)}" failures="{failures}" errors="{errors}" skipped="{sum("<skipped" in c for c in cases)}"'
    )
    time = f'time="{report.seconds:.3f}"'
    suite = f"<testsuite name={_attribute(report.evidence.files.path)} {counts} {time}>"
    inside = "\n".join(cases)
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="ckptdoctor" {counts} {time}>\n'
        f"{suite}\n{inside}\n</testsuite>\n</testsuites>\n"
    )


def _verdict_case(report: Report) -> str:
    verdict = report.verdict
    text = f"{verdict.headline}\n{verdict.next_step}"
    if verdict.status is Status.SICK:
        title = f"{verdict.cause.value} ({verdict.grade.value}): {verdict.headline}"
        return _case("verdict", _element("failure", title, verdict.cause.value, text))
    if verdict.status is Status.UNREADABLE:
        return _case("verdict", _element("error", verdict.headline, "unreadable", text))
    return _case("verdict", f"<system-out>{_text(verdict.headline)}</system-out>")


def _inner(findings: list[Finding], skipped: str | None, crashed: str | None) -> str:
    if crashed is not None:
        return _element("error", crashed, "crashed", crashed)
    errors = [f for f in findings if f.severity is Severity.ERROR]
    if errors:
        text = "\n".join(f"{f.id}: {f.message} {story.measurement(f)}".rstrip() for f in findings)
        return _element("failure", errors[0].message, "error", text)
    if findings:
        rows = "\n".join(f"{story.SEVERITY_WORDS[f.severity]} {f.id}: {f.message}" for f in findings)
        return f"<system-out>{_text(rows)}</system-out>"
    return f"<skipped message={_attribute(skipped)}/>" if skipped is not None else ""


def _case(name: str, inner: str) -> str:
    start = f'<testcase classname="ckptdoctor" name={_attribute(name)} time="0"'
    return f"{start}>{inner}</testcase>" if inner else f"{start}/>"


def _element(tag: str, message: str, kind: str, text: str) -> str:
    return f"<{tag} type={_attribute(kind)} message={_attribute(message)}>{_text(text)}</{tag}>"


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("?", line(text)))


def _text(text: str) -> str:
    return escape(_NOT_XML.sub("?", block(text)))
