"""The table of contents of a zip archive: where it stands, and what it lists.

Programs disagree about archives that say two things: Python's `zipfile`, with which Keras loads, takes the table that stands in
front of the end record wherever that record says it is, and a zip64 record even where nothing asks for one. Such an archive
shows one model to whoever looks and another to whoever loads. It is read as `zipfile` would, and told.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ckptdoctor.checkpoints.contract import CheckpointError
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import Window

LOCAL_SIGNATURE = b"PK\x03\x04"
CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\x01\x02", b"PK\x05\x06"
_END64_LOCATOR, _END64_SIGNATURE = b"PK\x06\x07", b"PK\x06\x06"
LOCAL = struct.Struct("<4s5H3L2H")  # 30 bytes
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 46 bytes
_END = struct.Struct("<4s4H2LH")  # 22 bytes
_END64 = struct.Struct("<4sQ2H2L4Q")  # 56 bytes
_COMMENT_MAX = 65_535
UNKNOWN32 = 0xFFFFFFFF
_UNICODE_PATH = 0x7075  # an extra field with a second name, which some versions of `zipfile` prefer
TWO_ANSWERS = (
    "the archive says in two ways where its table of contents stands, so that what one program loads need not be what another "
    "one sees"
)


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the table of contents stands.

    Attributes:
        offset, size: in bytes. entries: their number.
        shift: what has to be added to the offsets in it.
        doubtful: the archive says two things about it.
    """

    offset: int
    size: int
    entries: int
    shift: int = 0
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One member as the table of contents tells it, nothing of it checked."""

    name: str
    second: bool  # it has another name in an extra field
    flags: int
    method: int
    crc: int
    stored: int
    size: int
    header: int
    mode: int  # of the file as unix knows it, 0 where another system wrote the archive


def find_directory(window: Window) -> Directory | None:
    """The table of contents that `zipfile` would read, None where there is none."""
    tail_size = min(window.size, _COMMENT_MAX + _END.size)
    start = window.size - _END.size
    tail = window.read(start, _END.size)
    at = 0
    if not (tail[:4] == _END_SIGNATURE and tail[-2:] == b"\0\0"):  # a comment, or no end at all
        start = window.size - tail_size
        tail = window.read(start, tail_size)
        at = tail.rfind(_END_SIGNATURE)
        if at < 0 or at + _END.size > len(tail):
            return None
    _, _, _, _, entries, size, offset, _ = _END.unpack_from(tail, at)
    end = start + at
    doubtful = False
    locator = window.read(end - 20, 20)
    if locator[:4] == _END64_LOCATOR:
        told = int.from_bytes(locator[8:16], "little")
        end -= 20 + _END64.size
        record = window.read(end, _END64.size)
        if len(record) != _END64.size or record[:4] != _END64_SIGNATURE:
            return None
        fields = _END64.unpack(record)
        wide = fields[9], fields[8], fields[7]
        narrow = zip((offset, size, entries), (UNKNOWN32, UNKNOWN32, 0xFFFF), wide, strict=True)
        doubtful = told != end or any(n not in (unknown, w) for n, unknown, w in narrow)
        offset, size, entries = wide
    elif entries == 0xFFFF or UNKNOWN32 in (size, offset):
        return None
    if offset + size != end and window.read(end - size, 4) == CENTRAL_SIGNATURE:
        return Directory(end - size, size, entries, end - size - offset, doubtful=True)
    return Directory(offset, size, entries, doubtful=doubtful)


def central_entries(window: Window, directory: Directory, limits: ReadLimits, name: str) -> list[Entry] | None:
    """The entries of a table of contents, None where it is damaged.

    Args:
        name: of the archive, for messages.

    Raises:
        CheckpointError: more members than allowed.
    """
    offset, size, count = directory.offset, directory.size, directory.entries
    if count > limits.zip_members:
        raise CheckpointError(
            f"{name}: the archive lists {count:,} members, more than the {limits.zip_members:,} allowed; see --limit zip_members"
        )
    if size > (_CENTRAL.size + 3 * _COMMENT_MAX) * max(count, 1) or offset + size > window.size:
        return None
    data = window.read(offset, size)
    entries: list[Entry] = []
    at = 0
    while at + _CENTRAL.size <= len(data) and len(entries) < count:
        fields = _CENTRAL.unpack_from(data, at)
        signature, _, _, flags, method, _, _, crc, stored, full, name_length, extra_length, comment_length = fields[:13]
        if signature != CENTRAL_SIGNATURE:
            return None
        at += _CENTRAL.size
        raw = data[at : at + name_length]
        extra = data[at + name_length : at + name_length + extra_length]
        header = fields[16]
        stored, full, header = widen(extra, stored, full, header)
        header += directory.shift
        member = decode_name(raw, flags)
        mode = fields[15] >> 16
        entries.append(Entry(member, _second_name(extra, member), flags, method, crc, stored, full, header, mode))
        at += name_length + extra_length + comment_length
    return entries if len(entries) == count else None


def widen(extra: bytes, stored: int, full: int, header: int) -> tuple[int, int, int]:
    """Sizes from the zip64 extra field where the 32-bit ones are all ones."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            values = list(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            if full == UNKNOWN32 and values:
                full = values.pop(0)
            if stored == UNKNOWN32 and values:
                stored = values.pop(0)
            if header == UNKNOWN32 and values:
                header = values.pop(0)
            break
        at += 4 + length
    return stored, full, header


def _second_name(extra: bytes, name: str) -> bool:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _UNICODE_PATH and extra[at + 9 : at + 4 + length] != name.encode("utf-8", "replace"):
            return True
        at += 4 + length
    return False


def decode_name(raw: bytes, flags: int) -> str:
    return raw.decode("utf-8" if flags & 0x800 else "cp437", "replace")
