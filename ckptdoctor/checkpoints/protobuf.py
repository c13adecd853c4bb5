"""Protocol buffers as the wire has them: fields by number, nothing generated, every length checked."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.checkpoints.contract import CheckpointError

_VARINT_BYTES = 10


def varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A base-128 number and where it ends.

    Raises:
        CheckpointError: it does not end.
    """
    value = shift = 0
    for i in range(at, min(at + _VARINT_BYTES, len(data))):
        byte = data[i]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, i + 1
        shift += 7
    raise CheckpointError("a number in a protocol buffer has no end")


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one message in order: numbers as `int` (64 bits, unsigned), the rest as a view of their bytes.

    Raises:
        CheckpointError: a field that is longer than the message, or of a kind that does not exist.
    """
    view = memoryview(data)
    at, end = 0, len(view)
    while at < end:
        tag, at = varint(view, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = varint(view, at)
            yield number, value
            continue
        if kind == 2:
            length, at = varint(view, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise CheckpointError("a protocol buffer holds a field of an unknown kind")
        if at + length > end:
            raise CheckpointError("a protocol buffer is cut off")
        yield number, view[at : at + length]
        at += length


def text(value: int | memoryview) -> str:
    """A field's bytes as text, "" for a number."""
    return "" if isinstance(value, int) else bytes(value).decode("utf-8", "replace")


def number(value: int | memoryview) -> int:
    """A field's number as a signed 64-bit integer; raises CheckpointError where it holds bytes."""
    if not isinstance(value, int):
        raise CheckpointError("a protocol buffer holds bytes where a number belongs")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def message(value: int | memoryview) -> memoryview:
    """A field's bytes; raises CheckpointError where it holds a number."""
    if isinstance(value, int):
        raise CheckpointError("a protocol buffer holds a number where a message belongs")
    return value
