"""The terminal's table: what is sick, unreadable or hostile, as it is found, then runs and counts."""

from __future__ import annotations

from ckptdoctor.model import Status
from ckptdoctor.report.escape import line
from ckptdoctor.scanner.render.base import Totals, Write, cause, inside, suspicious, when, where
from ckptdoctor.scanner.result import ScanResult
from ckptdoctor.scanner.runs import RunSummary

HEAD = ("STATUS", "CAUSE", "WHERE", "WHEN", "CHECKPOINT")
WIDTHS = (10, 34, 24, 20)
COLORS = {"sick": "31", "unreadable": "33", "suspect": "35", "run": "1", "healthy": "32"}


class Table:
    """Rows are written when they are known; nothing is kept but whether the head stands."""

    def __init__(self, write: Write, *, width: int | None, color: bool) -> None:
        self._write, self._width, self._color = write, width, color
        self._headed = False

    def result(self, result: ScanResult) -> None:
        """A row for what is not simply healthy."""
        path = line(result.path)
        if result.status is Status.SICK:
            self._row("sick", cause(result), where(result), when(result), path)
        elif result.status is Status.UNREADABLE:
            self._sentence("unreadable", result.error or path)
        for warning in suspicious(result)[:3]:
            self._sentence("suspect", f"{path}: {warning}")

    def run(self, summary: RunSummary) -> None:
        """Where a sick run of several checkpoints went bad, and where to resume."""
        if summary.first_bad is None or summary.checkpoints < 2:
            return
        first = _named(inside(summary.first_bad.path, summary.run), summary.first_bad.when)
        words = f"{line(summary.run)}: first bad {first}; "
        if summary.last_healthy is None:
            words += "no healthy checkpoint before it"
        else:
            last = _named(inside(summary.last_healthy.path, summary.run), summary.last_healthy.when)
            words += f"last healthy, to resume from: {last}"
        self._sentence("run", words)
        if summary.report:
            self._write(f"{'':10} report: {line(summary.report)}\n")

    def finish(self, totals: Totals) -> None:
        """The counts."""
        if self._headed:
            self._write("\n")
        if totals.interrupted:
            self._write("Interrupted: what follows is about the checkpoints measured until then.\n")
        self._write(f"{totals.sentence}\n{totals.pace}\n")

    def _row(self, status: str, *cells: str) -> None:
        if not self._headed:
            self._headed = True
            self._write(_columns(HEAD) + "\n")
        self._write(self._paint(status, _columns((status, *(line(c) for c in cells)))) + "\n")

    def _sentence(self, status: str, words: str) -> None:
        self._headed = True
        self._write(self._paint(status, f"{status:<10} {line(words)}") + "\n")

    def _paint(self, status: str, row: str) -> str:
        """The first word in colour."""
        if not self._color:
            return row
        return f"\x1b[{COLORS[status]}m{row[:10]}\x1b[0m{row[10:]}"


def _named(path: str, moment: str) -> str:
    return f"{line(path)} ({moment})" if moment else line(path)


def _columns(cells: tuple[str, ...]) -> str:
    """Cells under each other; what is too long is cut with a sign, but the path never is."""
    head = " ".join(_fit(cell, width) for cell, width in zip(cells[:-1], WIDTHS, strict=True))
    return f"{head} {cells[-1]}"


def _fit(cell: str, width: int) -> str:
    return f"{cell:<{width}}" if len(cell) <= width else cell[: width - 1] + "…"
