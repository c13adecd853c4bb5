"""Checkpoints by the thousand: one real file is written with h5py and zipfile, the others are patched copies of its bytes."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

UNITS = (8, 6, 4)  # three Dense layers: 6 weights, 12 slots, iteration and learning rate are 20 tensors
FEATURES = 5


@dataclass(frozen=True)
class Template:
    """Bytes of a healthy checkpoint, and where each tensor's bytes lie: name → (offset, shape)."""

    data: bytes
    places: Mapping[str, tuple[int, tuple[int, ...]]]
    suffix: str
    member: tuple[int, int] = (0, 0)  # where the weights stand in the archive, and their size
    checksums: tuple[int, ...] = ()  # where the archive holds their CRC

    def patched(self, values: Mapping[str, np.ndarray | float]) -> bytes:
        """A copy in which these tensors have other values."""
        data = bytearray(self.data)
        for name, value in values.items():
            offset, shape = self.places[name]
            raw = np.broadcast_to(np.asarray(value, "<f4"), shape).tobytes()
            data[offset : offset + len(raw)] = raw
        return self._sealed(data)

    def _sealed(self, data: bytearray) -> bytes:
        """With the checksum that belongs to the new bytes."""
        start, size = self.member
        for place in self.checksums:
            struct.pack_into("<I", data, place, zlib.crc32(memoryview(data)[start : start + size]))
        return bytes(data)

    def with_step(self, step: int) -> bytes:
        """A copy saved at another optimizer step."""
        return self.stepped(self.data, step)

    def stepped(self, data: bytes, step: int) -> bytes:
        """Another copy at another step."""
        offset, _ = self.places["optimizer/iteration"]
        copy = bytearray(data)
        struct.pack_into("<q", copy, offset, step)
        return self._sealed(copy)

    def tensor(self, name: str) -> np.ndarray:
        """The healthy values of a tensor."""
        offset, shape = self.places[name]
        return np.frombuffer(self.data, "<f4", int(np.prod(shape)), offset).reshape(shape).copy()


def dense_config(units: Sequence[int] = UNITS, features: int = FEATURES) -> dict[str, object]:
    """A Sequential model of Dense layers compiled with Adam, as Keras 3 serialises it."""
    layers: list[dict[str, object]] = [
        {
            "module": "keras.layers",
            "class_name": "InputLayer",
            "config": {"batch_shape": [None, features], "dtype": "float32", "sparse": False, "name": "input"},
            "registered_name": None,
        }
    ]
    for n, width in enumerate(units):
        last = n == len(units) - 1
        config = {
            "name": f"layer_{n}",
            "trainable": True,
            "dtype": {
                "module": "keras",
                "class_name": "DTypePolicy",
                "config": {"name": "float32"},
                "registered_name": None,
            },
            "units": width,
            "activation": "linear" if last else "relu",
            "use_bias": True,
        }
        layers.append({"module": "keras.layers", "class_name": "Dense", "config": config, "registered_name": None})
    optimizer = {
        "module": "keras.optimizers",
        "class_name": "Adam",
        "config": {"name": "adam", "learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7},
        "registered_name": None,
    }
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "sequential", "trainable": True, "layers": layers, "build_input_shape": [None, features]},
        "registered_name": None,
        "build_config": {"input_shape": [None, features]},
        "compile_config": {"optimizer": optimizer, "loss": "mean_squared_error", "metrics": None},
    }


def weights_template(units: Sequence[int] = UNITS, features: int = FEATURES, seed: int = 0) -> Template:
    """A `.weights.h5` as Keras lays it out."""
    rng = np.random.default_rng(seed)
    buffer = io.BytesIO()
    shapes: dict[str, tuple[int, ...]] = {}
    with h5py.File(buffer, "w") as file:
        fan_in, number = features, 2
        slots = file.create_group("optimizer/vars")
        slots.create_dataset("0", data=np.int64(100))
        slots.create_dataset("1", data=np.float32(0.001))
        for n, width in enumerate(units):
            group = file.create_group(f"layers/{'dense' if not n else f'dense_{n}'}/vars")
            group.attrs["name"] = f"layer_{n}"
            limit = (6 / (fan_in + width)) ** 0.5
            kernel = rng.uniform(-limit, limit, (fan_in, width)).astype("f4")
            bias = rng.normal(0, 0.01, width).astype("f4")
            group.create_dataset("0", data=kernel)
            group.create_dataset("1", data=bias)
            for weight in (kernel, bias):
                slots.create_dataset(str(number), data=rng.normal(0, 1e-3, weight.shape).astype("f4"))
                slots.create_dataset(str(number + 1), data=rng.uniform(1e-7, 1e-5, weight.shape).astype("f4"))
                number += 2
            fan_in = width
    places: dict[str, tuple[int, tuple[int, ...]]] = {}
    with h5py.File(buffer, "r") as file:

        def place(path: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                shapes[path] = item.shape
                places[path] = (item.id.get_offset(), item.shape)

        file.visititems(place)
    places["optimizer/iteration"] = places["optimizer/vars/0"]
    places["optimizer/learning_rate"] = places["optimizer/vars/1"]
    return Template(buffer.getvalue(), places, ".weights.h5")


def keras_template(
    units: Sequence[int] = UNITS, features: int = FEATURES, seed: int = 0, *, config: dict[str, object] | None = None
) -> Template:
    """A `.keras` archive as Keras 3 writes it: all members stored. `config` replaces that of the Dense layers."""
    weights = weights_template(units, features, seed)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-03-01@10:00:00"}))
        archive.writestr("config.json", json.dumps(config or dense_config(units, features)))
        archive.writestr("model.weights.h5", weights.data)
        info = archive.getinfo("model.weights.h5")
    data = buffer.getvalue()
    name_length, extra_length = struct.unpack_from("<HH", data, info.header_offset + 26)
    start = info.header_offset + 30 + name_length + extra_length
    central = data.index(b"PK\x01\x02", start + len(weights.data))
    while not data.startswith(b"model.weights.h5", central + 46):
        central = data.index(b"PK\x01\x02", central + 4)
    places = {name: (start + offset, shape) for name, (offset, shape) in weights.places.items()}
    checksums = (info.header_offset + 14, central + 16)
    return Template(data, places, ".keras", (start, len(weights.data)), checksums)


def write(path: Path, data: bytes, *, age: float = 3600.0) -> Path:
    """Write a file that looks as if it had been saved `age` seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - int(age * 1e9)))
    return path


def write_run(
    folder: Path, template: Template, epochs: int, *, bad_from: int | None = None, age: float = 3600.0
) -> Path:
    """A run directory: one checkpoint an epoch, from one of them on with NaN in the first kernel."""
    for epoch in range(epochs):
        sick = bad_from is not None and epoch >= bad_from
        data = template.patched({"layers/dense/vars/0": np.nan}) if sick else template.data
        write(folder / f"epoch_{epoch:03d}{template.suffix}", template.stepped(data, 10 * epoch), age=age - epoch)
    return folder
