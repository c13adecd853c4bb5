"""How fast the census is, against `cat` and against Keras: `python -m tests.benchmarks.bench_census [--gib 1] [--keras]`.

The bar: census time per byte at most 3 times `cat file >/dev/null` (page cache warm); peak memory at most 120 MB whatever
the size; float16 and bfloat16 within twice float32 per byte; the whole process at least 20 times faster than
`keras.models.load_model` and an isnan loop (with `--keras`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np

WIDTH = 4096
CENSUS = """
import json, sys, time
from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.evidence.census import take_census
started = time.perf_counter()
with open_checkpoint(sys.argv[1]) as checkpoint:
    census = take_census(checkpoint)
seconds = time.perf_counter() - started
status = open("/proc/self/status").read()  # ru_maxrss would count the parent before exec
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"seconds": seconds, "peak": peak, "nonfinite": census.nonfinite, "read": census.bytes_read}))
"""
KERAS = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
print(sum(int(np.isnan(np.asarray(w, "float32")).sum()) for w in model.get_weights()))
"""


def build(path: Path, nbytes: int, dtype: str) -> None:
    """A Sequential of square Dense layers as Keras 3 saves it, weights random and finite."""
    itemsize = 4 if dtype == "float32" else 2
    count = max(1, nbytes // (WIDTH * WIDTH * itemsize))
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((WIDTH, WIDTH), dtype=np.float32) * np.float32(0.02)
    stored = kernel if dtype == "float32" else kernel.astype(np.float16)
    if dtype == "bfloat16":
        stored = (kernel.view(np.uint32) >> 16).astype(np.uint16).view("V2")
    bias = np.zeros(WIDTH, stored.dtype)
    layers = [_serialized("InputLayer", {"batch_shape": [None, WIDTH], "dtype": "float32", "name": "input_layer"})]
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
                layers.append(_serialized("Dense", {"name": name, "units": WIDTH, "dtype": dtype, "activation": "relu"}))
        config = {
            "module": "keras",
            "class_name": "Sequential",
            "config": {"name": "sequential", "layers": layers, "build_input_shape": [None, WIDTH]},
            "registered_name": None,
            "build_config": {"input_shape": [None, WIDTH]},
        }
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}))
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


def measure(path: Path, small: Path, repeat: int) -> tuple[float, float, float, float]:
    """(marginal census seconds per GB, cat seconds per GB, peak MB, whole-process seconds), best of `repeat`."""
    size = path.stat().st_size - small.stat().st_size
    cat(path)
    marginal = whole = cats = float("inf")
    peak = 0.0
    for _ in range(repeat):
        cats = min(cats, cat(path))
        base, _ = run(CENSUS, small)
        wall, output = run(CENSUS, path)
        report = json.loads(output)
        assert report["nonfinite"] == 0
        assert report["read"] >= size
        marginal, whole, peak = min(marginal, wall - base), min(whole, wall), max(peak, report["peak"])
    return marginal / size * 1e9, cats / path.stat().st_size * 1e9, peak, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the files")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--keras", action="store_true", help="also load the float32 file with Keras")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        speeds = {}
        for dtype in ("float32", "float16", "bfloat16"):
            path, small = Path(folder, f"{dtype}.keras"), Path(folder, f"{dtype}-small.keras")
            build(path, int(options.gib * 2**30), dtype)
            build(small, 1, dtype)
            marginal, cats, peak, whole = measure(path, small, options.repeat)
            speeds[dtype] = marginal
            print(f"{dtype}: census {marginal:.3f} s/GB, cat {cats:.3f} s/GB, whole process {whole:.2f} s")
            if dtype == "float32":
                verdict("float32: census per byte over cat", marginal / cats, 3, "x")
            else:
                verdict(f"{dtype}: per byte over float32", marginal / speeds["float32"], 2, "x")
            verdict(f"{dtype}: peak memory", peak, 120, "MB")
            if dtype == "float32" and options.keras:
                wall, _ = run(KERAS, path)
                print(f"keras.models.load_model and isnan: {wall:.2f} s")
                verdict("Keras over the whole process", wall / whole, 20, "x", at_least=True)
            path.unlink()
            small.unlink()


if __name__ == "__main__":
    main()
