"""What a name or the first bytes of a file tell: the small questions that discovery asks."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

from ckptdoctor.model import Format

MAX_LOOK = 2000
"""Files below a directory of logs that are looked at to see whether it holds checkpoints too."""

_COUNTER = re.compile(
    r"(?:epochs?|steps?|iter(?:ation)?s?|batch(?:es)?|ckpt|checkpoint|weights|model|ep|e|s)[-_.=]?(\d{1,18})(?!\d*\.\d)",
    re.IGNORECASE,
)
_EPOCH = re.compile(r"(?:epochs?|(?<![a-z])ep?)[-_.=]?(\d{1,18})(?!\d)", re.IGNORECASE)
_STEP = re.compile(r"(?:steps?|iter(?:ation)?s?|global_step|(?<![a-z])s)[-_.=]?(\d{1,18})(?!\d)", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\d.])(\d{1,18})(?![\d]|\.\d)")
SERIES_WORD = re.compile(r"epoch|step|iter|ckpt|checkpoint|weights|(?:^|[^a-z])e[p]?\d|-\d+\.\d+", re.IGNORECASE)
CHECKPOINT_SUFFIXES = (".keras", ".h5", ".hdf5", ".hdf", ".weights.json", ".index")
SHARD = re.compile(r"(?P<stem>.+)_\d{5}\.weights\.h5$")


def order_numbers(path: str) -> tuple[int | None, int | None]:
    """(epoch, step) that a checkpoint's name tells; a number without a word counts as the epoch, as in `weights.03-0.51.h5`."""
    name = stem_of(path)
    epoch, step = _EPOCH.search(name), _STEP.search(name)
    if epoch or step:
        return (int(epoch[1]) if epoch else None, int(step[1]) if step else None)
    counter = _COUNTER.search(name) or _NUMBER.search(name)
    return (int(counter[1]), None) if counter else (None, None)


def stem_of(path: str) -> str:
    name = Path(path).name
    for suffix in (".weights.h5", ".weights.json", ".keras", ".h5", ".hdf5", ".npz", ".npy", ".index"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def series_of(path: str) -> str:
    """A name with its numbers taken out: `epoch_#.keras`. `nan` counts as a number: patterns hold losses."""
    return re.sub(r"\d+(?:\.\d+)?|\b(?:nan|inf)\b", "#", Path(path).name, flags=re.IGNORECASE)


def is_one_checkpoint(path: str, kind: Format | None) -> bool:
    """A directory that is a checkpoint, not a directory of several (a manager's folder, an orbax root of many steps)."""
    if kind is None:
        return False
    try:
        names = os.listdir(path)
    except OSError:
        return not os.path.isdir(path)
    if kind is Format.TF_CHECKPOINT:
        return sum(n.endswith(".index") for n in names) <= 1
    if kind is Format.ORBAX:
        return sum(n.isdigit() and os.path.isdir(f"{path}/{n}") for n in names) <= 1
    return True


def holds_checkpoints(path: str) -> bool:
    """Whether any name below a directory of logs is that of a checkpoint; bounded."""
    seen = 0
    for _, _, names in os.walk(path):
        seen += len(names)
        if any(n.lower().endswith((*CHECKPOINT_SUFFIXES, ".pb")) for n in names):
            return True
        if seen > MAX_LOOK:
            return True
    return False


def is_batch_file(path: str) -> bool:
    """An archive or array with an `x`; data are not read."""
    if path.lower().endswith(".npy"):
        return stem_of(path) == "x" or stem_of(path).startswith("x_")
    try:
        with zipfile.ZipFile(path) as archive:
            return any(n in ("x.npy", "x") or n.startswith("x_") for n in archive.namelist()[:10_000])
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError):
        return False


def is_batch_directory(path: str) -> bool:
    """A saved tf.data dataset, or a directory of nothing but arrays one of which is an x."""
    if is_file(f"{path}/dataset_spec.pb") and is_file(f"{path}/snapshot.metadata"):
        return True
    try:
        names = [n for n in os.listdir(path) if not n.startswith(".")]
    except OSError:
        return False
    if not names or not all(n.lower().endswith((".npz", ".npy")) for n in names):
        return False
    arrays = {n[:-4] for n in names if n.endswith(".npy")}
    return any(a == "x" or a.startswith("x_") for a in arrays) or any(
        is_batch_file(f"{path}/{n}") for n in sorted(names)[:3] if n.endswith(".npz")
    )


def has_magic(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(8)[:4] in (b"PK\x03\x04", b"\x89HDF")
    except OSError:
        return False


def is_file(path: str) -> bool:
    return os.path.isfile(path)


def exists(path: str) -> bool:
    return os.path.lexists(path) or is_file(f"{path}.index")


def leads_out(path: str, root: str) -> bool:
    """Whether a link leads out of a directory."""
    inside = os.path.realpath(root)
    return os.path.commonpath((os.path.realpath(path), inside)) != inside
