"""Watching a child process: resident memory, wall clock, death. Linux reads /proc; elsewhere only the clock is kept."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
MAX_OPEN_FILES = 512  # TensorFlow keeps about 40 open; shards and batches need some more


def apply_limits(cpu_seconds: float) -> None:
    """Run in the child before anything heavy: die with the parent, bound processor time and open files.

    Address space is not limited: TensorFlow reserves far more than it uses. Resident memory is watched from outside.
    """
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    seconds = max(1, int(cpu_seconds))
    _lower(resource.RLIMIT_CPU, seconds, seconds + 5)
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES, MAX_OPEN_FILES)
    _lower(resource.RLIMIT_CORE, 0, 0)


def _lower(which: int, soft: int, hard: int) -> None:
    _, ceiling = resource.getrlimit(which)
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(which, (soft, hard))


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes; 0 where it is gone or the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a child started with `start_new_session=True`, and everything it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)


def death_sentence(returncode: int, stderr: str) -> str:
    """Why a child ended, for people."""
    if returncode == -signal.SIGXCPU:
        return "used up its processor time"
    if returncode in (-signal.SIGKILL, 137):
        return "was killed from outside (most often by the system, out of memory)"
    if returncode < 0:
        try:
            name = signal.Signals(-returncode).name
        except ValueError:
            name = f"signal {-returncode}"
        return f"crashed inside native code ({name})"
    if "std::bad_alloc" in stderr or "MemoryError" in stderr:
        return "ran out of memory"
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")
    return f"ended with status {returncode}" + (f": {last[:300]}" if last else "")
