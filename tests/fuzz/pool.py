"""Processes that try inputs, and a parent that watches their clocks, memory and signals.

Each worker tries every n-th number and says on a pipe what it begins and what was wrong. A worker that takes too long is
killed and the input is named; the next one goes on behind it. Peak memory is measured per input, by resetting the
kernel's high-water mark in front of each.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SLOWEST = 20.0  # seconds for one input
LARGEST = 512  # MiB of one worker at its highest, the interpreter and numpy included
ADDRESS_SPACE = 6 << 30  # beyond it an allocation fails, which shows as a MemoryError instead of a dead machine
PATIENCE = 10.0  # seconds beyond `SLOWEST` until a worker is killed: those that only were slow say so themselves


@dataclass(slots=True)
class Tally:
    """What came of a run."""

    tried: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0
    highest: int = 0  # MiB
    seconds: float = 0.0


# --- the worker ------------------------------------------------------------------------------------


def work(seed: int, numbers: Iterator[int], only: str | None, say: Any) -> None:
    """Try inputs one after the other; `say` takes a dictionary before and after each."""
    from tests.fuzz.attempt import attempt
    from tests.fuzz.inputs import make

    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for number in numbers:
            room = Path(folder) / "room"
            room.mkdir()
            given = make(seed, number, room, only)
            say({"begins": number, "kind": given.kind, "source": given.source})
            _reset_peak()
            started = time.perf_counter()
            wrong = attempt(given)
            seconds, peak = time.perf_counter() - started, _peak()
            if seconds > SLOWEST:
                wrong.append(f"took {seconds:.1f} s")
            if peak > LARGEST:
                wrong.append(f"took {peak} MiB")
            say({"ends": number, "wrong": wrong, "seconds": seconds, "peak": peak})
            shutil.rmtree(room)


def _reset_peak() -> None:
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")


def _peak() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        line = next((s for s in file if s.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) >> 10


def main() -> None:
    """Entry of a worker: SEED FIRST STOP STEP ONLY."""
    seed, first, stop, step = (int(a) for a in sys.argv[1:5])
    only = sys.argv[5] or None
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    with os.fdopen(os.dup(1), "w", buffering=1) as out:
        os.dup2(2, 1)
        work(seed, iter(range(first, stop, step)), only, lambda words: out.write(json.dumps(words) + "\n"))


# --- the parent ------------------------------------------------------------------------------------


class _Worker:
    """One process and the input it is at."""

    def __init__(self, seed: int, first: int, stop: int, step: int, only: str | None) -> None:
        self.span = (seed, first, stop, step, only)
        self.at, self.about, self.since = first, "starting", time.monotonic()
        self.tail = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.pool", str(seed), str(first), str(stop), str(step), only or ""],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def after(self) -> _Worker | None:
        """The process that goes on behind the input at which this one ended."""
        seed, _, stop, step, only = self.span
        return _Worker(seed, self.at + step, stop, step, only) if self.at + step < stop else None


def run(
    count: int, seed: int, *, jobs: int = 2, only: str | None = None, first: int = 0, progress: Any = None
) -> Tally:
    """Try `count` inputs, from number `first` on."""
    tally = Tally()
    started = time.monotonic()
    workers = [_Worker(seed, first + n, first + count, jobs, only) for n in range(min(jobs, count))]
    while workers:
        pipes = {w.process.stdout.fileno(): w for w in workers if w.process.stdout is not None}
        for ready in select.select(list(pipes), [], [], 0.5)[0]:
            worker = pipes[ready]
            data = os.read(ready, 1 << 16)
            if data:
                _take(worker, data, tally)
            else:
                workers.remove(worker)
                follower = _ended(worker, tally)
                workers += [follower] if follower is not None else []
        for worker in workers:
            if time.monotonic() - worker.since > SLOWEST + PATIENCE and worker.about != "starting":
                worker.process.send_signal(signal.SIGKILL)
        if progress is not None:
            progress(tally)
    tally.seconds = time.monotonic() - started
    return tally


def _take(worker: _Worker, data: bytes, tally: Tally) -> None:
    *lines, worker.tail = (worker.tail + data).split(b"\n")
    for line in lines:
        words = json.loads(line)
        worker.since = time.monotonic()
        if "begins" in words:
            worker.at, worker.about = words["begins"], f"{words['kind']} of {words['source']}"
            tally.kinds[words["kind"]] += 1
        else:
            tally.tried += 1
            tally.slowest = max(tally.slowest, words["seconds"])
            tally.highest = max(tally.highest, words["peak"])
            tally.wrong += [f"input {words['ends']} ({worker.about}): {w}" for w in words["wrong"]]


def _ended(worker: _Worker, tally: Tally) -> _Worker | None:
    _, errors = worker.process.communicate()
    code = worker.process.returncode
    if code == 0:
        return None
    last = errors.decode(errors="replace").strip().splitlines()[-1:] or [""]
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}: {last[0][:300]}"
    tally.wrong.append(f"input {worker.at} ({worker.about}): the process ended with {how}")
    return worker.after()


if __name__ == "__main__":
    main()
