"""How fast the census is, against `cat` and against Keras: `python -m tests.benchmarks.bench_census [--gib 1] [--keras]`.

The bar: census time per byte at most 3 times `cat file >/dev/null` (page cache warm); peak memory at most 120 MB whatever
the size; float16 and bfloat16 within twice float32 per byte; the whole process at least 20 times faster than
`keras.models.load_model` and an isnan loop (with `--keras`).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

WIDTH = 4096
DTYPES = ("float32", "float16", "bfloat16")
CENSUS = """
import json, sys, time
from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.evidence.census import take_census
started = time.process_time()
with open_checkpoint(sys.argv[1]) as checkpoint:
    census = take_census(checkpoint)
seconds = time.process_time() - started
status = open("/proc/self/status").read()  # ru_maxrss would count the parent before exec
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"cpu": seconds, "peak": peak, "nonfinite": census.nonfinite, "read": census.bytes_read}))
"""
KERAS = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
print(sum(int(np.isnan(np.asarray(w, "float32")).sum()) for w in model.get_weights()))
"""


def build(path: Path, nbytes: int, dtype: str, width: int = WIDTH) -> None:
    """A Sequential of square Dense layers as Keras 3 saves it, weights random and finite."""
    itemsize = 4 if dtype == "float32" else 2
    count = max(1, nbytes // (width * width * itemsize))
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((width, width), dtype=np.float32) * np.float32(0.02)
    stored = kernel if dtype == "float32" else kernel.astype(np.float16)
    if dtype == "bfloat16":
        stored = (kernel.view(np.uint32) >> 16).astype(np.uint16).view("V2")
    bias = np.zeros(width, stored.dtype)
    layers = [_serialized("InputLayer", {"batch_shape": [None, width], "dtype": "float32", "name": "input_layer"})]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        weights = Path(folder) / "model.weights.h5"
        with h5py.File(weights, "w") as file:
            for i in range(count):
                name = "dense" if not i else f"dense_{i}"
                group = file.create_group(f"layers/{name}/vars")
                group.attrs["name"] = name
                for key, array in (("0", stored), ("1", bias)):
                    group.create_dataset(key, data=array)
                    if dtype == "bfloat16":
                        group[key].attrs["dtype"] = "bfloat16"
                layers.append(
                    _serialized("Dense", {"name": name, "units": width, "dtype": dtype, "activation": "relu"})
                )
        config = {
            "module": "keras",
            "class_name": "Sequential",
            "config": {"name": "sequential", "layers": layers, "build_input_shape": [None, width]},
            "registered_name": None,
            "build_config": {"input_shape": [None, width]},
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(
                "metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"})
            )
            archive.writestr("config.json", json.dumps(config))
            archive.write(weights, "model.weights.h5")


def _serialized(class_name: str, config: dict[str, object]) -> dict[str, object]:
    return {"module": "keras.layers", "class_name": class_name, "config": config, "registered_name": None}


def run(code: str, path: Path) -> tuple[float, str]:
    """Wall time of a whole Python process, and what it printed."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    return time.perf_counter() - started, done.stdout


def cat(path: Path) -> float:
    started = time.perf_counter()
    with Path("/dev/null").open("wb") as sink:
        subprocess.run(["cat", str(path)], check=True, stdout=sink)
    return time.perf_counter() - started


def verdict(name: str, value: float, bar: float, unit: str, *, at_least: bool = False) -> None:
    good = value >= bar if at_least else value <= bar
    print(f"{name:55} {value:8.2f} {unit:4} bar {'≥' if at_least else '≤'} {bar:g}: {'ok' if good else 'MISSED'}")


@dataclass
class Best:
    """Best of all rounds for one file."""

    base: float = math.inf
    wall: float = math.inf
    cat: float = math.inf
    cpu: float = math.inf
    peak: float = 0.0

    def round(self, path: Path, small: Path, size: int) -> None:
        self.cat = min(self.cat, cat(path))
        base, _ = run(CENSUS, small)
        wall, output = run(CENSUS, path)
        report = json.loads(output)
        assert report["nonfinite"] == 0
        assert report["read"] >= size
        self.base, self.wall, self.peak = min(self.base, base), min(self.wall, wall), max(self.peak, report["peak"])
        self.cpu = min(self.cpu, report["cpu"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the files")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--keras", action="store_true", help="also load the float32 file with Keras")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = {name: (Path(folder, f"{name}.keras"), Path(folder, f"{name}-small.keras")) for name in DTYPES}
        best = {name: Best() for name in DTYPES}
        for name, (path, small) in files.items():
            build(path, int(options.gib * 2**30), name)
            build(small, 1, name)
        sizes = {name: path.stat().st_size - small.stat().st_size for name, (path, small) in files.items()}
        for _ in range(options.repeat):  # in turn, so that other load on the machine meets all alike
            for name, (path, small) in files.items():
                best[name].round(path, small, sizes[name])
        speed = {name: (best[name].wall - best[name].base) / sizes[name] * 1e9 for name in DTYPES}
        for name, found in best.items():
            cats = found.cat / files[name][0].stat().st_size * 1e9
            cpu = found.cpu / sizes[name] * 1e9
            print(f"{name}: census {speed[name]:.3f} s/GB (processor {cpu:.3f}), cat {cats:.3f} s/GB")
            if name == "float32":
                verdict("float32: census per byte over cat", speed[name] / cats, 3, "x")
            else:
                verdict(f"{name}: per byte over float32", speed[name] / speed["float32"], 2, "x")
                cpu_ratio = cpu / (best["float32"].cpu / sizes["float32"] * 1e9)
                print(f"    the same in processor time, which other load disturbs less: {cpu_ratio:.2f} x")
            verdict(f"{name}: peak memory", found.peak, 120, "MB")
        if options.keras:
            wall, _ = run(KERAS, files["float32"][0])
            print(f"keras.models.load_model and isnan: {wall:.2f} s")
            verdict("Keras over the whole process", wall / best["float32"].wall, 20, "x", at_least=True)


if __name__ == "__main__":
    main()
