"""The report as GitHub workflow annotations: the verdict first, then the findings, the worst first."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Report, Severity, Status
from ckptdoctor.report import story
from ckptdoctor.report.escape import annotation_message, annotation_property

MOST = 50  # annotations; GitHub shows ten of a kind for a step and fifty for a job, and drops the rest in silence

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
_VERDICTS = {Status.SICK: "error", Status.HEALTHY: "notice", Status.UNREADABLE: "error"}


def render_github(report: Report) -> str:
    """Workflow commands, one a line."""
    rows = list(_commands(report))
    if len(rows) > MOST:
        left = len(rows) - MOST + 1
        rows = [*rows[: MOST - 1], _command("notice", "ckptdoctor", f"and {left:,} more; the page has all of them")]
    return "\n".join(rows) + "\n"


def _commands(report: Report) -> Iterator[str]:
    verdict = report.verdict
    title = f"ckptdoctor: {verdict.status.value}"
    if verdict.status is Status.SICK:
        title += f", {verdict.cause.value} ({verdict.grade.value})"
    name = story.subject_name(report)
    yield _command(_VERDICTS[verdict.status], title, f"{name}: {verdict.headline} {verdict.next_step}")
    for finding in story.by_severity(report.findings):
        yield _command(_COMMANDS[finding.severity], finding.id or finding.rule, finding.message)
    for failure in report.failures:
        yield _command("warning", f"{failure.rule} crashed", failure.error)


def _command(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={annotation_property(title)}::{annotation_message(message)}"
