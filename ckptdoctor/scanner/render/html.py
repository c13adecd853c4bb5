"""The index page: runs, first bad, last healthy, cause, links to full reports. One file, no network."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from ckptdoctor.model import Status
from ckptdoctor.report.escape import line
from ckptdoctor.scanner.render.base import Totals, Write, inside, suspicious, when, where
from ckptdoctor.scanner.result import ScanResult
from ckptdoctor.scanner.runs import Point, RunSummary

MOST_SICK = 5_000  # rows: about 2 MB of page, what a browser still shows at once
MOST_HEALTHY = 1_000
MOST_UNREADABLE = 2_000
MOST_SUSPECT = 500
MOST_PER_RUN = 50  # sick checkpoints named below a run


@dataclass(slots=True)
class _Bounded:
    """The first rows, and how many more there were."""

    most: int
    rows: list[Any] = field(default_factory=list)
    more: int = 0

    def add(self, row: Any) -> None:
        if len(self.rows) < self.most:
            self.rows.append(row)
        else:
            self.more += 1


class Html:
    """Keeps what the page shows, within bounds that do not depend on the number of checkpoints."""

    def __init__(self, write: Write, *, beside: str | None) -> None:
        self._write, self._beside = write, beside
        self._sick = _Bounded(MOST_SICK)
        self._healthy = _Bounded(MOST_HEALTHY)
        self._unreadable = _Bounded(MOST_UNREADABLE)
        self._suspect = _Bounded(MOST_SUSPECT)
        self._open: dict[str, _Bounded] = {}  # sick checkpoints of runs that have not ended

    def result(self, result: ScanResult) -> None:
        """Kept where the page names it."""
        if result.status is Status.UNREADABLE:
            self._unreadable.add(line(result.error or result.path))
        elif result.status is Status.SICK and not self._sick.more:
            row = {
                "name": line(inside(result.path, result.run)),
                "when": when(result),
                "headline": line(result.headline or ""),
                "link": self._link(result.report),
            }
            self._open.setdefault(result.run, _Bounded(MOST_PER_RUN)).add(row)
        for warning in suspicious(result):
            self._suspect.add({"path": line(result.path), "what": line(warning)})

    def run(self, summary: RunSummary) -> None:
        """One row; runs of which nothing could be read stand among the unreadable files."""
        members = self._open.pop(summary.run, None)
        row: dict[str, Any] = {
            "run": line(summary.run),
            "checkpoints": summary.checkpoints,
            "sick": summary.sick,
            "unreadable": summary.unreadable,
            "last_healthy": _point(summary.last_healthy, summary.run),
        }
        if summary.first_bad is not None:
            row |= {
                "first_bad": _point(summary.first_bad, summary.run),
                "cause": summary.cause,
                "grade": summary.grade,
                "confidence": summary.confidence,
                "where": line(where(summary)),
                "link": self._link(summary.report),
                "members": members.rows if members else [],
                "members_more": members.more if members else 0,
            }
            self._sick.add(row)
        elif summary.healthy:
            self._healthy.add(row)

    def finish(self, totals: Totals) -> None:
        """The page."""
        from ckptdoctor.report.html import render_template

        page = render_template(
            "scan/index.html.j2",
            totals=totals,
            subject=line(totals.subject),
            made=f"{datetime.now(tz=UTC):%Y-%m-%d %H:%M} UTC",
            sick=self._sick,
            healthy=self._healthy,
            unreadable=self._unreadable,
            suspect=self._suspect,
        )
        self._write(page)

    def _link(self, report: str | None) -> str | None:
        """A relative link to a report, which may have any characters in its folder's name."""
        if report is None:
            return None
        try:
            path = report if self._beside is None else os.path.relpath(report, self._beside)
        except ValueError:  # another drive
            path = report
        return quote(path) if os.path.isabs(path) else "./" + quote(path)


def _point(point: Point | None, run: str) -> dict[str, str] | None:
    return None if point is None else {"name": line(inside(point.path, run)), "when": point.when}
