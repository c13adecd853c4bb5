"""Objects behind a URL, read by ranges: every call has a deadline and a few attempts, nothing is copied to disk.

fsspec's file systems do the talking (extra `remote`); credentials and endpoints come from their own configuration and
environment only.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

from ckptdoctor.checkpoints.contract import CheckpointError
from ckptdoctor.checkpoints.sources import FileStat
from ckptdoctor.scanner.identify import Identity
from ckptdoctor.scanner.result import Kind

ATTEMPTS = 3
WHOLE = 16 << 20  # objects up to this size come in one request: its latency costs more than the bytes
SEGMENT = 4 << 20  # bytes of one ranged read of a large object: the census takes ranges of this size per thread
KEPT_SEGMENTS = 12  # segments in memory: one for each of the census's 8 threads and their neighbours
READ_AHEAD = 128 << 10  # metadata lies together; must be less than the census's blocks, which are data
IN_A_ROW = 8  # small reads following each other after which segments are read ahead
REMOTE_THREADS = 8  # ranged reads at a time for one large object


class RemoteError(CheckpointError):
    """A store that does not give what was asked for, and why."""

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Remote:
    """One file system of fsspec, with deadlines and attempts."""

    def __init__(self, url: str, timeout: float, attempts: int = ATTEMPTS) -> None:
        if "::" in url:
            raise RemoteError(Kind.REMOTE, f"{url}: chained URLs are not supported; name the object's own URL")
        self.scheme = url.partition("://")[0]
        self._timeout, self._attempts = timeout, attempts
        self.requests = 0
        self._lock = threading.Lock()
        self._fs = _filesystem(url)

    def inner(self, url: str) -> str:
        """The file system's own spelling of a URL."""
        return cast("str", self._fs._strip_protocol(url))  # noqa: SLF001 - fsspec's documented protocol for implementations

    def url(self, name: str) -> str:
        """The URL of a name that the file system gave."""
        return name if "://" in name else f"{self.scheme}://{name.lstrip('/')}"

    def info(self, url: str) -> dict[str, Any]:
        """What the store says of one object."""
        return cast("dict[str, Any]", self._call("info", url, self.inner(url)))

    def listing(self, url: str) -> list[dict[str, Any]]:
        """The entries of one directory, with what the store says of each."""
        return cast("list[dict[str, Any]]", self._call("ls", url, self.inner(url), detail=True))

    def find(self, url: str) -> dict[str, dict[str, Any]]:
        """Every object below, by name."""
        return cast("dict[str, dict[str, Any]]", self._call("find", url, self.inner(url), detail=True))

    def read(self, url: str, start: int, stop: int, size: int) -> bytes:
        """Bytes [start, stop) of an object of `size` bytes."""
        data = cast("bytes", self._call("cat_file", url, self.inner(url), start=start, end=stop))
        if len(data) > stop - start:  # a server that ignores ranges sends everything
            if len(data) != size:
                raise RemoteError(
                    Kind.REMOTE, f"{url}: the server answered {len(data):,} bytes where {stop - start:,} were asked for"
                )
            data = data[start:stop]
        return data

    def _call(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        """Call the file system; wait at most `timeout`, try again what may pass.

        Raises:
            RemoteError: refused, gone, stalled, or still failing at the last attempt.
        """
        for attempt in range(1, self._attempts + 1):
            with self._lock:
                self.requests += 1
            try:
                return self._bounded(method, args, kwargs)
            except Exception as error:  # noqa: BLE001 - every store's library has its own exceptions
                final = _verdict(url, error, self._timeout)
                if final.kind is not Kind.REMOTE or attempt == self._attempts or _hopeless(error):
                    raise final from None
                time.sleep(0.25 * 2**attempt * (0.5 + random.random()))  # noqa: S311 - spreads retries, no secret
        raise AssertionError

    def _bounded(self, method: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        coroutine = getattr(self._fs, f"_{method}", None) if getattr(self._fs, "async_impl", False) else None
        future: Future[Any]
        if coroutine is not None and self._fs.loop is not None:
            future = asyncio.run_coroutine_threadsafe(coroutine(*args, **kwargs), self._fs.loop)
        else:
            future = _in_thread(lambda: getattr(self._fs, method)(*args, **kwargs))
        try:
            return future.result(self._timeout)
        except TimeoutError:
            future.cancel()
            raise


def _in_thread(function: Callable[[], Any]) -> Future[Any]:
    """Run a call that may never come back; the thread does not keep the process alive."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="ckptdoctor-remote").start()
    return future


def _filesystem(url: str) -> Any:
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise RemoteError(
            Kind.REMOTE, f"{url}: reading URLs needs fsspec; run: pip install 'ckptdoctor[remote]'"
        ) from None
    try:
        fs, _ = url_to_fs(url, use_listings_cache=False, skip_instance_cache=False)
    except ImportError as error:
        raise RemoteError(Kind.REMOTE, f"{url}: {error}") from None
    except Exception as error:  # noqa: BLE001 - unknown protocol, bad configuration, missing credentials
        raise _verdict(url, error, 0) from None
    return fs


def _hopeless(error: BaseException) -> bool:
    """Whether the same call would fail again for certain."""
    return isinstance(error, (ValueError, TypeError, NotImplementedError)) or "Credential" in type(error).__name__


def _verdict(url: str, error: BaseException, timeout: float) -> RemoteError:
    behind = error.__cause__
    if isinstance(error, FileNotFoundError) and (isinstance(behind, OSError) or hasattr(behind, "status")):
        error = cast("BaseException", behind)  # the file system of http:// says "not found" whatever the reason was
    words = " ".join(str(error).split())[:200]
    status = getattr(error, "status", None)
    if isinstance(error, FileNotFoundError) or status == 404:
        return RemoteError(
            Kind.VANISHED, f"{url} does not exist in the store; check the spelling, or it vanished during the scan"
        )
    if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in type(error).__name__:
        return RemoteError(
            Kind.DENIED,
            f"{url}: the store refuses access ({words or 'forbidden'}); check the credentials its library uses",
        )
    if isinstance(error, TimeoutError):
        return RemoteError(
            Kind.REMOTE,
            f"{url}: the store did not answer within {timeout:g} s; try again later or raise --request-timeout",
        )
    return RemoteError(Kind.REMOTE, f"{url}: the store failed ({type(error).__name__}: {words}); try again later")


# --- what a store says of an object --------------------------------------------------------------

_ETAGS = (
    "ETag",
    "etag",
    "md5Hash",
    "md5",
    "content_md5",
    "Content-MD5",
    "oid",
    "blob_id",
    "sha256",
    "crc32c",
    "checksum",
    "ukey",
)
_TIMES = ("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "modified", "created", "timeModified")


def identity_of(info: dict[str, Any]) -> Identity:
    """Size, time and content id, by whatever names this store has for them."""
    etag = next((_plain(info[key]) for key in _ETAGS if info.get(key)), None)
    when = next((_nanoseconds(info[key]) for key in _TIMES if info.get(key)), None)
    return Identity(int(info.get("size") or 0), when, etag)


def _plain(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text.strip('"')[:200]


def _nanoseconds(value: Any) -> int | None:
    try:
        if isinstance(value, str):
            value = parsedate_to_datetime(value) if "," in value else datetime.fromisoformat(value)
        if isinstance(value, datetime):
            value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        return round(float(value) * 1e6) * 1000  # stores tell microseconds at best
    except (ValueError, TypeError, OverflowError):
        return None


def together(parts: Sequence[Identity]) -> Identity:
    """The identity of a checkpoint that is several objects."""
    if len(parts) == 1:
        return parts[0]
    times = [p.modified_ns for p in parts if p.modified_ns is not None]
    tags = hashlib.blake2b("\0".join(p.etag or "" for p in parts).encode(), digest_size=12).hexdigest()
    return Identity(sum(p.size for p in parts), max(times, default=None), tags if any(p.etag for p in parts) else None)


# --- what the readers see ------------------------------------------------------------------------


class RemoteSource:
    """One object's bytes. Small objects come whole; of large ones, data in segments and metadata as asked."""

    def __init__(self, remote: Remote, url: str, size: int) -> None:
        self.name, self.size = url, size
        self._remote = remote
        self._segments: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self._segment = WHOLE if size <= WHOLE else SEGMENT
        self._next = -1  # where the last small read ended, …
        self._row = 0  # … and how many followed each other: many in a row are data, not metadata

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns bytes read, less than asked only at the end of the object."""
        done = 0
        while done < len(buffer) and offset + done < self.size:
            index, start = divmod(offset + done, self._segment)
            piece = self._get(index)[start : start + len(buffer) - done]
            if not piece:
                break
            buffer[done : done + len(piece)] = piece
            done += len(piece)
        return done

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        length = max(0, min(length, self.size - offset))
        if not length or offset < 0:
            return b""
        self._row = self._row + 1 if offset == self._next else 0
        self._next = offset + length
        if self.size > WHOLE and self._row < IN_A_ROW and length < SEGMENT and not self._has(offset, length):
            return self._remote.read(self.name, offset, offset + length, self.size)
        out = bytearray(length)
        return bytes(out[: self.read_into(offset, memoryview(out))])

    def _has(self, offset: int, length: int) -> bool:
        with self._lock:
            return all(
                i in self._segments for i in range(offset // self._segment, (offset + length - 1) // self._segment + 1)
            )

    def _get(self, index: int) -> bytes:
        """A segment; threads that want the same one wait for a single request."""
        with self._lock:
            future = self._segments.get(index)
            mine = future is None
            if future is None:
                future = self._segments[index] = Future()
                while len(self._segments) > KEPT_SEGMENTS:
                    self._segments.popitem(last=False)
            else:
                self._segments.move_to_end(index)
        if mine:
            start = index * self._segment
            try:
                future.set_result(self._remote.read(self.name, start, min(start + self._segment, self.size), self.size))
            except BaseException as error:
                with self._lock:
                    self._segments.pop(index, None)
                future.set_exception(error)
                raise
        return future.result()

    def close(self) -> None:
        """Forget what was read."""
        with self._lock:
            self._segments.clear()


class RemoteOpener:
    """The readers' seam for URLs."""

    read_ahead = READ_AHEAD

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._remotes: dict[str, Remote] = {}
        self._known: dict[str, Identity] = {}

    def remote(self, url: str) -> Remote:
        """The store of a URL."""
        root = "/".join(url.split("/", 3)[:3])
        if root not in self._remotes:
            self._remotes[root] = Remote(url, self._timeout)
        return self._remotes[root]

    @property
    def requests(self) -> int:
        """Requests made so far."""
        return sum(remote.requests for remote in self._remotes.values())

    def know(self, url: str, found: Identity) -> None:
        """A listing has just told this of an object: it need not be asked again."""
        self._known[url] = found

    def identify(self, url: str, members: Sequence[str]) -> Identity:
        """Size, time and content id of a checkpoint now."""
        remote = self.remote(url)
        info = remote.info(url)
        if info.get("type") == "directory":
            return together([identity_of(item) for _, item in sorted(remote.find(url).items())])
        folder = url.rpartition("/")[0]
        return together([identity_of(info), *(identity_of(remote.info(f"{folder}/{name}")) for name in members)])

    def stat(self, path: str) -> FileStat:
        """Size, time and kind."""
        known = self._known.get(path)
        if known is None:
            info = self.remote(path).info(path)
            if info.get("type") == "directory":
                return FileStat(0, None, None, is_dir=True)
            if info.get("size") is None:
                raise RemoteError(
                    Kind.REMOTE, f"{path}: the server does not tell the size, which reading by ranges needs"
                )
            known = identity_of(info)
        mtime = None if known.modified_ns is None else known.modified_ns / 1e9
        return FileStat(known.size, mtime, known.etag, is_dir=False)

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        remote = self.remote(path)
        own = remote.inner(path).rstrip("/")
        names = {
            str(item["name"]).rstrip("/").rpartition("/")[2]
            for item in remote.listing(path)
            if str(item["name"]).rstrip("/") != own
        }
        return sorted(names)

    def open(self, path: str, *, inside: str | None = None) -> RemoteSource:  # noqa: ARG002 - stores have no links
        """A file's bytes."""
        found = self.stat(path)
        if found.is_dir:
            raise RemoteError(Kind.DAMAGED, f"{path} is a directory, expected a file")
        return RemoteSource(self.remote(path), path, found.size)
