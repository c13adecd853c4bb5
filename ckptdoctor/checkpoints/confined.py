"""Shared by the contained children: frames on pipes, and giving up what parsing does not need.

Imported by file path in the child, before anything else; standard library only, and nothing of the package.
"""

from __future__ import annotations

import json
import os
import select
import struct
from contextlib import suppress
from typing import Any, NoReturn

FRAME = struct.Struct("<cQ")
MAX_FRAME = 1 << 30
IDLE_SECONDS = 10.0  # how long a process that is kept ready waits for the next file
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_NO_NEW_PRIVILEGES, _DIE_WITH_PARENT, _KILL = 38, 1, 9


def leave(status: int) -> NoReturn:
    """End without tidying up: native libraries with open handles may crash in their own clean-up."""
    os._exit(status)


def send(kind: bytes, payload: bytes) -> None:
    """One frame to the parent."""
    data = FRAME.pack(kind, len(payload)) + payload
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def receive() -> tuple[bytes, bytes]:
    """One frame from the parent; ends the process when the parent is gone."""
    kind, length = FRAME.unpack(_exactly(FRAME.size))
    if length > MAX_FRAME:
        leave(3)
    return kind, _exactly(length)


def _exactly(count: int) -> bytes:
    parts = []
    while count:
        data = os.read(0, min(count, 1 << 20))
        if not data:
            leave(0)
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def question() -> dict[str, Any]:
    """The next question; ends the process at the parent's word."""
    kind, payload = receive()
    if kind != b"Q":
        leave(0)
    found: dict[str, Any] = json.loads(payload)
    return found


def cut_network() -> None:
    """Leave the network and the right to gain privileges, where the system lets a process do that. Before any thread."""
    with suppress(OSError, AttributeError, ImportError):
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        if library.unshare(_CLONE_NEWNET) != 0:
            library.unshare(_CLONE_NEWNET | _CLONE_NEWUSER)
        library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def one_process_each(setup: dict[str, Any], told: int) -> dict[str, Any]:
    """Return once in a new process for every file, as a copy of this one, which has read nothing of any.

    What a file does to the process that reads it dies with that process; the imports are paid for once.

    Args:
        setup: the first one. told: descriptor on which the end of each copy is told. The copies close it, so that none
            can say so itself and then answer for the next file.
    """
    while hasattr(os, "fork"):
        pid = os.fork()
        if pid == 0:
            with suppress(OSError, AttributeError, ImportError):
                import ctypes

                ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, _KILL, 0, 0, 0)
            return setup
        _, status = os.waitpid(pid, 0)
        _end_like(status)
        try:
            os.write(told, b"e")
            if not select.select([0], [], [], IDLE_SECONDS)[0]:
                leave(0)
        except OSError:
            leave(0)
        setup = question()
    return setup


def _end_like(status: int) -> None:
    """End as the copy did, unless it ended in order: whoever waits for this process learns the reason."""
    if os.WIFSIGNALED(status):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), os.WTERMSIG(status))
    if status:
        leave(os.WEXITSTATUS(status) or 1)


def confine(limits: dict[str, Any], descriptors: int) -> None:
    """Set limits for the rest of this process, then say so: memory beyond what the imports took, processor time, descriptors, no writing.

    Args:
        descriptors: highest number of open files; 3 means none but the pipes, which forbids files and sockets alike, and
            no further process or thread either (which the superuser may start all the same).
    """
    import resource

    pages = 0
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as statm:
        pages = int(statm.read().split()[0])
    if descriptors == 3:
        os.closerange(3, 4096)
    bounds = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CPU, int(limits["cpu"])),
        (resource.RLIMIT_NOFILE, descriptors),
    ]
    if descriptors == 3:
        bounds.append((resource.RLIMIT_NPROC, 0))
    if pages:
        bounds.append((resource.RLIMIT_AS, pages * resource.getpagesize() + int(limits["memory"])))
    for what, bound in bounds:
        with suppress(OSError, ValueError):  # a platform that does not know one limit: the others still hold
            # Above its soft limit of processor time a process gets a signal that names it, a second later it is killed.
            resource.setrlimit(what, (bound, bound + 1 if what == resource.RLIMIT_CPU else bound))
    send(b"J", b"ready")
