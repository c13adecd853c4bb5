"""Recorded batches on disk: arrays found, checked and read by ranges, never unpickled and never whole.

A set of batches is an `.npz`, an `.npy` beside others, or a directory of either. Every array has a leading batch axis (K, B, …),
or holds rows only (N, …), which are then one batch.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import CkptDoctorError, Missing, ModelSpec

Array = NDArray[Any]

MAX_FILES = 10_000
MAX_MEMBERS = 10_000
MAX_WHOLE = 1 << 28
"""Bytes of an array that has to be read whole (Fortran order): as much as is measured without sampling."""
MAX_INFLATED = 1 << 32
"""Bytes that are decompressed of one array; a deflated member of a few kilobytes may claim terabytes."""
MAX_ROW = 1 << 26
"""Bytes of one row; a row of 64 MB is not a sample of anything that a batch of 32 could be made of."""

_NPY_MAGIC = b"\x93NUMPY"
_NAME = re.compile(r"(?P<base>x|y|sample_weight|sample_weights)(?:_(?P<rest>.+))?$")
_STEP_NAMES = ("step", "steps")
_KINDS = {"x": "input", "y": "target", "sample_weight": "sample_weight", "sample_weights": "sample_weight"}


_NO_SPEC = Missing("no configuration was given")


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
        except (OSError, zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, RuntimeError) as error:
            raise BatchesError(f"array '{self.name}' of {self.path} cannot be read: {error}") from error
        except Exception as error:
            if type(error).__module__ in ("zlib", "lzma", "_lzma"):
                raise BatchesError(f"array '{self.name}' of {self.path} is damaged: {error}") from error
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


@dataclass(slots=True)
class BatchSet:
    """The arrays of one file, or of several `.npy` files side by side: batches of equal shapes.

    Attributes:
        batched: True where the arrays have a leading batch axis.
        batches: number of batches; rows: rows of each.
    """

    path: str
    inputs: list[StoredArray]
    targets: list[StoredArray]
    weights: list[StoredArray]
    steps: list[int]
    batched: bool
    batches: int
    rows: int

    @property
    def arrays(self) -> list[StoredArray]:
        """Inputs, targets and sample weights."""
        return [*self.inputs, *self.targets, *self.weights]

    def batch(self, array: StoredArray, k: int) -> Array:
        """Batch `k` of one of the arrays, shape (B, …)."""
        if not self.batched:
            return as_numbers(array.read(0, array.shape[0]))
        return as_numbers(array.read(k, k + 1)[0])

    def close(self) -> None:
        """Release the files."""
        for array in self.arrays:
            array.close()


@dataclass(slots=True)
class RecordedBatches:
    """Recorded batches in order. Iterating gives (inputs, targets, sample weight, step) for each.

    Inputs and targets are lists of arrays (rows, …) in the order of `input_names` and `target_names`; the sample weight is an
    array, a list of arrays where there are several, or None; the step an int or None.

    Attributes:
        source: as given. sets: one for each file.
        notes: what was left out and why.
        needs_replay: always False here: what only TensorFlow can read raises BatchesError instead.
    """

    source: str
    sets: list[BatchSet]
    notes: list[str]
    needs_replay: bool = False

    @property
    def count(self) -> int:
        """Number of batches."""
        return sum(s.batches for s in self.sets)

    @property
    def steps(self) -> tuple[int, ...]:
        """Training steps of the batches, where recorded."""
        return tuple(step for s in self.sets for step in s.steps)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the input arrays."""
        return tuple(a.name for a in self.sets[0].inputs)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the target arrays."""
        return tuple(a.name for a in self.sets[0].targets)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[list[Array], list[Array], Array | list[Array] | None, int | None]]:
        for part in self.sets:
            for k in range(part.batches):
                weights = [part.batch(a, k) for a in part.weights]
                yield (
                    [part.batch(a, k) for a in part.inputs],
                    [part.batch(a, k) for a in part.targets],
                    weights[0] if len(weights) == 1 else weights or None,
                    part.steps[k] if k < len(part.steps) else None,
                )
            part.close()

    def close(self) -> None:
        """Release all files."""
        for part in self.sets:
            part.close()

    def __enter__(self) -> RecordedBatches:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def as_numbers(array: Array) -> Array:
    """Two-byte voids are bfloat16, as numpy stores it: turned into float32. Anything else stays."""
    if array.dtype.kind == "V" and array.dtype.itemsize == 2:
        bits = np.ascontiguousarray(array).view(np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(array.shape)
    return array


def is_saved_dataset(path: str) -> bool:
    """Whether a directory was written by `tf.data.Dataset.save`."""
    folder = Path(path)
    return (folder / "dataset_spec.pb").is_file() and (folder / "snapshot.metadata").is_file()


def open_batches(path: str | os.PathLike[str], spec: ModelSpec | Missing = _NO_SPEC) -> RecordedBatches:
    """Open recorded batches: headers are read, data are not.

    Args:
        path: an `.npz` or `.npy` file, or a directory of them (one batch or stack of batches each, in the order of their names).
        spec: tells the rank of an input, which settles whether the first axis counts batches.

    Raises:
        BatchesError: nothing usable: absent, damaged, holds Python objects, has no array `x`, or needs TensorFlow.
    """
    path = os.fspath(path)
    notes: list[str] = []
    sets = [_arrange(name, arrays, steps, spec, notes) for name, arrays, steps in _files(path, notes)]
    kept = [s for s in sets if s is not None]
    if not kept:
        because = f": {notes[0]}" if notes else ""
        raise BatchesError(
            f"expected recorded batches with arrays x and y of shape (batches, rows, …), found none in {path}{because}"
        )
    names = [a.name for a in kept[0].arrays]
    same = [s for s in kept if [a.name for a in s.arrays] == names]
    if len(same) < len(kept):
        notes.append(f"{len(kept) - len(same)} files with other arrays than the first were left out")
    return RecordedBatches(path, same, notes)


def _files(path: str, notes: list[str]) -> Iterator[tuple[str, list[StoredArray], list[int]]]:
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise BatchesError(
            f"cannot read the recorded batches {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if stat.S_ISREG(mode):
        arrays = _open_file(path)
        yield path, arrays, _steps(arrays, path)
        return
    if not stat.S_ISDIR(mode):
        raise BatchesError(f"expected an .npz file or a directory of them, found something else: {path}")
    if is_saved_dataset(path):
        raise BatchesError(
            f"{path} is a saved tf.data dataset: only TensorFlow reads it, so it needs replay; "
            "install ckptdoctor[replay] and run without --no-replay, or save the batches as .npz",
            needs_replay=True,
        )
    yield from _directory(path, notes)


def _directory(path: str, notes: list[str]) -> Iterator[tuple[str, list[StoredArray], list[int]]]:
    names = sorted((n for n in os.listdir(path) if not n.startswith(".")), key=natural_key)
    single: list[StoredArray] = []
    for name in names[:MAX_FILES]:
        full = f"{path}/{name}"
        if name.endswith(".npz"):
            try:
                arrays = _open_file(full)
                steps = _steps(arrays, full)
            except BatchesError as error:
                notes.append(str(error))
                continue
            yield full, arrays, steps
        elif name.endswith(".npy") and (_NAME.match(name[:-4]) or name[:-4] in _STEP_NAMES):
            try:
                single += _open_file(full)
            except BatchesError as error:
                notes.append(str(error))
    if single:
        yield path, single, _steps(single, path)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that orders numbers in names by value: `batch_10` after `batch_9`."""
    return [(0, int(p), "") if p.isdigit() and len(p) < 19 else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


def _open_file(path: str) -> list[StoredArray]:
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
                return [_header(file, name if _NAME.match(name) or name in _STEP_NAMES else "x", path, None, 0, size)]
        if first[:4] not in (b"PK\x03\x04", b"PK\x05\x06"):
            raise BatchesError(f"expected an .npz file, found something else: {path}")
        return _open_archive(path)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error) as error:
        raise BatchesError(
            f"expected an .npz file, found a damaged one ({error}): {path}; save the batches again"
        ) from error


def _open_archive(path: str) -> list[StoredArray]:
    found: list[StoredArray] = []
    with zipfile.ZipFile(path) as archive, Path(path).open("rb") as file:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise BatchesError(f"expected recorded batches, found an archive of {len(members):,} members: {path}")
        for member in members:
            name = member.filename.removesuffix(".npy")
            if not (_NAME.match(name) or name in _STEP_NAMES) or any(a.name == name for a in found):
                continue
            if member.flag_bits & 1:
                raise BatchesError(f"array '{name}' of {path} is encrypted; save the batches without a password")
            if member.compress_type == zipfile.ZIP_STORED:
                # lengths of name and extra field stand in the local header; the central one's may differ
                file.seek(member.header_offset + 26)
                name_length, extra_length = struct.unpack("<HH", file.read(4))
                start = member.header_offset + 30 + name_length + extra_length
                file.seek(start)
                found.append(_header(file, name, path, member.filename, start, member.file_size))
            else:
                with archive.open(member) as stream:
                    array = _header(stream, name, path, member.filename, 0, member.file_size)
                array.deflated = True
                found.append(array)
    return found


def _header(file: IO[bytes], name: str, path: str, member: str | None, start: int, size: int) -> StoredArray:
    """Read the header of the `.npy` format at the stream's position."""
    try:
        version = np.lib.format.read_magic(file)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(file)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, UnicodeDecodeError) as error:
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


def _steps(arrays: list[StoredArray], path: str) -> list[int]:
    """Take the step array out of the list."""
    for array in list(arrays):
        if array.name in _STEP_NAMES:
            arrays.remove(array)
            if array.dtype.kind in "iuf" and array.nbytes <= 1 << 24 and len(array.shape) == 1:
                values = array.read(0, array.shape[0])
                array.close()
                return [int(v) for v in values if np.isfinite(v)]
            if not array.shape:
                return []
            raise BatchesError(f"array 'step' of {path} is not a list of numbers")
    return []


def _arrange(
    path: str, arrays: list[StoredArray], steps: list[int], spec: ModelSpec | Missing, notes: list[str]
) -> BatchSet | None:
    """Sort the arrays by kind and settle whether the first axis counts batches."""
    by_kind: dict[str, list[StoredArray]] = {"input": [], "target": [], "sample_weight": []}
    for array in sorted(arrays, key=lambda a: natural_key(a.name)):
        found = _NAME.match(array.name)
        if found is None:
            continue
        if not array.shape or 0 in array.shape:
            notes.append(f"array '{array.name}' of {path} is empty")
            continue
        if array.dtype.kind not in "biufcSUV":
            notes.append(f"array '{array.name}' of {path} has dtype {array.dtype}: not numbers")
            continue
        by_kind[_KINDS[found["base"]]].append(array)
    inputs, targets, weights = by_kind["input"], by_kind["target"], by_kind["sample_weight"]
    if not inputs:
        notes.append(f"there is no array x in {path}")
        return None
    batched = _is_batched(inputs, targets, steps, spec)
    lead = inputs[0].shape[: 2 if batched else 1]
    for group in (inputs, targets, weights):
        for array in list(group):
            if array.shape[: len(lead)] != lead:
                group.remove(array)
                notes.append(
                    f"array '{array.name}' of {path} has shape {array.shape}, which does not go with "
                    f"'{inputs[0].name}' of shape {inputs[0].shape}: it was left out"
                )
    if any(a.row_bytes // (lead[1] if batched else 1) > MAX_ROW for a in (*inputs, *targets)):
        notes.append(f"rows of more than {MAX_ROW:,} bytes in {path}: not samples of a batch")
        return None
    batches, rows = (lead[0], lead[1]) if batched else (1, lead[0])
    return BatchSet(path, inputs, targets, weights, steps[:batches], batched, batches, rows)


def _is_batched(
    inputs: Sequence[StoredArray], targets: Sequence[StoredArray], steps: Sequence[int], spec: ModelSpec | Missing
) -> bool:
    """Whether arrays are (K, B, …): `step` has K entries, or the model's input rank says so, or all share two axes."""
    lead = inputs[0].shape
    ranked = _input_rank(spec)
    if len(lead) < 2:
        return False
    if steps and all(a.shape[0] == len(steps) for a in (*inputs, *targets)):
        return len(steps) > 1 or (all(len(a.shape) >= 2 for a in (*inputs, *targets)) and ranked != len(lead))
    if ranked is not None and len(lead) in (ranked, ranked + 1):
        return len(lead) == ranked + 1
    if len(lead) < 3:
        return False
    return bool(targets) and all(len(a.shape) >= 2 and a.shape[:2] == lead[:2] for a in (*inputs, *targets))


def _input_rank(spec: ModelSpec | Missing) -> int | None:
    """Rank of the first input with its batch axis, as the configuration has it."""
    if isinstance(spec, Missing):
        return None
    for layer in spec.layers:
        if layer.name in spec.inputs or layer.class_name == "InputLayer":
            shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
            if isinstance(shape, Sequence) and not isinstance(shape, str):
                return len(shape)
    return None
