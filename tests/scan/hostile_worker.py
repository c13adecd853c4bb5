"""A worker that does to itself what a hostile file might: named by the task's path. Run by the containment tests."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any

from ckptdoctor.scanner.worker import serve


def answer(task: dict[str, Any]) -> dict[str, Any]:
    """Crash, hang, bloat, babble or behave."""
    what = task["path"]
    if what == "segfault":
        ctypes.string_at(0)
    elif what == "abort":
        os.abort()
    elif what == "exit":
        os._exit(7)
    elif what == "hang":
        time.sleep(600)
    elif what == "spin":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # deaf to its own alarm
        while True:
            pass
    elif what == "bloat":
        hoard = []
        while True:
            hoard.append(bytearray(16 << 20))
    elif what == "babble":
        sys.stdout.write("not a frame " * 1000)
        sys.stdout.flush()
    return {"status": "healthy", "pid": os.getpid()}


def main() -> None:
    """Entry of the process; standard output is the pipe."""
    serve(0, 1, answer)
