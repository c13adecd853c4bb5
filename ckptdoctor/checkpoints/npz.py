"""Weights in `model.weights.npz`: one pickled dictionary of arrays per layer, read without unpickling.

Keras stores a Python dictionary per layer, which numpy can only write as a pickle, with whole `Variable` objects in it. The
opcodes are interpreted here over plain values: what the pickle would call or construct is only noted, never imported or
called, and the arrays are found in the notes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from ckptdoctor.checkpoints.contract import CheckpointError, Span
from ckptdoctor.checkpoints.dtypes import canonical_name, is_known, itemsize
from ckptdoctor.checkpoints.keras3 import Chunks, RawTensor, known_dtype_problem, span_chunks, unreadable
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.pickles import Array, Blob, Dtype, Pickle, Refused, array_in
from ckptdoctor.checkpoints.sources import SliceOf, Window
from ckptdoctor.checkpoints.zips import member_window, read_archive
from ckptdoctor.model import Problem, ProblemKind

_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"^\{'descr': '(?P<descr>[^']{1,40})', 'fortran_order': (?P<fortran>True|False), 'shape': \((?P<shape>[0-9, ]*)\), ?\}\s*$"
)
_HEADER_BYTES = 4096
_ROOT = "__root__"


def read_npz_weights(window: Window, limits: ReadLimits) -> tuple[list[RawTensor], dict[str, str], list[Problem]]:
    """The tensors of a `model.weights.npz`, the user's layer names by group, and what could not be read.

    Raises:
        CheckpointError: not an npz archive.
    """
    archive = read_archive(SliceOf(window), limits)
    problems = list(archive.problems)
    raws: list[RawTensor] = []
    names: dict[str, str] = {}
    for order, name in enumerate(archive.members):
        group = name.removesuffix(".npy")
        group = "" if group == _ROOT else group
        try:
            member = member_window(archive, name, limits)
            for key, value in _member_values(member).items():
                path = f"{group}/vars/{key}" if group else f"vars/{key}"
                array, layer = array_in(value)
                if array is None:
                    problems.append(Problem(ProblemKind.UNSUPPORTED, f"{path} in the npz holds no numpy array", path))
                    continue
                raws.append(_raw(path, order, array, member))
                if layer and group:
                    names.setdefault(group, layer)
        except Refused as error:
            problems.append(Problem(ProblemKind.HOSTILE, f"{name} in the npz was not read: {error}", name))
        except CheckpointError as error:
            problems.append(Problem(ProblemKind.DAMAGED, str(error), name))
    return raws, names, problems


def _member_values(window: Window) -> dict[str, Any]:
    """The variables of one `.npy` member by number."""
    head = window.read(0, 12)
    if head[:6] != _MAGIC or len(head) < 12:
        raise CheckpointError("a part of the npz is not a numpy array")
    wide = head[6] >= 2
    start = 12 if wide else 10
    length = int.from_bytes(head[8:12] if wide else head[8:10], "little")
    if length > _HEADER_BYTES:
        raise CheckpointError("a part of the npz has an oversized header")
    found = _HEADER.match(window.read(start, length).decode("latin-1"))
    if found is None:
        raise CheckpointError("a part of the npz has a header that numpy does not write")
    if found["descr"] != "|O":
        raise Refused("it holds a plain array where a dictionary of variables belongs")
    value = Pickle(window, start + length).run()
    if isinstance(value, Array) and isinstance(value.data, list) and len(value.data) == 1:
        value = value.data[0]
    if not isinstance(value, dict):
        raise Refused("it does not hold a dictionary of variables")
    return value


def _raw(path: str, order: int, array: Array, window: Window) -> RawTensor:
    dtype, problem = _dtype_name(array.dtype, path)
    width = itemsize(dtype) if is_known(dtype) else 0
    nbytes = math.prod(array.shape) * width
    span: Span | None = None
    chunks: Chunks
    blob = array.data
    if problem is None and (not isinstance(blob, Blob) or blob.length != nbytes):
        problem = f"{path} declares {nbytes:,} bytes but stores {blob.length if isinstance(blob, Blob) else 0:,}"
    if problem is None and isinstance(blob, Blob):
        span = Span(window.source, window.offset + blob.offset, nbytes)
        chunks = span_chunks(span)
        if array.fortran and len(array.shape) > 1:
            chunks, span = _transposed(span, array.shape, width), None
    else:
        chunks = unreadable(problem or path)
    return RawTensor(path, order, array.shape, dtype, nbytes, span, chunks, problem)


def _transposed(span: Span, shape: tuple[int, ...], width: int) -> Chunks:
    """Chunks in C order of an array that is stored in Fortran order; holds it in memory once while read."""

    def chunks() -> Iterator[bytes | memoryview]:
        import numpy as np

        raw = span.source.read(span.offset, span.nbytes)
        array = np.frombuffer(raw, dtype=f"V{width}").reshape(shape, order="F")
        yield np.ascontiguousarray(array).tobytes()

    return chunks


def _dtype_name(dtype: Dtype | None, path: str) -> tuple[str, str | None]:
    if dtype is None:
        return "unknown", f"{path} has no dtype"
    if is_known(dtype.code):
        return dtype.code, None
    code = {"b1": "?"}.get(dtype.code, dtype.code)
    if re.fullmatch(r"[?biufc]\d{0,2}", code):
        import numpy as np

        try:
            name = canonical_name(np.dtype(code).newbyteorder(">" if dtype.order == ">" else "<"))
        except TypeError:
            name = None
        if name is not None:
            return name, None
    return dtype.code[:40], known_dtype_problem(path, dtype.code[:40])
