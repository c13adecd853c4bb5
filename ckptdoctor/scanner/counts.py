"""Where a scan stands, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

from ckptdoctor.model import Status
from ckptdoctor.scanner.result import ScanResult


@dataclass(slots=True)
class Counts:
    """Where a scan stands.

    Attributes:
        found: checkpoints seen by the walk, filters applied, of all shares. taken: those of this share.
        done: results so far. resumed: those among them taken from the results file.
        foreign: sound files of another kind with a checkpoint's suffix (a data set in HDF5), left out.
        bytes: that were read. size: of the checkpoints measured.
    """

    found: int = 0
    taken: int = 0
    done: int = 0
    healthy: int = 0
    sick: int = 0
    unreadable: int = 0
    warned: int = 0
    resumed: int = 0
    foreign: int = 0
    bytes: int = 0
    size: int = 0
    runs: int = 0
    sick_runs: int = 0

    def add(self, result: ScanResult) -> None:
        """Count one result."""
        self.done += 1
        self.healthy += result.status is Status.HEALTHY
        self.sick += result.status is Status.SICK
        self.unreadable += result.status is Status.UNREADABLE
        self.warned += result.status is Status.HEALTHY and bool(result.warnings)
        self.bytes += result.bytes_read
        self.size += result.size_bytes
