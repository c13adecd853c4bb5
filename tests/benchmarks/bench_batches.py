"""How long recorded batches take to measure: `python -m tests.benchmarks.bench_batches`.

The bar: the association of x and y in at most 1 s for batches as they are usually recorded; memory bounded whatever
the size of the file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

MEASURE = """
import json, sys, time
from ckptdoctor.evidence.batches import measure_batches
from ckptdoctor.model import Missing
started = time.process_time()
batches = measure_batches(sys.argv[1], Missing("no configuration"))
seconds = time.process_time() - started
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
found = batches.association
print(json.dumps({"seconds": seconds, "peak": peak, "rows": found.rows if found else 0, "sampled": batches.inputs[0].sampled}))
"""


def main() -> None:
    rng = np.random.default_rng(0)
    kinds = {
        "8 batches of 32 rows, 20 features": (8, 32, (20,)),
        "8 batches of 32 images of 32 x 32 x 3": (8, 32, (32, 32, 3)),
        "32 batches of 64 rows, 500 features": (32, 64, (500,)),
        "64 batches of 256 images of 64 x 64 x 3 (800 MB)": (64, 256, (64, 64, 3)),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (batches, rows, shape) in kinds.items():
            x = rng.random((batches, rows, *shape), dtype=np.float32)
            np.savez(
                Path(folder) / "b.npz",
                x=x,
                y=(x.reshape(batches, rows, -1)[..., :1] > 0.5).astype("f4"),
                step=np.arange(batches),
            )
            del x
            output = subprocess.run(
                [sys.executable, "-c", MEASURE, str(Path(folder) / "b.npz")], check=True, capture_output=True, text=True
            )
            found = json.loads(output.stdout)
            print(
                f"{name}: {found['seconds']:.2f} s of processor time, peak {found['peak']:.0f} MB, association over {found['rows']} rows{', sampled' if found['sampled'] else ''}"
            )


if __name__ == "__main__":
    main()
