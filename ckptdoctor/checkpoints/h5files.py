"""An HDF5 file as raw tensors: the own reader first, the contained child for what only the library knows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckptdoctor.checkpoints.contained import Contained, blocks
from ckptdoctor.checkpoints.contract import ByteSource, CheckpointError, Span, TensorReadError
from ckptdoctor.checkpoints.dtypes import canonical_name, is_known, itemsize, plausible
from ckptdoctor.checkpoints.hdf5 import H5Dataset, H5Group, H5Tree, Unsupported, find_signature, read_tree
from ckptdoctor.checkpoints.hdf5.tree import H5Error
from ckptdoctor.checkpoints.keras3 import Chunks, RawTensor, known_dtype_problem, span_chunks, unreadable
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import Window
from ckptdoctor.model import Problem, ProblemKind

_BLOCK = 4 << 20  # bytes asked of the child at a time


@dataclass(slots=True)
class H5Content:
    """What an HDF5 file holds. `missing_bytes` are of tensors that are named but whose bytes are not there."""

    tree: H5Tree
    tensors: list[RawTensor]
    names: dict[str, str]
    order: dict[str, int]
    problems: list[Problem]
    located_bytes: int = 0
    missing_bytes: int = 0
    sources: tuple[ByteSource, ...] = ()

    @property
    def coverage(self) -> float:
        """Located bytes over all that the file declares, 0 to 1; below 1 where a part could not be listed."""
        total = self.located_bytes + self.missing_bytes
        found = self.located_bytes / total if total else 1.0
        if self.tree.complete:
            return found
        if self.tree.declared_bytes > self.tree.actual_bytes:
            return min(found, self.tree.actual_bytes / self.tree.declared_bytes)
        return min(found, 0.999)  # something is lost and nothing says how much

    def close(self) -> None:
        """Release what opening acquired beyond the file itself."""
        for source in self.sources:
            source.close()


def open_hdf5(window: Window, where: str, limits: ReadLimits) -> H5Content:
    """Everything in an HDF5 file that can be located.

    Args:
        window: the file. where: its name for messages.

    Raises:
        CheckpointError: not HDF5, or damaged beyond its first bytes.
    """
    tree: H5Tree | None = None
    child: Contained | None = None
    note: Problem | None = None
    chunks: Mapping[str, tuple[int, ...] | None] = {}
    try:
        tree = read_tree(window, limits)
        needed = any(d.storage == "chunked" for d in tree.datasets)
    except Unsupported:
        needed = True
    except H5Error as error:
        raise CheckpointError(f"{where} cannot be read as HDF5: {error}") from None
    if needed:
        child = Contained("h5_child.py", "the HDF5 library", where, limits, window=window, reusable=True)
        try:
            tree, chunks = _ask_tree(child, window, limits)
        except CheckpointError as error:
            child.close()
            child = None
            if tree is None:
                raise
            note = Problem(ProblemKind.UNSUPPORTED, str(error))
    assert tree is not None
    content = H5Content(tree, [], {}, {}, list(tree.problems), sources=() if child is None else (child,))
    if note is not None:
        content.problems.append(note)
    _fill(content, window, child, chunks)
    return content


def _fill(
    content: H5Content, window: Window, child: Contained | None, chunks: Mapping[str, tuple[int, ...] | None]
) -> None:
    tree = content.tree
    if tree.declared_bytes > window.size:
        content.problems.insert(
            0,
            Problem(
                ProblemKind.DAMAGED,
                f"the weights file should have {tree.declared_bytes:,} bytes but has {window.size:,}: it was cut off",
            ),
        )
    for path, group in tree.groups.items():
        if path == "vars" or path.endswith("/vars"):
            owner = path[:-5]
            name = group.attributes.get("name")
            if isinstance(name, str) and name:
                content.names[owner] = name
            content.order[owner] = group.address
    told = {p.message for p in content.problems}
    for dataset in tree.datasets:
        owner = dataset.path.rpartition("/vars/")[0]
        if owner in content.order:  # libhdf5 reuses freed space for small things: the latest address tells the time
            content.order[owner] = max(content.order[owner], dataset.address)
        raw = _raw(dataset, window, child, chunks.get(dataset.path))
        content.tensors.append(raw)
        if raw.problem is None:
            content.located_bytes += raw.nbytes
            continue
        content.missing_bytes += raw.nbytes if dataset.storage != "refused" else 0
        if raw.problem not in told:
            content.problems.append(Problem(ProblemKind.UNSUPPORTED, raw.problem, raw.path))


def _raw(dataset: H5Dataset, window: Window, child: Contained | None, chunk: tuple[int, ...] | None) -> RawTensor:
    path = dataset.path
    problem = dataset.problem or (None if dataset.numeric else known_dtype_problem(path, dataset.dtype))
    if (
        problem is None
        and is_known(dataset.dtype)
        and itemsize(dataset.dtype) * math.prod(dataset.shape) != dataset.nbytes
    ):
        problem = f"{path} declares {dataset.nbytes:,} bytes, which its shape and dtype contradict"
    span: Span | None = None
    chunks: Chunks
    if problem is None and dataset.offset is not None:
        span = Span(window.source, window.offset + dataset.offset, dataset.nbytes)
        chunks = span_chunks(span)
    elif problem is None and child is not None:
        chunks = _from_child(child, dataset, chunk)
    else:
        problem = problem or f"{path} is stored in chunks, which Keras does not write and which could not be decoded"
        chunks = unreadable(problem)
    return RawTensor(path, dataset.address, dataset.shape, dataset.dtype, dataset.nbytes, span, chunks, problem)


def _from_child(child: Contained, dataset: H5Dataset, chunk: tuple[int, ...] | None) -> Chunks:
    def chunks() -> Iterator[bytes | memoryview]:
        done = 0
        width = dataset.nbytes // max(1, math.prod(dataset.shape))
        for start, count in blocks(dataset.shape, chunk, width, _BLOCK):
            try:
                data = child.ask({"ask": "read", "path": dataset.path, "start": start, "count": count})
            except CheckpointError as error:
                raise TensorReadError(str(error)) from None
            done += len(data)
            if done > dataset.nbytes:
                raise TensorReadError(f"{dataset.path} gave more bytes than it declares")
            yield data
        if done != dataset.nbytes:
            raise TensorReadError(f"{dataset.path} gave {done:,} of its {dataset.nbytes:,} bytes")

    return chunks


# --- the child's listing ---------------------------------------------------------------------------


def _ask_tree(child: Contained, window: Window, limits: ReadLimits) -> tuple[H5Tree, dict[str, tuple[int, ...] | None]]:
    """The tree as the library sees it, checked again here: the child is not trusted either."""
    answer = json.loads(child.ask({"ask": "list"}))
    tree = H5Tree(declared_bytes=window.size, actual_bytes=window.size)
    start = find_signature(window) or 0
    chunks: dict[str, tuple[int, ...] | None] = {}
    swollen = 0  # bytes that far fewer stored ones become: one tensor may be harmless and a thousand of them not
    try:
        for row in answer["rows"]:
            path, address, attributes = str(row["path"]), int(row["address"]), dict(row["attributes"])
            if "dataset" in row:
                listed = _listed(path, address, attributes, row["dataset"], window, start, swollen, limits)
                tree.datasets.append(listed)
                if listed.nbytes > limits.zip_ratio * _stored(row["dataset"], window):
                    swollen += listed.nbytes
                declared = row["dataset"]["chunks"]
                chunks[path] = tuple(int(c) for c in declared) if declared else None
            else:
                tree.groups[path] = H5Group(path, address, attributes)
        for where, kind, message in answer["problems"]:
            tree.problems.append(Problem(ProblemKind(kind), str(message)[:1000], str(where)[:1000]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{window.source.name}: the HDF5 library's listing makes no sense ({error})") from None
    for dataset in tree.datasets:
        if dataset.problem is not None:
            kind = ProblemKind.HOSTILE if dataset.storage == "refused" else ProblemKind.DAMAGED
            tree.problems.append(Problem(kind, dataset.problem, dataset.path))
    tree.datasets.sort(key=lambda d: d.address)
    return tree, chunks


def _listed(
    path: str,
    address: int,
    attributes: Mapping[str, Any],
    row: Mapping[str, Any],
    window: Window,
    start: int,
    swollen: int,
    limits: ReadLimits,
) -> H5Dataset:
    shape = tuple(int(e) for e in row["shape"])
    width = int(row["width"])
    if len(shape) > limits.rank or not plausible(shape, width):
        raise ValueError(path)
    nbytes = math.prod(shape) * width
    dtype, numeric = _listed_dtype(str(row["dtype"]), attributes, width)
    storage = str(row["storage"])
    offset = row["offset"]
    problem: str | None = None
    if row["refused"]:
        problem = f"{path} {row['refused']}: Keras never writes this, and it was not read"
    elif swollen + nbytes > limits.zip_ratio_floor and nbytes > limits.zip_ratio * _stored(row, window):
        storage = "refused"
        problem = (
            f"{path} declares {nbytes:.3g} bytes but stores {int(row['stored']):,} "
            "(a shape bomb, CVE-2026-0897): it was not read"
        )
    elif offset is not None and not 0 <= start + int(offset) <= start + int(offset) + nbytes <= window.size:
        problem = f"{path} lies beyond the end of the file"
    place = None if offset is None or problem is not None else start + int(offset)
    if place is None and nbytes == 0:
        place = 0
    return H5Dataset(path, address, shape, dtype, numeric, nbytes, place, storage, attributes, problem)


def _stored(row: Mapping[str, Any], window: Window) -> int:
    """Bytes that a tensor takes in the file; an index that names one place many times adds up to more than there is."""
    return max(1, min(int(row["stored"]), window.size))


def _listed_dtype(code: str, attributes: Mapping[str, Any], width: int) -> tuple[str, bool]:
    note = attributes.get("dtype")
    if isinstance(note, str) and is_known(note) and itemsize(note) == width:
        return note, True
    if code.startswith("opaque"):
        return ("bfloat16", True) if width == 2 else (f"opaque entries of {width} bytes", False)
    if code[:1] in "<>|" and len(code) <= 4:
        import numpy as np

        try:
            name = canonical_name(np.dtype(code))
        except TypeError:
            name = None
        if name is not None:
            return name, True
    return code[:80], False
