"""One array in one file: `.npy`, or a member of an `.npz`, read by ranges and never unpickled."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import CkptDoctorError

Array = NDArray[Any]

MAX_MEMBERS = 10_000
MAX_WHOLE = 1 << 27
"""Bytes of an array that has to be read whole (Fortran order) and may be copied once more to be turned."""
MAX_HEADER = 1 << 16
"""Bytes of the header of an `.npy`; numpy itself parses no more than 10,000, but reads whatever a file declares."""
MAX_INFLATED = 1 << 32
"""Bytes that are decompressed of one array; a deflated member of a few kilobytes may claim terabytes."""
MAX_SWOLLEN, MAX_RATIO = 1 << 28, 100
"""An array of more bytes than the first that takes a hundredth of them in the file is no batch: inflating it costs seconds."""
_NPY_MAGIC = b"\x93NUMPY"
ARRAY_NAME = re.compile(r"(?P<base>x|y|sample_weight|sample_weights)(?:_(?P<rest>.+))?$")
STEP_NAMES = ("step", "steps")


class BatchesError(CkptDoctorError):
    """Recorded batches that cannot be used.

    `needs_replay` is True for a saved tf.data dataset: only TensorFlow reads it, so only the replay child can.
    """

    def __init__(self, message: str, *, needs_replay: bool = False) -> None:
        super().__init__(message)
        self.needs_replay = needs_replay


@dataclass(slots=True)
class StoredArray:
    """One array in one file.

    Attributes:
        name: `x`, `y_out`, …; shape, dtype: as stored, dtype with bfloat16 as `|V2`.
        path: of the file. member: its name in the archive, None for an `.npy`.
        offset: of the first byte of data: in the file where it is stored plainly, else in the decompressed member.
        deflated: only sequential reading is possible.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    path: str
    member: str | None
    offset: int
    deflated: bool
    _stream: IO[bytes] | None = field(default=None, repr=False)
    _archive: zipfile.ZipFile | None = field(default=None, repr=False)
    _at: int = 0
    _whole: Array | None = field(default=None, repr=False)

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry along the first axis."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return self.row_bytes * (self.shape[0] if self.shape else 1)

    def read(self, start: int, stop: int) -> Array:
        """Entries `start` to `stop` along the first axis.

        Raises:
            BatchesError: the file ends before, is damaged, or changed.
        """
        if self.fortran:
            return self._load_fortran()[start:stop]
        raw = self._bytes(self.offset + start * self.row_bytes, (stop - start) * self.row_bytes)
        return np.frombuffer(raw, dtype=self.dtype).reshape((stop - start, *self.shape[1:]))

    def rows(self, start: int, stop: int, axes: int) -> Array:
        """Rows `start` to `stop` of shape (n, …), counted along the first `axes` axes together.

        Raises:
            BatchesError: as `read`.
        """
        tail = self.shape[axes:]
        if self.fortran:
            whole = self._load_fortran()
            return whole[start:stop] if axes == 1 else whole.reshape(-1, *tail)[start:stop]
        width = int(np.prod(tail, dtype=np.int64)) * self.dtype.itemsize
        raw = self._bytes(self.offset + start * width, (stop - start) * width)
        return np.frombuffer(raw, dtype=self.dtype).reshape((stop - start, *tail))

    def close(self) -> None:
        """Release the file."""
        for handle in (self._stream, self._archive):
            if handle is not None:
                handle.close()
        self._stream = self._archive = self._whole = None

    def _load_fortran(self) -> Array:
        if self._whole is None:
            if self.nbytes > MAX_WHOLE:
                raise BatchesError(
                    f"array '{self.name}' of {self.path} is stored column by column and too large to turn "
                    f"({self.nbytes:,} bytes); save it with np.ascontiguousarray"
                )
            raw = self._bytes(self.offset, self.nbytes)
            self._whole = np.frombuffer(raw, dtype=self.dtype).reshape(self.shape[::-1]).T
        return self._whole

    def _bytes(self, offset: int, length: int) -> bytes:
        try:
            raw = self._inflate(offset, length) if self.deflated else self._range(offset, length)
        except (
            OSError,
            zipfile.BadZipFile,
            EOFError,
            struct.error,
            NotImplementedError,
            RuntimeError,
            MemoryError,
        ) as error:
            raise BatchesError(f"array '{self.name}' of {self.path} cannot be read: {_brief(error)}") from error
        except Exception as error:
            if type(error).__module__ in ("zlib", "lzma", "_lzma"):
                raise BatchesError(f"array '{self.name}' of {self.path} is damaged: {_brief(error)}") from error
            raise
        if len(raw) != length:
            raise BatchesError(
                f"array '{self.name}' of {self.path} ends early: expected {length:,} bytes, found {len(raw):,}; "
                "the program was stopped while saving it"
            )
        return raw

    def _range(self, offset: int, length: int) -> bytes:
        if self._stream is None:
            self._stream = Path(self.path).open("rb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._stream.seek(offset)
        parts = bytearray()
        while len(parts) < length:
            part = self._stream.read(length - len(parts))
            if not part:
                break
            parts += part
        return bytes(parts)

    def _inflate(self, offset: int, length: int) -> bytes:
        if offset + length > MAX_INFLATED:
            raise BatchesError(
                f"array '{self.name}' of {self.path} is compressed and larger than {MAX_INFLATED:,} bytes; save it with np.savez"
            )
        if self._stream is None or offset < self._at:
            self.close()
            self._archive = zipfile.ZipFile(self.path)
            self._stream = self._archive.open(self.member or "")
            self._at = 0
        while self._at < offset:
            skipped = len(self._stream.read(min(offset - self._at, 1 << 20)))
            if not skipped:
                return b""
            self._at += skipped
        raw = self._stream.read(length)
        self._at += len(raw)
        return raw


def _brief(error: Exception) -> str:
    """The first line of what a library says, which may quote the file at any length."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def as_numbers(array: Array) -> Array:
    """Two-byte voids are bfloat16, as numpy stores it: turned into float32. Anything else stays."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        bits = np.ascontiguousarray(array).view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(array.shape)
    return array


def open_arrays(path: str) -> list[StoredArray]:
    """The arrays of a file with a name that means something, their headers read."""
    try:
        with Path(path).open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BatchesError(f"expected a file of arrays, found something that is not a regular file: {path}")
            first = file.read(6)
            if first == _NPY_MAGIC:
                name = Path(path).stem
                file.seek(0)
                size = os.fstat(file.fileno()).st_size
                return [
                    _header(file, name if ARRAY_NAME.match(name) or name in STEP_NAMES else "x", path, None, 0, size)
                ]
        if first[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise BatchesError(f"expected an .npz file, found something else: {path}")
        return _open_archive(path)
    except (
        OSError,
        EOFError,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        struct.error,
        zlib.error,
    ) as error:
        raise BatchesError(
            f"expected an .npz file, found a damaged one ({_brief(error)}): {path}; save the batches again"
        ) from error


def _open_archive(path: str) -> list[StoredArray]:
    found: list[StoredArray] = []
    with zipfile.ZipFile(path) as archive, Path(path).open("rb") as file:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise BatchesError(f"expected recorded batches, found an archive of {len(members):,} members: {path}")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if not (ARRAY_NAME.match(name) or name in STEP_NAMES) or any(a.name == name for a in found):
                continue
            if member.flag_bits & 1:
                raise BatchesError(f"array '{name}' of {path} is encrypted; save the batches without a password")
            if member.compress_type == zipfile.ZIP_STORED:
                # lengths of name and extra field stand in the local header; the central one's may differ
                file.seek(member.header_offset + 26)
                name_length, extra_length = struct.unpack("<HH", file.read(4))
                start = member.header_offset + 30 + name_length + extra_length
                file.seek(start)
                size = min(member.file_size, os.fstat(file.fileno()).st_size - start)
                found.append(_header(file, name, path, member.filename, start, size))
            else:
                if member.file_size > max(MAX_SWOLLEN, MAX_RATIO * member.compress_size):
                    raise BatchesError(
                        f"array '{name}' of {path} would inflate {member.compress_size:,} bytes to {member.file_size:,} "
                        "(a zip bomb): it was not read"
                    )
                with archive.open(member) as stream:
                    array = _header(stream, name, path, member.filename, 0, member.file_size)
                array.deflated = True
                found.append(array)
    return found


def _numpy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, column order and dtype. Raises what numpy raises, and ValueError for a header that is too long."""
    version = np.lib.format.read_magic(file)
    narrow = version == (1, 0)
    prefix = file.read(2 if narrow else 4)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length:,} bytes")
    header = io.BytesIO(prefix + file.read(length))
    reader = np.lib.format.read_array_header_1_0 if narrow else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy suspects Python 2 of whatever it cannot parse at once
        shape, fortran, dtype = reader(header)
    return shape, fortran, dtype


def _header(file: IO[bytes], name: str, path: str, member: str | None, start: int, size: int) -> StoredArray:
    """Read the header of the `.npy` format at the stream's position."""
    try:
        shape, fortran, dtype = _numpy_header(file)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, TokenError) as error:
        text = str(error).split("\n")[0][:200]
        raise BatchesError(f"array '{name}' of {path} does not begin like one that numpy saved: {text}") from error
    if dtype.hasobject:
        raise BatchesError(
            f"array '{name}' of {path} holds Python objects, which would have to be unpickled: refused; "
            "save plain arrays, e.g. np.stack(batches)"
        )
    if dtype.fields is not None or dtype.subdtype is not None or (dtype.kind == "V" and dtype.itemsize != 2):
        raise BatchesError(
            f"array '{name}' of {path} has records of dtype {str(dtype)[:80]}; save one array for each input"
        )
    offset = file.tell()  # in a deflated member: position in the decompressed bytes
    shape = tuple(int(n) for n in shape)
    declared = dtype.itemsize
    for extent in shape:
        if extent < 0:
            raise BatchesError(f"array '{name}' of {path} has a negative extent")
        declared *= extent
    if declared > size - (offset - start):
        raise BatchesError(
            f"array '{name}' of {path} declares {declared:,} bytes and has {max(size - offset + start, 0):,}: the save was cut off"
        )
    return StoredArray(name, shape, dtype, bool(fortran), path, member, offset, deflated=False)
