"""Size and time of a checkpoint, which may be several files: what tells that it changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC throughout
MEMBERS_LIMIT = 100_000  # files of one checkpoint directory; an Orbax step of a sharded giant has some thousands


@dataclass(frozen=True, slots=True)
class Identity:
    """Bytes of all files together, the newest modification time in nanoseconds (None unknown), a store's content id."""

    size: int
    modified_ns: int | None
    etag: str | None = None

    def same(self, other: Identity) -> bool:
        """Whether nothing changed. Content ids decide where there are any: stores tell times in different precisions."""
        if self.etag is not None and other.etag is not None:
            return (self.size, self.etag) == (other.size, other.etag)
        return (self.size, self.modified_ns) == (other.size, other.modified_ns)

    @property
    def modified(self) -> str | None:
        """The time as it stands in a line."""
        return None if self.modified_ns is None else timestamp(self.modified_ns)


def timestamp(ns: int) -> str:
    """Nanoseconds since the epoch in ISO 8601, UTC, all nine digits."""
    seconds, rest = divmod(ns, 1_000_000_000)
    try:
        return f"{(_EPOCH + timedelta(seconds=seconds)).isoformat()}.{rest:09d}Z"
    except OverflowError:  # a time outside of the years 1 to 9999
        return f"@{seconds}.{rest:09d}"


def identify(path: str, members: Sequence[str] = ()) -> Identity:
    """Look at a local checkpoint.

    Args:
        path: a file, or a directory that is one checkpoint.
        members: further files of it, in the same directory.

    Raises:
        OSError: it cannot be looked at.
    """
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        return _identify_directory(path)
    size, newest = found.st_size, found.st_mtime_ns
    folder = os.path.dirname(path)
    for name in members:
        member = os.stat(os.path.join(folder, name))
        size, newest = size + member.st_size, max(newest, member.st_mtime_ns)
    return Identity(size, newest)


def _identify_directory(path: str) -> Identity:
    size, newest, count = 0, 0, 0
    pending = [path]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                count += 1
                if count > MEMBERS_LIMIT:
                    raise OSError(f"more than {MEMBERS_LIMIT:,} files in one checkpoint directory")
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                member = entry.stat(follow_symlinks=False)
                size, newest = size + member.st_size, max(newest, member.st_mtime_ns)
    return Identity(size, newest)
