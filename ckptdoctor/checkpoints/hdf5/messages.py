"""Header messages of HDF5: dataspaces, datatypes, attributes, layouts. Pure functions of bytes."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ckptdoctor.checkpoints.dtypes import plausible
from ckptdoctor.checkpoints.hdf5.tree import Cut, Damaged, Hostile, Unsupported
from ckptdoctor.checkpoints.limits import ReadLimits

MAX_TYPE_DEPTH = 8  # datatypes inside datatypes; a complex number needs 2


@dataclass(frozen=True, slots=True)
class H5Type:
    """A datatype: `kind` is number, opaque, string, vlen-string or other; `name` as in `TensorInfo.dtype`."""

    kind: str
    size: int
    name: str
    pad: int = 0  # of fixed strings: 0 ends at NUL, 1 padded with NUL, 2 padded with blanks


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a dataset's bytes stand: `address` from the base, None where nothing was written."""

    storage: str
    address: int | None
    size: int | None


def unsigned(data: bytes, position: int, width: int) -> int:
    """A little-endian number that must be inside `data`."""
    piece = data[position : position + width]
    if len(piece) != width:
        raise Damaged("a header message ends in the middle of a number")
    return int.from_bytes(piece, "little")


def dataspace(body: bytes, width: int, limits: ReadLimits) -> tuple[int, ...] | None:
    """The extents; () for a scalar, None for a null dataspace. `width` is the file's size of lengths."""
    version, rank = unsigned(body, 0, 1), unsigned(body, 1, 1)
    if version == 1:
        start = 8
    elif version == 2:
        if unsigned(body, 3, 1) == 2:
            return None
        start = 4
    else:
        raise Unsupported(f"dataspace version {version}")
    if rank > limits.rank:
        raise Hostile(f"a tensor with {rank} dimensions")
    if rank == 0:
        return ()
    if len(body) < start + rank * width:
        raise Damaged("a dataspace message is too short for its rank")
    if width == 8:
        return struct.unpack_from(f"<{rank}Q", body, start)
    return tuple(unsigned(body, start + i * width, width) for i in range(rank))


_FLOATS = {(2, 5, 10): "float16", (4, 8, 23): "float32", (8, 11, 52): "float64", (2, 8, 7): "bfloat16"}
_TYPES: dict[bytes, H5Type] = {}  # parsed before: files use a handful of types over and over
_TYPES_KEPT = 256


def datatype(body: bytes) -> H5Type:
    """The type that a datatype message describes."""
    found = _TYPES.get(body)
    if found is None:
        found = _datatype(body, 0, 0)[0]
        if len(_TYPES) < _TYPES_KEPT and len(body) <= _TYPES_KEPT:
            _TYPES[body] = found
    return found


def _datatype(body: bytes, at: int, depth: int) -> tuple[H5Type, int]:
    """A type and where it ends."""
    if depth > MAX_TYPE_DEPTH:
        raise Hostile("a datatype nested too deeply")
    head = unsigned(body, at, 1)
    kind, version = head & 15, head >> 4
    bits, size = unsigned(body, at + 1, 3), unsigned(body, at + 4, 4)
    at += 8
    if kind == 0:
        return _integer(bits, size, unsigned(body, at + 2, 2)), at + 4
    if kind == 1:
        return _float(body, at, bits, size), at + 12
    if kind == 3:
        return H5Type("string", size, f"text of {size} bytes", bits & 15), at
    if kind == 4:
        return H5Type("other", size, "bit field"), at + 4
    if kind == 5:
        tag = body[at : at + (bits & 0xFF)]
        name = "bfloat16" if size == 2 else f"opaque entries of {size} bytes"
        return H5Type("opaque", size, name), at + len(tag)
    if kind == 6:
        return _compound(body, at, version, bits & 0xFFFF, size, depth)
    if kind == 7:
        return H5Type("other", size, "reference"), at
    if kind == 8:
        base, at = _datatype(body, at, depth + 1)
        name = "bool" if size == 1 and bits & 0xFFFF == 2 else base.name
        return H5Type(base.kind, size, name), len(body)
    if kind == 9:
        base, at = _datatype(body, at, depth + 1)
        if bits & 15 == 1:
            return H5Type("vlen-string", size, "text"), at
        return H5Type("other", size, f"lists of {base.name}"), at
    if kind == 10:
        return H5Type("other", size, "arrays"), len(body)
    if kind == 2:
        return H5Type("other", size, "time"), at + 2
    raise Unsupported(f"datatype class {kind}")


def _integer(bits: int, size: int, precision: int) -> H5Type:
    if size not in (1, 2, 4, 8) or precision != 8 * size:
        return H5Type("other", size, f"integers of {precision} bits in {size} bytes")
    signed = bits & 8
    if bits & 1 and size > 1:
        return H5Type("number", size, f">{'i' if signed else 'u'}{size}")
    return H5Type("number", size, f"{'int' if signed else 'uint'}{8 * size}")


def _float(body: bytes, at: int, bits: int, size: int) -> H5Type:
    fields = (size, unsigned(body, at + 5, 1), unsigned(body, at + 7, 1))
    name = _FLOATS.get(fields)
    if name is None or bits & 64:
        return H5Type("other", size, f"floats of {size} bytes with {fields[1]} exponent bits")
    if bits & 1:
        name = ">bfloat16" if name == "bfloat16" else f">f{size}"
    return H5Type("number", size, name)


def _compound(body: bytes, at: int, version: int, members: int, size: int, depth: int) -> tuple[H5Type, int]:
    """Only the pair (real, imaginary) of equal floats is a number."""
    found: list[tuple[str, int, H5Type]] = []
    offset_width = 4 if version < 3 else max(1, (size.bit_length() + 7) // 8)
    for _ in range(min(members, 64)):
        end = body.find(b"\0", at)
        if end < 0:
            raise Damaged("a compound datatype without the end of a name")
        name = body[at:end].decode("utf-8", "replace")
        at = end + 1 if version >= 3 else at + (end - at + 8) // 8 * 8
        offset = unsigned(body, at, offset_width)
        at += offset_width + (28 if version == 1 else 0)
        inner, at = _datatype(body, at, depth + 1)
        found.append((name, offset, inner))
    if len(found) == 2 and members == 2:
        (_, first, real), (_, second, imaginary) = found
        if real == imaginary and real.kind == "number" and (first, second, size) == (0, real.size, 2 * real.size):
            paired = {"float32": "complex64", "float64": "complex128", ">f4": ">c8", ">f8": ">c16"}.get(real.name)
            if paired is not None:
                return H5Type("number", size, paired), at
    return H5Type("other", size, f"records of {members} fields"), at


def layout(body: bytes, body_offset: int, offsets: int, lengths: int) -> Layout:
    """The layout message. `body_offset` is where the message's body stands, for data kept inside it."""
    version = unsigned(body, 0, 1)
    if version in (3, 4):
        return _layout_new(body, body_offset, offsets, lengths)
    if version in (1, 2):
        return _layout_old(body, body_offset, offsets)
    raise Unsupported(f"data layout version {version}")


def _layout_new(body: bytes, body_offset: int, offsets: int, lengths: int) -> Layout:
    kind = unsigned(body, 1, 1)
    if kind == 0:
        size = unsigned(body, 2, 2)
        if len(body) < 4 + size:
            raise Damaged("compact data that is longer than its message")
        return Layout("compact", body_offset + 4, size)
    if kind == 1:
        address = unsigned(body, 2, offsets)
        return Layout("contiguous", defined(address, offsets), unsigned(body, 2 + offsets, lengths))
    if kind == 2:
        return Layout("chunked", None, None)
    if kind == 3:
        raise Hostile("a virtual dataset, which takes its values from other files")
    raise Damaged(f"data layout class {kind}")


def _layout_old(body: bytes, body_offset: int, offsets: int) -> Layout:
    rank, kind = unsigned(body, 1, 1), unsigned(body, 2, 1)
    if kind == 1:
        return Layout("contiguous", defined(unsigned(body, 8, offsets), offsets), None)
    if kind == 2:
        return Layout("chunked", None, None)
    if kind == 0:
        at = 8 + 4 * rank
        return Layout("compact", body_offset + at + 4, unsigned(body, at, 4))
    raise Damaged(f"data layout class {kind}")


def defined(address: int, width: int) -> int | None:
    """An address, or None for the pattern that means "nowhere"."""
    return None if address == (1 << (8 * width)) - 1 else address


def tensor_bytes(shape: tuple[int, ...], size: int) -> int:
    """Entries times width.

    Raises:
        Hostile: beyond what any file holds.
    """
    if not plausible(shape, size):
        raise Hostile(f"a tensor of shape {shape} cannot exist")
    return math.prod(shape) * size


FetchString = Callable[[int, int, int], bytes]  # heap address, index, length -> bytes


def attribute(body: bytes, offsets: int, lengths: int, limits: ReadLimits, fetch: FetchString) -> tuple[str, Any]:
    """One attribute message as (name, value).

    Strings become `str`, arrays of strings lists of `str`, numbers `int`/`float` or lists of them; other types None.
    """
    version, flags = unsigned(body, 0, 1), unsigned(body, 1, 1)
    if version not in (1, 2, 3):
        raise Unsupported(f"attribute version {version}")
    name_size, type_size, space_size = struct.unpack_from("<3H", body, 2) if len(body) >= 8 else (0, 0, 0)
    at = 9 if version == 3 else 8
    pad = 7 if version == 1 else 0
    name = body[at : at + name_size].split(b"\0", 1)[0].decode("utf-8", "replace")
    if version > 1 and flags & 3:
        raise Unsupported("an attribute with a shared datatype")
    at += (name_size + pad) & ~pad
    kind = datatype(body[at : at + type_size])
    at += (type_size + pad) & ~pad
    shape = dataspace(body[at : at + space_size], lengths, limits)
    at += (space_size + pad) & ~pad
    if shape is None:
        return name, None
    return name, _value(body, at, kind, shape, offsets, limits, fetch)


def _value(
    body: bytes, at: int, kind: H5Type, shape: tuple[int, ...], offsets: int, limits: ReadLimits, fetch: FetchString
) -> Any:
    total = tensor_bytes(shape, kind.size)
    if total > limits.hdf5_attribute_bytes:
        raise Hostile(f"an attribute of {total:,} bytes")
    raw = body[at : at + total]
    if len(raw) != total:
        raise Cut("an attribute's value is cut off")
    count = total // kind.size if kind.size else 0
    if kind.kind == "vlen-string":
        return _shaped([_vlen(raw, i * kind.size, offsets, limits, fetch) for i in range(count)], shape)
    if kind.kind == "string":
        return _shaped([_fixed(raw[i * kind.size : (i + 1) * kind.size], kind.pad) for i in range(count)], shape)
    if kind.kind == "number" and count <= 65536:
        import numpy as np

        from ckptdoctor.checkpoints.dtypes import storage_dtype

        return _shaped(np.frombuffer(raw, storage_dtype(kind.name)).tolist(), shape)
    return None


def _shaped(values: list[Any], shape: tuple[int, ...]) -> Any:
    return values[0] if shape == () and values else values


def _fixed(raw: bytes, pad: int) -> str:
    raw = raw.rstrip(b" ") if pad == 2 else raw.split(b"\0", 1)[0]
    return raw.decode("utf-8", "replace")


def _vlen(raw: bytes, at: int, offsets: int, limits: ReadLimits, fetch: FetchString) -> str:
    length = unsigned(raw, at, 4)
    if length == 0:
        return ""
    if length > limits.hdf5_attribute_bytes:
        raise Hostile(f"an attribute of {length:,} bytes")
    data = fetch(unsigned(raw, at + 4, offsets), unsigned(raw, at + 4 + offsets, 4), length)
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")
