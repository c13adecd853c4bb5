"""What every container module returns: descriptions first, bytes only on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import CheckpointInfo, CkptDoctorError, Problem, TensorInfo


class CheckpointError(CkptDoctorError):
    """A file that cannot be read as a checkpoint at all."""


class NotACheckpointError(CheckpointError):
    """A sound file of another kind: nothing is wrong with it, it just holds no weights."""


class TensorReadError(CkptDoctorError):
    """One tensor whose bytes cannot be read; the others may well be fine."""


class ByteSource(Protocol):
    """Random access to the bytes of one file, local or remote. Safe to share between threads."""

    name: str
    size: int

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` from `offset`; returns bytes read, less than asked only at the end of the file."""
        ...

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """A run of raw bytes in a source, in C order: the fast path that a census reads directly."""

    source: ByteSource
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of an open checkpoint.

    Attributes:
        info: what it is.
        span: where its bytes stand, uncompressed and contiguous; None where they must be produced (`chunks`).
        chunks: yields the bytes in C order as buffers of any length, bounded memory; always usable.
        problem: a sentence where the bytes cannot be located; reading it raises TensorReadError with it.
    """

    info: TensorInfo
    span: Span | None
    chunks: Callable[[], Iterator[bytes | memoryview]]
    problem: str | None = None

    def load(self, limit: int = 1 << 28) -> NDArray[np.generic]:
        """The whole tensor as an array of `info.shape` (2- and 1-byte floats as their raw unsigned integers).

        For tests, scalars and small tensors.

        Raises:
            TensorReadError: larger than `limit` bytes, or unreadable.
        """
        from ckptdoctor.checkpoints.dtypes import storage_dtype

        if self.info.nbytes > limit:
            raise TensorReadError(
                f"{self.info.path} has {self.info.nbytes:,} bytes, more than the {limit:,} allowed here"
            )
        raw = b"".join(bytes(chunk) for chunk in self.chunks())
        try:
            return np.frombuffer(raw, dtype=storage_dtype(self.info.dtype)).reshape(self.info.shape)
        except ValueError:
            found = f"{self.info.path} gave {len(raw):,} bytes, which do not fill its shape {self.info.shape}"
            raise TensorReadError(found) from None


@dataclass(slots=True)
class Checkpoint:
    """An open checkpoint. Close it, or use it as a context manager.

    Attributes:
        info: what the container says of itself.
        tensors: in the container's order.
        scalars: the optimizer's scalars as numbers (see `Census.scalars`).
        verify: reads the weights once more and tells what is wrong with their checksum, None where nothing is; itself
            None where the container keeps no checksum of them, or is not on this machine.
    """

    info: CheckpointInfo
    tensors: tuple[StoredTensor, ...]
    scalars: dict[str, float]
    _sources: tuple[ByteSource, ...] = field(default=(), repr=False)
    verify: Callable[[], Problem | None] | None = None

    def close(self) -> None:
        """Release all files."""
        for source in self._sources:
            source.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
