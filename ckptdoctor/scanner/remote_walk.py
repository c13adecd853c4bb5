"""Finding checkpoints behind URLs: one listing a directory, nothing is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ckptdoctor.scanner.identify import Identity
from ckptdoctor.scanner.names import Found, checkpoint_directory, find_checkpoints, natural_key, parent, run_of
from ckptdoctor.scanner.patterns import compile_pattern, has_magic, split_root
from ckptdoctor.scanner.remote import Remote, RemoteError, identity_of, together
from ckptdoctor.scanner.walk import Candidate, Event, Filters, Keeper, Trouble

DEPTH_LIMIT = 64  # directories deep; web pages can link to themselves for ever


def walk_url(url: str, filters: Filters, timeout: float) -> Iterator[Event]:
    """Every checkpoint at or below a URL, which may hold wildcards.

    Raises:
        RemoteError: the library for it is not installed, or the store does not even say what is there.
    """
    url = url.rstrip("/")
    only, depth, start = None, None, url
    if has_magic(url):
        (start, depth), only = split_root(url), url
    remote = Remote(start, timeout)
    if only is None and not url.endswith("/") and (candidate := _single(remote, url, filters)) is not None:
        yield candidate
        return
    yield from _RemoteWalk(remote, filters, only, depth).below(start)


def _single(remote: Remote, url: str, filters: Filters) -> Candidate | None:
    """The candidate where the URL names an object; None where it names a directory."""
    info = remote.info(url)
    if info.get("type") == "directory":
        return None
    name = url.rpartition("/")[2]
    if (
        url.startswith("http")
        and not tuple(find_checkpoints([name], sniff=False))
        and "html" in str(info.get("mimetype", ""))
    ):
        return None  # a page of links
    found = identity_of(info)
    members: tuple[str, ...] = ()
    if name.endswith((".weights.json", ".index")):
        entries = {_name(item): item for item in remote.listing(parent(url)) if item.get("type") != "directory"}
        members = next((f.members for f in find_checkpoints(tuple(entries), sniff=False) if f.name == name), ())
        found = together([found, *(identity_of(entries[m]) for m in members)])
    return Candidate(url, run_of(parent(url)), found, members, explicit=True) if filters.recent(found) else None


def _name(item: dict[str, Any]) -> str:
    return str(item["name"]).rstrip("/").rpartition("/")[2]


class _RemoteWalk:
    """A depth-first walk with an explicit stack."""

    def __init__(self, remote: Remote, filters: Filters, only: str | None, depth: int | None) -> None:
        self._remote, self._filters, self._only, self._depth = remote, filters, only, depth
        self._keeper = Keeper(filters)

    def below(self, root: str) -> Iterator[Event]:
        """Every event at or below a directory."""
        stack: list[tuple[str, int, bool, bool]] = [(root, 0, self._only is None, False)]
        while stack:
            url, level, wanted, leaving = stack.pop()
            if leaving:
                yield from self._keeper.end(url)
                continue
            try:
                entries = self._remote.listing(url)
            except RemoteError as error:
                if level == 0:
                    raise
                yield Trouble(url, run_of(url), error.kind, str(error))
                continue
            wanted = wanted or self._matches(url)
            yield from self._here(url, level, wanted, entries, stack)
        yield from self._keeper.end_all()

    def _here(
        self,
        url: str,
        level: int,
        wanted: bool,
        entries: Sequence[dict[str, Any]],
        stack: list[tuple[str, int, bool, bool]],
    ) -> Iterator[Event]:
        own = self._remote.inner(url).rstrip("/")
        files, directories = {}, []
        for item in entries:
            full = str(item["name"]).rstrip("/")
            name = full.rpartition("/")[2]
            if full == own or not name or name in {".", ".."} or "?" in name:
                continue
            if item.get("type") == "directory":
                directories.append(name)
            else:
                files[name] = item
        if checkpoint_directory(files, directories):
            yield from self._directory_checkpoint(url, wanted)
            return
        for found in find_checkpoints(tuple(files), sniff=bool(self._filters.include)):
            yield from self._file(url, found, files, wanted)
        if run_of(url) == url:
            stack.append((url, level, wanted, True))
        if level < DEPTH_LIMIT and (wanted or self._depth is None or level < self._depth):
            names = (
                n
                for n in sorted(directories, key=natural_key, reverse=True)
                if not self._filters.excludes(f"{url}/{n}", n)
            )
            stack.extend((f"{url}/{name}", level + 1, wanted, False) for name in names)

    def _matches(self, url: str) -> bool:
        return self._only is not None and compile_pattern(self._only).fullmatch(url) is not None

    def _directory_checkpoint(self, url: str, wanted: bool) -> Iterator[Event]:
        name = url.rpartition("/")[2]
        if not (wanted or self._matches(url)) or not self._filters.wants(url, name):
            return
        try:
            what = together([identity_of(item) for _, item in sorted(self._remote.find(url).items())])
        except RemoteError as error:
            yield Trouble(url, run_of(parent(url)), error.kind, str(error))
            return
        yield from self._keeper.found(run_of(parent(url)), url, what, (), directory=True)

    def _file(self, folder: str, found: Found, files: dict[str, dict[str, Any]], wanted: bool) -> Iterator[Event]:
        url = f"{folder}/{found.name}"
        if not (wanted or self._matches(url)) or not self._filters.wants(url, found.name):
            return
        try:
            parts = [self._identify(folder, name, files[name]) for name in (found.name, *found.members)]
        except RemoteError as error:
            yield Trouble(url, run_of(folder), error.kind, str(error))
            return
        yield from self._keeper.found(run_of(folder), url, together(parts), found.members)

    def _identify(self, folder: str, name: str, item: dict[str, Any]) -> Identity:
        """A listing that tells no sizes (a web page of links) costs a request for each file."""
        return identity_of(item if item.get("size") is not None else self._remote.info(f"{folder}/{name}"))
