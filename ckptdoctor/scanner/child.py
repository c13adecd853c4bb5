"""The parent's side of a worker process: ask it, watch it, end it, start the next."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import IO, Any

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.scanner.result import Kind
from ckptdoctor.scanner.worker import read_frame, write_frame

MIB = 1 << 20
TICK = 0.2  # seconds between two looks at a busy worker's memory
START_LIMIT = 60.0  # seconds that a worker may take to import numpy on a busy, slow file system


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost.

    Attributes:
        timeout: wall-clock seconds for one checkpoint.
        memory: bytes a worker may take above what it needs to exist. The census needs some megabytes whatever the size.
        idle: seconds after which a worker that nobody asks ends itself.
    """

    timeout: float = 300.0
    memory: int = 1024 * MIB
    idle: float = 60.0


class WorkerLostError(Exception):
    """A worker that had to be given up, and why: the file it was measuring is the suspect."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Child:
    """One worker process. Not for use by two threads at a time, but `kill` may come from any.

    Args:
        limits: what one task may cost.
        entry: module whose `main` the process runs; it must speak as `worker.serve` does.
    """

    def __init__(self, limits: Limits, entry: str = "ckptdoctor.scanner.worker") -> None:
        self._limits, self._entry = limits, entry
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return None if self._process is None else self._process.pid

    def ask(self, task: dict[str, Any]) -> dict[str, Any]:
        """Have a task done.

        Raises:
            WorkerLostError: the worker died, hung or bloated; the next call starts a new one.
            CkptDoctorError: a worker cannot even be started.
        """
        process = self._ensure()
        try:
            write_frame(_inlet(process), task)
        except OSError:  # it ended itself for want of work, just now
            self._discard()
            process = self._ensure()
            write_frame(_inlet(process), task)
        self._wait(process, time.monotonic() + self._limits.timeout)
        answer = _answer(process)
        if answer is None:
            raise self._obituary(process)
        return answer

    def _wait(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        """Until the worker answers or closes its pipe."""
        outlet = _outlet(process)
        while not select.select([outlet], [], [], max(0.0, min(TICK, deadline - time.monotonic())))[0]:
            if time.monotonic() >= deadline:
                self._discard()
                raise WorkerLostError(
                    Kind.TIMEOUT,
                    f"not measured within {self._limits.timeout:g} s; raise --timeout if the file is that large or the "
                    "disk that slow",
                )
            if resident(process.pid) > self._limits.memory + 256 * MIB:
                self._discard()
                raise self._bloated()

    def _bloated(self) -> WorkerLostError:
        return WorkerLostError(
            Kind.BLOATED,
            f"needed more than {self._limits.memory // MIB:,} MiB of memory; raise --memory if you trust the file",
        )

    def _obituary(self, process: subprocess.Popen[bytes]) -> WorkerLostError:
        """Why a worker closed its pipe without an answer."""
        try:
            code: int | None = process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = None  # it lives and talks, but no sense
        self._discard()
        if self._closed:
            return WorkerLostError(Kind.LOST, "the scan was interrupted")
        if code is None:
            return WorkerLostError(Kind.CRASHED, "its worker answered nonsense; treat the file as hostile")
        if code == -signal.SIGALRM:
            return WorkerLostError(Kind.TIMEOUT, f"not measured within {self._limits.timeout:g} s; raise --timeout")
        if code == -signal.SIGKILL:
            return WorkerLostError(
                Kind.CRASHED, "its worker was killed from outside, by the system when memory runs out; use fewer --jobs"
            )
        if code < 0:
            with contextlib.suppress(ValueError):
                return WorkerLostError(
                    Kind.CRASHED,
                    f"reading it crashed the worker ({signal.Signals(-code).name}); treat the file as hostile",
                )
        return WorkerLostError(
            Kind.CRASHED, f"reading it ended the worker (exit status {code}); treat the file as hostile"
        )

    def _ensure(self) -> subprocess.Popen[bytes]:
        """The running process, a new one where there is none."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._discard()
        with self._lock:
            if self._closed:
                raise WorkerLostError(Kind.LOST, "the scan was interrupted")
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _discard
            process = self._process = subprocess.Popen(  # noqa: S603 - this very interpreter
                [sys.executable, "-P", "-c", _start_code(self._entry)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C goes to the parent alone
                bufsize=0,
            )
        self._greet(process)
        return process

    def _greet(self, process: subprocess.Popen[bytes]) -> None:
        setup = {"memory": self._limits.memory, "timeout": self._limits.timeout, "idle": self._limits.idle}
        with contextlib.suppress(OSError):
            write_frame(_inlet(process), setup)
            if select.select([_outlet(process)], [], [], START_LIMIT)[0] and _answer(process):
                return
        words = self._last_words()
        self._discard()
        if self._closed:
            raise WorkerLostError(Kind.LOST, "the scan was interrupted")
        raise CkptDoctorError(f"a worker process ({sys.executable}) could not be started: {words or 'it said nothing'}")

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        lines = self._errors.read(1 << 20).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _discard(self) -> None:
        """End the process. One that the kernel holds (a dead network disk) is left behind: waiting would hang too."""
        with self._lock:
            process, self._process = self._process, None
            errors, self._errors = self._errors, None
        if errors is not None:
            errors.close()
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2.0)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def kill(self) -> None:
        """End it for good, from any thread; an `ask` under way raises WorkerLostError."""
        self._closed = True
        with self._lock:
            process = self._process
        if process is not None:
            with contextlib.suppress(OSError):
                process.kill()

    def close(self) -> None:
        """End it for good; nobody is asking."""
        self._closed = True
        self._discard()


def _inlet(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin is not None
    return process.stdin.fileno()


def _outlet(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return process.stdout.fileno()


def _answer(process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """The next answer; None where the worker closed its pipe or wrote nonsense."""
    try:
        answer = read_frame(_outlet(process))
    except (OSError, ValueError, RecursionError):
        answer = None
    return answer if isinstance(answer, dict) else None


def resident(pid: int) -> int:
    """Resident bytes of a process that no file backs; 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
            fields = statm.read().split()
        return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _start_code(entry: str) -> str:
    """Program of the worker: this interpreter's import path, without the working directory (it may hold anything)."""
    import ckptdoctor

    home = os.path.dirname(os.path.dirname(os.path.abspath(ckptdoctor.__file__)))
    path = [entry for entry in sys.path if entry]
    if home not in path:
        path.insert(0, home)
    return f"import sys; sys.path[:] = {path!r}; from {entry} import main; main()"
