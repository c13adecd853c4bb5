"""Telling URLs from paths. Imports nothing: every scan asks this first."""

from __future__ import annotations


def is_url(path: str) -> bool:
    """Whether a path is for fsspec. `file://` is not: see `local_path`."""
    scheme, found, _ = path.partition("://")
    return bool(found and scheme) and all(c.isalnum() or c in "+-.:" for c in scheme) and scheme != "file"


def local_path(path: str) -> str:
    """`file:///runs` as `/runs`; anything else as it is."""
    return path.removeprefix("file://") if path.startswith("file://") else path


def in_this_process(path: str) -> bool:
    """Whether a store lives in this process's memory, where no worker process can see it."""
    return path.startswith("memory://")
