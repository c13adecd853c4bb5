"""Bytes of files: local, in memory, cached in blocks; and the seam through which remote stores come in."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

from ckptdoctor.checkpoints.contract import ByteSource, CheckpointError
from ckptdoctor.checkpoints.limits import DEFAULT_LIMITS, ReadLimits

SMALL_FILE = 512 << 10  # read whole in one go: fewer system calls than looking around in it
LOCAL_BLOCK = 64 << 10  # metadata lies together; a system call costs as much as copying this


@dataclass(frozen=True, slots=True)
class FileStat:
    """What a store says of a path: size in bytes, modification time in seconds or None, content id or None."""

    size: int
    mtime: float | None
    etag: str | None
    is_dir: bool


class Opener(Protocol):
    """Where files come from. Paths are the store's own spelling (`s3://bucket/run/model.keras`), `/` between parts.

    `read_ahead` is the block size in bytes that metadata reads are rounded to: large where a request is slow.
    Methods raise CheckpointError with one sentence for what does not exist or may not be read.
    """

    read_ahead: int

    def stat(self, path: str) -> FileStat:
        """Size, time and kind."""
        ...

    def list(self, path: str) -> list[str]:
        """Names (not paths) in a directory, sorted."""
        ...

    def open(self, path: str, *, inside: str | None = None) -> ByteSource:
        """A file's bytes. `inside` names the directory checkpoint that the file may not leave through a link."""
        ...


def join(directory: str, name: str) -> str:
    """A path in a directory, in either a file system's or a store's spelling."""
    return f"{directory.rstrip('/')}/{name}" if directory else name


class LocalFile:
    """A regular file read with pread: threads share it without a lock."""

    __slots__ = ("_fd", "name", "size")

    def __init__(self, name: str, fd: int, size: int) -> None:
        self.name, self._fd, self.size = name, fd, size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns bytes read, less than asked only at the end of the file."""
        done = 0
        while done < len(buffer):
            got = os.preadv(self._fd, [buffer[done:]], offset + done)
            if got == 0:
                break
            done += got
        return done

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        data = os.pread(self._fd, length, offset)
        if len(data) == length or not data:
            return data
        parts = [data]
        done = len(data)
        while done < length:
            data = os.pread(self._fd, length - done, offset + done)
            if not data:
                break
            parts.append(data)
            done += len(data)
        return b"".join(parts)

    def close(self) -> None:
        """Release the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


class MemoryFile:
    """Bytes that are already here: a small inflated member, a reply."""

    __slots__ = ("_data", "name", "size")

    def __init__(self, name: str, data: bytes) -> None:
        self.name, self._data, self.size = name, data, len(data)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`."""
        piece = self._data[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        return self._data[offset : offset + length]

    def close(self) -> None:
        """Nothing to release."""


class Window:
    """A part of a source, read through a cache of blocks: what metadata parsers look through.

    Offsets count from the window's start; reads never leave it. Small windows are read whole at the first touch.
    """

    def __init__(
        self,
        source: ByteSource,
        offset: int,
        size: int,
        *,
        block: int = LOCAL_BLOCK,
        blocks: int = 128,
        whole_below: int = SMALL_FILE,
    ) -> None:
        self.source, self.offset, self.size = source, offset, max(0, size)
        self._block, self._limit, self._small = block, blocks, whole_below
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._whole: bytes | None = None

    def whole(self) -> bytes | None:
        """All bytes where the window is small, else None."""
        if self._whole is None and self.size <= self._small:
            self._whole = self.source.read(self.offset, self.size)
        return self._whole

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`; fewer than `length` only where the window ends. Negative offsets give nothing."""
        if offset < 0 or length <= 0 or offset >= self.size:
            return b""
        whole = self._whole if self._whole is not None else self.whole()
        if whole is not None:
            return whole[offset : offset + length]
        length = min(length, self.size - offset)
        if length > 4 * self._block:
            return self.source.read(self.offset + offset, length)
        first, last = offset // self._block, (offset + length - 1) // self._block
        data = self._get(first) if first == last else b"".join(self._get(i) for i in range(first, last + 1))
        start = offset - first * self._block
        return data[start : start + length]

    def _get(self, index: int) -> bytes:
        with self._lock:
            found = self._cache.get(index)
            if found is not None:
                self._cache.move_to_end(index)
                return found
        start = index * self._block
        data = self.source.read(self.offset + start, min(self._block, self.size - start))
        with self._lock:
            self._cache[index] = data
            if len(self._cache) > self._limit:
                self._cache.popitem(last=False)
        return data


class SliceOf:
    """A window as a source of its own: a member of an archive that is an archive itself. Does not own the file."""

    __slots__ = ("_window", "name", "size")

    def __init__(self, window: Window) -> None:
        self._window, self.name, self.size = window, window.source.name, window.size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`."""
        room = max(0, min(len(buffer), self.size - offset))
        return self._window.source.read_into(self._window.offset + offset, buffer[:room])

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        return self._window.read(offset, length)

    def close(self) -> None:
        """Nothing of its own to release."""


class Cached:
    """A slow source read in blocks that are kept: a remote file, whose every request costs a round trip.

    Long reads go straight through; they are tensors, read once.
    """

    def __init__(self, source: ByteSource, block: int, blocks: int = 64) -> None:
        self.name, self.size = source.name, source.size
        self._source = source
        self._window = Window(source, 0, source.size, block=block, blocks=blocks, whole_below=block)
        self._block = block

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`."""
        if len(buffer) > self._block:
            return self._source.read_into(offset, buffer)
        data = self._window.read(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        return self._source.read(offset, length) if length > self._block else self._window.read(offset, length)

    def close(self) -> None:
        """Release the file."""
        self._source.close()


class CachingOpener:
    """Another opener whose files are read in blocks of its `read_ahead`, and whose listings are asked for once."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self.read_ahead = opener.read_ahead
        self._stats: dict[str, FileStat] = {}
        self._lists: dict[str, list[str]] = {}

    def stat(self, path: str) -> FileStat:
        """As the opener, remembered."""
        if path not in self._stats:
            self._stats[path] = self._opener.stat(path)
        return self._stats[path]

    def list(self, path: str) -> list[str]:
        """As the opener, remembered."""
        if path not in self._lists:
            self._lists[path] = self._opener.list(path)
        return self._lists[path]

    def open(self, path: str, *, inside: str | None = None) -> ByteSource:
        """As the opener, through blocks."""
        return Cached(self._opener.open(path, inside=inside), self.read_ahead)


class LocalOpener:
    """Files of this machine. Refuses what is not a regular file, sparse giants and links out of a checkpoint."""

    def __init__(self, limits: ReadLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self.read_ahead = LOCAL_BLOCK

    def stat(self, path: str) -> FileStat:
        """Size, time and kind of a path; follows links.

        Raises:
            CheckpointError: it does not exist or may not be looked at.
        """
        try:
            found = os.stat(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(_os_sentence(path, error)) from None
        return FileStat(found.st_size, found.st_mtime, None, stat.S_ISDIR(found.st_mode))

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted.

        Raises:
            CheckpointError: unreadable, or more entries than allowed.
        """
        names: list[str] = []
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    names.append(entry.name)
                    if len(names) > self._limits.directory_entries:
                        raise CheckpointError(
                            f"{path}: a checkpoint directory may hold {self._limits.directory_entries:,} files, "
                            "this one holds more; name the checkpoint inside it"
                        )
        except (OSError, ValueError) as error:
            raise CheckpointError(_os_sentence(path, error)) from None
        return sorted(names)

    def open(self, path: str, *, inside: str | None = None) -> ByteSource:
        """Open a regular file without ever blocking on it.

        Raises:
            CheckpointError: not there, not allowed, not a regular file, sparse, or a link out of `inside`.
        """
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            target = path
            if inside is not None and not self._limits.follow_links:
                target = os.path.realpath(path)
                root = os.path.realpath(inside)
                if os.path.commonpath((target, root)) != root:
                    raise CheckpointError(
                        f"{path} is a link that leaves the checkpoint directory, so it was not followed; "
                        "copy the file it points to in its place"
                    )
                flags |= getattr(os, "O_NOFOLLOW", 0)
            before = os.stat(target)
            _require_regular(path, before)
            fd = os.open(target, flags)
        except (OSError, ValueError) as error:
            raise CheckpointError(_os_sentence(path, error)) from None
        try:
            found = os.fstat(fd)
            _require_regular(path, found)
            self._refuse_sparse(path, found)
        except BaseException:
            os.close(fd)
            raise
        return LocalFile(path, fd, found.st_size)

    def _refuse_sparse(self, path: str, found: os.stat_result) -> None:
        allocated = getattr(found, "st_blocks", None)
        if allocated is None or found.st_size <= self._limits.sparse_floor_bytes:
            return
        if allocated * 512 < found.st_size // self._limits.sparse_ratio:
            raise CheckpointError(
                f"{path} claims {found.st_size:,} bytes but only {allocated * 512:,} of them are stored (a sparse file), "
                "so it is not a checkpoint that Keras wrote"
            )


_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _require_regular(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "a special file")
        raise CheckpointError(f"{path} is {kind}, expected a regular file with a checkpoint in it")


def _os_sentence(path: str, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist; check the spelling"
    if isinstance(error, NotADirectoryError):
        return f"{path} does not exist: a part of that path is a file, not a directory"
    if isinstance(error, PermissionError):
        return f"{path} may not be read by this user; check its permissions"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{path[:4096]} cannot be opened: {reason}"
