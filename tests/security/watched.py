"""Runs the command line on many files in one process and writes down every audit event that each of them causes.

    python watched.py OUT.json ARGUMENTS-JSON

`ARGUMENTS-JSON` is a list of argument lists. Besides commands there are `measure FILE`, what a worker of `scan` does with one
file, and `payload HEX`, which runs stored bytecode to show that the watch would see it. Standard library only before the hook stands, so that nothing escapes it.
"""

from __future__ import annotations

import io
import json
import marshal
import sys
import tempfile
import time
import types
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

WATCHED = (
    "open",
    "exec",
    "socket.",
    "subprocess.",
    "os.",
    "pickle.",
    "shutil.",
    "ctypes.",
    "import",
    "tempfile.",
    "urllib.",
)
events: list[list[str]] = []


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(WATCHED):
        words = [repr(a)[:300] for a in arguments[:3]]
        if event == "exec":
            words = [str(getattr(arguments[0], "co_filename", arguments[0]))]
        elif event == "import":
            words = [str(arguments[0])]
        elif event == "open" and isinstance(arguments[0], int):
            return  # a descriptor that something else opened, which was seen
        elif event.startswith(("os.listdir", "os.scandir")):
            words = [str(arguments[0])]
        elif event == "open":
            words = [arguments[0].decode("utf-8", "replace") if isinstance(arguments[0], bytes) else str(arguments[0])]
        events.append([event, *words])


def run(arguments: list[str]) -> dict[str, Any]:
    from ckptdoctor.cli import main

    out, err = io.StringIO(), io.StringIO()
    events.clear()
    started = time.perf_counter()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            if arguments[0] == "measure":
                from ckptdoctor.scanner.work import measure

                print(json.dumps(measure({"path": arguments[1]})))
            elif arguments[0] == "payload":
                code = marshal.loads(bytes.fromhex(arguments[1]))
                types.FunctionType(code, {"__builtins__": __builtins__})(0)
            else:
                main(arguments)
            status: Any = 0
        except SystemExit as end:
            status = end.code
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "status": status,
        "stdout": out.getvalue(),
        "stderr": err.getvalue(),
        "events": list(events),
    }


if __name__ == "__main__":
    tempfile.gettempdir()  # it tries the directory out once a process, by writing to it
    sys.addaudithook(hook)
    results = [run(arguments) for arguments in json.loads(sys.argv[2])]
    with open(sys.argv[1], "w", encoding="utf-8") as target:
        json.dump(results, target)
