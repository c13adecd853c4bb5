"""The zip container of `.keras` files, read directly so that nothing in it is believed unchecked.

The central directory names the members; the local header in front of each member must agree with it. An archive that was
cut off has no central directory: its members are then found from their local headers.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from ckptdoctor.checkpoints.contract import ByteSource, CheckpointError
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import LOCAL_BLOCK, LocalFile, MemoryFile, Window
from ckptdoctor.model import Problem, ProblemKind

LOCAL_SIGNATURE = b"PK\x03\x04"
_CENTRAL_SIGNATURE, _END_SIGNATURE = b"PK\x01\x02", b"PK\x05\x06"
_END64_LOCATOR, _END64_SIGNATURE = b"PK\x06\x07", b"PK\x06\x06"
_LOCAL = struct.Struct("<4s5H3L2H")  # 30 bytes
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 46 bytes
_END = struct.Struct("<4s4H2LH")  # 22 bytes
_END64 = struct.Struct("<4sQ2H2L4Q")  # 56 bytes
_COMMENT_MAX = 65_535
STORED, DEFLATED = 0, 8
_INFLATE_STEP = 1 << 20
_UNKNOWN32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Member:
    """One file in the archive.

    Attributes:
        offset: of its stored bytes in the archive, behind the local header.
        stored: bytes it occupies. size: bytes it inflates to; equal for stored members.
        method: 0 stored, 8 deflated.
        crc: CRC-32 of the inflated bytes, None where unknown.
        cut: True where the archive ends before the member does.
    """

    name: str
    offset: int
    stored: int
    size: int
    method: int
    crc: int | None
    cut: bool = False


@dataclass(slots=True)
class Archive:
    """The members that may be read, by name, and what is wrong with the others."""

    source: ByteSource
    members: dict[str, Member] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    cut: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    flags: int
    method: int
    crc: int
    stored: int
    size: int
    header: int
    mode: int  # of the file as unix knows it, 0 where another system wrote the archive


def read_archive(source: ByteSource, limits: ReadLimits, *, block: int = LOCAL_BLOCK) -> Archive:
    """List the members of a zip archive without trusting any of them.

    Raises:
        CheckpointError: not a zip archive, or more members than allowed.
    """
    window = Window(source, 0, source.size, block=block)
    archive = Archive(source)
    directory = _find_directory(window)
    if directory is None:
        archive.cut = True
        _scan_local_headers(window, archive, limits)
        return archive
    entries = _central_entries(window, *directory, limits, archive)
    if entries is None:
        archive.cut = True
        archive.problems.append(
            Problem(ProblemKind.DAMAGED, "the archive's table of contents is damaged; its parts were found one by one")
        )
        _scan_local_headers(window, archive, limits)
        return archive
    _admit(window, entries, archive, limits, directory[0])
    return archive


def _find_directory(window: Window) -> tuple[int, int, int] | None:
    """(offset, size, entries) of the central directory."""
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
    _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
    end = start + at
    if count == 0xFFFF or _UNKNOWN32 in (size, offset):
        locator = window.read(end - 20, 20)
        if locator[:4] == _END64_LOCATOR:
            where = int.from_bytes(locator[8:16], "little")
            record = window.read(where, _END64.size)
            if len(record) == _END64.size and record[:4] == _END64_SIGNATURE:
                fields = _END64.unpack(record)
                return fields[9], fields[8], fields[7]
        return None
    return offset, size, count


def _central_entries(
    window: Window, offset: int, size: int, count: int, limits: ReadLimits, archive: Archive
) -> list[_Entry] | None:
    if count > limits.zip_members:
        raise CheckpointError(
            f"{archive.source.name}: the archive lists {count:,} members, more than the {limits.zip_members:,} allowed"
        )
    if size > (_CENTRAL.size + 3 * _COMMENT_MAX) * max(count, 1) or offset + size > window.size:
        return None
    data = window.read(offset, size)
    entries: list[_Entry] = []
    at = 0
    while at + _CENTRAL.size <= len(data) and len(entries) < count:
        fields = _CENTRAL.unpack_from(data, at)
        signature, _, _, flags, method, _, _, crc, stored, full, name_length, extra_length, comment_length = fields[:13]
        if signature != _CENTRAL_SIGNATURE:
            return None
        at += _CENTRAL.size
        raw = data[at : at + name_length]
        extra = data[at + name_length : at + name_length + extra_length]
        header = fields[16]
        stored, full, header = _widen(extra, stored, full, header)
        mode = fields[15] >> 16
        entries.append(_Entry(_decode_name(raw, flags), flags, method, crc, stored, full, header, mode))
        at += name_length + extra_length + comment_length
    return entries if len(entries) == count else None


def _widen(extra: bytes, stored: int, full: int, header: int) -> tuple[int, int, int]:
    """Sizes from the zip64 extra field where the 32-bit ones are all ones."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            values = list(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            if full == _UNKNOWN32 and values:
                full = values.pop(0)
            if stored == _UNKNOWN32 and values:
                stored = values.pop(0)
            if header == _UNKNOWN32 and values:
                header = values.pop(0)
            break
        at += 4 + length
    return stored, full, header


def _decode_name(raw: bytes, flags: int) -> str:
    return raw.decode("utf-8" if flags & 0x800 else "cp437", "replace")


def _unsafe(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or name[:1] in ("/", "\\") or "\0" in name or name[1:2] == ":"


def _admit(window: Window, entries: list[_Entry], archive: Archive, limits: ReadLimits, directory: int) -> None:
    """Keep the members whose two headers agree, which do not overlap, and whose names and sizes are sane."""
    names: dict[str, int] = {}
    for entry in entries:
        names[entry.name] = names.get(entry.name, 0) + 1
    ordered = sorted(entries, key=lambda e: e.header)
    ends = [*(e.header for e in ordered), directory][1:]
    for entry, end in zip(ordered, ends, strict=True):
        if entry.name.endswith("/") and entry.size == 0:
            continue
        found = _check(window, entry, end, names[entry.name], limits)
        if isinstance(found, Problem):
            archive.problems.append(found)
        else:
            archive.members[entry.name] = found


def _check(window: Window, entry: _Entry, end: int, same_name: int, limits: ReadLimits) -> Member | Problem:
    def refuse(kind: ProblemKind, why: str) -> Problem:
        return Problem(kind, f"the member {entry.name[:200]!r} of the archive {why}: it was not read", entry.name[:200])

    hostile, damaged = ProblemKind.HOSTILE, ProblemKind.DAMAGED
    if same_name > 1:
        return refuse(hostile, f"stands {same_name} times under one name")
    if _unsafe(entry.name):
        return refuse(hostile, "has a path that leaves the archive")
    if stat.S_ISLNK(entry.mode):
        return refuse(hostile, "is a symbolic link, which Keras never writes")
    if entry.flags & 1:
        return refuse(hostile, "is encrypted, which hides it from whoever looks and which Keras never does")
    if entry.method not in (STORED, DEFLATED):
        return refuse(ProblemKind.UNSUPPORTED, f"is compressed by method {entry.method}, which Keras does not use")
    head = window.read(entry.header, _LOCAL.size)
    if len(head) != _LOCAL.size or head[:4] != LOCAL_SIGNATURE:
        return refuse(damaged, "does not stand where the table of contents says")
    _, _, flags, method, _, _, _, stored, full, name_length, extra_length = _LOCAL.unpack(head)
    rest = window.read(entry.header + _LOCAL.size, name_length + extra_length)
    stored, full, _ = _widen(rest[name_length:], stored, full, 0)
    if _decode_name(rest[:name_length], flags) != entry.name or method != entry.method or flags & 1:
        return refuse(hostile, "is named or compressed differently in its own header and in the table of contents")
    if not flags & 8 and (stored, full) != (entry.stored, entry.size):
        return refuse(hostile, "has one size in its own header and another in the table of contents")
    offset = entry.header + _LOCAL.size + name_length + extra_length
    if offset + entry.stored > end:
        return refuse(hostile, "overlaps the next one")
    if entry.method == STORED and entry.stored != entry.size:
        return refuse(damaged, f"is stored as it is, yet has {entry.stored:,} bytes for a size of {entry.size:,}")
    if entry.size > limits.zip_ratio_floor and entry.size > limits.zip_ratio * max(entry.stored, 1):
        return refuse(hostile, f"inflates {entry.stored:,} bytes to {entry.size:,} (a zip bomb)")
    return Member(entry.name, offset, entry.stored, entry.size, entry.method, entry.crc)


def _scan_local_headers(window: Window, archive: Archive, limits: ReadLimits) -> None:
    """Members of an archive without a table of contents, from the front."""
    at = 0
    while at + _LOCAL.size <= window.size and len(archive.members) < limits.zip_members:
        head = window.read(at, _LOCAL.size)
        if head[:4] != LOCAL_SIGNATURE:
            break
        _, _, flags, method, _, _, crc, stored, full, name_length, extra_length = _LOCAL.unpack(head)
        rest = window.read(at + _LOCAL.size, name_length + extra_length)
        name = _decode_name(rest[:name_length], flags)
        stored, full, _ = _widen(rest[name_length:], stored, full, 0)
        offset = at + _LOCAL.size + name_length + extra_length
        if flags & 1 or method not in (STORED, DEFLATED) or _unsafe(name) or name in archive.members:
            archive.problems.append(Problem(ProblemKind.DAMAGED, f"the part {name[:200]!r} cannot be read", name[:200]))
            break
        room = window.size - offset
        unknown = (flags & 8 and stored == 0) or stored == _UNKNOWN32 or (stored == 0 and full == 0)
        following = _next_header(window, offset) if unknown and room > 0 else None
        available = room if unknown else min(stored, room)
        if following is not None:
            available = following - offset
        cut = available < stored or (unknown and following is None)
        size = full if full and full != _UNKNOWN32 and method == DEFLATED else (available if method == STORED else 0)
        if method == STORED and not unknown:
            size = available
        if available > 0:
            archive.members[name] = Member(name, offset, available, size, method, None if cut or unknown else crc, cut)
        if cut or available <= 0:
            break
        at = offset + available


def _next_header(window: Window, start: int) -> int | None:
    """The next local header or table of contents behind `start`: where a member of unknown size ends."""
    overlap = 3
    at = start
    while at < window.size:
        data = window.read(at, 4 * LOCAL_BLOCK)
        hits = [i for i in (data.find(LOCAL_SIGNATURE), data.find(_CENTRAL_SIGNATURE)) if i >= 0]
        if hits:
            return at + min(hits)
        if len(data) <= overlap:
            return None
        at += len(data) - overlap
    return None


# --- bytes of a member ---------------------------------------------------------------------------


def inflate(archive: Archive, member: Member, limit: int) -> Iterator[bytes]:
    """The inflated bytes of a deflated member in pieces of at most 1 MiB; never more than `limit` in all.

    A stream that breaks off or is corrupt ends early: the caller compares lengths.
    """
    stream = zlib.decompressobj(-15)
    at, done = member.offset, 0
    end = member.offset + member.stored
    pending = b""
    while done < limit and not stream.eof:
        if not pending:
            if at >= end:
                break
            pending = archive.source.read(at, min(_INFLATE_STEP, end - at))
            if not pending:
                break
            at += len(pending)
        try:
            piece = stream.decompress(pending, min(_INFLATE_STEP, limit - done))
        except zlib.error:
            return
        pending = stream.unconsumed_tail
        done += len(piece)
        if piece:
            yield piece


def member_window(archive: Archive, name: str, limits: ReadLimits, *, block: int = LOCAL_BLOCK) -> Window:
    """A member's bytes with random access: in place where stored, inflated once otherwise.

    Raises:
        CheckpointError: absent, or it would take more room than allowed.
    """
    member = archive.members.get(name)
    if member is None:
        raise CheckpointError(f"{archive.source.name}: the archive has no part {name}")
    if member.method == STORED:
        return Window(archive.source, member.offset, member.stored, block=block)
    limit = member.size or min(limits.zip_ratio * max(member.stored, 1), limits.zip_ratio_floor)
    room = min(limits.inflate_disk_bytes, shutil.disk_usage(tempfile.gettempdir()).free // 2)
    if limit > max(room, limits.inflate_memory_bytes):
        raise CheckpointError(
            f"{archive.source.name}: {name} inflates to {limit:,} bytes, more than the {room:,} of temporary space allowed"
        )
    source = _inflated(archive, member, limit, limits)
    if source.size != member.size or member.cut:
        archive.problems.append(
            Problem(
                ProblemKind.DAMAGED,
                f"{name} breaks off after {source.size:,} of its {member.size:,} bytes"
                if member.size
                else f"{name} breaks off after {source.size:,} bytes",
                name,
            )
        )
    return Window(source, 0, source.size, block=block)


def _inflated(archive: Archive, member: Member, limit: int, limits: ReadLimits) -> ByteSource:
    """A source over the inflated bytes: memory for small ones, an unlinked temporary file for large ones."""
    name = f"{archive.source.name}!{member.name}"
    pieces: list[bytes] = []
    total, crc = 0, 0
    stream = inflate(archive, member, limit)
    for piece in stream:
        pieces.append(piece)
        total += len(piece)
        crc = zlib.crc32(piece, crc)
        if total > limits.inflate_memory_bytes:
            break
    else:
        _check_crc(archive, member, total, crc)
        return MemoryFile(name, b"".join(pieces))
    with tempfile.TemporaryFile(prefix="ckptdoctor-") as spill:
        for piece in pieces:
            spill.write(piece)
        pieces.clear()
        try:
            for piece in stream:
                spill.write(piece)
                total += len(piece)
                crc = zlib.crc32(piece, crc)
            spill.flush()
        except OSError as error:
            raise CheckpointError(
                f"{name} inflates to {limit:,} bytes and the temporary directory has no room for it: {error.strerror}"
            ) from None
        _check_crc(archive, member, total, crc)
        return LocalFile(name, os.dup(spill.fileno()), total)


def _check_crc(archive: Archive, member: Member, total: int, crc: int) -> None:
    if member.crc is not None and total == member.size and crc != member.crc:
        archive.problems.append(
            Problem(
                ProblemKind.DAMAGED,
                f"{member.name} fails its checksum: its bytes were changed after saving",
                member.name,
            )
        )


def read_member(archive: Archive, name: str, limit: int) -> bytes | None:
    """A small member whole; None where it is absent.

    Raises:
        CheckpointError: larger than `limit` bytes.
    """
    member = archive.members.get(name)
    if member is None:
        return None
    if max(member.size, member.stored if member.method == STORED else 0) > limit:
        raise CheckpointError(
            f"{archive.source.name}: {name} has {member.size:,} bytes, more than the {limit:,} allowed"
        )
    if member.method == STORED:
        return archive.source.read(member.offset, member.stored)
    return b"".join(inflate(archive, member, limit))
