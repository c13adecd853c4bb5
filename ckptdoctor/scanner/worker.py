"""The worker process: measures one checkpoint after the other until its pipe closes.

Started as `python -m ckptdoctor.scanner.worker`; frames (four bytes of length, then JSON) come in on descriptor 0 and
go out on what was descriptor 1. Answers are JSON and nothing else, so that a worker which a hostile file took over
cannot make the parent build an object.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any

FRAME = struct.Struct(">I")
FRAME_LIMIT = 16 << 20  # a line has some hundred bytes; warnings of a hostile file may add some
GRACE = 2.0  # seconds after which the kernel ends a worker whose parent did not


def read_exactly(fd: int, count: int) -> bytes | None:
    """That many bytes from a pipe, None where it closes before."""
    parts: list[bytes] = []
    while count:
        try:
            piece = os.read(fd, min(count, 1 << 20))
        except InterruptedError:
            continue
        if not piece:
            return None
        parts.append(piece)
        count -= len(piece)
    return b"".join(parts)


def write_frame(fd: int, data: Any) -> None:
    """Send one object. Raises OSError where the other side is gone."""
    body = json.dumps(data, ensure_ascii=True, allow_nan=False).encode("ascii")
    view = memoryview(FRAME.pack(len(body)) + body)
    while view:
        view = view[os.write(fd, view) :]


def read_frame(fd: int) -> Any:
    """Receive one object; None where the pipe closed."""
    head = read_exactly(fd, FRAME.size)
    if head is None:
        return None
    (length,) = FRAME.unpack(head)
    if length > FRAME_LIMIT:
        raise ValueError(f"a frame of {length:,} bytes, at most {FRAME_LIMIT:,} were expected")
    body = read_exactly(fd, length)
    return None if body is None else json.loads(body)


def limit_memory(extra: int) -> None:
    """Let this process allocate at most `extra` bytes more than it has now, where the system can enforce it."""
    try:
        import resource

        with open("/proc/self/status", encoding="ascii") as status:
            now = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = now + extra
        resource.setrlimit(
            resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )
    except (ImportError, OSError, ValueError, StopIteration):
        return  # the parent watches the resident size where this does not exist


def _quiet_core() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        return


def serve(inlet: int, outlet: int, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer tasks until the pipe closes or nothing comes for `idle` seconds.

    The first frame is `{"memory": bytes, "timeout": seconds, "idle": seconds}`. While a task runs, an alarm stands that
    ends this process even if its parent is gone and the file keeps C code busy forever.
    """
    setup = read_frame(inlet)
    if setup is None:
        return
    limit_memory(int(setup["memory"]))
    timeout, idle = float(setup["timeout"]), float(setup["idle"])
    write_frame(outlet, {"ready": os.getpid()})
    while select.select([inlet], [], [], idle)[0]:
        task = read_frame(inlet)
        if task is None:
            return
        signal.setitimer(signal.ITIMER_REAL, timeout + GRACE)
        result = answer(task)
        signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(outlet, result)


def main() -> None:
    """Entry of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    outlet = os.dup(1)
    os.set_inheritable(outlet, False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)  # whatever prints here must not speak into the pipe
    _quiet_core()
    from ckptdoctor.scanner.work import measure, prepare

    prepare()
    try:
        serve(0, outlet, measure)
    except OSError:
        sys.exit(0)  # the parent is gone: nobody is left to be told


if __name__ == "__main__":
    main()
