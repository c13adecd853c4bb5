"""GitHub workflow annotations: errors for what is sick or unreadable, warnings for what is hostile, then the counts."""

from __future__ import annotations

from ckptdoctor.model import Status
from ckptdoctor.report.escape import annotation_message, annotation_property
from ckptdoctor.scanner.render.base import Totals, Write, cause, suspicious, where
from ckptdoctor.scanner.result import ScanResult
from ckptdoctor.scanner.runs import RunSummary

MOST = 49  # GitHub keeps fifty of a job and drops the rest in silence; the last one tells the counts


class Github:
    """Writes as results come, up to what GitHub shows."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._told = 0
        self._untold = 0

    def result(self, result: ScanResult) -> None:
        """An annotation for what is not simply healthy."""
        if result.status is Status.SICK:
            place = f" in {where(result)}" if where(result) else ""
            self._tell(
                "error", f"sick: {cause(result)}{place}", result.path, f"{result.path}: {result.headline or 'sick'}"
            )
        elif result.status is Status.UNREADABLE:
            self._tell("error", "unreadable checkpoint", result.path, result.error or result.path)
        for warning in suspicious(result)[:1]:
            self._tell("warning", "hostile or suspicious checkpoint", result.path, f"{result.path}: {warning}")

    def run(self, summary: RunSummary) -> None:
        """Where to resume a sick run."""
        if summary.first_bad is not None and summary.last_healthy is not None:
            words = f"{summary.run}: resume from {summary.last_healthy.path}"
            self._tell("notice", "ckptdoctor: where to resume", summary.last_healthy.path, words)

    def finish(self, totals: Totals) -> None:
        """The counts."""
        more = f" {self._untold:,} more annotations were left out." if self._untold else ""
        self._write(f"::notice title=ckptdoctor scan::{annotation_message(totals.sentence + more)}\n")

    def _tell(self, kind: str, title: str, path: str, message: str) -> None:
        if self._told >= MOST:
            self._untold += 1
            return
        self._told += 1
        place = "" if "://" in path else f"file={annotation_property(path)},"
        self._write(f"::{kind} {place}title={annotation_property(title)}::{annotation_message(message)}\n")
