"""W&B's local file of an offline run (`run-<id>.wandb`): its history records, without the wandb package.

The file is a LevelDB log (blocks of 32 KiB, records in pieces with a CRC) behind a header `:W&B` 0xBEE1 version; each
record is a protocol buffer whose field 2 is `history`, a list of items: 1 key, 2 nested key, 16 value as JSON.
W&B's exports (CSV, JSONL) are ordinary tables and are read as such.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator

from ckptdoctor.logs.records import RecordSink
from ckptdoctor.logs.series import LogBuilder, LogError
from ckptdoctor.logs.text import open_regular
from ckptdoctor.logs.tfevents import skip_field, varint
from ckptdoctor.model import TrainingLog

MAGIC = b":W&B"
MAX_RECORD = 1 << 20
_BLOCK = 32 * 1024
_PIECE = struct.Struct("<IHB")  # checksum, length, kind
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def is_wandb(data: bytes) -> bool:
    """Whether a file begins as W&B's local store."""
    return data.startswith(MAGIC)


def read_wandb(path: str) -> TrainingLog:
    """Read the history of an offline run.

    Raises:
        LogError: not such a file.
    """
    log = LogBuilder(path, "wandb")
    sink = RecordSink(log)
    position = 0
    for record in _records(path, log):
        try:
            row = _history(record)
        except (IndexError, ValueError, struct.error):
            log.note("records that do not parse were skipped")
            continue
        if row:
            sink.take(row, position)
            position += 1
    if not position:
        log.note("the file holds no history record")
    return log.build()


def _records(path: str, log: LogBuilder) -> Iterator[bytes]:
    """Whole records; those above `MAX_RECORD` (media, code) are dropped."""
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        parts: list[bytes] = []
        size = 0
        first = True
        while block := file.read(_BLOCK):
            at = 0
            if first:
                if not is_wandb(block):
                    raise LogError(f"expected a W&B file, found one that does not begin like it: {path}")
                at, first = 7, False
            while at + _PIECE.size <= len(block):
                _, length, kind = _PIECE.unpack_from(block, at)
                start, at = at + _PIECE.size, at + _PIECE.size + length
                if kind == 0:
                    break
                if at > len(block) or kind > _LAST:
                    log.note("the file ends inside a record, or is damaged: the rest of a block was skipped")
                    break
                if kind in (_FULL, _FIRST):
                    parts, size = [], 0
                size += length
                if size <= MAX_RECORD:
                    parts.append(block[start:at])
                if kind in (_FULL, _LAST):
                    if parts and size <= MAX_RECORD:
                        yield b"".join(parts)
                    parts, size = [], 0
        if first:
            raise LogError(f"expected a W&B file, found an empty one: {path}")


def _history(record: bytes) -> dict[str, object]:
    row: dict[str, object] = {}
    at = 0
    while at < len(record):
        key, at = varint(record, at)
        if key != 0x12:
            at = skip_field(record, at, key & 7)
            continue
        length, at = varint(record, at)
        stop = min(at + length, len(record))
        while at < stop:
            key, at = varint(record, at)
            if key == 0x0A:
                length, at = varint(record, at)
                name, value = _item(record, at, min(at + length, stop))
                row[name] = value
                at += length
            elif key == 0x12:  # HistoryStep: 1 num
                length, at = varint(record, at)
                if length and record[at] == 0x08:
                    row["_step"] = varint(record, at + 1)[0]
                at += length
            else:
                at = skip_field(record, at, key & 7)
    return row


def _item(record: bytes, at: int, end: int) -> tuple[str, object]:
    names: list[str] = []
    value: object = None
    while at < end:
        key, at = varint(record, at)
        if key in (0x0A, 0x12, 130):
            length, at = varint(record, at)
            text = record[at : min(at + length, end)]
            at += length
            if key == 130:  # field 16, length-delimited
                try:
                    value = json.loads(text)
                except (ValueError, RecursionError):
                    value = None
            else:
                names.append(text.decode("utf-8", "replace"))
        else:
            at = skip_field(record, at, key & 7)
    if isinstance(value, dict | list):
        value = None
    return "/".join(names), value
