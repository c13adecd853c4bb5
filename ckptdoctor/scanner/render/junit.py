"""JUnit XML: one test case a checkpoint, its run the class. Cases wait in a temporary file, since counts come first."""

from __future__ import annotations

import re
import tempfile
from xml.sax.saxutils import escape, quoteattr

from ckptdoctor.model import Status
from ckptdoctor.report.escape import block, line
from ckptdoctor.scanner.render.base import Totals, Write, cause, inside, where
from ckptdoctor.scanner.result import ScanResult
from ckptdoctor.scanner.runs import RunSummary

IN_MEMORY = 1 << 20
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold


class Junit:
    """Sick ones are failures, unreadable ones errors, warnings are output."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._cases = tempfile.SpooledTemporaryFile(IN_MEMORY, mode="w+", encoding="utf-8")  # noqa: SIM115 - closed in finish

    def result(self, result: ScanResult) -> None:
        """One case."""
        self._cases.write(_case(result))

    def run(self, summary: RunSummary) -> None:
        """Runs are the classes of the cases."""

    def finish(self, totals: Totals) -> None:
        """Head, cases, foot."""
        c = totals.counts
        counts = f'tests="{c.done}" failures="{c.sick}" errors="{c.unreadable}" skipped="0" time="{totals.seconds:.3f}"'
        self._write(f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="ckptdoctor scan" {counts}>\n')
        self._write(f"<testsuite name={_attribute(totals.subject)} {counts}>\n")
        self._cases.seek(0)
        while piece := self._cases.read(IN_MEMORY):
            self._write(piece)
        self._cases.close()
        self._write("</testsuite>\n</testsuites>\n")


def _case(result: ScanResult) -> str:
    name = inside(result.path, result.run)
    start = f'<testcase classname={_attribute(result.run)} name={_attribute(name)} time="{result.seconds:.3f}"'
    inner = ""
    if result.status is Status.SICK:
        text = f"{result.headline or ''}\n{result.path}\n{where(result)}".strip()
        inner = f"<failure type={_attribute(result.cause or 'sick')} message={_attribute(cause(result))}>{_text(text)}</failure>"
    elif result.status is Status.UNREADABLE:
        kind = result.kind.value if result.kind else "unreadable"
        inner = f"<error type={_attribute(kind)} message={_attribute(result.error or '')}>{_text(result.path)}</error>"
    if result.warnings:
        inner += "<system-out>" + _text("\n".join(result.warnings)) + "</system-out>"
    return f"{start}>{inner}</testcase>\n" if inner else f"{start}/>\n"


def _attribute(text: str) -> str:
    return quoteattr(_NOT_XML.sub("?", line(text)))


def _text(text: str) -> str:
    return escape(_NOT_XML.sub("?", block(text)))
