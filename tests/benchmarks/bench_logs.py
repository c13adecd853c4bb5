"""How fast logs are read, and with how much memory: `python -m tests.benchmarks.bench_logs [--mb 40] [--scalars 50000]`.

The bars: event files at least 50,000 scalars a second, at least 5 times faster than tensorboard's EventAccumulator (all points
kept, as a reader must) and at most 60 MB for the whole process; CSV and console at least 20 MB a second; memory
flat from a short log to a long one. Rates are by processor time, so that a busy machine does not decide.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

READ = """
import json, sys, time
from ckptdoctor.logs import read_log
started = time.process_time()
log = read_log(sys.argv[1])
seconds = time.process_time() - started
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"seconds": seconds, "peak": peak, "count": sum(s.count for s in log.series), "format": log.format}))
"""
TENSORBOARD = """
import json, sys, time
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
started = time.process_time()
accumulator = EventAccumulator(sys.argv[1], size_guidance={"tensors": 0, "scalars": 0}).Reload()
count = sum(len(accumulator.Tensors(t)) for t in accumulator.Tags()["tensors"])
count += sum(len(accumulator.Scalars(t)) for t in accumulator.Tags()["scalars"])
seconds = time.process_time() - started
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"seconds": seconds, "peak": peak, "count": count, "format": "EventAccumulator"}))
"""


def run(code: str, path: Path) -> dict:
    output = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    return json.loads(output.stdout.splitlines()[-1])


def write_csv(path: Path, nbytes: int) -> None:
    """As CSVLogger writes it: full precision, one validation column that is often NA."""
    with path.open("w") as file:
        file.write("epoch,accuracy,loss,val_accuracy,val_loss\r\n")
        row = 0
        while file.tell() < nbytes:
            rows = (
                f"{i},0.{i % 997:03d}5625238418579,{1 / (i + 1)},{'NA' if i % 3 else 0.987654321},{'nan' if i % 1000 == 7 else 0.5}\r\n"
                for i in range(row, row + 10_000)
            )
            file.write("".join(rows))
            row += 10_000


def write_bars(path: Path, nbytes: int) -> None:
    """Keras 3, verbose=1: bars redrawn with escapes and backspaces."""
    with path.open("w", encoding="utf-8") as file:
        epoch = 0
        while file.tell() < nbytes:
            file.write(f"Epoch {epoch + 1}/1000\n")
            for i in range(1, 1001):
                done = "\x1b[32m" + "━" * (20 * i // 1000) + "\x1b[0m\x1b[37m" + "━" * (20 - 20 * i // 1000) + "\x1b[0m"
                file.write(
                    f"\r\x1b[1m{i}/1000\x1b[0m {done} \x1b[1m1s\x1b[0m 9ms/step - accuracy: 0.5123 - loss: {1 / (i + epoch):.4f}"
                    + "\b" * 80
                )
            file.write(" - val_loss: 0.5\n")
            epoch += 1


def write_lines(path: Path, nbytes: int) -> None:
    """Keras 3, verbose=2: a header and a line an epoch, nothing else."""
    with path.open("w") as file:
        epoch = 0
        while file.tell() < nbytes:
            file.write(
                "".join(
                    f"Epoch {e + 1}/99\n188/188 - 2s - 13ms/step - accuracy: 0.5123 - loss: 0.6931 - val_accuracy: 0.5 - val_loss: 0.7\n"
                    for e in range(epoch, epoch + 1000)
                )
            )
            epoch += 1000


def write_noise(path: Path, nbytes: int) -> None:
    """Messages of other parts of the program."""
    line = "I0000 00:00:1795475168.104622   16220 port.cc:153] oneDNN custom operations are on. You may see slightly: different\n"
    with path.open("w") as file:
        file.write("Epoch 1/1\n")
        for _ in range(nbytes // (1000 * len(line)) + 1):
            file.write(line * 1000)


def write_events(path: Path, scalars: int) -> None:
    """Two tags as `tf.summary.scalar` writes them: a tensor of one float and the metadata of the scalars plugin."""
    import numpy as np

    from ckptdoctor.logs.crc import masked_crc

    def record(payload: bytes) -> bytes:
        length = struct.pack("<Q", len(payload))
        sums = [int(masked_crc(np.frombuffer(part, np.uint8)[None])[0]) for part in (length, payload)]
        return length + struct.pack("<I", sums[0]) + payload + struct.pack("<I", sums[1])

    def varint(value: int) -> bytes:
        return bytes([value]) if value < 128 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)

    def field(number: int, payload: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(payload)) + payload

    with path.open("wb") as file:
        file.write(record(b"\x09" + struct.pack("<d", 1.7e9) + field(3, b"brain.Event:2")))
        for i in range(scalars):
            tag = (b"batch_loss", b"evaluation_loss_vs_iterations")[i % 2]
            tensor = b"\x08\x01" + field(2, b"") + field(4, struct.pack("<f", math.exp(-i / scalars)))
            metadata = field(1, field(1, b"scalars"))
            value = field(1, tag) + field(8, tensor) + field(9, metadata)
            file.write(
                record(b"\x09" + struct.pack("<d", 1.7e9 + i) + b"\x10" + varint(i // 2) + field(5, field(1, value)))
            )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--mb", type=int, default=40)
    options.add_argument("--scalars", type=int, default=50_000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for name, write in (
            ("training_log.csv", write_csv),
            ("bars.log", write_bars),
            ("lines.log", write_lines),
            ("noise.log", write_noise),
        ):
            write(base / name, chosen.mb << 20)
            size = (base / name).stat().st_size / 1e6
            best = min((run(READ, base / name) for _ in range(3)), key=lambda r: r["seconds"])
            write(base / f"short_{name}", 1 << 20)
            short = run(READ, base / f"short_{name}")
            print(
                f"{name:18} {size / best['seconds']:8.1f} MB/s (bar 20), peak {best['peak']:.0f} MB, of a short one {short['peak']:.0f} MB, {best['count']:,} points"
            )
        board = base / "train"
        board.mkdir()
        write_events(board / "events.out.tfevents.1700000000.host.1.0.v2", chosen.scalars)
        ours = min((run(READ, board) for _ in range(3)), key=lambda r: r["seconds"])
        theirs = run(TENSORBOARD, board)
        assert ours["count"] == theirs["count"] == chosen.scalars
        print(
            f"event file: {ours['count'] / ours['seconds']:,.0f} scalars/s (bar 50,000), {theirs['seconds'] / ours['seconds']:.1f} x EventAccumulator (bar 5), peak {ours['peak']:.0f} MB (bar 60), theirs {theirs['peak']:.0f} MB"
        )


if __name__ == "__main__":
    main()
