"""Many checkpoints at once: local, remote or on a cluster; parallel, contained and resumable.

`scan` is the front door; the command line uses the same `Scan` underneath.
"""

from __future__ import annotations

from ckptdoctor.scanner.api import ScanReport, scan
from ckptdoctor.scanner.counts import Counts
from ckptdoctor.scanner.engine import Scan
from ckptdoctor.scanner.merge import merge
from ckptdoctor.scanner.options import ScanOptions
from ckptdoctor.scanner.result import Kind, ScanResult
from ckptdoctor.scanner.runs import Point, RunSummary

__all__ = ["Counts", "Kind", "Point", "RunSummary", "Scan", "ScanOptions", "ScanReport", "ScanResult", "merge", "scan"]
