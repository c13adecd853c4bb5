"""Checkpoints built from arrays in memory, for tests of measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ckptdoctor.checkpoints.contract import Checkpoint, Span, StoredTensor
from ckptdoctor.model import Census, CheckpointInfo, Format, Missing, Role, TensorInfo, TensorStats


class Memory:
    """A file in memory that never gives more than `burst` bytes at once."""

    def __init__(self, data: bytes, name: str = "memory", burst: int = 1 << 30) -> None:
        self.data, self.name, self.size, self.burst = data, name, len(data), burst
        self.reads = 0

    def read_into(self, offset: int, buffer: memoryview) -> int:
        self.reads += 1
        piece = self.data[offset : offset + min(len(buffer), self.burst)]
        buffer[: len(piece)] = piece
        return len(piece)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]

    def close(self) -> None:
        pass


def info(model_config: object = None, compile_config: object = None) -> CheckpointInfo:
    """A checkpoint's own description, Keras 3 zip."""
    nothing = Missing("not in this test")
    return CheckpointInfo(
        path="run/model.keras",
        format=Format.KERAS_ZIP,
        size_bytes=0,
        keras_version="3.15.1",
        saved_at=nothing,
        backend=nothing,
        model_config=nothing if model_config is None else model_config,  # type: ignore[arg-type]
        compile_config=nothing if compile_config is None else compile_config,  # type: ignore[arg-type]
    )


def tensor_info(path: str, shape: tuple[int, ...], dtype: str, nbytes: int, **more: object) -> TensorInfo:
    layer, _, variable = path.rpartition("/")
    fields: dict[str, object] = {"layer": layer or None, "layer_path": layer or None, "variable": variable}
    fields.update({"role": Role.WEIGHT} | more)
    return TensorInfo(path=path, shape=shape, dtype=dtype, nbytes=nbytes, **fields)  # type: ignore[arg-type]


def produced(described: TensorInfo, data: bytes, chunk: int = 1000) -> StoredTensor:
    """A tensor without a span: its bytes come in chunks of odd sizes."""

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(data), chunk):
            yield data[start : start + chunk]

    return StoredTensor(described, None, chunks)


def checkpoint(
    arrays: Mapping[str, np.ndarray],
    *,
    dtypes: Mapping[str, str] | None = None,
    spans: bool = True,
    padding: int = 3,
    roles: Mapping[str, Role] | None = None,
    scalars: Mapping[str, float] | None = None,
    described: CheckpointInfo | None = None,
    more: Mapping[str, Mapping[str, object]] | None = None,
) -> Checkpoint:
    """A checkpoint whose tensors stand one after the other, `padding` bytes apart (so most are unaligned)."""
    data = bytearray(b"\xff" * padding)
    places = {}
    for name, array in arrays.items():
        places[name] = (len(data), array.nbytes)
        data += array.tobytes() + b"\xff" * padding
    source = Memory(bytes(data))
    tensors = []
    for name, array in arrays.items():
        offset, nbytes = places[name]
        dtype = (dtypes or {}).get(name, array.dtype.name if array.dtype.isnative else array.dtype.str)
        extra = dict((more or {}).get(name, {}))
        if roles and name in roles:
            extra["role"] = roles[name]
        described_tensor = tensor_info(name, array.shape, dtype, nbytes, **extra)
        from_bytes = produced(described_tensor, bytes(data[offset : offset + nbytes]))
        span = Span(source, offset, nbytes) if spans else None
        tensors.append(StoredTensor(described_tensor, span, from_bytes.chunks))
    return Checkpoint(described or info(), tuple(tensors), dict(scalars or {}))


def stats(path: str, shape: tuple[int, ...] = (4, 3), *, nan: int = 0, **more: object) -> TensorStats:
    """Statistics as a census would give them, for a float32 tensor named `layer/variable`."""
    fields = ("nan", "posinf", "neginf", "zeros", "min", "max", "mean", "rms", "axes", "units", "error")
    measured: dict[str, object] = {"min": -1.0, "max": 1.0, "mean": 0.0, "rms": 0.5, "nan": nan}
    measured.update({key: value for key, value in more.items() if key in fields})
    described = {key: value for key, value in more.items() if key not in fields}
    size = int(np.prod(shape))
    if nan == size:
        measured.update(dict.fromkeys(("min", "max", "mean", "rms")))
    return TensorStats(tensor_info(path, shape, "float32", 4 * size, **described), **measured)  # type: ignore[arg-type]


def census(*tensors: TensorStats, scalars: Mapping[str, float] | None = None) -> Census:
    return Census(info(), tensors, dict(scalars or {}))
