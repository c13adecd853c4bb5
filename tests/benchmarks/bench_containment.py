"""What it costs that HDF5 of strangers is parsed in a child: `python -m tests.benchmarks.bench_containment`.

The same small file with a compressed tensor, opened and read by the library in a child and by the library in the very process,
each in a process of its own that has imported numpy, taking turns. The bar: at most 0.1 s more, in the median. What Keras
itself writes needs no child, which is shown as well.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.bench_census import verdict

PLAIN = """
import sys, time
import numpy, ckptdoctor.checkpoints.h5files
from ckptdoctor.checkpoints import open_checkpoint
for _ in range(2):
    started = time.perf_counter()
    with open_checkpoint(sys.argv[1]) as checkpoint:
        for tensor in checkpoint.tensors:
            tensor.load()
    print(time.perf_counter() - started)
"""
DIRECT = """
import sys, time
import numpy
started = time.perf_counter()
import h5py
with h5py.File(sys.argv[1]) as file:
    file.visititems(lambda _name, item: item[()] if isinstance(item, h5py.Dataset) else None)
print(time.perf_counter() - started)
"""


def once(program: str, path: Path) -> list[float]:
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.split()]


def build(folder: Path) -> tuple[Path, Path]:
    """The same two tensors as Keras stores them, and compressed."""
    import h5py
    import numpy as np

    paths = folder / "plain.weights.h5", folder / "compressed.weights.h5"
    for path, how in zip(paths, ({}, {"chunks": (16, 16), "compression": "gzip"}), strict=True):
        with h5py.File(path, "w") as file:
            group = file.create_group("layers/dense/vars")
            group.create_dataset("0", data=np.random.default_rng(0).random((64, 64), "f4"), **how)
            group.create_dataset("1", data=np.zeros(64, "f4"))
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        plain, compressed = build(Path(folder))
        first, second, direct, without = [], [], [], []
        for _ in range(options.repeat):
            times = once(PLAIN, compressed)
            first.append(times[0])
            second.append(times[1])
            direct += once(DIRECT, compressed)
            without.append(once(PLAIN, plain)[0])
    middle = statistics.median
    print(
        f"in the child {middle(first):.3f} s, once more {middle(second):.3f} s; in the very process {middle(direct):.3f} s"
    )
    print(f"as Keras stores it, which needs no child: {middle(without):.4f} s")
    verdict("containment of the first file", middle(first) - middle(direct), 0.1, "s")
    verdict("containment of every further file", middle(second), 0.1, "s")


if __name__ == "__main__":
    main()
