"""The results file: one line a checkpoint, appended, that survives being killed at any moment.

A line is written by one `write` to a descriptor opened for appending, so a killed process leaves whole lines and at
most one torn last line, which the next scan cuts off. Lines are handed to the disk every second, so a machine that
loses power loses about a second. A file under way is locked: two scans cannot write into it. When a checkpoint changed,
its new line is appended and the old one is dropped when the scan ends, by writing the file anew beside and renaming it.

In memory a known line costs 16 bytes (a hash and its place), whatever its length.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from array import array
from bisect import bisect_left
from collections.abc import Iterator

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.scanner.result import ScanResult, parse_line, path_in_line

SYNC_SECONDS = 1.0
LINE_LIMIT = 1 << 20  # bytes; a longer one is no line of ours
_CHUNK = 1 << 20


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


class LineIndex:
    """Where each path's latest line begins: sorted hashes with offsets, and a small dictionary of recent ones."""

    def __init__(self) -> None:
        self._hashes = array("Q")
        self._offsets = array("q")
        self._recent: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._hashes) + len(self._recent)

    def put(self, path: str, offset: int) -> int | None:
        """Remember a path's latest line; returns where its line before began."""
        key = _hash(path)
        place = bisect_left(self._hashes, key)
        if place < len(self._hashes) and self._hashes[place] == key:
            before, self._offsets[place] = self._offsets[place], offset
            return before
        before_recent = self._recent.get(key)
        self._recent[key] = offset
        if len(self._recent) > max(4096, len(self._hashes) // 4):
            self._merge()
        return before_recent

    def get(self, path: str) -> int | None:
        """Where a path's latest line begins."""
        key = _hash(path)
        place = bisect_left(self._hashes, key)
        if place < len(self._hashes) and self._hashes[place] == key:
            return self._offsets[place]
        return self._recent.get(key)

    def _merge(self) -> None:
        fresh = sorted(self._recent.items())
        self._recent = {}
        hashes, offsets = array("Q"), array("q")
        old, i = self._hashes, 0
        for key, offset in fresh:
            stop = bisect_left(old, key, i)
            hashes.extend(old[i:stop])
            offsets.extend(self._offsets[i:stop])
            hashes.append(key)
            offsets.append(offset)
            i = stop
        hashes.extend(old[i:])
        offsets.extend(self._offsets[i:])
        self._hashes, self._offsets = hashes, offsets


def lines(fd: int, path: str) -> Iterator[tuple[int, bytes]]:
    """Every complete line of an open file with its offset; a torn last one is not among them.

    Raises:
        CkptDoctorError: a line longer than any of ours.
    """
    offset, rest = 0, b""
    while chunk := os.pread(fd, _CHUNK, offset + len(rest)):
        rest += chunk
        *whole, rest_new = rest.split(b"\n")
        for line in whole:
            yield offset, line
            offset += len(line) + 1
        rest = rest_new
        if len(rest) > LINE_LIMIT:
            raise CkptDoctorError(
                f"{path} holds a line of more than {LINE_LIMIT:,} bytes, so it is no results file; name another"
            )


class ResultsFile:
    """A results file that is continued.

    Raises:
        CkptDoctorError: not a results file, not writable, or another scan is writing into it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.repaired = 0  # bytes of a torn line that were cut off
        self._index = LineIndex()
        self._superseded = 0
        self._synced = time.monotonic()
        self._dirty = False
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o644)
        except OSError as error:
            raise CkptDoctorError(
                f"the results file {path} cannot be opened: {error.strerror}; name another with --resume"
            ) from None
        try:
            self._lock()
            self._size = self._load()
        except BaseException:
            os.close(self._fd)
            raise

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: no advisory locks, two scans at once are up to the user
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise CkptDoctorError(
                    f"another scan is writing into {self.path}; wait for it, or name another file"
                ) from None
            # a file system without locks (some network disks): go on unlocked

    def _load(self) -> int:
        end = 0
        for number, (offset, line) in enumerate(lines(self._fd, self.path), 1):
            try:
                about = path_in_line(line)
            except CkptDoctorError as error:
                raise CkptDoctorError(f"{self.path}, line {number}: {error}; name another file with --resume") from None
            self._superseded += self._index.put(about, offset) is not None
            end = offset + len(line) + 1
        size = os.fstat(self._fd).st_size
        if size > end:
            if end == 0 and os.pread(self._fd, 1, 0) != b"{":
                raise CkptDoctorError(f"{self.path} is no results file of a scan; name another with --resume")
            self.repaired = size - end
            os.ftruncate(self._fd, end)
        return end

    def __len__(self) -> int:
        return len(self._index)

    def previous(self, path: str) -> ScanResult | None:
        """The latest result for a path, whatever has become of the file since."""
        offset = self._index.get(path)
        if offset is None:
            return None
        try:
            result = parse_line(self._line_at(offset))
        except CkptDoctorError:  # somebody else changed the file under us
            return None
        return result if result.path == path else None

    def unchanged(self, path: str, size: int, modified: str | None, etag: str | None) -> ScanResult | None:
        """The earlier result for a file that is still the same, None where it must be measured."""
        found = self.previous(path)
        if found is None or not found.lasting:
            return None
        if (found.size_bytes, found.modified, found.etag) != (size, modified, etag):
            return None
        return found

    def _line_at(self, offset: int) -> bytes:
        length = 1024
        while True:
            piece = os.pread(self._fd, length, offset)
            end = piece.find(b"\n")
            if end >= 0:
                return piece[:end]
            if len(piece) < length:
                return b""
            length *= 4

    def append(self, result: ScanResult) -> None:
        """Add a line: whole or not at all.

        Raises:
            CkptDoctorError: the disk is full or failed; what was written before stays.
        """
        line = result.line().encode("ascii")
        try:
            written = os.write(self._fd, line)
            reason = None if written == len(line) else os.strerror(errno.ENOSPC)
        except OSError as error:
            reason = error.strerror
        if reason is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise CkptDoctorError(
                f"the results file {self.path} cannot be written: {reason}; free some space and continue with "
                f"--resume {self.path}"
            )
        self._superseded += self._index.put(result.path, self._size) is not None
        self._size += len(line)
        self._dirty = True
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Hand what was written to the disk."""
        if self._dirty:
            with contextlib.suppress(OSError):  # a pipe or a special file has no disk
                os.fsync(self._fd)
            self._dirty = False
        self._synced = time.monotonic()

    def close(self) -> None:
        """Leave one line a checkpoint, on the disk."""
        if self._fd < 0:
            return
        try:
            self.sync()
            if self._superseded:
                self._compact()
        finally:
            os.close(self._fd)
            self._fd = -1

    def _compact(self) -> None:
        """Drop superseded lines: a new file beside, complete on the disk, takes the place of the old one."""
        beside = f"{self.path}.{os.getpid()}.tmp"
        try:
            with open(beside, "wb") as out:
                for offset, line in lines(self._fd, self.path):
                    if self._index.get(path_in_line(line)) == offset:
                        out.write(line + b"\n")
                out.flush()
                os.fsync(out.fileno())
            os.chmod(beside, os.fstat(self._fd).st_mode & 0o7777)
            os.replace(beside, self.path)
        except OSError:  # superseded lines do no harm: the last one of a path counts
            with contextlib.suppress(OSError):
                os.unlink(beside)
