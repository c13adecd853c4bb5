"""What a scan can be told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field

from ckptdoctor.scanner.child import MIB, Limits
from ckptdoctor.scanner.walk import Filters


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """The defaults are those of the command line.

    Attributes:
        include, exclude: patterns. Without a slash about names, with one about the end of paths; `*`, `?`, `**`, `[a-z]`.
        since: only checkpoints modified at or after this point (seconds since the epoch).
        newest: only that many of each run, by modification time.
        shard: (i, n): the i-th of n shares, counted from 1, by a hash of the path.
        jobs: worker processes, or tasks at a time on an executor; None chooses.
        timeout: seconds for one checkpoint. memory: MiB that a worker may take for one.
        request_timeout: seconds for one request to a remote store; three attempts are made.
        resume: results file that is read, continued and kept.
        reports: directory for a full report of each sick checkpoint.
        cluster: address of a Dask scheduler. executor: anything that runs functions elsewhere.
        select, ignore, thresholds: of rules, as for `inspect`. read_limits: bounds on files, as its `limits`.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    since: float | None = None
    newest: int | None = None
    shard: tuple[int, int] | None = None
    jobs: int | None = None
    timeout: float = 300.0
    memory: int = 1024
    request_timeout: float = 30.0
    resume: str | None = None
    reports: str | None = None
    cluster: str | None = None
    executor: Executor | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    read_limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def filters(self) -> Filters:
        """What the walk needs to know."""
        return Filters(self.include, self.exclude, self.since, self.newest)

    @property
    def limits(self) -> Limits:
        """What one file may cost."""
        return Limits(self.timeout, self.memory * MIB)


def processors() -> int:
    """Processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1
