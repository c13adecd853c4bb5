"""Finding checkpoints below local directories: a stream, in order, that never holds more than one directory's names."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nlargest

from ckptdoctor.model import CkptDoctorError
from ckptdoctor.scanner.identify import Identity, identify
from ckptdoctor.scanner.names import Found, checkpoint_directory, find_checkpoints, natural_key, parent, run_of
from ckptdoctor.scanner.patterns import compile_pattern, has_magic, matches, split_root
from ckptdoctor.scanner.result import Kind


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint that was found and not yet opened.

    Attributes:
        path, run: as in its result.
        members: further files of it, names beside `path`.
        identity: size and time when it was found.
        rank: its place in the order of names within its run.
        sure: False where only its content can tell whether it is a checkpoint.
        directory: it is a directory of a remote store.
        explicit: the user named it: whatever it is, there is a line about it.
    """

    path: str
    run: str
    identity: Identity
    members: tuple[str, ...] = ()
    rank: int = 0
    sure: bool = True
    explicit: bool = False
    directory: bool = False


@dataclass(frozen=True, slots=True)
class Trouble:
    """A path that could not be looked at."""

    path: str
    run: str
    kind: Kind
    message: str


@dataclass(frozen=True, slots=True)
class RunEnd:
    """No further checkpoint of this run will be found."""

    run: str


Event = Candidate | Trouble | RunEnd


@dataclass(frozen=True, slots=True)
class Filters:
    """Which of the checkpoints are wanted.

    Attributes:
        include: patterns of which one must match (none: every checkpoint). exclude: patterns of which none may; a
            matching directory is not entered.
        since: seconds since the epoch: only what was modified then or later.
        newest: only that many of each directory, by modification time.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    since: float | None = None
    newest: int | None = None

    def excludes(self, path: str, name: str) -> bool:
        """Whether an exclude pattern matches."""
        return any(matches(pattern, path, name) for pattern in self.exclude)

    def wants(self, path: str, name: str) -> bool:
        """Whether the include and exclude patterns let it through."""
        if self.include and not any(matches(pattern, path, name) for pattern in self.include):
            return False
        return not self.excludes(path, name)

    def recent(self, found: Identity) -> bool:
        """Whether it was modified late enough; objects without a time are."""
        return self.since is None or found.modified_ns is None or found.modified_ns / 1e9 >= self.since - 1e-6


def os_trouble(path: str, run: str, error: OSError | ValueError) -> Trouble:
    """The sentence for a path that the system would not show."""
    if isinstance(error, PermissionError):
        return Trouble(path, run, Kind.DENIED, f"{path}: permission denied; run as a user that may read it")
    if isinstance(error, FileNotFoundError):
        if os.path.islink(path):
            return Trouble(
                path, run, Kind.VANISHED, f"{path} is a link to something that does not exist; remove the link"
            )
        return Trouble(path, run, Kind.VANISHED, f"{path} vanished during the scan; scan again")
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return Trouble(path, run, Kind.LOOP, f"{path} is a loop of links; remove the link")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Trouble(path, run, Kind.DENIED, f"{path} cannot be read: {reason}")


def walk(roots: Sequence[str], filters: Filters) -> Iterator[Event]:
    """Every checkpoint at or below the roots: files, directories, or paths with wildcards.

    Raises:
        CkptDoctorError: a root that does not exist.
    """
    plain = list(dict.fromkeys(_normal(root) for root in roots))
    done: list[str] = []  # real paths of the roots before this one: nothing comes twice
    for root in plain:
        if has_magic(root) and not os.path.lexists(root):
            start, depth = split_root(root)
            if os.path.isdir(start):  # else nothing matches, which the caller says when nothing at all was found
                yield from _Walk(filters, done, only=root, depth=depth).below(start)
        elif _is_directory(root):
            yield from _Walk(filters, done).below(root)
            done.append(os.path.realpath(root))
        elif os.path.realpath(root) not in done:
            yield _explicit(root)
            done.append(os.path.realpath(root))


def walk_list(paths: Iterator[str], filters: Filters) -> Iterator[Event]:
    """Checkpoints named one by one (`--files-from`); directories among them are walked.

    A path that does not exist is a `Trouble` and no error: the list may be old.
    """
    seen: set[int] = set()
    for path in paths:
        root = _normal(path)
        if (key := hash(root)) in seen:
            continue
        seen.add(key)
        if os.path.isdir(root):
            yield from (event for event in _Walk(filters, ()).below(root) if not isinstance(event, RunEnd))
            continue
        try:
            found = identify(root)
        except (OSError, ValueError) as error:
            yield os_trouble(root, run_of(parent(root)), error)
            continue
        if filters.wants(root, os.path.basename(root)) and filters.recent(found):
            yield Candidate(root, run_of(parent(root)), found, explicit=True)


def _normal(root: str) -> str:
    trimmed = root.rstrip("/") or "/"
    return trimmed[2:] if trimmed.startswith("./") and len(trimmed) > 2 else trimmed


def _is_directory(root: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(root).st_mode)
    except FileNotFoundError:
        raise CkptDoctorError(
            f"{root} does not exist; name a directory, a file or a pattern with checkpoints"
        ) from None
    except (OSError, ValueError) as error:
        raise CkptDoctorError(os_trouble(root, root, error).message) from None


def _explicit(path: str) -> Event:
    run = run_of(parent(path))
    try:
        return Candidate(path, run, identify(path), explicit=True)
    except (OSError, ValueError) as error:
        return os_trouble(path, run, error)


@dataclass(slots=True)
class _Listing:
    """A directory on the way down, and which of its directories remain to be visited.

    Attributes:
        ancestors: device and inode of every directory down to this one: meeting one again is a loop.
        wanted: whether everything below is wanted (always, unless a path with wildcards has yet to match).
        owner: whether the run ends with this directory.
    """

    path: str
    ancestors: tuple[tuple[int, int], ...]
    wanted: bool
    owner: bool
    directories: list[str] = field(default_factory=list)


class Keeper:
    """Numbers the checkpoints of each run as they are found and, for `newest`, holds them back until the run ends."""

    def __init__(self, filters: Filters) -> None:
        self._filters = filters
        self._ranks: dict[str, int] = {}
        self._held: dict[str, list[Candidate]] = {}

    def found(
        self,
        run: str,
        path: str,
        what: Identity,
        members: tuple[str, ...],
        *,
        sure: bool = True,
        directory: bool = False,
    ) -> Iterator[Event]:
        """A checkpoint, unless it is too old or has to wait for the end of its run."""
        if not self._filters.recent(what):
            return
        rank = self._ranks[run] = self._ranks.get(run, 0) + 1
        candidate = Candidate(path, run, what, members, rank, sure, directory=directory)
        limit = self._filters.newest
        if limit is None:
            yield candidate
            return
        held = self._held.setdefault(run, [])
        held.append(candidate)
        if len(held) > 2 * limit + 64:  # cut now and then, not at every file
            held[:] = nlargest(limit, held, key=_age)

    def end(self, run: str) -> Iterator[Event]:
        """The run's newest checkpoints in the order of their names, and its end."""
        self._ranks.pop(run, None)
        if self._filters.newest is not None:
            chosen = nlargest(self._filters.newest, self._held.pop(run, ()), key=_age)
            yield from sorted(chosen, key=lambda c: c.rank)
        yield RunEnd(run)

    def end_all(self) -> Iterator[Event]:
        """The same for every run that has not ended."""
        for run in tuple(self._ranks):
            yield from self.end(run)


def _age(candidate: Candidate) -> tuple[int, int]:
    return candidate.identity.modified_ns or 0, candidate.rank


class _Walk:
    """A depth-first walk below one root with an explicit stack: depth costs no recursion.

    Args:
        filters: what is wanted.
        done: real paths that were walked before; nothing below them comes again.
        only: path with wildcards that a checkpoint, or a directory above it, must match.
        depth: how many components below the start `only` can reach; None for any number.
    """

    def __init__(
        self, filters: Filters, done: Sequence[str], *, only: str | None = None, depth: int | None = None
    ) -> None:
        self._filters, self._done = filters, tuple(done)
        self._only, self._depth = only, depth
        self._root = ""
        self._keeper = Keeper(filters)

    def below(self, root: str) -> Iterator[Event]:
        """Every event at or below a directory."""
        self._root = os.path.realpath(root)
        stack: list[_Listing] = []
        yield from self._enter(root, (), stack, wanted=self._only is None)
        while stack:
            top = stack[-1]
            if top.directories:
                yield from self._enter(top.directories.pop(), top.ancestors, stack, wanted=top.wanted)
                continue
            stack.pop()
            if top.owner:
                yield from self._keeper.end(top.path)
        yield from self._keeper.end_all()

    def _enter(
        self, path: str, ancestors: tuple[tuple[int, int], ...], stack: list[_Listing], *, wanted: bool
    ) -> Iterator[Event]:
        run = run_of(path)
        try:
            own = os.stat(path)
            key = (own.st_dev, own.st_ino)
            if key in ancestors:
                yield Trouble(
                    path, run, Kind.LOOP, f"{path} links back to a directory above it; it was not followed again"
                )
                return
            if self._comes_otherwise(path):
                return
            files, directories = _names(path)
        except (OSError, ValueError) as error:
            yield os_trouble(path, run, error)
            return
        wanted = wanted or self._matches(path)
        if checkpoint_directory(files, directories):
            yield from self._select(parent(path), [(path, Found(""))], wanted=wanted)
            return
        yield from self._select(
            path, [(_join(path, f.name), f) for f in find_checkpoints(files, sniff=True)], wanted=wanted
        )
        listing = _Listing(path, (*ancestors, key), wanted, owner=run == path)
        if wanted or self._depth is None or len(ancestors) < self._depth:
            paths = (_join(path, d) for d in sorted(directories, key=natural_key, reverse=True))
            listing.directories = [p for p in paths if not self._filters.excludes(p, os.path.basename(p))]
        stack.append(listing)

    def _matches(self, path: str) -> bool:
        return self._only is not None and compile_pattern(self._only).fullmatch(path) is not None

    def _comes_otherwise(self, path: str) -> bool:
        """Whether a directory is reached on another way too: through an earlier root, or as the target of a link."""
        if not self._done and not os.path.islink(path):
            return False
        real = os.path.realpath(path)
        if any(real == root or real.startswith(root.rstrip("/") + "/") for root in self._done):
            return True
        return os.path.islink(path) and real.startswith(self._root.rstrip("/") + "/")

    def _select(self, folder: str, found: Sequence[tuple[str, Found]], *, wanted: bool) -> Iterator[Event]:
        run = run_of(folder)
        for path, member in found:
            if not (wanted or self._matches(path)) or not self._filters.wants(path, os.path.basename(path)):
                continue
            if self._done and os.path.realpath(path) in self._done:
                continue
            if not member.sure and not self._filters.include and not _looks_like_checkpoint(path):
                continue
            try:
                what = identify(path, member.members)
            except (OSError, ValueError) as error:
                yield os_trouble(path, run, error)
                continue
            yield from self._keeper.found(run, path, what, member.members, sure=member.sure)


def _names(path: str) -> tuple[list[str], list[str]]:
    """Files and directories of a directory, links followed; pipes, sockets and devices are left out."""
    files: list[str] = []
    directories: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                if entry.is_dir():
                    directories.append(entry.name)
                elif entry.is_file() or not os.path.exists(entry.path):
                    files.append(entry.name)
            except OSError:  # a loop of links: looking at it says so in its turn
                files.append(entry.name)
    return files, directories


def _join(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder.rstrip('/')}/{name}"


def _looks_like_checkpoint(path: str) -> bool:
    """Whether a file without a telling name starts as a checkpoint does (HDF5 or zip), and then really is one."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError):
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        head = os.pread(fd, 8, 0)
    except OSError:
        return False
    finally:
        os.close(fd)
    if head != b"\x89HDF\r\n\x1a\n" and head[:4] != b"PK\x03\x04":
        return False
    from ckptdoctor.checkpoints import detect_format

    return detect_format(path) is not None
