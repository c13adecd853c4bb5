"""`ckptdoctor.scan` as a function."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime
from types import TracebackType

from ckptdoctor.model import Missing, Severity
from ckptdoctor.scanner.counts import Counts
from ckptdoctor.scanner.engine import Scan
from ckptdoctor.scanner.options import ScanOptions
from ckptdoctor.scanner.patterns import parse_since
from ckptdoctor.scanner.result import ScanResult
from ckptdoctor.scanner.runs import RunSummary


class ScanReport:
    """A scan under way: iterate it for results as they come; afterwards it knows the counts and the sick runs.

    Leaving the loop early, or the `with` block, ends the workers.
    """

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._events = scan.events()
        self._sick_runs: list[RunSummary] = []

    def __iter__(self) -> Iterator[ScanResult]:
        for event in self._events:
            if isinstance(event, ScanResult):
                yield event
            elif event.sick:
                self._sick_runs.append(event)

    def __enter__(self) -> ScanReport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; results so far stay."""
        self._events.close()  # type: ignore[attr-defined]  # a generator, typed as what it yields
        self._scan.close()

    def finish(self) -> ScanReport:
        """Scan to the end without looking at each result."""
        for _ in self:
            pass
        return self

    @property
    def counts(self) -> Counts:
        """Where the scan stands."""
        return self._scan.counts

    @property
    def sick_runs(self) -> tuple[RunSummary, ...]:
        """Runs with a sick checkpoint whose last result is there: first bad, last healthy, where to resume."""
        return tuple(self._sick_runs)

    def exit_status(self, fail_on: Severity | Missing = Severity.ERROR, *, ignore_errors: bool = False) -> int:
        """What the command would exit with: 0 nothing wrong, 1 something sick, 2 something could not be read."""
        return exit_status(self.counts, fail_on, ignore_errors=ignore_errors)


def exit_status(counts: Counts, fail_on: Severity | Missing, *, ignore_errors: bool) -> int:
    """0 nothing wrong, 1 something sick (or, for WARNING, odd), 2 something could not be read."""
    if counts.unreadable and not ignore_errors:
        return 2
    if not isinstance(fail_on, Severity):
        return 0
    return int(bool(counts.sick) or (fail_on <= Severity.WARNING and bool(counts.warned)))


def scan(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    *,
    files_from: Iterable[str] | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    since: str | datetime | None = None,
    newest: int | None = None,
    shard: tuple[int, int] | None = None,
    jobs: int | None = None,
    timeout: float = 300.0,
    memory: int = 1024,
    request_timeout: float = 30.0,
    resume: str | os.PathLike[str] | None = None,
    reports: str | os.PathLike[str] | None = None,
    cluster: str | None = None,
    executor: Executor | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    thresholds: Mapping[str, float] | None = None,
    limits: Mapping[str, float] | None = None,
) -> ScanReport:
    """Look through checkpoints: which are sick, since when, and where may each run resume?

    Args:
        paths: directories, files, patterns (`runs/*/best.keras`) or URLs (`s3://bucket/runs`).
        files_from: further paths, read as they are needed.
        include, exclude: patterns; see `ScanOptions`.
        since: only what was modified then or later: `"7d"`, `"2026-03-01"`, or a datetime.
        newest: only that many checkpoints of each run.
        shard: (i, n), the i-th of n shares.
        jobs: worker processes. timeout: seconds for one checkpoint. memory: MiB that one may take.
        request_timeout: seconds for one request to a remote store.
        resume: results file that is read, continued and kept.
        reports: directory for a full report of each sick checkpoint.
        cluster: address of a Dask scheduler. executor: any `concurrent.futures.Executor` instead of own processes.
        select, ignore, thresholds: of rules, as for `inspect`. limits: bounds on files, by name, as for `inspect`.

    Returns:
        An iterable of results that does the work while it is iterated.

    Raises:
        CkptDoctorError: at once for options that do not fit, while iterating when nothing is found.
    """
    from ckptdoctor.checkpoints.limits import changed_limits
    from ckptdoctor.rules.registry import check_words

    check_words(select=select, ignore=ignore, overrides=thresholds or {})
    changed_limits(limits or {})
    names = [os.fspath(p) for p in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    options = ScanOptions(
        include=tuple(include),
        exclude=tuple(exclude),
        since=parse_since(since) if isinstance(since, str) else None if since is None else since.timestamp(),
        newest=newest,
        shard=shard,
        jobs=jobs,
        timeout=timeout,
        memory=memory,
        request_timeout=request_timeout,
        resume=None if resume is None else os.fspath(resume),
        reports=None if reports is None else os.fspath(reports),
        cluster=cluster,
        executor=executor,
        select=tuple(select),
        ignore=tuple(ignore),
        thresholds=dict(thresholds or {}),
        read_limits=dict(limits or {}),
    )
    return ScanReport(Scan(names, options, files_from))
