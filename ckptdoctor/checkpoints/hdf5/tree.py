"""What an HDF5 file holds, as plain values: the same from the own reader and from the contained child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ckptdoctor.checkpoints.sources import Window
from ckptdoctor.model import Problem

SIGNATURE = b"\x89HDF\r\n\x1a\n"
LAST_SIGNATURE_OFFSET = 1 << 20  # a user block before the file is a power of two from 512; Keras writes none


class H5Error(Exception):
    """Something in the file that cannot be followed. Never leaves this package."""


class Unsupported(H5Error):  # noqa: N818 - reads as what the bytes are
    """Well formed, but not something that the own reader knows: the contained child may."""


class Damaged(H5Error):  # noqa: N818 - reads as what the bytes are
    """Bytes that contradict the format or each other."""


class Cut(Damaged):
    """Bytes that lie beyond the end of the file."""


class Hostile(H5Error):  # noqa: N818 - reads as what the bytes are
    """A construct that no checkpoint needs and that reaches outside the file or eats resources."""


@dataclass(frozen=True, slots=True)
class H5Group:
    """A group: attributes decoded (strings, numbers, lists of strings), and where its header stands."""

    path: str
    address: int
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class H5Dataset:
    """A dataset.

    Attributes:
        path: without a leading slash.
        address: of its object header, which orders datasets by creation.
        shape, dtype: as declared; dtype as in `TensorInfo`, or a description of what it is instead of a number.
        numeric: False where the entries are not numbers.
        nbytes: entries times width.
        offset: of its bytes from the start of the HDF5 file, None where they must be decoded or there are none.
        storage: `contiguous`, `compact`, `chunked`, `unwritten` or `refused`.
        problem: why the bytes cannot be had, None otherwise.
    """

    path: str
    address: int
    shape: tuple[int, ...]
    dtype: str
    numeric: bool
    nbytes: int
    offset: int | None
    storage: str
    attributes: Mapping[str, Any]
    problem: str | None = None


@dataclass(slots=True)
class H5Tree:
    """Everything found in one HDF5 file.

    Attributes:
        groups: by path, the root as "".
        datasets: by creation.
        problems: in the order they were met.
        declared_bytes: length the file says it has; larger than `actual_bytes` when it was cut.
        lost: paths that are named in the file but whose headers could not be read.
        complete: False where a part of the tree could not be followed.
    """

    groups: dict[str, H5Group] = field(default_factory=dict)
    datasets: list[H5Dataset] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    declared_bytes: int = 0
    actual_bytes: int = 0
    lost: list[str] = field(default_factory=list)
    complete: bool = True


def find_signature(window: Window) -> int | None:
    """Where the HDF5 superblock starts: 0, or behind a user block of 512, 1024, … bytes. None without one."""
    offset = 0
    while offset <= LAST_SIGNATURE_OFFSET and offset + len(SIGNATURE) <= window.size:
        if window.read(offset, len(SIGNATURE)) == SIGNATURE:
            return offset
        offset = 512 if offset == 0 else offset * 2
    return None
