"""One strict JSON object a line, as results come."""

from __future__ import annotations

from ckptdoctor.scanner.render.base import Totals, Write
from ckptdoctor.scanner.result import ScanResult
from ckptdoctor.scanner.runs import RunSummary


class JsonLines:
    """`scan --format jsonl`."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def result(self, result: ScanResult) -> None:
        """One line."""
        self._write(result.line())

    def run(self, summary: RunSummary) -> None:
        """Runs follow from the lines."""

    def finish(self, totals: Totals) -> None:
        """Nothing: every line stands for itself."""
