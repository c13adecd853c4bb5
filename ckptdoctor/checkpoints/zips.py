"""The zip container of `.keras` files, read directly so that nothing in it is believed unchecked.

The central directory names the members; the local header in front of each member must agree with it. An archive that was
cut off has no central directory: its members are then found from their local headers.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ckptdoctor.checkpoints.contract import ByteSource, CheckpointError
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import LOCAL_BLOCK, LocalFile, MemoryFile, Window
from ckptdoctor.checkpoints.zip_directory import (
    CENTRAL_SIGNATURE,
    LOCAL,
    LOCAL_SIGNATURE,
    TWO_ANSWERS,
    UNKNOWN32,
    Entry,
    central_entries,
    decode_name,
    find_directory,
    widen,
)
from ckptdoctor.model import Problem, ProblemKind

STORED, DEFLATED = 0, 8
_INFLATE_STEP = 1 << 20


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


def read_archive(source: ByteSource, limits: ReadLimits, *, block: int = LOCAL_BLOCK) -> Archive:
    """List the members of a zip archive without trusting any of them.

    Raises:
        CheckpointError: not a zip archive, or more members than allowed.
    """
    window = Window(source, 0, source.size, block=block)
    archive = Archive(source)
    directory = find_directory(window)
    if directory is None:
        archive.cut = True
        _scan_local_headers(window, archive, limits)
        return archive
    entries = central_entries(window, directory, limits, source.name)
    if entries is None:
        archive.cut = True
        archive.problems.append(
            Problem(ProblemKind.DAMAGED, "the archive's table of contents is damaged; its parts were found one by one")
        )
        _scan_local_headers(window, archive, limits)
        return archive
    _admit(window, entries, archive, limits, directory.offset)
    if directory.shift and not archive.members:  # only the end record is damaged
        archive.problems.clear()
        entries = [replace(e, header=e.header - directory.shift) for e in entries]
        _admit(window, entries, archive, limits, directory.offset)
    if directory.doubtful:
        archive.problems.insert(0, Problem(ProblemKind.HOSTILE, TWO_ANSWERS))
    return archive


def _unsafe(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or name[:1] in ("/", "\\") or "\0" in name or name[1:2] == ":"


def _admit(window: Window, entries: list[Entry], archive: Archive, limits: ReadLimits, directory: int) -> None:
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


def _check(window: Window, entry: Entry, end: int, same_name: int, limits: ReadLimits) -> Member | Problem:
    def refuse(kind: ProblemKind, why: str) -> Problem:
        return Problem(kind, f"the member {entry.name[:200]!r} of the archive {why}: it was not read", entry.name[:200])

    hostile, damaged = ProblemKind.HOSTILE, ProblemKind.DAMAGED
    if same_name > 1:
        return refuse(hostile, f"stands {same_name} times under one name")
    if _unsafe(entry.name):
        return refuse(hostile, "has a path that leaves the archive")
    if entry.second:
        return refuse(hostile, "has a second name, which other programs read it by")
    if stat.S_ISLNK(entry.mode):
        return refuse(hostile, "is a symbolic link, which Keras never writes")
    if entry.flags & 1:
        return refuse(hostile, "is encrypted, which hides it from whoever looks and which Keras never does")
    if entry.method not in (STORED, DEFLATED):
        return refuse(ProblemKind.UNSUPPORTED, f"is compressed by method {entry.method}, which Keras does not use")
    head = window.read(entry.header, LOCAL.size)
    if len(head) != LOCAL.size or head[:4] != LOCAL_SIGNATURE:
        return refuse(damaged, "does not stand where the table of contents says")
    _, _, flags, method, _, _, _, stored, full, name_length, extra_length = LOCAL.unpack(head)
    rest = window.read(entry.header + LOCAL.size, name_length + extra_length)
    stored, full, _ = widen(rest[name_length:], stored, full, 0)
    if decode_name(rest[:name_length], flags) != entry.name or method != entry.method or flags & 1:
        return refuse(hostile, "is named or compressed differently in its own header and in the table of contents")
    if not flags & 8 and (stored, full) != (entry.stored, entry.size):
        return refuse(hostile, "has one size in its own header and another in the table of contents")
    offset = entry.header + LOCAL.size + name_length + extra_length
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
    while at + LOCAL.size <= window.size and len(archive.members) < limits.zip_members:
        head = window.read(at, LOCAL.size)
        if head[:4] != LOCAL_SIGNATURE:
            break
        _, _, flags, method, _, _, crc, stored, full, name_length, extra_length = LOCAL.unpack(head)
        rest = window.read(at + LOCAL.size, name_length + extra_length)
        name = decode_name(rest[:name_length], flags)
        stored, full, _ = widen(rest[name_length:], stored, full, 0)
        offset = at + LOCAL.size + name_length + extra_length
        if flags & 1 or method not in (STORED, DEFLATED) or _unsafe(name) or name in archive.members:
            archive.problems.append(Problem(ProblemKind.DAMAGED, f"the part {name[:200]!r} cannot be read", name[:200]))
            break
        room = window.size - offset
        unknown = (flags & 8 and stored == 0) or stored == UNKNOWN32 or (stored == 0 and full == 0)
        following = _next_header(window, offset) if unknown and room > 0 else None
        available = room if unknown else min(stored, room)
        if following is not None:
            available = following - offset
        cut = available < stored or (unknown and following is None)
        size = full if full and full != UNKNOWN32 and method == DEFLATED else (available if method == STORED else 0)
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
        hits = [i for i in (data.find(LOCAL_SIGNATURE), data.find(CENTRAL_SIGNATURE)) if i >= 0]
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
            f"{archive.source.name}: {name} inflates to {limit:,} bytes, more than the {room:,} of temporary space allowed; see --limit inflate_disk_bytes"
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


def verify(archive: Archive, name: str) -> Problem | None:
    """What is wrong with the checksum of a member that is stored as it is; reads all of it."""
    member = archive.members[name]
    crc, at, end = 0, member.offset, member.offset + member.stored
    if member.crc is None or member.cut:
        return None
    while at < end:
        piece = archive.source.read(at, min(_INFLATE_STEP, end - at))
        if not piece:
            return None
        crc = zlib.crc32(piece, crc)
        at += len(piece)
    return _bad_checksum(name) if crc != member.crc else None


def _bad_checksum(name: str) -> Problem:
    sentence = f"{name} fails its checksum: its bytes were changed after saving"
    return Problem(ProblemKind.DAMAGED, sentence, name, altered=True)


def _check_crc(archive: Archive, member: Member, total: int, crc: int) -> None:
    if member.crc is not None and total == member.size and crc != member.crc:
        archive.problems.append(_bad_checksum(member.name))


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
            f"{archive.source.name}: {name} has {member.size:,} bytes, more than the {limit:,} allowed; see --limit json_bytes"
        )
    if member.method == STORED:
        return archive.source.read(member.offset, member.stored)
    return b"".join(inflate(archive, member, limit))
