"""What a file may ask of the reader. Each bound has a reason; each can be raised for a legitimate giant."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace

from ckptdoctor.model import CkptDoctorError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds on everything that a stranger's file declares. `--limit NAME=NUMBER` changes one, as does a changed copy (`dataclasses.replace`).

    Attributes:
        json_bytes: size of one JSON document. The configuration of a 10,000-layer model has about 20 MB.
        json_items: values in one JSON document, by its brackets and commas; each costs about 100 bytes of memory.
        json_depth: nesting of one JSON document. Keras nests 6 levels a nested model; ten models deep is unheard of.
        hdf5_objects: groups and datasets in one HDF5 file. A 2,000-layer model with Adam has about 20,000.
        hdf5_depth: nesting of groups. Real models stay below 30; 3,000 levels took libraries 15 s.
        hdf5_messages: messages in one object header. Keras writes fewer than 12; weight lists with many attributes
            reach hundreds.
        hdf5_header_bytes: size of one object header. The format bounds a message at 64 KiB.
        hdf5_metadata_bytes: bytes of metadata read from one HDF5 file in all. 20,000 objects take about 40 MB.
        hdf5_attribute_bytes: size of one attribute's value. Legacy files hold the whole configuration in one.
        rank: dimensions of a tensor; HDF5 and numpy both stop at 32.
        zip_members: entries of an archive. Assets can be many (vocabularies), weights are one.
        zip_ratio: inflated to stored size of one member (or of a compressed tensor). Weights deflate by 1.1, weights that
            are all NaN by 1,000, so the bound is only for what is larger than `zip_ratio_floor`.
        zip_ratio_floor: below this many inflated bytes a high ratio does no harm.
        inflate_memory_bytes: a deflated member up to this size is inflated in memory, a larger one into an unlinked
            temporary file.
        inflate_disk_bytes: the most one archive may ask of that temporary file; half of what is free is never exceeded.
        sparse_floor_bytes, sparse_ratio: a file larger than the first of which less than one part in `sparse_ratio` is
            allocated on disk is refused: reading it costs hours and it holds nothing.
        directory_entries: files listed in a directory checkpoint.
        shards: files of a sharded checkpoint.
        table_bytes: size of a TensorFlow checkpoint's index. About 60 bytes a tensor.
        table_entries: tensors in it.
        proto_bytes: size of one protocol buffer (`saved_model.pb` of a large graph has about 50 MB).
        proto_nodes: trackable objects in an object graph.
        follow_links: follow symbolic links that leave a directory checkpoint.
        child_memory_bytes: address space of the contained HDF5 child above what its imports took.
        child_cpu_seconds: processor time of that child.
        child_wall_seconds: longest wait for one answer of that child.
        child_reply_bytes: longest single answer (the listing of a file) taken from that child.
    """

    json_bytes: int = 64 * MIB
    json_items: int = 2_000_000
    json_depth: int = 128
    hdf5_objects: int = 200_000
    hdf5_depth: int = 64
    hdf5_messages: int = 4096
    hdf5_header_bytes: int = 4 * MIB
    hdf5_metadata_bytes: int = 128 * MIB
    hdf5_attribute_bytes: int = 32 * MIB
    rank: int = 32
    zip_members: int = 65_536
    zip_ratio: int = 100
    zip_ratio_floor: int = 4 * GIB
    inflate_memory_bytes: int = 8 * MIB
    inflate_disk_bytes: int = 64 * GIB
    sparse_floor_bytes: int = GIB
    sparse_ratio: int = 100
    directory_entries: int = 100_000
    shards: int = 4096
    table_bytes: int = 256 * MIB
    table_entries: int = 1_000_000
    proto_bytes: int = 512 * MIB
    proto_nodes: int = 1_000_000
    follow_links: bool = False
    child_memory_bytes: int = GIB
    child_cpu_seconds: int = 120
    child_wall_seconds: float = 10.0
    child_reply_bytes: int = 64 * MIB


DEFAULT_LIMITS = ReadLimits()

_current: ContextVar[ReadLimits] = ContextVar("read_limits", default=DEFAULT_LIMITS)
_UNITS = {"": 1, "KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": GIB * KIB}
_AMOUNT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]iB)?\s*", re.IGNORECASE)


def current_limits() -> ReadLimits:
    """Those of the innermost `use_limits`, else the defaults."""
    return _current.get()


@contextmanager
def use_limits(changes: Mapping[str, float]) -> Iterator[ReadLimits]:
    """Read under other limits than the defaults. Takes and raises what `changed_limits` does."""
    token = _current.set(changed_limits(changes))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


def changed_limits(changes: Mapping[str, float]) -> ReadLimits:
    """The defaults with other numbers.

    Args:
        changes: numbers by the names of the attributes of `ReadLimits`; for `follow_links` True or False.

    Raises:
        CkptDoctorError: no such limit, or a number that it cannot have.
    """
    kinds: dict[str, type] = {f.name: type(f.default) for f in fields(ReadLimits)}
    values: dict[str, float] = {}
    for name, value in changes.items():
        kind = kinds.get(name)
        if kind is None:
            near = difflib.get_close_matches(name, kinds, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known limits: {', '.join(kinds)}"
            raise CkptDoctorError(f"there is no limit '{name}'; {hint}")
        if not math.isfinite(value) or value < 0 or (kind is not bool and value == 0):
            raise CkptDoctorError(f"the limit '{name}' expects a positive number, found {value:g}")
        values[name] = kind(value)
    return replace(DEFAULT_LIMITS, **values)  # type: ignore[arg-type] # each of its attribute's own type


def parse_amount(text: str) -> float | None:
    """`300`, `0.5GiB`, `true` as a number; None where it is none."""
    if text.strip().lower() in ("true", "false"):
        return float(text.strip().lower() == "true")
    found = _AMOUNT.fullmatch(text)
    return None if found is None else float(found[1]) * _UNITS[(found[2] or "").upper()]
