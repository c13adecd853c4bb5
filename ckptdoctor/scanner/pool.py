"""The seam: any `concurrent.futures.Executor` runs `measure_contained`; every thread of it has a worker process."""

from __future__ import annotations

import atexit
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.scanner.child import Child, Limits, WorkerLostError
from ckptdoctor.scanner.result import Kind

Task = dict[str, Any]
Answer = dict[str, Any]


class Crew:
    """One worker process for every thread that asks, all ended together."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._children: list[Child] = []
        self._lock = threading.Lock()
        self._closed = False

    def measure(self, task: Task, limits: Limits) -> Answer:
        """Measure one checkpoint in this thread's worker.

        A file that kills its worker is answered for here; a worker that cannot start at all raises CkptDoctorError.
        """
        child: Child | None = getattr(self._local, "child", None)
        if child is None or self._local.limits != limits:
            child = self._local.child = Child(limits)
            self._local.limits = limits
            with self._lock:
                self._children.append(child)
                if self._closed:
                    child.kill()
        try:
            return child.ask(task)
        except WorkerLostError as lost:
            return {"status": "unreadable", "kind": lost.kind.value, "error": f"{task['path']}: {lost}"}

    def pids(self) -> tuple[int, ...]:
        """Of the processes that run now."""
        with self._lock:
            return tuple(pid for child in self._children if (pid := child.pid) is not None)

    def kill(self) -> None:
        """End all of them; measurements under way end as `lost`."""
        with self._lock:
            self._closed = True
            children = tuple(self._children)
        for child in children:
            child.kill()

    def close(self) -> None:
        """End all of them when nobody asks any more."""
        with self._lock:
            self._closed = True
            children, self._children = tuple(self._children), []
        for child in children:
            child.close()


_shared_lock = threading.Lock()
_shared: Crew | None = None


def _shared_crew() -> Crew:
    global _shared  # noqa: PLW0603 - one crew for a process that belongs to somebody else's executor
    with _shared_lock:
        if _shared is None:
            _shared = Crew()
            atexit.register(_shared.close)
        return _shared


def measure_contained(task: Task, timeout: float, memory: int) -> Answer:
    """What executors are given: importable anywhere, plain objects in and out.

    The file is measured in a process of its own, so that one which crashes, hangs or bloats costs neither the
    executor's worker nor another file.
    """
    return _shared_crew().measure(task, Limits(timeout, memory))


def measure_inline(task: Task, timeout: float, memory: int) -> Answer:  # noqa: ARG001 - the same signature as above
    """Measure in this very process, for stores that live in its memory. No containment."""
    from ckptdoctor.scanner.work import measure

    return measure(task)


class LocalPool:
    """Worker processes of this machine: a thread for each, which starts, watches and replaces it."""

    def __init__(self, jobs: int, limits: Limits) -> None:
        self._limits = limits
        self._crew = Crew()
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="ckptdoctor-scan")

    def submit(self, task: Task) -> Future[Answer]:
        """Have a task done by the next free worker."""
        return self._threads.submit(self._crew.measure, task, self._limits)

    def trouble(self) -> str | None:
        """Nothing: workers that are lost are replaced."""
        return None

    def ready(self) -> bool:
        """Always."""
        return True

    def pids(self) -> tuple[int, ...]:
        """Of the worker processes."""
        return self._crew.pids()

    def close(self) -> None:
        """End everything now. Tasks under way are given up."""
        self._crew.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._crew.close()


class ForeignPool:
    """Somebody else's executor: Dask's, Ray's, MPI's, a process or thread pool."""

    def __init__(self, executor: Executor, limits: Limits, *, contained: bool = True) -> None:
        self._executor, self._limits = executor, limits
        self._function = measure_contained if contained else measure_inline

    def submit(self, task: Task) -> Future[Answer]:
        """Hand a task over."""
        try:
            return self._executor.submit(self._function, task, self._limits.timeout, self._limits.memory)
        except RuntimeError as error:  # shut down, or a broken process pool
            raise CkptDoctorError(f"the executor takes no more work ({error}); the scan ended early") from None

    def trouble(self) -> str | None:
        """Nothing that an executor would tell before it is given work."""
        return None

    def ready(self) -> bool:
        """Always, as far as anybody can know."""
        return True

    def close(self) -> None:
        """The executor stays as it was: it is not ours."""


def lost(path: str, error: BaseException) -> Answer:
    """The answer for a task whose future failed: the executor's fault, not the file's."""
    words = str(error) or type(error).__name__
    return {
        "status": "unreadable",
        "kind": Kind.LOST.value,
        "error": f"{path}: the cluster lost it ({type(error).__name__}: {words[:200]}); scan again with --resume",
    }
