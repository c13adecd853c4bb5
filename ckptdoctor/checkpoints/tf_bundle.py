"""TensorFlow's checkpoint files: `X.index`, a sorted table of keys, and `X.data-…`, the tensors' bytes end to end.

The table has the layout of LevelDB's (blocks of prefix-compressed keys, an index block, a 48-byte footer). TensorFlow writes
its blocks uncompressed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ckptdoctor.checkpoints.contract import ByteSource, CheckpointError
from ckptdoctor.checkpoints.dtypes import plausible
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.protobuf import fields, message, number, varint

_FOOTER = 48
_MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
_TRAILER = 5  # one byte of compression, four of checksum behind every block
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

# numbers of TensorFlow's DataType
_DTYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
}
_STRING = 7


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """One tensor of the table. `dtype` is None for texts and what else is not a number."""

    key: str
    dtype: str | None
    is_text: bool
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    sliced: bool


@dataclass(frozen=True, slots=True)
class Bundle:
    """The table: how many data files belong to it, their byte order, the tensors by key."""

    shards: int
    big_endian: bool
    entries: dict[str, BundleEntry]


def is_table(source: ByteSource) -> bool:
    """Whether a file ends as such a table does."""
    return source.size >= _FOOTER and source.read(source.size - 8, 8) == _MAGIC


def read_bundle(source: ByteSource, limits: ReadLimits) -> Bundle:
    """The table of a checkpoint.

    Raises:
        CheckpointError: not such a table, or a damaged one.
    """
    if source.size > limits.table_bytes:
        raise CheckpointError(
            f"{source.name} has {source.size:,} bytes, more than the {limits.table_bytes:,} of an index; see --limit table_bytes"
        )
    data = source.read(0, source.size)
    if len(data) < _FOOTER or data[-8:] != _MAGIC:
        raise CheckpointError(f"{source.name} is not the index of a TensorFlow checkpoint, or its end was cut off")
    try:
        return _parse(data, limits)
    except CheckpointError as error:
        raise CheckpointError(f"{source.name} is damaged: {error}") from None


def _parse(data: bytes, limits: ReadLimits) -> Bundle:
    footer = data[-_FOOTER:]
    _, at = varint(footer, 0)  # the meta-index block, which holds nothing
    _, at = varint(footer, at)
    offset, at = varint(footer, at)
    size, at = varint(footer, at)
    entries: dict[str, BundleEntry] = {}
    shards, big_endian = 1, False
    for _, handle in _block(data, offset, size, limits):
        where, after = varint(handle, 0)
        length, _ = varint(handle, after)
        for key, value in _block(data, where, length, limits):
            if key == b"":
                shards, big_endian = _header(value)
                continue
            entry = _entry(key.decode("utf-8", "replace"), value, limits)
            entries[entry.key] = entry
            if len(entries) > limits.table_entries:
                raise CheckpointError(f"it lists more than {limits.table_entries:,} tensors; see --limit table_entries")
    return Bundle(shards, big_endian, entries)


def _block(data: bytes, offset: int, size: int, limits: ReadLimits) -> list[tuple[bytes, bytes]]:
    """Keys and values of one block."""
    if offset + size + _TRAILER > len(data) or size < 4:
        raise CheckpointError("a block lies outside the file")
    if data[offset + size] != 0:
        raise CheckpointError("its blocks are compressed, which TensorFlow does not do")
    body = data[offset : offset + size]
    restarts = int.from_bytes(body[-4:], "little")
    end = size - 4 - 4 * restarts
    if end < 0:
        raise CheckpointError("a block is shorter than its own index")
    found: list[tuple[bytes, bytes]] = []
    key = b""
    at = 0
    while at < end:
        shared, at = varint(body, at)
        fresh, at = varint(body, at)
        length, at = varint(body, at)
        if shared > len(key) or at + fresh + length > end:
            raise CheckpointError("a block holds an entry that is longer than the block")
        key = key[:shared] + body[at : at + fresh]
        at += fresh
        found.append((key, body[at : at + length]))
        at += length
        if len(found) > limits.table_entries:
            raise CheckpointError("a block holds too many entries")
    return found


def _header(value: bytes) -> tuple[int, bool]:
    shards, big_endian = 1, False
    for tag, content in fields(value):
        if tag == 1:
            shards = number(content)
        elif tag == 2:
            big_endian = number(content) == 1
    return shards, big_endian


def _entry(key: str, value: bytes, limits: ReadLimits) -> BundleEntry:
    dtype = shard = offset = size = 0
    shape: tuple[int, ...] = ()
    sliced = False
    for tag, content in fields(value):
        if tag == 1:
            dtype = number(content)
        elif tag == 2:
            shape = _shape(message(content), limits)
        elif tag == 3:
            shard = number(content)
        elif tag == 4:
            offset = number(content)
        elif tag == 5:
            size = number(content)
        elif tag == 7:
            sliced = True
    return BundleEntry(key, _DTYPES.get(dtype), dtype == _STRING, shape, shard, offset, size, sliced)


def _shape(value: memoryview, limits: ReadLimits) -> tuple[int, ...]:
    found: list[int] = []
    for tag, content in fields(value):
        if tag != 2:
            continue
        extent = 0
        for inner, size in fields(message(content)):
            if inner == 1:
                extent = number(size)
        if extent < 0 or extent > 1 << 48 or len(found) >= limits.rank:
            raise CheckpointError("a tensor has an impossible shape")
        found.append(extent)
    if not plausible(tuple(found), 16):
        raise CheckpointError("a tensor has an impossible shape")
    return tuple(found)


def scalar_text(source: ByteSource, entry: BundleEntry, limits: ReadLimits) -> bytes:
    """The bytes of a scalar text tensor: length as a varint, four bytes of checksum, content.

    Raises:
        CheckpointError: too large or damaged.
    """
    if entry.size > limits.proto_bytes or entry.offset < 0 or entry.offset + entry.size > source.size:
        raise CheckpointError(f"{source.name}: {entry.key} lies outside the file")
    raw = source.read(entry.offset, entry.size)
    length, at = varint(raw, 0)
    content = raw[at + 4 :]
    if len(content) != length:
        raise CheckpointError(f"{source.name}: {entry.key} is damaged")
    return content
