"""A run of many checkpoints against the census alone: `python -m tests.benchmarks.bench_timeline [--count 200] [--mb 10]`.

The bar: the timeline of 200 checkpoints of 10 MB takes at most 1.5 times 200 times the census of one. Both are measured in
turns in one process, warm page cache, by wall time; the smallest of five counts.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.discover import discover
from ckptdoctor.evidence.census import take_census
from ckptdoctor.evidence.timeline import build_timeline


def write(path: Path, nbytes: int, layers: int = 4) -> None:
    """Dense layers with Adam's slots, as `.weights.h5`."""
    width = int((nbytes / 4 / layers / 3) ** 0.5)
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["optimizer/vars/0"] = np.int64(10)
        file["optimizer/vars/1"] = np.float32(0.001)
        for n in range(layers):
            name = f"layers/dense{f'_{n}' if n else ''}/vars"
            file[f"{name}/0"] = rng.normal(size=(width, width)).astype("f4")
            file[f"{name}/1"] = np.zeros(width, "f4")
            for slot in range(2):
                file[f"optimizer/vars/{2 + 4 * n + slot}"] = rng.normal(size=(width, width)).astype("f4")
                file[f"optimizer/vars/{4 + 4 * n + slot}"] = np.zeros(width, "f4")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--mb", type=int, default=10)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "epoch_000.weights.h5"
        write(first, chosen.mb * 1_000_000)
        for i in range(1, chosen.count):
            shutil.copy(first, Path(folder) / f"epoch_{i:03d}.weights.h5")
        files = discover([folder])
        assert len(files.checkpoints) == chosen.count

        def alone() -> float:
            started = time.perf_counter()
            for path in files.checkpoints:
                with open_checkpoint(path) as checkpoint:
                    take_census(checkpoint)
            return time.perf_counter() - started

        def together() -> float:
            started = time.perf_counter()
            build_timeline(files)
            return time.perf_counter() - started

        alone()
        turns = [(alone(), together()) for _ in range(5)]
        census, timeline = (min(column) for column in zip(*turns, strict=True))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{chosen.count} x {first.stat().st_size / 1e6:.1f} MB: census alone {census:.2f} s, timeline {timeline:.2f} s, ratio {timeline / census:.2f} (bar 1.5), peak {peak:.0f} MB"
        )


if __name__ == "__main__":
    main()
