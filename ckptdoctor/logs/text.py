"""Text of any size by blocks: encodings, line endings and endless lines dealt with once, for all text formats."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Callable, Iterator

from ckptdoctor.logs.series import LogError

BLOCK = 1 << 20
MAX_LINE = 1 << 20
"""A line of a log is a few hundred bytes; one of a megabyte is not a line of a log. Its head is kept, the rest dropped."""


def open_regular(path: str) -> int:
    """A file descriptor for reading.

    Raises:
        LogError: absent, not a regular file (a pipe would hang), or not readable.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a device can do things of its own
            raise LogError(f"expected a log file, found something that is not a regular file: {path}")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise LogError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LogError(f"expected a log file, found something that is not a regular file: {path}")
    return descriptor


def blocks(path: str, size: int = BLOCK) -> Iterator[bytes]:
    """The file as UTF-8 (or any ASCII superset) by blocks, without a byte order mark; UTF-16 and -32 are recoded.

    Raises:
        LogError: see `open_regular`.
    """
    with os.fdopen(open_regular(path), "rb", buffering=0) as file:
        try:
            first = file.read(size) or b""
            name, mark = _encoding(first)
            first = first[mark:]
            if name is None:
                if first:
                    yield first
                while block := file.read(size):
                    yield block
                return
            decoder = codecs.getincrementaldecoder(name)(errors="replace")
            block = first
            while block:
                # `surrogatepass`: a lone surrogate of UTF-16 must not raise
                yield decoder.decode(block).encode("utf-8", "replace")
                block = file.read(size) or b""
        except OSError as error:
            raise LogError(f"cannot read {path}: {error.strerror or error}") from error


def is_dir(path: str) -> bool:
    """Whether there is a directory; False for anything that cannot be looked at."""
    return _mode(path, stat.S_ISDIR)


def is_file(path: str) -> bool:
    """Whether there is a regular file; False for anything that cannot be looked at."""
    return _mode(path, stat.S_ISREG)


def _mode(path: str, test: Callable[[int], bool]) -> bool:
    try:
        return test(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def raw_head(path: str, length: int) -> bytes:
    """The first `length` bytes as they stand; nothing of a file that cannot be read."""
    try:
        with os.fdopen(open_regular(path), "rb", buffering=0) as file:
            return file.read(length) or b""
    except (OSError, ValueError, LogError):
        return b""


def head(path: str, length: int) -> bytes:
    """The first `length` bytes, recoded as `blocks` does."""
    for block in blocks(path, length):
        return block
    return b""


def _encoding(first: bytes) -> tuple[str | None, int]:
    """Encoding by byte order mark (None: leave as it is) and the mark's length."""
    for mark, name in (
        (codecs.BOM_UTF8, None),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if first.startswith(mark):
            return name, len(mark)
    return None, 0


class LineReader:
    r"""Lines in bulk: lists of lines without their ends (`\n`, `\r\n`, `\r`, mixed), bounded memory.

    Attributes:
        overlong: lines that were cut at `MAX_LINE`.
        unterminated: the last line had no end.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.overlong = 0
        self.unterminated = False

    def __iter__(self) -> Iterator[list[bytes]]:
        carry = b""
        skipping = False
        for block in blocks(self.path):
            data = carry + block
            held = b""
            if data.endswith(b"\r"):  # its "\n" may come with the next block
                data, held = data[:-1], b"\r"
            if b"\r" in data:
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            lines = data.split(b"\n")
            carry = lines.pop()
            if skipping and lines:
                lines.pop(0)
                skipping = False
            if skipping:
                carry = b""
            elif len(carry) > MAX_LINE:
                self.overlong += 1
                lines.append(carry[:MAX_LINE])
                carry, skipping = b"", True
            carry += held
            if lines:
                yield lines
        tail = carry.split(b"\r")
        if skipping:
            tail = tail[1:]
        if carry.endswith(b"\r"):
            tail = tail[:-1]
        else:
            self.unterminated = bool(carry)
        if any(tail):
            yield tail
