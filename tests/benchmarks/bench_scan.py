"""Speed and memory of `ckptdoctor scan`, as ratios against the bars of its issue.

    python -m tests.benchmarks.bench_scan [rate] [workers] [keras] [large] [memory] [resume]

Every figure is that of whole processes, start included, over files in the page cache.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scan"))

from making_checkpoints import Template, keras_template

CLI = [sys.executable, "-c", "from ckptdoctor.cli import main; main()"]
SMALL = keras_template()  # 20 tensors, 24 kB
FILES = 5000


# VmHWM, because ru_maxrss counts what the parent had before exec; the largest worker is watched from a thread.
WATCHED = """
import os, sys, threading, time
from ckptdoctor.cli import _run
peak = 0
def watch():
    global peak
    while True:
        for pid in filter(str.isdecimal, os.listdir("/proc")):
            try:
                status = open(f"/proc/{pid}/status").read()
            except OSError:
                continue
            if f"PPid:\\t{os.getpid()}\\n" in status and "VmHWM:" in status:
                peak = max(peak, int(status.split("VmHWM:")[1].split()[0]))
        time.sleep(0.05)
threading.Thread(target=watch, daemon=True).start()
_run(sys.argv[1:])
own = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
print("PEAK", own * 1024, peak * 1024)
"""


def scan(folder: Path, *options: str) -> float:
    """Wall seconds of a whole scan."""
    before = time.perf_counter()
    done = subprocess.run([*CLI, "scan", str(folder), *options], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - before
    assert re.search(r"[\d,]+ checkpoints? in", done.stdout), done.stdout[-500:] + done.stderr
    return seconds


def peaks(folder: Path, *options: str) -> tuple[int, int]:
    """Peak resident bytes of the scanning process, and of its largest worker."""
    command = [sys.executable, "-c", WATCHED, "scan", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    own, largest = done.stdout.rpartition("PEAK ")[2].split()
    return int(own), int(largest)


def fill(folder: Path, count: int, template: Template = SMALL) -> None:
    """That many checkpoints in runs of 100. Links to a few files: the paths differ, the bytes need no disk."""
    folder.mkdir(parents=True)
    sources = []
    for step in range(20):
        source = folder.parent / f"source_{step}"
        source.write_bytes(template.with_step(step))
        os.utime(source, (time.time() - 3600,) * 2)
        sources.append(source)
    for number in range(count):
        run = folder / f"run_{number // 100:05d}"
        if number % 100 == 0:
            run.mkdir()
        os.link(sources[number % 20], run / f"epoch_{number % 100:03d}.keras")


def show(name: str, value: float, bar: float, unit: str, detail: str, *, at_most: bool = False) -> None:
    """One line: figure, bar, whether it holds."""
    holds = value <= bar if at_most else value >= bar
    print(
        f"{name:<34} {value:>9.2f} {unit:<16} bar {'<=' if at_most else '>='} {bar:g}  {'ok' if holds else 'MISSED'}   {detail}",
        flush=True,
    )


def best(times: int, measure: Callable[[], float]) -> float:
    """The least disturbed of several measurements."""
    return min(measure() for _ in range(times))


def bench_rate(folder: Path) -> None:
    """Checkpoints a second with two workers."""
    fill(folder / "runs", FILES)
    seconds = best(3, lambda: scan(folder / "runs", "--jobs", "2"))
    show("20-tensor files, 2 workers", FILES / seconds, 200, "checkpoints/s", f"{FILES} files in {seconds:.2f} s")


def bench_workers(folder: Path) -> None:
    """Gain from the second worker."""
    fill(folder / "runs", FILES)
    one = best(3, lambda: scan(folder / "runs", "--jobs", "1"))
    two = best(3, lambda: scan(folder / "runs", "--jobs", "2"))
    show("1 to 2 workers", one / two, 1.7, "x", f"{one:.2f} s, {two:.2f} s")


def bench_keras(folder: Path) -> None:
    """Against loading each file with Keras in one process, the import of TensorFlow not counted.

    The bar is judged on a model with 20 weight tensors and their 40 slots; the smallest file, 20 tensors with the slots
    counted, is told beside it.
    """
    code = """
import glob, sys, time
import numpy as np, keras
paths = sorted(glob.glob(sys.argv[1] + "/*/*.keras"))[:40]
keras.models.load_model(paths[0])
start = time.perf_counter()
for path in paths:
    model = keras.models.load_model(path)
    bad = sum(int(np.isnan(np.asarray(v)).sum()) for v in [*model.variables, *model.optimizer.variables])
print("EACH", (time.perf_counter() - start) / len(paths))
"""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

    def compare(name: str, template: Template) -> tuple[float, str]:
        place = folder / name
        place.mkdir()
        fill(place / "runs", FILES, template)
        done = subprocess.run(
            [sys.executable, "-c", code, str(place / "runs")],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        each = float(done.stdout.rpartition("EACH ")[2])
        ours = best(3, lambda: scan(place / "runs", "--jobs", "2")) / FILES
        return each / ours, f"{each * 1e3:.0f} ms against {ours * 1e3:.2f} ms a file"

    small, small_detail = compare("small", SMALL)
    ratio, detail = compare("dense", keras_template(units=(8,) * 10))
    show("against Keras in one process", ratio, 30, "x faster", f"{detail}; 3 layers: {small:.0f} x, {small_detail}")


def bench_large(folder: Path) -> None:
    """Bytes a second of a scan over large files against the census of one of them, both at the margin."""
    big = keras_template(units=(4096, 8192, 4096), features=2048)  # weights and two slots each: 0.9 GB
    (folder / "runs").mkdir()
    count = 4
    for number in range(count):
        path = folder / "runs" / f"epoch_{number}.keras"
        if number == 0:
            path.write_bytes(big.data)
            os.utime(path, (time.time() - 3600,) * 2)
        else:
            os.link(folder / "runs/epoch_0.keras", path)
    one = folder / "runs/epoch_0.keras"
    small = folder / "small"
    fill(small, 4)
    code = "import sys, time\nfrom ckptdoctor.checkpoints import open_checkpoint\nfrom ckptdoctor.evidence.census import take_census\n"
    code += "for path in sys.argv[1:]:\n  with open_checkpoint(path) as c:\n    take_census(c)\n    print(take_census(c).seconds)"

    def census() -> float:
        done = subprocess.run([sys.executable, "-c", code, str(one)], capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])

    alone = len(big.data) / best(3, census)
    start = best(3, lambda: scan(small, "--jobs", "2"))
    seconds = best(3, lambda: scan(folder / "runs", "--jobs", "2")) - start
    ours = count * len(big.data) / seconds
    detail = f"{ours / 1e9:.2f} of {alone / 1e9:.2f} GB/s, {count} files of {len(big.data) / 1e9:.2f} GB"
    show("large files against one census", ours / alone, 0.8, "of its rate", detail)


def bench_memory(folder: Path) -> None:
    """Peak memory of the scanning process over 1,000 and 20,000 files."""
    fill(folder / "few", 1000)
    fill(folder / "b/many", 20_000)
    few, _ = peaks(folder / "few", "--resume", str(folder / "few.jsonl"), "-o", str(folder / "few.html"))
    many, worker = peaks(folder / "b/many", "--resume", str(folder / "many.jsonl"), "-o", str(folder / "many.html"))
    detail = f"{few / 1e6:.1f} MB at 1,000, {many / 1e6:.1f} MB at 20,000 files; a worker {worker / 1e6:.0f} MB"
    show("memory, 1,000 to 20,000 files", many / few, 1.25, "x", detail, at_most=True)


def bench_resume(folder: Path) -> None:
    """A second scan that finds everything unchanged."""
    fill(folder / "runs", FILES)
    results = folder / "results.jsonl"
    first = scan(folder / "runs", "--jobs", "2", "--resume", str(results))
    second = best(3, lambda: scan(folder / "runs", "--jobs", "2", "--resume", str(results)))
    show("second scan with --resume", first / second, 20, "x faster", f"{first:.2f} s, {second:.2f} s, {FILES} files")


BENCHES = {
    "rate": bench_rate,
    "workers": bench_workers,
    "keras": bench_keras,
    "large": bench_large,
    "memory": bench_memory,
    "resume": bench_resume,
}


def main() -> None:
    """Run the named benchmarks, all without names."""
    for name in sys.argv[1:] or BENCHES:
        with tempfile.TemporaryDirectory() as folder:
            BENCHES[name](Path(folder))


if __name__ == "__main__":
    main()
