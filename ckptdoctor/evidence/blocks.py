"""Reading a stored tensor in blocks: one reused buffer, never the whole tensor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.checkpoints.contract import Span, StoredTensor, TensorReadError
from ckptdoctor.evidence.kernels import Layout

BLOCK = 1 << 18
"""Bytes read at a time (256 KiB): they and the scratch memory of the kernels fit the L2 cache."""

LARGEST_BLOCK = 1 << 19
"""The same for 2-byte floats, whose kernels take more calls a block."""


def block_bytes(how: Layout) -> int:
    """The block size that was measured to be fastest for a layout; a multiple of every itemsize."""
    return LARGEST_BLOCK if how.kind in ("half", "bfloat") else BLOCK


def expect_bytes(stored: StoredTensor, how: Layout) -> int:
    """Bytes that shape and dtype ask for.

    Raises:
        TensorReadError: the tensor is unreadable, or the file holds another number of bytes.
    """
    info = stored.info
    if stored.problem is not None:
        raise TensorReadError(stored.problem)
    expected = info.size * how.itemsize
    found = info.nbytes if stored.span is None else stored.span.nbytes
    if found != expected:
        raise TensorReadError(
            f"{info.path}: shape {info.shape} of {info.dtype} needs {expected:,} bytes, but the file holds {found:,}"
        )
    return expected


def read_exactly(span: Span, start: int, into: NDArray[np.uint8], path: str) -> None:
    """Fill `into` with the span's bytes from `start`.

    Raises:
        TensorReadError: the file ends before.
    """
    view = memoryview(into)  # type: ignore[arg-type]  # ndarray is a buffer; typeshed knows it from Python 3.12
    got = span.source.read_into(span.offset + start, view)
    while 0 < got < into.size:  # a remote source may give less than asked for
        more = span.source.read_into(span.offset + start + got, view[got:])
        if more <= 0:
            break
        got += more
    if got != into.size:
        raise TensorReadError(
            f"{path}: the file {span.source.name} ends {into.size - max(got, 0):,} bytes before the tensor does"
        )


def span_blocks(
    span: Span, start: int, stop: int, buffer: NDArray[np.uint8], path: str, *, step: int = BLOCK
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Blocks of the span's bytes [start, stop) as (position, bytes); the bytes are overwritten by the next block.

    Raises:
        TensorReadError: the file ends before.
    """
    for position in range(start, stop, step):
        block = buffer[: min(step, stop - position)]
        read_exactly(span, position, block, path)
        yield position, block


def chunk_blocks(
    stored: StoredTensor, nbytes: int, buffer: NDArray[np.uint8], step: int = BLOCK
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The same for a tensor whose bytes must be produced (deflated or chunked): always from its start.

    Raises:
        TensorReadError: more or fewer bytes come than `nbytes`.
    """
    filled = position = 0
    for chunk in stored.chunks():
        piece = np.frombuffer(chunk, np.uint8)
        if position + filled + piece.size > nbytes:
            raise TensorReadError(f"{stored.info.path}: more than the {nbytes:,} bytes that its shape needs")
        while piece.size:
            take = min(step - filled, piece.size)
            buffer[filled : filled + take] = piece[:take]
            piece, filled = piece[take:], filled + take
            if filled == step:
                yield position, buffer[:step]
                position, filled = position + step, 0
    if position + filled != nbytes:
        raise TensorReadError(f"{stored.info.path}: {position + filled:,} bytes came, but its shape needs {nbytes:,}")
    if filled:
        yield position, buffer[:filled]


def all_blocks(
    stored: StoredTensor, nbytes: int, buffer: NDArray[np.uint8], step: int = BLOCK
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """All bytes of a tensor in order, by whichever way it can be read.

    Raises:
        TensorReadError: it cannot be read to its end.
    """
    if stored.span is not None:
        return span_blocks(stored.span, 0, nbytes, buffer, stored.info.path, step=step)
    return chunk_blocks(stored, nbytes, buffer, step)
