"""A full report beside a scan, for one sick checkpoint."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from ckptdoctor import __version__
from ckptdoctor.model import CkptDoctorError, Diagnosis, Evidence, Report
from ckptdoctor.report.escape import file_name

if TYPE_CHECKING:
    from ckptdoctor.rules.registry import Outcome

LONGEST = 80  # characters of the readable part of a report's name


def report_name(path: str) -> str:
    """A harmless, unique file name for a checkpoint's report: run, name, and a hash of the whole path."""
    words = "-".join(part for part in path.rstrip("/").split("/")[-3:] if part not in {"", ".", "..", "checkpoints"})
    digest = hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=5).hexdigest()
    return f"{file_name(words)[:LONGEST]}-{digest}.html"


def write_report(
    path: str, folder: str, evidence: Evidence, outcome: Outcome, diagnosis: Diagnosis, *, remote: bool
) -> str:
    """Write the page and return its path.

    A local checkpoint is inspected in full, with the log that lies beside it; of a remote one the page shows what the
    scan measured.

    Raises:
        CkptDoctorError: the folder cannot be written.
    """
    from ckptdoctor.report import render
    from ckptdoctor.report.writing import write_atomically

    report: Report | None = None
    if not remote:
        from ckptdoctor.api import InspectOptions, inspect

        try:
            report = inspect(path, InspectOptions(replay=False))
        except CkptDoctorError:
            report = None  # it changed since: what was measured a moment ago is still true
    if report is None:
        report = Report(evidence, outcome.findings, outcome.skipped, outcome.failures, diagnosis, __version__)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise CkptDoctorError(
            f"the directory {folder} for --reports cannot be made: {error.strerror}; name another"
        ) from None
    return str(write_atomically(os.path.join(folder, report_name(path)), render(report, "html")))
