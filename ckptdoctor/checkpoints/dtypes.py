"""Number formats of stored tensors: how wide an entry is, how numpy holds it, what it is worth."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.checkpoints.contract import CheckpointError

# exponent bits, mantissa bits, exponent bias, and what the format does with its topmost codes:
# "ieee": the largest exponent is Inf (mantissa 0) or NaN; "fn": only all-ones is NaN, no Inf;
# "fnuz": only the code of minus zero is NaN, no Inf. Source: Open Compute Project FP8 specification (2023) and the
# FNUZ variants of Noune et al. 2022.
_FLOAT8 = {
    "float8_e4m3fn": (4, 3, 7, "fn"),
    "float8_e5m2": (5, 2, 15, "ieee"),
    "float8_e4m3": (4, 3, 7, "ieee"),
    "float8_e3m4": (3, 4, 3, "ieee"),
    "float8_e4m3fnuz": (4, 3, 8, "fnuz"),
    "float8_e5m2fnuz": (5, 2, 16, "fnuz"),
    "float8_e4m3b11fnuz": (4, 3, 11, "fnuz"),
}

_NUMPY = {
    "bool": "?",
    "int8": "i1",
    "int16": "i2",
    "int32": "i4",
    "int64": "i8",
    "uint8": "u1",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "float16": "f2",
    "float32": "f4",
    "float64": "f8",
    "complex64": "c8",
    "complex128": "c16",
}
_NAMES = {np.dtype(code).newbyteorder("<").str: name for name, code in _NUMPY.items()}
# Packed and small formats that numpy lacks, held as raw unsigned integers (int4: two entries in one byte, as stored).
_RAW = {"bfloat16": "<u2", "int4": "i1", "uint4": "u1", **dict.fromkeys(_FLOAT8, "u1")}
_LONGEST_NAME = 24  # longest name above; anything longer is not one


@cache
def _storage(name: str) -> np.dtype[np.generic] | None:
    if name in _RAW:
        return np.dtype(_RAW[name])
    if name in _NUMPY:
        return np.dtype(_NUMPY[name]).newbyteorder("<")
    if name[:1] == ">":
        if name[1:] == "bfloat16":
            return np.dtype(">u2")
        if name[1:] in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"):
            return np.dtype(name)
    return None


_MOST_BYTES = 1 << 50  # a petabyte: no file system holds it, so a larger product is a lie


def plausible(shape: tuple[int, ...], width: int) -> bool:
    """Whether a tensor of this shape and entry width can exist; extents of zero do not excuse the others."""
    total = max(width, 1)
    for extent in shape:
        if extent < 0:
            return False
        total *= max(extent, 1)
        if total > _MOST_BYTES:
            return False
    return True


def is_known(name: str) -> bool:
    """Whether entries of this dtype can be read as numbers."""
    return len(name) <= _LONGEST_NAME and _storage(name) is not None


def storage_dtype(name: str) -> np.dtype[np.generic]:
    """The numpy dtype that holds stored entries: bfloat16 as `uint16`, 8-bit floats as `uint8`, int4 as packed `int8`.

    Raises:
        CheckpointError: a dtype that is not known.
    """
    found = _storage(name) if len(name) <= _LONGEST_NAME else None
    if found is None:
        raise CheckpointError(f"the dtype {name[:40]!r} is not one that Keras writes, so its entries cannot be read")
    return found


def itemsize(name: str) -> int:
    """Bytes per stored entry. Raises CheckpointError for an unknown dtype."""
    return storage_dtype(name).itemsize


def is_float(name: str) -> bool:
    """Whether entries of this dtype can be NaN or infinite (complex included)."""
    if name == "bfloat16" or name in _FLOAT8 or name == ">bfloat16":
        return True
    found = _storage(name) if len(name) <= _LONGEST_NAME else None
    return found is not None and found.kind in "fc"


def canonical_name(dtype: np.dtype[np.generic]) -> str | None:
    """`float32` for `<f4`, `>f4` for big-endian, None for what is not a number."""
    name = _NAMES.get(dtype.str)
    if name is not None:
        return name
    return dtype.str if _storage(dtype.str) is not None else None


@cache
def _float8_table(name: str) -> NDArray[np.float64]:
    """The 256 values of an 8-bit float, shape (256,)."""
    exponent_bits, mantissa_bits, bias, special = _FLOAT8[name]
    table = np.empty(256)
    for code in range(256):
        exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
        mantissa = code & ((1 << mantissa_bits) - 1)
        if exponent == 0:
            value = mantissa * 2.0 ** (1 - bias - mantissa_bits)
        else:
            value = (1 + mantissa / (1 << mantissa_bits)) * 2.0 ** (exponent - bias)
        top = exponent == (1 << exponent_bits) - 1
        if special == "ieee" and top:
            value = np.inf if mantissa == 0 else np.nan
        elif special == "fn" and code & 0x7F == 0x7F:
            value = np.nan
        table[code] = -value if code & 0x80 else value
    if special == "fnuz":
        table[0x80] = np.nan
    return table


def decode(array: NDArray[np.generic], name: str) -> NDArray[np.float64]:
    """Stored entries as float64, same shape. Complex entries become their magnitude.

    Args:
        array: any shape, dtype `storage_dtype(name)`.
        name: dtype of the tensor; int4 and other integers are given as stored.

    Raises:
        CheckpointError: an unknown dtype.
    """
    stored = storage_dtype(name)
    if name in ("bfloat16", ">bfloat16"):
        wide = array.astype(np.uint32) << np.uint32(16)
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN like any other
            return wide.view(np.float32).astype(np.float64)
    if name in _FLOAT8:
        return _float8_table(name)[array.view(np.uint8)]
    if stored.kind == "c":
        with np.errstate(all="ignore"):
            return np.abs(array.astype(np.complex128))
    with np.errstate(all="ignore"):
        return array.astype(np.float64)
