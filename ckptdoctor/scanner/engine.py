"""The scan itself: walk, hand out, collect, keep. A stream of results and of runs, in bounded memory."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from ckptdoctor.model import CkptDoctorError, Status
from ckptdoctor.scanner.counts import Counts
from ckptdoctor.scanner.options import ScanOptions, processors
from ckptdoctor.scanner.pool import Answer, ForeignPool, LocalPool, Task, lost
from ckptdoctor.scanner.result import Kind, ScanResult, from_dict
from ckptdoctor.scanner.resume import ResultsFile
from ckptdoctor.scanner.runs import RunBook, RunSummary
from ckptdoctor.scanner.urls import in_this_process, is_url, local_path
from ckptdoctor.scanner.walk import Candidate, Event, RunEnd, Trouble, walk, walk_list

TICK = 0.2  # seconds between two looks at whether to stop
SETTLE = 1.0  # seconds before a file that seems to be changing is looked at again
WAITING_LIMIT = 1000  # files that may wait for that at a time; beyond, the first look counts
GIVE_UP = 5  # remote objects failing in a row, …
GIVE_UP_REQUESTS = 4  # … and times the limit of a request without a success: the store is down, not the objects


class Pool(Protocol):
    """Where tasks are done."""

    def submit(self, task: Task) -> Future[Answer]:
        """Hand a task over."""
        ...

    def trouble(self) -> str | None:
        """A sentence where no answer will come any more."""
        ...

    def ready(self) -> bool:
        """Whether handing something over makes sense just now."""
        ...

    def close(self) -> None:
        """Give up what is under way."""
        ...


class Scan:
    """One scan. Iterate `events` once; `stop` may be called from a signal handler or another thread.

    Args:
        paths: files, directories, wildcards, URLs.
        options: see `ScanOptions`.
        files_from: further paths, one by one, read as they are needed.

    Raises:
        CkptDoctorError: nothing to scan, a results file that cannot be continued, a cluster that does not answer.
    """

    def __init__(self, paths: Sequence[str], options: ScanOptions, files_from: Iterable[str] | None = None) -> None:
        if not paths and files_from is None:
            raise CkptDoctorError("nothing to scan: name a directory, a file, a pattern or a URL, or use --files-from")
        self._paths = [local_path(os.fspath(path)) for path in paths]
        self._files_from = files_from
        self._options = options
        self.counts = Counts()
        self.interrupted = False
        self.seconds = 0.0
        self._stopping = False
        self._book = RunBook()
        self._pending: dict[Future[Answer], tuple[Candidate, Task]] = {}
        self._waiting: deque[tuple[float, Candidate, Task]] = deque()
        self._done: SimpleQueue[Future[Answer]] = SimpleQueue()
        self._failing = 0
        self._failing_since = 0.0
        self._pool: Pool | None = None
        self._inline: ForeignPool | None = None
        self._window = 0
        self._foreign = options.cluster is not None or options.executor is not None
        self.results = None if options.resume is None else ResultsFile(options.resume)

    def stop(self) -> None:
        """Finish early: no new files, those under way are given up, what is measured is kept."""
        self._stopping = True

    def events(self) -> Iterator[ScanResult | RunSummary]:
        """Results as they come, and each run's summary when its last result is there.

        Raises:
            CkptDoctorError: nothing matched, the disk is full, the cluster or store is gone. What was given is kept.
        """
        started = time.monotonic()
        try:
            yield from self._stream()
            if not self.interrupted and not self.counts.done and self.counts.found == self.counts.foreign:
                raise CkptDoctorError(self._nothing())
        except (KeyboardInterrupt, GeneratorExit):
            self.interrupted = True
            self._save_finished()
            raise
        finally:
            self.seconds = time.monotonic() - started
            self.close()

    def close(self) -> None:
        """End the workers and put the results file in order."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        if self.results is not None:
            self.results.close()

    # --- finding -----------------------------------------------------------------------------------

    def _source(self) -> Iterator[Event]:
        filters = self._options.filters
        local = [path for path in self._paths if not is_url(path)]
        yield from walk(local, filters)
        for url in (path for path in self._paths if is_url(path)):
            yield from self._walk_url(url)
        if self._files_from is not None:
            listed = iter(self._files_from)
            for path in listed:
                if is_url(path):
                    yield from (e for e in self._walk_url(path, listed=True) if not isinstance(e, RunEnd))
                else:
                    # walk_list forgets doubles only while it lives: give it all local paths up to the next URL
                    rest = _Until(itertools.chain([path], listed))
                    yield from walk_list((local_path(p) for p in rest), filters)
                    if rest.stopped_at is not None:
                        yield from (
                            e for e in self._walk_url(rest.stopped_at, listed=True) if not isinstance(e, RunEnd)
                        )

    def _walk_url(self, url: str, *, listed: bool = False) -> Iterator[Event]:
        from ckptdoctor.scanner.names import parent, run_of
        from ckptdoctor.scanner.remote import RemoteError
        from ckptdoctor.scanner.remote_walk import walk_url

        try:
            yield from walk_url(url, self._options.filters, self._options.request_timeout)
        except RemoteError as error:
            if not listed and len(self._paths) == 1:
                raise
            yield Trouble(url, run_of(parent(url)), error.kind, str(error))

    def _nothing(self) -> str:
        where = ", ".join(self._paths[:3]) or "the list of files"
        if len(self._paths) > 3:
            where += f" and {len(self._paths) - 3} more"
        chosen = self._options.include or self._options.exclude or self._options.since is not None
        hint = (
            "loosen --include, --exclude or --since"
            if chosen
            else "name the directory that holds .keras, .h5 or other checkpoints"
        )
        return f"no checkpoint was found in {where}; {hint}"

    # --- the loop ----------------------------------------------------------------------------------

    def _stream(self) -> Iterator[ScanResult | RunSummary]:
        source = self._source()
        more = True
        while (more or self._pending or self._waiting) and not self._stopping:
            if more and (not self._window or len(self._pending) < self._window) and self._ready():
                event = next(source, None)
                if event is None:
                    more = False
                else:
                    yield from self._take(event)
                yield from self._collect(0.0)
                continue
            self._check_alive()
            self._look_again(hurry=len(self._waiting) > WAITING_LIMIT)
            yield from self._collect(TICK)
        if self._stopping:
            self.interrupted = more or bool(self._pending) or bool(self._waiting)
            yield from self._collect(0.0)
        for summary in self._book.finish():
            yield self._count_run(summary)

    def _take(self, event: Event) -> Iterator[ScanResult | RunSummary]:
        if isinstance(event, RunEnd):
            summary = self._book.end(event.run)
            if summary is not None:
                yield self._count_run(summary)
            return
        if not self.mine(event.path):
            self.counts.found += 1
            return
        self.counts.found += 1
        self.counts.taken += 1
        self._book.begin(event.run)
        if isinstance(event, Trouble):
            bad = ScanResult(event.path, event.run, Status.UNREADABLE, error=event.message, kind=event.kind)
            yield from self._give(bad, keep=True)
            return
        known = None
        if self.results is not None:
            what = event.identity
            known = self.results.unchanged(event.path, what.size, what.modified, what.etag)
        if known is not None:
            self.counts.resumed += 1
            yield from self._give(known if known.run == event.run else replace(known, run=event.run), keep=False)
            return
        self._submit(event, self._task(event))

    def mine(self, path: str) -> bool:
        """Whether a path is in this share."""
        if self._options.shard is None:
            return True
        index, count = self._options.shard
        digest = hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % count == index - 1

    def _task(self, candidate: Candidate) -> Task:
        remote = is_url(candidate.path)
        path = candidate.path if remote or not self._foreign else os.path.abspath(candidate.path)
        task: dict[str, Any] = {"path": path, "members": list(candidate.members)}
        if remote:
            what = candidate.identity
            task |= {"remote": True, "identity": [what.size, what.modified_ns, what.etag]}
            task["directory"] = candidate.directory
            task["request_timeout"] = self._options.request_timeout
        for name in ("reports", "select", "ignore", "thresholds", "read_limits"):
            if value := getattr(self._options, name):
                task[name] = (
                    value if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else list(value)
                )
        return task

    def _submit(self, candidate: Candidate, task: Task) -> None:
        if in_this_process(candidate.path):
            pool: Pool = self._in_this_process()
        else:
            pool = self._pool or self._start_pool(remote=bool(task.get("remote")))
        future = pool.submit(task)
        self._pending[future] = (candidate, task)
        future.add_done_callback(self._done.put)

    def _start_pool(self, *, remote: bool) -> Pool:
        options = self._options
        if options.cluster is not None:
            from ckptdoctor.scanner.cluster import DaskPool

            self._pool = dask = DaskPool(options.cluster, options.limits)
            self._window = max(2 * dask.threads, options.jobs or 0)
        elif options.executor is not None:
            self._pool = ForeignPool(options.executor, options.limits)
            self._window = options.jobs or 4 * processors()
        else:
            jobs = options.jobs or processors() * (2 if remote else 1)
            self._pool = LocalPool(jobs, options.limits)
            self._window = 4 * jobs  # a few tasks ahead, so that no worker waits for the walk
        return self._pool

    def _in_this_process(self) -> ForeignPool:
        """For stores that live in this process's memory."""
        if self._inline is None:
            from concurrent.futures import ThreadPoolExecutor

            self._inline = ForeignPool(ThreadPoolExecutor(1), self._options.limits, contained=False)
            self._window = self._window or 8
        return self._inline

    def _collect(self, wait: float) -> Iterator[ScanResult | RunSummary]:
        """What is finished; waits for the first one up to `wait` seconds."""
        while True:
            try:
                future = self._done.get(timeout=wait) if wait else self._done.get_nowait()
            except Empty:
                return
            wait = 0.0
            explicit = self._pending[future][0].explicit
            result = self._settle(future)
            if result is None:
                continue
            if result.kind is Kind.FOREIGN and not (explicit or self._options.include):
                yield from self._leave_out(result)
            else:
                yield from self._give(result, keep=True)

    def _settle(self, future: Future[Answer]) -> ScanResult | None:
        """The result of a finished task; None where it will be looked at again, or was given up."""
        candidate, task = self._pending.pop(future)
        try:
            answer = future.result()
        except CkptDoctorError:
            raise
        except CancelledError as error:
            answer = lost(candidate.path, error)
        except Exception as error:  # noqa: BLE001 - whatever an executor throws is the executor's fault
            answer = lost(candidate.path, error)
        if answer.get("kind") == Kind.LOST.value:
            if self._stopping:
                return None
            self._check_alive()
            if (
                not task.get("lost") or not self._ready()
            ):  # once more: the loss may have been the first sign of something larger
                self._waiting.append((time.monotonic() + SETTLE, candidate, {**task, "lost": True}))
                return None
        if answer.pop("unsettled", False):
            first = answer.pop("first", None)
            self._waiting.append((time.monotonic() + SETTLE, candidate, {**task, "first": first}))
            return None
        return _result(candidate, answer)

    def _look_again(self, *, hurry: bool) -> None:
        while self._waiting and (self._waiting[0][0] <= time.monotonic() or hurry) and self._ready():
            _, candidate, task = self._waiting.popleft()
            self._submit(candidate, task)
            hurry = False

    def _leave_out(self, result: ScanResult) -> Iterator[RunSummary]:
        """A file that only looked like a checkpoint: nobody asked about it."""
        self.counts.foreign += 1
        summary = self._book.skip(result.run)
        if summary is not None:
            yield self._count_run(summary)

    def _give(self, result: ScanResult, *, keep: bool) -> Iterator[ScanResult | RunSummary]:
        if keep and self.results is not None:
            self.results.append(result)
        self.counts.add(result)
        self._count_failing(result)
        yield result
        summary = self._book.add(result)
        if summary is not None:
            yield self._count_run(summary)
        self._give_up_if_down(result)

    def _count_failing(self, result: ScanResult) -> None:
        if result.kind is not Kind.REMOTE:
            self._failing = 0
            return
        if not self._failing:
            self._failing_since = time.monotonic()
        self._failing += 1

    def _give_up_if_down(self, result: ScanResult) -> None:
        patience = GIVE_UP_REQUESTS * self._options.request_timeout
        if self._failing >= GIVE_UP and time.monotonic() - self._failing_since > patience:
            words = f"{self._failing} remote objects failed in a row, the last one so: {result.error}"
            raise CkptDoctorError(words + self._left())

    def _count_run(self, summary: RunSummary) -> RunSummary:
        self.counts.runs += 1
        self.counts.sick_runs += summary.status is Status.SICK
        return summary

    def _ready(self) -> bool:
        return self._pool is None or self._pool.ready()

    def _check_alive(self) -> None:
        trouble = None if self._pool is None else self._pool.trouble()
        if trouble:
            raise CkptDoctorError(trouble + self._left())

    def _left(self) -> str:
        how = f"--resume {self._options.resume}" if self._options.resume else "--resume FILE"
        return f"; {self.counts.done:,} checkpoints were measured before, continue with {how}"

    def _save_finished(self) -> None:
        """At a hard interrupt: what is measured and not yet told still goes into the results file."""
        while self.results is not None:
            try:
                result = self._settle(self._done.get_nowait())
            except (Empty, KeyError, CkptDoctorError):
                return
            if result is not None and result.kind is not Kind.LOST:
                self.results.append(result)


class _Until:
    """Local paths of a list up to the first URL."""

    def __init__(self, paths: Iterator[str]) -> None:
        self._paths = paths
        self.stopped_at: str | None = None

    def __iter__(self) -> Iterator[str]:
        for path in self._paths:
            if is_url(path):
                self.stopped_at = path
                return
            yield path


def _result(candidate: Candidate, answer: Answer) -> ScanResult:
    """The line for an answer; what a worker could not tell comes from the walk."""
    what = candidate.identity
    base = {"size_bytes": what.size, "modified": what.modified, "etag": what.etag}
    return from_dict({**base, **answer, "path": candidate.path, "run": candidate.run})
