"""The child process: reads the request from standard input, writes what it finds as JSON lines.

Started by the parent as `python -P -m ckptdoctor.replay.child`. Each line is an object with any of `stage` (what is
being done), `fields` (parts of `Replay` found so far), `usage` (the request cannot be carried out) and `done`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, Any

from ckptdoctor.checkpoints.limits import use_limits
from ckptdoctor.model import ReplayStatus
from ckptdoctor.replay.failure import CannotReplay, UsageError, brief
from ckptdoctor.replay.request import ReplayRequest
from ckptdoctor.replay.watch import apply_limits
from ckptdoctor.replay.wire import decode, dump_line, to_plain


class Reporter:
    """The line to the parent."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.started = time.monotonic()

    def stage(self, text: str) -> None:
        """Say what is being done."""
        self._send({"stage": text})

    def found(self, **fields: Any) -> None:
        """Hand over parts of the result; later ones replace earlier ones."""
        self._send({"fields": to_plain(fields)})

    def usage(self, text: str) -> None:
        """The request cannot be carried out as put."""
        self._send({"usage": text})

    def done(self) -> None:
        """Everything was said."""
        self._send({"done": True})

    def _send(self, message: dict[str, Any]) -> None:
        self._stream.write(dump_line(message))
        self._stream.flush()


def main() -> None:
    """Do what the request on standard input asks for."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what TensorFlow or a user's module prints must not land between our lines
    reporter = Reporter(stream)
    request = decode(ReplayRequest, json.loads(sys.stdin.read()))
    apply_limits(request.wall_seconds * (os.cpu_count() or 1) + 60)
    try:
        from ckptdoctor.replay.course import replay

        with use_limits(request.read_limits):
            replay(request, reporter)
    except UsageError as error:
        reporter.usage(str(error))
    except CannotReplay as error:
        reporter.found(status=error.status, reason=str(error))
    except MemoryError:
        reporter.found(status=ReplayStatus.FAILED, reason="the replay process ran out of memory")
    except Exception as error:  # noqa: BLE001 - any failure of replay becomes a sentence in the report
        _explain(reporter, error)
    reporter.done()
    stream.close()
    os._exit(0)  # TensorFlow's teardown takes up to seconds and can crash; everything was said


def _explain(reporter: Reporter, error: Exception) -> None:
    import traceback

    traceback.print_exc(file=sys.stderr)
    if type(error).__name__ == "ResourceExhaustedError":
        reason = "the replay process ran out of memory"
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"replay stopped on an error it does not know ({brief(error)}; {os.path.basename(frame.filename)}:{frame.lineno})"
    reporter.found(status=ReplayStatus.FAILED, reason=reason)


if __name__ == "__main__":
    main()
