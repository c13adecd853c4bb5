"""TensorBoard: the report as a text summary beside the run's own curves. Written by hand, so it needs no library.

The file is a sequence of records: length (uint64, little-endian), its masked CRC-32C, the bytes, their masked CRC-32C.
The bytes are an `Event` message: 1 wall time, 2 step, 3 file version, 5 summary; a summary's value: 1 tag, 8 tensor,
9 metadata. By the protocol definitions of TensorFlow and TensorBoard's text plugin.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ckptdoctor.logs.crc import masked_crc
from ckptdoctor.model import Report
from ckptdoctor.publish import PublishError
from ckptdoctor.report import render
from ckptdoctor.report.escape import line

TAG = "ckptdoctor/report"
_DT_STRING = 7  # tensorflow/core/framework/types.proto


def to_tensorboard(report: Report, folder: str) -> str:
    """Write the Markdown report as an event file; returns where it is.

    Args:
        report: what to write. It stands at the step (or epoch) of the failure, else at 0.
        folder: the log directory. Empty: the TensorBoard directory of the inspected run.

    Raises:
        PublishError: the run has no such directory and none was named, or it cannot be written.
    """
    target = Path(folder) if folder else _own_folder(report)
    try:
        target.mkdir(parents=True, exist_ok=True)
        path = target / f"events.out.tfevents.{int(time.time())}.ckptdoctor.{os.getpid()}.{time.monotonic_ns()}"
        beside = path.with_name(f".{path.name.replace('tfevents', 'writing')}")
        try:
            beside.write_bytes(b"".join(records(render(report, "markdown"), _step(report))))
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise PublishError(
            f"cannot write into the TensorBoard directory '{line(target)}': {why}; name another with --publish tensorboard=DIR"
        ) from error
    return f"TensorBoard {path}, text {TAG}"


def _own_folder(report: Report) -> Path:
    from ckptdoctor.logs import detect_log

    for path in report.evidence.files.logs:
        if detect_log(path) == "tensorboard":
            return Path(path) if Path(path).is_dir() else Path(path).parent
    raise PublishError("the run has no TensorBoard directory; name one with --publish tensorboard=DIR")


def _step(report: Report) -> int:
    origin = report.diagnosis.origin
    return max(origin.step if origin.step is not None else origin.epoch or 0, 0)


def records(text: str, step: int) -> Iterator[bytes]:
    """An event file that holds one text at one step, record by record."""
    now = struct.pack("<d", time.time())
    metadata = _field(1, _field(1, b"text")) + b"\x20" + _varint(2)  # plugin; data class: tensor
    tensor = b"\x08" + _varint(_DT_STRING) + _field(2, b"") + _field(8, text.encode("utf-8"))
    value = _field(1, TAG.encode()) + _field(8, tensor) + _field(9, metadata)
    yield _record(b"\x09" + now + _field(3, b"brain.Event:2"))
    yield _record(b"\x09" + now + b"\x10" + _varint(step) + _field(5, _field(1, value)))


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _crc(length) + data + _crc(data)


def _crc(data: bytes) -> bytes:
    return struct.pack("<I", int(masked_crc(np.frombuffer(data, np.uint8)[None])[0]))


def _field(number: int, data: bytes) -> bytes:
    """A field of a message that holds bytes: wire type 2."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
