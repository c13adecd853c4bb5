"""How long the command takes to start: `python -m tests.benchmarks.bench_startup`.

The bar, in wall time of the whole process: `--version` at most 0.15 s, `inspect` of a 100 KB checkpoint at most 0.6 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.bench_census import build, verdict


def best(arguments: list[str], repeat: int, cwd: str, expected: tuple[int, ...]) -> float:
    """Shortest wall time of the installed `ckptdoctor ARGUMENTS` over `repeat` runs."""
    shortest = float("inf")
    for _ in range(repeat):
        started = time.perf_counter()
        command = [str(Path(sys.executable).with_name("ckptdoctor")), *arguments]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        assert done.returncode in expected, done.stderr
        shortest = min(shortest, seconds)
    return shortest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.keras")
        build(path, 1, "float32", width=150)
        print(f"checkpoint of {path.stat().st_size / 1000:.0f} KB")
        verdict("--version", best(["--version"], options.repeat, folder, (0,)), 0.15, "s")
        inspect = best(["inspect", str(path), "-o", str(Path(folder, "report.html"))], options.repeat, folder, (0, 1))
        verdict("inspect", inspect, 0.6, "s")


if __name__ == "__main__":
    main()
