"""Markdown for a ticket, a step summary or a chat: the counts, then runs, then what could not be read."""

from __future__ import annotations

from collections.abc import Sequence

from ckptdoctor.model import Status
from ckptdoctor.report.escape import markdown as md
from ckptdoctor.report.escape import markdown_code as code
from ckptdoctor.scanner.render.base import Totals, Write, cause, inside, suspicious, where
from ckptdoctor.scanner.result import ScanResult
from ckptdoctor.scanner.runs import RunSummary

MOST_ROWS = 100  # of each table
MOST_CHARACTERS = 59_000  # trackers refuse more than 65,536
LONGEST = 300  # characters of one stranger's text


class Markdown:
    """Keeps the first rows of each table and counts the rest."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._runs = _Rows()
        self._unreadable = _Rows()
        self._hostile = _Rows()

    def result(self, result: ScanResult) -> None:
        """Kept where it is unreadable or hostile."""
        if result.status is Status.UNREADABLE:
            self._unreadable.add((_code(result.path), md(_cut(result.error or ""))))
        for warning in suspicious(result)[:1]:
            self._hostile.add((_code(result.path), md(_cut(warning))))

    def run(self, summary: RunSummary) -> None:
        """Kept where it is sick."""
        if summary.first_bad is None:
            return
        last = summary.last_healthy
        first = f"{_code(inside(summary.first_bad.path, summary.run))} {md(summary.first_bad.when)}".strip()
        resume = "none before" if last is None else f"{_code(inside(last.path, summary.run))} {md(last.when)}".strip()
        sick = f"{summary.sick:,} of {summary.checkpoints:,}"
        self._runs.add((_code(summary.run), sick, first, resume, md(cause(summary)), md(_cut(where(summary)))))

    def finish(self, totals: Totals) -> None:
        """The whole page."""
        state = " (interrupted)" if totals.interrupted else ""
        parts = [f"## ckptdoctor scan of {_code(totals.subject)}{state}\n\n{md(totals.sentence)} {md(totals.pace)}\n"]
        parts.append(self._runs.table("Sick runs", ("Run", "Sick", "First bad", "Resume from", "Cause", "Where")))
        parts.append(self._unreadable.table("Unreadable", ("Checkpoint", "Why")))
        parts.append(self._hostile.table("Hostile or suspicious", ("Checkpoint", "What")))
        text = "\n".join(part for part in parts if part)
        if len(text) > MOST_CHARACTERS:
            text = (
                text[: text.rindex("\n", 0, MOST_CHARACTERS)]
                + "\n\n_Cut here: trackers take no more. Use `-o index.html`._\n"
            )
        self._write(text)


class _Rows:
    def __init__(self) -> None:
        self._rows: list[Sequence[str]] = []
        self._more = 0

    def add(self, cells: Sequence[str]) -> None:
        if len(self._rows) < MOST_ROWS:
            self._rows.append(cells)
        else:
            self._more += 1

    def table(self, title: str, head: Sequence[str]) -> str:
        if not self._rows:
            return ""
        rows = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        rows += [f"| {' | '.join(cells)} |" for cells in self._rows]
        more = f"\n_and {self._more:,} more_\n" if self._more else ""
        return f"### {title}\n\n" + "\n".join(rows) + "\n" + more


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _code(text: str) -> str:
    return code(_cut(text))
