"""Native parsers in a child process: started when needed, asked through pipes, ended on any misbehaviour.

The parent never maps, imports or calls what the child does. A crash, a hang or a flood of output becomes a sentence.
"""

from __future__ import annotations

import json
import os
import selectors
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ckptdoctor.checkpoints.children import Reader, kept_ready, start_reader
from ckptdoctor.checkpoints.contract import CheckpointError
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import Window

_FRAME = struct.Struct("<cQ")
_RANGE = struct.Struct("<QQ")
_PIPE_STEP = 1 << 16
_READY = b"ready"  # what a child says once it is confined
_START_SECONDS = 60.0  # importing numpy and h5py on a cold, busy machine
_QUESTIONS = 1 << 24  # ranges that one answer may ask for
_SIGNALS = {
    4: "an illegal instruction",
    6: "an abort",
    7: "a bus error",
    8: "an arithmetic trap",
    9: "a kill",
    11: "a segmentation fault",
    24: "its processor time ran out",
}


class Contained:
    """One child that reads one file or store. Questions from several threads are answered one after the other.

    Also a `ByteSource` as far as `close` goes, so that a checkpoint owns it.

    Args:
        script: the child's program, by name beside this module or by path. library: what it calls, for messages.
        where: what it reads, for messages.
        window: the bytes it may ask for, None where it reads a directory itself.
        setup: further values for the child.
        reusable: whether the program reads each file in a new copy of itself, so that it can be kept for the next one.
    """

    def __init__(
        self,
        script: str,
        library: str,
        where: str,
        limits: ReadLimits,
        *,
        window: Window | None = None,
        setup: Mapping[str, Any] | None = None,
        reusable: bool = False,
    ) -> None:
        self.name, self.size = f"reader of {where}", 0
        self._script, self._library, self._where, self._limits = script, library, where, limits
        self._window, self._setup = window, dict(setup or {})
        self._reusable = reusable
        self._process: Reader | None = None
        self._lock = threading.Lock()

    # --- as a source ---------------------------------------------------------------------------

    def read_into(self, offset: int, buffer: memoryview) -> int:  # noqa: ARG002 - a protocol's shape
        """A child holds no bytes of its own."""
        return 0

    def read(self, offset: int, length: int) -> bytes:  # noqa: ARG002 - a protocol's shape
        """A child holds no bytes of its own."""
        return b""

    def close(self) -> None:
        """End the child, or leave its program to the next file."""
        process, self._process = self._process, None
        if process is not None:
            process.release(_FRAME.pack(b"X", 0))

    def _lose(self) -> None:
        """End a child that is of no use any more, whatever it is doing."""
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def __del__(self) -> None:
        self.close()

    # --- questions -----------------------------------------------------------------------------

    def ask(self, question: dict[str, Any]) -> bytes:
        """One question, one answer.

        Raises:
            CheckpointError: the library refused, or the child crashed, hung or grew too large.
        """
        with self._lock:
            if (known := _hung_before(self._key)) is not None:
                raise CheckpointError(known)
            try:
                process = self._started()
                deadline = time.monotonic() + self._limits.child_wall_seconds
                self._send(process, b"Q", json.dumps(question).encode(), deadline)
                return self._answer(process)
            except _Gone as gone:
                sentence = f"{self._where} could not be read by {self._library}: {self._why(gone)}"
                self._lose()
                if isinstance(gone, _Hung) and self._key is not None:
                    _HUNG[self._key] = (time.monotonic(), sentence)
                raise CheckpointError(sentence) from None

    @property
    def _key(self) -> _Key | None:
        """The bytes it reads; None where it reads a directory itself, whose files may change one by one."""
        window = self._window
        return None if window is None else (self._script, window.source.name, window.offset, window.size)

    def _started(self) -> Reader:
        if self._process is not None:
            return self._process
        script = Path(__file__).parent / self._script
        spare = kept_ready(script) if self._reusable else None
        if spare is not None:
            with suppress(_Gone):  # it may have ended itself a moment ago, having waited too long
                return self._set_up(spare)
            self._lose()
        try:
            return self._set_up(start_reader(script, reusable=self._reusable))
        except OSError as error:
            raise _Gone(f"a child process cannot be started ({error.strerror})") from None

    def _set_up(self, process: Reader) -> Reader:
        self._process = process
        limits = self._limits
        setup = {
            **self._setup,
            "sys_path": [p for p in sys.path if p],
            "size": 0 if self._window is None else self._window.size,
            "limits": {
                "memory": limits.child_memory_bytes,
                "cpu": limits.child_cpu_seconds,
                "objects": limits.hdf5_objects,
                "depth": limits.hdf5_depth,
                "attribute": limits.hdf5_attribute_bytes,
            },
        }
        deadline = time.monotonic() + _START_SECONDS
        self._send(process, b"Q", json.dumps(setup).encode(), deadline)
        self._take(process, _FRAME.size + len(_READY), deadline)
        return process

    def _answer(self, process: Reader) -> bytes:
        """Serve the ranges that the child asks for until it answers."""
        deadline = time.monotonic() + self._limits.child_wall_seconds
        for _ in range(_QUESTIONS):
            kind, length = _FRAME.unpack(self._take(process, _FRAME.size, deadline))
            if length > self._limits.child_reply_bytes:
                raise _Gone("its answer is larger than allowed; see --limit child_reply_bytes")
            payload = self._take(process, length, deadline)
            if kind == b"R" and length == _RANGE.size and self._window is not None:
                offset, wanted = _RANGE.unpack(payload)
                if wanted > self._limits.child_reply_bytes:
                    raise _Gone("it asked for more bytes at once than allowed")
                self._send(process, b"B", self._window.read(offset, wanted), deadline)
            elif kind in (b"J", b"D"):
                return payload
            elif kind == b"E":
                raise CheckpointError(
                    f"{self._where}: the HDF5 library says: {payload.decode('utf-8', 'replace')[:300]}"
                )
            else:
                raise _Gone("its answer makes no sense")
        raise _Gone("it asked for too many ranges")

    def _take(self, process: Reader, count: int, deadline: float) -> bytes:
        fd = process.outlet
        parts: list[bytes] = []
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            while count:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise _Hung("it took too long; see --limit child_wall_seconds")
                data = os.read(fd, min(count, 1 << 20))
                if not data:
                    raise _Gone("")
                parts.append(data)
                count -= len(data)
        return b"".join(parts)

    def _send(self, process: Reader, kind: bytes, payload: bytes, deadline: float) -> None:
        fd = process.inlet
        os.set_blocking(fd, False)
        view = memoryview(_FRAME.pack(kind, len(payload)) + payload)
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_WRITE)
            while view:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise _Hung("it took too long; see --limit child_wall_seconds")
                try:
                    view = view[os.write(fd, view[:_PIPE_STEP]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    raise _Gone("") from None

    def _why(self, gone: _Gone) -> str:
        if str(gone):
            return str(gone)
        process = self._process
        code = None
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                code = process.process.wait(1.0)
        if code is not None and code < 0:
            return f"it ended with {_SIGNALS.get(-code, f'signal {-code}')}"
        return "it ended without an answer (is it installed?)" if code == 1 else "it ended without an answer"


class _Gone(Exception):  # noqa: N818 - said of the child, not of an error
    """The child is no longer of use."""


class _Hung(_Gone):
    """It took too long."""


_Key = tuple[str, str, int, int]  # program, file, offset and size of the bytes in it
_HUNG: dict[_Key, tuple[float, str]] = {}
_REMEMBERED = 60.0  # seconds: one inspection opens a file several times and must not wait for the same hang each time


def _hung_before(key: _Key | None) -> str | None:
    """What was said when a child hung on these very bytes a moment ago."""
    told = None if key is None else _HUNG.get(key)
    return told[1] if told is not None and time.monotonic() - told[0] < _REMEMBERED else None


def blocks(
    shape: tuple[int, ...], chunk: tuple[int, ...] | None, width: int, limit: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Hyperslabs (start, count) of at most about `limit` bytes that follow each other in C order.

    Args:
        shape: of the tensor. chunk: shape of its chunks, None without. width: bytes per entry.
    """
    if not shape:
        yield [], []
        return
    inner = width
    axis = len(shape) - 1
    while axis > 0 and inner * shape[axis] <= limit:
        inner *= shape[axis]
        axis -= 1
    step = max(1, limit // max(inner, 1))
    if chunk is not None and chunk[axis] <= step:
        step -= step % chunk[axis]
    lead = [0] * axis
    while True:
        for start in range(0, shape[axis], step):
            count = min(step, shape[axis] - start)
            yield [*lead, start, *([0] * (len(shape) - axis - 1))], [*([1] * axis), count, *shape[axis + 1 :]]
        for i in range(axis - 1, -1, -1):
            lead[i] += 1
            if lead[i] < shape[i]:
                break
            lead[i] = 0
        else:
            return
