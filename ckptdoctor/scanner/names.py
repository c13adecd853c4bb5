"""What file names tell: which are checkpoints, which belong together, in what order, and of which epoch."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

CHECKPOINT_FOLDERS = frozenset({"checkpoints", "checkpoint", "ckpts", "ckpt"})
"""Names of directories that belong to the run above them."""

_SUFFIXES = (".keras", ".h5", ".hdf5", ".weights.json", ".index")
_SHARD = re.compile(r"(.+)_\d{5}\.weights\.h5")
_DATA = re.compile(r".+\.data-\d{5}-of-\d{5}")
# Written next to the final name by savers and copiers, renamed when complete.
_PARTIAL = re.compile(r"(\.tmp|\.part|\.partial|\.crdownload|~|\.swp|\.tmp\.[\w-]+)$|^\.", re.IGNORECASE)
_NOT_CHECKPOINTS = (
    ".npz",
    ".npy",
    ".csv",
    ".json",
    ".jsonl",
    ".txt",
    ".log",
    ".py",
    ".md",
    ".png",
    ".yaml",
    ".yml",
    ".html",
)


@dataclass(frozen=True, slots=True)
class Found:
    """One checkpoint among the names of a directory.

    Attributes:
        name: the file, or "" for the directory itself.
        members: further files that belong to it (shards, data files).
        sure: False where only its content can tell whether it is a checkpoint.
    """

    name: str
    members: tuple[str, ...] = ()
    sure: bool = True


def checkpoint_directory(files: Collection[str], directories: Collection[str]) -> bool:
    """Whether a directory with these names is one checkpoint itself (SavedModel, unzipped `.keras`, Orbax step)."""
    if "saved_model.pb" in files:
        return True
    if (
        "config.json" in files
        and "metadata.json" in files
        and ("model.weights.h5" in files or "model.weights.npz" in files)
    ):
        return True
    return "_CHECKPOINT_METADATA" in files or (
        "_METADATA" in files and ("manifest.ocdbt" in files or "d" in directories)
    )


def find_checkpoints(files: Sequence[str], *, sniff: bool) -> Iterator[Found]:
    """The checkpoints among the files of one directory, in the order of their numbers.

    Args:
        files: names, any order.
        sniff: also give files of unknown names, marked as not sure.
    """
    present = set(files)
    stems = {name[: -len(".weights.json")] for name in files if name.endswith(".weights.json")}
    for name in sorted(files, key=natural_key):
        low = name.lower()
        if low.endswith(".index"):
            data = tuple(n for n in _data_files(name, present))
            if data:
                yield Found(name, data)
        elif (shard := _SHARD.fullmatch(name)) and shard[1] in stems:
            continue
        elif low.endswith(".weights.json"):
            stem = re.escape(name[: -len(".weights.json")])
            yield Found(name, tuple(n for n in files if re.fullmatch(stem + r"_\d{5}\.weights\.h5", n)))
        elif low.endswith(_SUFFIXES) and not _PARTIAL.search(name):
            yield Found(name)
        elif sniff and not low.endswith(_NOT_CHECKPOINTS) and not _PARTIAL.search(name) and not _DATA.fullmatch(name):
            yield Found(name, sure=False)


def _data_files(index: str, present: Collection[str]) -> Iterator[str]:
    stem = index[: -len(".index")]
    first = next((n for n in (f"{stem}.data-00000-of-{count:05d}" for count in range(1, 65)) if n in present), None)
    if first is None:
        return
    count = int(first[-5:])
    yield from (n for n in (f"{stem}.data-{i:05d}-of-{count:05d}" for i in range(count)) if n in present)


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts `epoch_9` before `epoch_10`."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d{1,18})", name) if part
    )


def run_of(directory: str) -> str:
    """The run that checkpoints in a directory belong to: the directory, or the one above a `checkpoints/`."""
    trimmed = directory.rstrip("/") or directory
    head, slash, tail = trimmed.rpartition("/")
    if tail.lower() in CHECKPOINT_FOLDERS and slash and head and not head.endswith(":/"):
        return head
    return trimmed or "."


def parent(path: str) -> str:
    """The directory of a path or URL; `.` for a bare name."""
    head, _, _ = path.rstrip("/").rpartition("/")
    if head:
        return head
    return "/" if path.startswith("/") else "."


_EPOCH = re.compile(r"(?:epoch|ep)[-_=.]?(\d{1,9})(?!\d)", re.IGNORECASE)
_LEADING = re.compile(r"(?:(?:weights|cp)[-_.])?(\d{1,9})(?=$|[-_])", re.IGNORECASE)  # "weights.05-0.33", "07-0.12"


def epoch_in_name(path: str) -> int | None:
    """The epoch that a file name states (`epoch_003`, `ep12`, `07-0.12`, `weights.05-0.33`), None where it states none."""
    name = os.path.basename(path.rstrip("/"))
    for suffix in (".weights.h5", ".weights.json", *_SUFFIXES):
        name = name.removesuffix(suffix)
    found = _EPOCH.search(name) or _LEADING.match(name)
    return int(found[1]) if found else None
