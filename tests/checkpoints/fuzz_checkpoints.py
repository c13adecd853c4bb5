"""Changed, cut and spliced checkpoints by the thousand: each gives a checkpoint or one sentence, in bounded time and memory.

    python tests/checkpoints/fuzz_checkpoints.py [COUNT] [SEED]

A sample runs with the tests. Any other outcome is printed with the seed that makes it again, and the exit status is 1.
"""

from __future__ import annotations

import random
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ckptdoctor.checkpoints import CheckpointError, TensorReadError, detect_format, open_checkpoint

FORMATS = Path(__file__).parents[2] / "fixtures" / "formats"
SLOWEST = 20.0  # seconds for one input
LARGEST = 512  # MiB of this process
LOADED = 1 << 20  # bytes of a tensor that is read whole

FILES = [
    "keras-2.12.0/m.keras",
    "keras-2.12.0/m.weights.h5",
    "keras-2.15/m.keras",
    "keras-3.13.0/m.keras",
    "keras-3.13.0/m.h5",
    "dtypes/bf16.keras",
    "dtypes/q_int8.keras",
    "shapes/npz.keras",
    "shapes/sub.keras",
    "made/recurrent.keras",
]
DIRECTORIES = [
    "shapes/unzipped.keras",
    "tf_checkpoint",
    "savedmodel-keras-2.15",
    "exported_savedmodel",
    "backup_and_restore_2.15",
    "backup_and_restore_2.15/chief",
]
BYTES = [0, 1, 2, 63, 64, 127, 128, 254, 255]
TEXTS = [b"NaN", b"null", b"{}", b"[[[[", b'"', b"1e999", b"-1", b"\\u0000", b"../", b"9" * 400]


def changed(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One of: some bytes changed, a run overwritten, cut at a multiple of 4 KiB or anywhere, spliced, JSON noise."""
    result = bytearray(data)
    kind = rng.randrange(7)
    at = rng.randrange(len(data)) if data else 0
    if not data:
        return other[: rng.randrange(len(other) + 1)]
    if kind <= 1:
        for _ in range(rng.choice([1, 1, 2, 8, 64])):
            result[rng.randrange(len(data))] = rng.choice([*BYTES, rng.randrange(256)])
    elif kind == 2:
        run = rng.choice([4, 8, 16, 512])
        result[at : at + run] = bytes([rng.choice(BYTES)]) * min(run, len(data) - at)
    elif kind == 3:
        del result[rng.choice([at, at // 4096 * 4096]) :]
    elif kind == 4:
        start = rng.randrange(len(other) + 1)
        result[at : at + 256] = other[start : start + 256]
    elif kind == 5:
        result[at:at] = rng.randbytes(rng.randrange(1, 40))
    else:
        hits = [i for i in range(len(data)) if data[i] in b'{}[]",:'][:4000] or [at]
        where = rng.choice(hits)
        result[where : where + 1] = rng.choice(TEXTS)
    return bytes(result)


def inputs(count: int, seed: int, room: Path) -> Iterator[tuple[int, Path]]:
    """Changed files and directories, one after the other in one place."""
    rng = random.Random(seed)
    for number in range(count):
        for old in room.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        other = (FORMATS / rng.choice(FILES)).read_bytes()
        if rng.random() < 0.7:
            source = FORMATS / rng.choice(FILES)
            target = room / f"x{''.join(source.suffixes)}"
            target.write_bytes(changed(source.read_bytes(), other, rng))
        else:
            source = FORMATS / rng.choice(DIRECTORIES)
            target = room / "x"
            shutil.copytree(source, target)
            victim = rng.choice(sorted(p for p in target.rglob("*") if p.is_file()))
            if rng.random() < 0.1:
                victim.unlink()
            else:
                victim.write_bytes(changed(victim.read_bytes(), other, rng))
        yield number, target


def attempt(path: Path) -> bool:
    """Open and read everything small; whether it opened. Lets every exception but the readers' own through."""
    detect_format(path)
    try:
        with open_checkpoint(path) as checkpoint:
            for stored in checkpoint.tensors:
                if stored.info.nbytes <= LOADED:
                    try:
                        stored.load()
                    except TensorReadError as error:
                        _require_sentence(error)
            assert 0.0 <= checkpoint.info.coverage <= 1.0
            return True
    except CheckpointError as error:
        _require_sentence(error)
        return False


def _require_sentence(error: Exception) -> None:
    if "\n" in str(error) or not str(error):
        raise ValueError(f"not one sentence: {error!r}")


def run(count: int, seed: int) -> list[str]:
    """What went wrong: exceptions, slow inputs, memory."""
    wrong: list[str] = []
    opened = 0
    with tempfile.TemporaryDirectory() as room:
        for number, path in inputs(count, seed, Path(room)):
            started = time.perf_counter()
            try:
                opened += attempt(path)
            except Exception as error:  # noqa: BLE001 - the very thing that is looked for
                wrong.append(f"seed {seed}, input {number} ({path.name}): {type(error).__name__}: {error}")
            seconds = time.perf_counter() - started
            if seconds > SLOWEST:
                wrong.append(f"seed {seed}, input {number} ({path.name}): {seconds:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{count:,} inputs, {opened:,} opened, {len(wrong)} went wrong, peak memory {peak} MiB", file=sys.stderr)
    if peak > LARGEST and __name__ == "__main__":
        wrong.append(f"peak memory {peak} MiB")
    return wrong


if __name__ == "__main__":
    arguments = [int(a) for a in sys.argv[1:]]
    found = run(arguments[0] if arguments else 2000, arguments[1] if len(arguments) > 1 else 1)
    print("\n".join(found))
    sys.exit(bool(found))
