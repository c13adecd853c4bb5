"""Opening one 20-tensor `.keras`: this reader against h5py and against `keras.models.load_model`, in one run.

    python -m tests.benchmarks.bench_open [--no-keras]

Bar: at most 3 ms, warm (a scan needs 200 files a second on two cores). The file is made with h5py in the layout of Keras;
`load_model` runs on a real file of `fixtures/formats`, in a process of its own, import not counted.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np

from ckptdoctor.checkpoints import open_checkpoint

BAR_SECONDS = 0.003
ROUNDS = 200
FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"


def make(path: Path) -> None:
    """Three Dense layers with Adam: 6 weights, 14 optimizer variables."""
    sizes = [(32, 64), (64, 64), (64, 8)]
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        number = 0
        optimizer = file.create_group("optimizer/vars")
        optimizer["0"], optimizer["1"] = np.int64(7), np.float32(1e-3)
        for i, shape in enumerate(sizes):
            group = file.create_group(f"layers/dense{f'_{i}' if i else ''}/vars")
            group.attrs["name"] = f"layer_{i}"
            for j, extent in enumerate((shape, shape[1:])):
                group[str(j)] = np.ones(extent, "f4")
                for _ in range(2):
                    optimizer[str(number + 2)] = np.ones(extent, "f4")
                    number += 1
    dense = [
        {
            "class_name": "Dense",
            "config": {"name": f"layer_{i}", "units": n},
            "build_config": {"input_shape": [None, m]},
        }
        for i, (m, n) in enumerate(sizes)
    ]
    compiled = {"optimizer": {"class_name": "Adam", "config": {"learning_rate": 1e-3}}, "loss": "mse"}
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": dense}, "compile_config": compiled}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2024-01-01@00:00:00"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", buffer.getvalue())


def median(action, rounds: int = ROUNDS) -> float:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def with_h5py(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """The same descriptions by the usual way: unzip the member to memory, walk it with h5py."""
    found: list[tuple[str, tuple[int, ...]]] = []
    with zipfile.ZipFile(path) as archive:
        json.loads(archive.read("config.json"))
        data = archive.read("model.weights.h5")
    with h5py.File(io.BytesIO(data)) as file:
        file.visititems(lambda name, item: found.append((name, item.shape)) if isinstance(item, h5py.Dataset) else None)
    return found


KERAS = """
import os, sys, time, statistics
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'; os.environ['CUDA_VISIBLE_DEVICES'] = ''
import keras
times = []
for _ in range(6):
    started = time.perf_counter(); keras.models.load_model(sys.argv[1]); times.append(time.perf_counter() - started)
print(statistics.median(times[1:]))
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as room:
        path = Path(room) / "x.keras"
        make(path)
        with open_checkpoint(path) as checkpoint:
            assert len(checkpoint.tensors) == 20
            assert all(t.info.slot_of for t in checkpoint.tensors if t.info.slot)
        ours = median(lambda: open_checkpoint(path).close())
        theirs = median(lambda: with_h5py(path))
    real = FORMATS / "keras-3.13.0" / "m.keras"
    real_seconds = median(lambda: open_checkpoint(real).close())
    print(f"20 tensors:  open {ours * 1e3:.2f} ms ({1 / ours:,.0f} files/s a core), bar {BAR_SECONDS * 1e3:.0f} ms")
    print(f"             h5py without names {theirs * 1e3:.2f} ms: {theirs / ours:.1f} x as long")
    print(f"33 tensors:  open {real_seconds * 1e3:.2f} ms")
    if "--no-keras" not in sys.argv:
        done = subprocess.run([sys.executable, "-c", KERAS, str(real)], check=True, capture_output=True, text=True)
        seconds = float(done.stdout.splitlines()[-1])
        print(f"             keras.models.load_model {seconds * 1e3:.0f} ms: {seconds / real_seconds:,.0f} x as long")
    return int(ours > BAR_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
