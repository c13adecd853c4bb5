"""TensorBoard event files: records streamed block by block, scalars taken out, everything else passed over.

A file is a sequence of records: length (uint64, little-endian), masked CRC-32C of it, that many bytes, their masked CRC.
The bytes are an `Event` message: 1 wall time, 2 step, 3 file version, 5 summary; a summary's value: 1 tag, 2 simple value,
8 tensor, 9 metadata. Written from the protocol definitions of TensorFlow, which are stable by promise.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ckptdoctor.logs.crc import masked_crc
from ckptdoctor.logs.series import MAX_NAME, LogError
from ckptdoctor.logs.text import open_regular

BLOCK = 1 << 21
MAX_RECORD = 1 << 16
"""A scalar's record is about a hundred bytes. Longer ones hold graphs, images or histograms: skipped unread."""

_HEADER = 12
_FRAME = 16
_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")
_HALF = struct.Struct("<e")
_LENGTH = struct.Struct("<Q")
_U32 = struct.Struct("<I")

# tensorflow/core/framework/types.proto
_DT_FLOAT, _DT_DOUBLE, _DT_INT32, _DT_INT64, _DT_BFLOAT16, _DT_HALF = 1, 2, 3, 9, 14, 19
_CONTENT = {
    _DT_FLOAT: _FLOAT,
    _DT_DOUBLE: _DOUBLE,
    _DT_INT32: struct.Struct("<i"),
    _DT_INT64: struct.Struct("<q"),
    _DT_HALF: _HALF,
}


@dataclass(slots=True)
class EventFile:
    """One event file. Iterating gives (tag, step, value) of its scalars, in the order of the file.

    Attributes:
        others: records with something else than scalars. skipped_bytes: of records too long to be a scalar's.
        damaged: records whose checksum does not match or that do not parse.
        truncated: the file ends inside a record (normal for a program that was killed).
    """

    path: str
    scalars: int = 0
    others: int = 0
    skipped_bytes: int = 0
    damaged: int = 0
    truncated: bool = False
    _plugins: dict[str, bool] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, int, float]]:
        for data, spans in self._records():
            for start, end in spans:
                try:
                    found = list(self._scalars(data, start, end))
                except (IndexError, struct.error, ValueError):
                    self.damaged += 1
                    continue
                if found:
                    self.scalars += len(found)
                    yield from found
                else:
                    self.others += 1

    def _records(self) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
        """Blocks of bytes with the spans of the intact records in them."""
        with os.fdopen(open_regular(self.path), "rb", buffering=0) as file:
            try:
                yield from self._frames(file)
            except OSError as error:
                raise LogError(f"cannot read {self.path}: {error.strerror or error}") from error

    def _frames(self, file: object) -> Iterator[tuple[bytes, list[tuple[int, int]]]]:
        import io

        assert isinstance(file, io.FileIO)
        size = os.fstat(file.fileno()).st_size
        carry = b""
        position = 0  # of the end of what was read
        while True:
            block = file.read(BLOCK) or b""
            position += len(block)
            data = carry + block if carry else block
            spans: list[tuple[int, int]] = []
            at, limit = 0, len(data)
            broken = False
            while at + _HEADER <= limit:
                length = _LENGTH.unpack_from(data, at)[0]
                if at + _FRAME + length > limit:
                    absolute = position - limit + at
                    if length > size - absolute - _FRAME:
                        broken = True  # cut off, or a length that is nonsense
                        self._judge_header(data, at)
                    elif length > MAX_RECORD:
                        self.others += 1
                        self.skipped_bytes += length
                        position = absolute + _FRAME + length
                        file.seek(position)
                        at = limit
                    break
                if length <= MAX_RECORD:
                    spans.append((at + _HEADER, at + _HEADER + length))
                else:
                    self.others += 1
                    self.skipped_bytes += length
                at += _FRAME + length
            carry = data[at:] if at < limit else b""
            yield data, self._intact(data, spans)
            if broken:
                return
            if not block:
                self.truncated = self.truncated or bool(carry)
                return

    def _judge_header(self, data: bytes, at: int) -> None:
        """A record that reaches beyond the end: a true length means a cut file, a false one damage."""
        if masked_crc(np.frombuffer(data, np.uint8, 8, at)[None])[0] == _U32.unpack_from(data, at + 8)[0]:
            self.truncated = True
        else:
            self.damaged += 1

    def _intact(self, data: bytes, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The spans whose checksum matches; checked together for records of one length."""
        by_length: dict[int, list[int]] = {}
        for start, end in spans:
            by_length.setdefault(end - start, []).append(start)
        raw = np.frombuffer(data, np.uint8)
        bad: set[int] = set()
        for length, starts in by_length.items():
            per_turn = max(1, (1 << 22) // max(length, 1))
            for i in range(0, len(starts), per_turn):
                at = np.array(starts[i : i + per_turn])
                rows = raw[at[:, None] + np.arange(length)]
                stored = raw[at[:, None] + length + np.arange(4)].astype(np.uint32)
                told = stored[:, 0] | stored[:, 1] << 8 | stored[:, 2] << 16 | stored[:, 3] << 24
                bad.update(at[masked_crc(rows) != told].tolist())
        if not bad:
            return spans
        self.damaged += len(bad)
        return [span for span in spans if span[0] not in bad]

    def _scalars(self, data: bytes, at: int, end: int) -> Iterator[tuple[str, int, float]]:
        step = 0
        values: list[tuple[int, int]] = []
        while at < end:
            key = data[at]
            at += 1
            if key == 0x10:  # step
                step, at = varint(data, at)
            elif key == 0x2A:  # summary
                length, at = varint(data, at)
                stop = at + length
                if stop > end:
                    raise ValueError("a summary longer than its record")
                while at < stop:
                    key, at = varint(data, at)
                    if key == 0x0A:
                        length, at = varint(data, at)
                        values.append((at, min(at + length, stop)))
                        at += length
                    else:
                        at = skip_field(data, at, key & 7)
            elif key == 0x09:  # wall time
                at += 8
            else:
                at = skip_field(data, at, key & 7)
        if step >= 1 << 63:
            step -= 1 << 64
        for start, stop in values:
            found = self._value(data, start, stop)
            if found is not None:
                yield found[0], step, found[1]

    def _value(self, data: bytes, at: int, end: int) -> tuple[str, float] | None:
        tag = ""
        value: float | None = None
        plugin: bytes | None = None
        while at < end:
            key = data[at]
            at += 1
            if key == 0x0A:
                length, at = varint(data, at)
                tag = data[at : at + length].decode("utf-8", "replace")[:MAX_NAME]
                at += length
            elif key == 0x15:
                value = _FLOAT.unpack_from(data, at)[0]
                at += 4
            elif key == 0x42:
                length, at = varint(data, at)
                value = _tensor(data, at, min(at + length, end))
                at += length
            elif key == 0x4A:
                length, at = varint(data, at)
                plugin = _plugin(data, at, min(at + length, end))
                at += length
            else:
                at = skip_field(data, at, key & 7)
        if plugin is not None and tag not in self._plugins and len(self._plugins) < 10_000:
            self._plugins[tag] = plugin == b"scalars"
        return None if value is None or not self._plugins.get(tag, True) else (tag, value)


def varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    result = byte & 0x7F
    shift = 7
    while True:
        at += 1
        byte = data[at]
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at + 1
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def skip_field(data: bytes, at: int, wire: int) -> int:
    if wire == 0:
        return varint(data, at)[1]
    if wire == 1:
        return at + 8
    if wire == 2:
        length, at = varint(data, at)
        return at + length
    if wire == 5:
        return at + 4
    raise ValueError("a wire type that is not in use")


def _plugin(data: bytes, at: int, end: int) -> bytes | None:
    """`SummaryMetadata.plugin_data.plugin_name`."""
    while at < end:
        key, at = varint(data, at)
        if key == 0x0A:
            length, at = varint(data, at)
            stop = min(at + length, end)
            if at < stop and data[at] == 0x0A:
                length, at = varint(data, at + 1)
                return data[at : min(at + length, stop)]
            at = stop
        else:
            at = skip_field(data, at, key & 7)
    return None


def _tensor(data: bytes, at: int, end: int) -> float | None:
    """A `TensorProto` of one number; None for any other."""
    dtype = 0
    value: float | None = None
    while at < end:
        key = data[at]
        at += 1
        if key == 0x08:
            dtype, at = varint(data, at)
        elif key == 0x12:  # shape: any extent other than 1 is not a scalar
            length, at = varint(data, at)
            if length and not _is_single(data, at, min(at + length, end)):
                return None
            at += length
        elif key & 7 == 2:
            length, at = varint(data, at)
            value = _number(key >> 3, dtype, data, at, length)
            at += length
        elif key == 0x2D:  # float_val, not packed
            value = _FLOAT.unpack_from(data, at)[0]
            at += 4
        elif key == 0x31:  # double_val, not packed
            value = _DOUBLE.unpack_from(data, at)[0]
            at += 8
        else:
            at = skip_field(data, at, key & 7)
    return value


def _number(field_number: int, dtype: int, data: bytes, at: int, length: int) -> float | None:
    if field_number == 4:  # tensor_content
        if dtype == _DT_BFLOAT16 and length == 2:
            return float(_FLOAT.unpack(b"\0\0" + data[at : at + 2])[0])
        kind = _CONTENT.get(dtype)
        return float(kind.unpack_from(data, at)[0]) if kind is not None and kind.size == length else None
    if field_number == 5 and length == 4:
        return float(_FLOAT.unpack_from(data, at)[0])
    if field_number == 6 and length == 8:
        return float(_DOUBLE.unpack_from(data, at)[0])
    if field_number in (7, 10):  # int_val, int64_val
        value, stop = varint(data, at)
        return float(value - (1 << 64) if value >= 1 << 63 else value) if stop == at + length else None
    if field_number == 13:  # half_val: the bits as an integer
        bits, stop = varint(data, at)
        if stop != at + length or bits > 0xFFFF:
            return None
        if dtype == _DT_BFLOAT16:
            return float(_FLOAT.unpack(_U32.pack(bits << 16))[0])
        return float(_HALF.unpack(bits.to_bytes(2, "little"))[0])
    return None


def _is_single(data: bytes, at: int, end: int) -> bool:
    """Whether every `dim` of a TensorShapeProto has size 1."""
    while at < end:
        key, at = varint(data, at)
        length, at = varint(data, at)
        if key != 0x12:
            return False
        stop = at + length
        if length and (data[at] != 0x08 or varint(data, at + 1)[0] != 1):
            return False
        at = stop
    return True
