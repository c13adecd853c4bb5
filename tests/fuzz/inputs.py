"""Where inputs come from: real files of every kind, each changed by the number of the input alone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.fuzz.mutation import changed_document, mutate, repacked, resealed

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
FORMATS, LOGS, RUNS, HOSTILE = (FIXTURES / n for n in ("formats", "logs", "runs", "hostile"))

KINDS: Mapping[str, int] = {
    "keras": 30,
    "h5": 16,
    "weights-h5": 14,
    "sharded": 4,
    "npz-weights": 5,
    "tf-checkpoint": 8,
    "saved-model": 6,
    "orbax": 4,
    "backup": 3,
    "unzipped": 4,
    "log": 24,
    "batches": 14,
}
"""What is read, and how often of the sum."""

LARGEST_SEED = 200_000  # bytes; small files are changed where it matters more often


@dataclass(frozen=True, slots=True)
class Input:
    """One changed file or directory.

    Attributes:
        number: of the input; with the seed it makes the same bytes again.
        kind: key of `KINDS`. source: the fixture it was made of. path: what to read.
    """

    number: int
    kind: str
    source: str
    path: Path


@cache
def seeds(kind: str) -> tuple[Path, ...]:
    """The honest (and the hostile) files of a kind: a file, or a directory that belongs together."""
    if kind == "keras":
        found = [*FORMATS.glob("*/*.keras"), *HOSTILE.glob("*.keras"), *(FIXTURES / "patterns").glob("*.keras")]
    elif kind == "h5":
        found = [p for p in (*FORMATS.glob("*/*.h5"), *HOSTILE.glob("*.h5")) if not p.name.endswith(".weights.h5")]
    elif kind == "weights-h5":
        found = [*FORMATS.glob("*/*.weights.h5"), *HOSTILE.glob("*.weights.h5")]
    elif kind == "sharded":
        found = [FORMATS / "made" / "shards.weights.json"]
    elif kind == "npz-weights":
        found = [FORMATS / "shapes" / "npz.keras"]
    elif kind == "tf-checkpoint":
        found = [FORMATS / "tf_checkpoint", FORMATS / "backup_and_restore_2.15" / "chief"]
    elif kind == "saved-model":
        found = [FORMATS / "savedmodel-keras-2.15", FORMATS / "exported_savedmodel"]
    elif kind == "orbax":
        found = [FORMATS / "orbax"]
    elif kind == "backup":
        found = [FORMATS / "backup_and_restore_2.15"]
    elif kind == "unzipped":
        found = [FORMATS / "made" / "unzipped", FORMATS / "shapes" / "unzipped.keras"]
    elif kind == "log":
        skipped = (".yaml", ".md")
        found = [p for p in LOGS.rglob("*") if p.is_file() and p.suffix not in skipped and p.name != "expected.json"]
    else:
        found = list(RUNS.glob("*/last_batches.npz"))
    folders = kind in ("tf-checkpoint", "saved-model", "orbax", "backup", "unzipped")
    kept = [p for p in sorted(found) if p.is_dir() == folders and (folders or 0 < p.stat().st_size <= LARGEST_SEED)]
    assert kept, kind
    return tuple(kept)


@cache
def _bytes(path: Path) -> bytes:
    return path.read_bytes()


def _any_file(rng: random.Random) -> bytes:
    """What a splice takes its bytes from."""
    source = rng.choice(seeds(rng.choice(("keras", "h5", "weights-h5", "log", "batches"))))
    return _bytes(source)


def make(seed: int, number: int, room: Path, only: str | None = None) -> Input:
    """Input `number` of the run with this seed, in an empty `room`."""
    rng = random.Random(f"{seed}:{number}")
    kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
    kind = only or kind
    source = rng.choice(seeds(kind))
    target = _PLACES.get(kind, _one_file)(source, room, rng)
    return Input(number, kind, str(source.relative_to(FIXTURES)), target)


def _changed(data: bytes, rng: random.Random) -> bytes:
    other = _any_file(rng)
    if data[:2] == b"PK" and rng.random() < 0.55:
        return repacked(data, other, rng)
    if data[:1] in (b"{", b"[") and rng.random() < 0.5:
        return changed_document(data, rng)
    return mutate(data, other, rng)


def _one_file(source: Path, room: Path, rng: random.Random) -> Path:
    target = room / f"x{''.join(source.suffixes[-2:])}"
    target.write_bytes(_changed(_bytes(source), rng))
    return target


def _directory(source: Path, room: Path, rng: random.Random) -> Path:
    target = room / "x"
    shutil.copytree(source, target)
    files = sorted(p for p in target.rglob("*") if p.is_file())
    for _ in range(rng.choice((1, 1, 2))):
        victim = rng.choice(files)
        if rng.random() < 0.05:
            victim.unlink(missing_ok=True)
        elif victim.exists():
            victim.write_bytes(_changed(victim.read_bytes(), rng))
    return target


def _shards(source: Path, room: Path, rng: random.Random) -> Path:
    for part in source.parent.glob("shards*"):
        shutil.copy(part, room)
    files = sorted(room.iterdir())
    victim = room / source.name if rng.random() < 0.5 else rng.choice(files)
    victim.write_bytes(_changed(victim.read_bytes(), rng))
    return room / source.name


def _log(source: Path, room: Path, rng: random.Random) -> Path:
    """A log alone in a run directory; one of several files where its format needs a directory."""
    data = _bytes(source)
    sealed = "tfevents" in source.name and rng.random() < 0.6
    changed = resealed(data, _any_file(rng), rng) if sealed else _changed(data, rng)
    run = room / "run"
    inside = source.relative_to(LOGS)
    target = run / Path(*inside.parts[1:])
    if "mlruns" in inside.parts:
        shutil.copytree(LOGS / inside.parts[0] / "mlruns", run / "mlruns")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(changed)
    return run


def _batches(source: Path, room: Path, rng: random.Random) -> Path:
    """Batches beside an honest checkpoint."""
    run = room / "run"
    run.mkdir()
    checkpoint = min((source.parent / "checkpoints").iterdir())
    shutil.copy(checkpoint, run)
    (run / "last_batches.npz").write_bytes(_changed(_bytes(source), rng))
    return run


_PLACES: Mapping[str, Callable[[Path, Path, random.Random], Path]] = {
    "sharded": _shards,
    "tf-checkpoint": _directory,
    "saved-model": _directory,
    "orbax": _directory,
    "backup": _directory,
    "unzipped": _directory,
    "log": _log,
    "batches": _batches,
}
