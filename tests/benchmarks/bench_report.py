"""Time and size of a rendered report: `python -m tests.benchmarks.bench_report`.

The bar: at most 0.3 s for 200 layers and 2 s for 4,000, the first rendering of a process included (templates are compiled
then); at most 300 kB for usual models and 1 MB for 4,000 layers; Markdown below 60,000 characters.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

BARS = {200: (0.3, 300_000), 4000: (2.0, 1_000_000)}
_CHILD = """
import sys, time
sys.path.insert(0, sys.argv[3])
from report_factories import large
from ckptdoctor.report import render
from ckptdoctor.rules.registry import all_rules
all_rules()  # a process that has a report has judged it, hence has the rules
report = large(int(sys.argv[1]))
started = time.perf_counter()
text = render(report, sys.argv[2])
first = time.perf_counter() - started
started = time.perf_counter()
render(report, sys.argv[2])
print(first, time.perf_counter() - started, len(text.encode()), len(text))
"""


def measure(layers: int, format_: str, repeat: int) -> tuple[float, float, int, int]:
    """Shortest first and second rendering in a process of its own (seconds), bytes, characters."""
    factories = str(Path(__file__).parents[1] / "report")
    runs = []
    for _ in range(repeat):
        command = [sys.executable, "-c", _CHILD, str(layers), format_, factories]
        words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        runs.append((float(words[0]), float(words[1]), int(words[2]), int(words[3])))
    return min(r[0] for r in runs), min(r[1] for r in runs), runs[0][2], runs[0][3]


def main() -> int:
    """Print a line a figure; status 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    missed = 0
    for layers, (seconds, size) in BARS.items():
        for format_ in ("html", "json", "markdown", "text"):
            started = time.perf_counter()
            first, again, nbytes, characters = measure(layers, format_, options.repeat)
            fits = first <= seconds
            if format_ == "html":
                fits = fits and nbytes <= size
            if format_ == "markdown":
                fits = fits and characters < 60_000
            missed += not fits
            print(
                f"{layers:>5} layers {format_:<9} first {first:.3f} s, again {again:.3f} s (bar {seconds} s), "
                f"{nbytes / 1000:.0f} kB  {'ok' if fits else 'MISSED'}  [{time.perf_counter() - started:.0f} s]"
            )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
