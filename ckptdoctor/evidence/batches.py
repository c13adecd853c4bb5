"""The recorded batches, measured: what a rule needs to judge inputs and targets, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.evidence.association import MAX_ROWS, MIN_ROWS, Rows, associate
from ckptdoctor.evidence.batch_arrays import BatchesError, StoredArray
from ckptdoctor.evidence.batch_features import MAX_LISTED, Features, Floats, number
from ckptdoctor.evidence.batch_reading import BatchSet, RecordedBatches, is_saved_dataset, open_batches
from ckptdoctor.model import ArrayStats, Association, Batches, CompileSpec, Missing, ModelSpec

__all__ = ["BatchesError", "RecordedBatches", "is_saved_dataset", "measure_batches", "open_batches"]

MAX_BYTES = 1 << 28
"""Bytes of one array that are measured; larger ones are sampled evenly, the last part always included."""
CHUNK = 1 << 22
MAX_FEATURES = 512
MAX_CLASSES = 1000
MAX_HASHES = 1 << 20
MAX_PADDED_ROWS = 512
MEDIAN_ROWS = 4096
"""Rows from which median and MAD of a feature are taken, evenly spaced."""
_ASSOCIATION_BYTES = 1 << 24


def measure_batches(path: str | os.PathLike[str], spec: ModelSpec | Missing) -> Batches:
    """Measure recorded batches.

    Args:
        path: `.npz`, `.npy`, or a directory of them.
        spec: tells ranks, which inputs are token ids, and whether the loss takes classes.

    Raises:
        BatchesError: nothing usable there; `needs_replay` is set for a saved tf.data dataset.
    """
    # Casting signalling NaN warns, as does squaring what is nearly too large: both are counted, neither is news.
    with open_batches(path, spec) as recorded, np.errstate(invalid="ignore", over="ignore"):
        notes = recorded.notes
        stats: dict[str, list[ArrayStats]] = {"input": [], "target": [], "sample_weight": []}
        first = recorded.sets[0]
        for kind, arrays in (("input", first.inputs), ("target", first.targets), ("sample_weight", first.weights)):
            for n, array in enumerate(arrays):
                try:
                    stats[kind].append(_measure(recorded, kind, n, array.name))
                except BatchesError as error:
                    notes.append(str(error))
        if not stats["input"]:
            raise BatchesError(notes[-1])
        try:
            association = _association(recorded, spec, stats["input"], stats["target"])
        except (BatchesError, np.linalg.LinAlgError, MemoryError) as error:
            association = Missing(f"could not be measured: {error}")
        return Batches(
            source=recorded.source,
            count=recorded.count,
            steps=recorded.steps,
            inputs=tuple(stats["input"]),
            targets=tuple(stats["target"]),
            sample_weights=tuple(stats["sample_weight"]),
            association=association,
            notes=tuple(dict.fromkeys(notes))[:50],
        )


@dataclass(slots=True)
class _Tally:
    """What is counted over the chunks of one array."""

    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    finite: int = 0
    min: float = np.inf
    max: float = -np.inf
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations
    integral: bool = True
    bad_rows: list[tuple[int, int]] = field(default_factory=list)
    bad_row_count: int = 0
    bad_features: set[int] = field(default_factory=set)
    classes: dict[float, int] | None = field(default_factory=dict)
    sums_to_one: bool = True
    rows: int = 0
    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    features: Features | None = None
    padding: list[float] = field(default_factory=list)


def _measure(recorded: RecordedBatches, kind: str, n: int, name: str) -> ArrayStats:
    """Measure the n-th array of a kind over all sets."""
    parts = [(s, {"input": s.inputs, "target": s.targets, "sample_weight": s.weights}[kind][n]) for s in recorded.sets]
    first_set, first = parts[0]
    shape = _joined_shape(parts)
    dtype = "bfloat16" if first.dtype.kind == "V" else str(first.dtype)
    if first.dtype.kind in "SU":
        return ArrayStats(
            name=name,
            kind=kind,
            shape=shape,
            dtype="string",
            nan=0,
            posinf=0,
            neginf=0,
            min=None,
            max=None,
            mean=None,
            std=None,
        )
    sample_rank = len(first.shape) - (2 if first_set.batched else 1)
    width = first.shape[-1] if sample_rank else 1
    tally = _Tally()
    if len(shape) <= 3 and width <= MAX_FEATURES and sample_rank:
        tally.features = Features(width)
    total = sum(a.nbytes for _, a in parts)
    rows = sum(s.batches * s.rows for s, _ in parts)
    sampled = False
    batch = 0
    for part, array in parts:
        share = max(int(MAX_BYTES * array.nbytes / max(total, 1)), 1)
        for start, chunk, whole in _chunks(part, array, share):
            sampled |= not whole
            _count(tally, chunk, part, batch, start, width if sample_rank else 1, kind, max(rows // MEDIAN_ROWS, 1))
        batch += part.batches
        array.close()
    return _finish(tally, name, kind, shape, dtype, sampled=sampled)


def _joined_shape(parts: Sequence[tuple[BatchSet, StoredArray]]) -> tuple[int, ...]:
    """(K, B, …) where all batches have one shape, else (N, …)."""
    first_set, first = parts[0]
    if len(parts) == 1:
        return first.shape
    tail = first.shape[2:] if first_set.batched else first.shape[1:]
    if len({(s.rows, *a.shape[2 if s.batched else 1 :]) for s, a in parts}) == 1:
        return (sum(s.batches for s, _ in parts), first_set.rows, *tail)
    return (sum(s.batches * s.rows for s, _ in parts), *tail)


def _chunks(part: BatchSet, array: StoredArray, limit: int) -> Iterator[tuple[int, NDArray[Any], bool]]:
    """(first row, rows as an array (n, …), all of it is read) in order; evenly spaced where there is too much."""
    lead = part.batches * part.rows
    row_bytes = array.nbytes // max(lead, 1)
    entries = max(1, CHUNK // max(row_bytes, 1))
    starts = np.arange(0, lead, entries)
    affordable = max(1, limit // max(entries * row_bytes, 1))
    whole = len(starts) <= affordable
    if not whole:
        starts = np.unique(np.append(starts[np.linspace(0, len(starts) - 1, affordable).astype(np.int64)], starts[-1]))
    for start in starts.tolist():
        yield start, part.rows_of(array, start, min(start + entries, lead)), whole


def _count(
    tally: _Tally, rows: NDArray[Any], part: BatchSet, batch: int, start: int, width: int, kind: str, keep_every: int
) -> None:
    if np.iscomplexobj(rows):
        rows = np.abs(rows)
    floats = rows.astype(np.float64)
    flat = floats.reshape(len(rows), -1)
    finite = np.isfinite(flat)
    tally.rows += len(rows)
    some_bad = not finite.all()
    if some_bad:
        _count_bad(tally, flat, finite, part, batch, start, width)
    values = flat[finite] if some_bad else flat.reshape(-1)
    if len(values):
        _moments(tally, values)
        if tally.integral:
            tally.integral = bool(rows.dtype.kind in "biu" or np.array_equal(values, np.round(values)))
        _classes(tally, values)
    if tally.features is not None:
        tally.features.take(flat.reshape(-1, width), finite.reshape(-1, width), keep_every)
    if kind == "target" and width > 1 and tally.sums_to_one:
        with np.errstate(over="ignore", invalid="ignore"):
            sums = flat.reshape(-1, width).sum(axis=1)
        tally.sums_to_one = bool((np.abs(sums - 1.0) <= 1e-3).all())
    if sum(map(len, tally.hashes)) + len(rows) <= MAX_HASHES:
        tally.hashes.append(_row_hashes(rows))
    if kind == "input" and rows.ndim in (2, 3) and rows.shape[1] > 1 and len(tally.padding) < MAX_PADDED_ROWS:
        tally.padding += _trailing_zeros(floats[: MAX_PADDED_ROWS - len(tally.padding)])


def _count_bad(
    tally: _Tally, flat: Floats, finite: NDArray[np.bool_], part: BatchSet, batch: int, start: int, width: int
) -> None:
    tally.nan += int(np.isnan(flat).sum())
    tally.posinf += int(np.isposinf(flat).sum())
    tally.neginf += int(np.isneginf(flat).sum())
    bad = np.flatnonzero(~finite.all(axis=1))
    tally.bad_row_count += len(bad)
    for row in (start + bad[: MAX_LISTED - len(tally.bad_rows)]).tolist():
        tally.bad_rows.append((batch + row // part.rows, row % part.rows) if part.batched else (batch, row))
    columns = np.flatnonzero(~finite.reshape(-1, width).all(axis=0))
    tally.bad_features.update(columns[: MAX_LISTED + len(tally.bad_features)].tolist())


def _moments(tally: _Tally, values: Floats) -> None:
    low, high = float(values.min()), float(values.max())
    tally.min, tally.max = min(tally.min, low), max(tally.max, high)
    scale = max(abs(low), abs(high), 1e-300)
    mean = float((values / scale).mean()) * scale
    with np.errstate(over="ignore", invalid="ignore"):
        squares = float(((values - mean) ** 2).sum())
        total = tally.finite + len(values)
        delta = mean - tally.mean
        tally.squares = float(tally.squares + squares + np.float64(delta) * delta * tally.finite * len(values) / total)
    tally.mean += delta * (len(values) / total)
    tally.finite = total


def _classes(tally: _Tally, values: Floats) -> None:
    if tally.classes is None or not tally.integral:
        tally.classes = None
        return
    distinct, counts = np.unique(values, return_counts=True)
    for value, count in zip(distinct[: MAX_CLASSES + 1].tolist(), counts.tolist(), strict=False):
        tally.classes[value] = tally.classes.get(value, 0) + count
    if len(tally.classes) > MAX_CLASSES or len(distinct) > MAX_CLASSES:
        tally.classes = None


def _trailing_zeros(rows: Floats) -> list[float]:
    """Share of the steps at the end of each row, shape (rows, steps[, features]), that are zero throughout."""
    empty = rows == 0 if rows.ndim == 2 else (rows == 0).all(axis=2)
    steps = empty.shape[1]
    filled = ~empty[:, ::-1]
    run = np.where(filled.any(axis=1), filled.argmax(axis=1), steps)
    return [float(n) / steps for n in run]


def _row_hashes(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row: multiplied by fixed odd random numbers and summed modulo 2**64, per 64-bit word."""
    raw = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    if raw.shape[1] % 8:
        raw = np.pad(raw, ((0, 0), (0, 8 - raw.shape[1] % 8)))
    words = np.ascontiguousarray(raw).view(np.uint64)
    words = words ^ (words >> np.uint64(31))
    odd = np.random.default_rng(7).integers(0, 2**63, words.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashed: NDArray[np.uint64] = (words * odd).sum(axis=1, dtype=np.uint64)
    return hashed


def _finish(tally: _Tally, name: str, kind: str, shape: tuple[int, ...], dtype: str, *, sampled: bool) -> ArrayStats:
    some = tally.finite > 0
    hashes = np.concatenate(tally.hashes) if tally.hashes else np.empty(0, np.uint64)
    features = tally.features
    return ArrayStats(
        name=name,
        kind=kind,
        shape=shape,
        dtype=dtype,
        nan=tally.nan,
        posinf=tally.posinf,
        neginf=tally.neginf,
        min=tally.min if some else None,
        max=tally.max if some else None,
        mean=number(tally.mean) if some else None,
        std=number(np.sqrt(tally.squares / tally.finite)) if some else None,
        bad_rows=tuple(tally.bad_rows),
        bad_row_count=tally.bad_row_count,
        bad_features=tuple(sorted(tally.bad_features)[:MAX_LISTED]),
        integral=some and tally.integral,
        classes=tuple(sorted(tally.classes.items())) if tally.classes is not None and some else (),
        features=features.stats(MAX_FEATURES) if features is not None else (),
        constant_features=features.constant() if features is not None and tally.rows > 1 else (),
        duplicate_rows=len(hashes) - len(np.unique(hashes)),
        row_sums_to_one=kind == "target" and len(shape) > 1 and shape[-1] > 1 and tally.sums_to_one and tally.rows > 0,
        padding=float(np.median(tally.padding)) if tally.padding else None,
        sampled=sampled,
    )


def _association(
    recorded: RecordedBatches, spec: ModelSpec | Missing, inputs: Sequence[ArrayStats], targets: Sequence[ArrayStats]
) -> Association | Missing:
    """Rows for the measure: evenly spaced over all batches, as many as are used and as fit."""
    usable = [s for s in inputs if s.dtype != "string"]
    if not usable or not targets or any(s.dtype == "string" for s in targets):
        return Missing("the recorded batches hold no targets" if not targets else "inputs or targets are strings")
    total = sum(s.batches * s.rows for s in recorded.sets)
    first = recorded.sets[0]
    row_bytes = sum(a.nbytes for a in (*first.inputs, *first.targets)) // max(first.batches * first.rows, 1)
    if row_bytes * min(MIN_ROWS, total) > _ASSOCIATION_BYTES:
        return Missing(f"rows of {row_bytes:,} bytes are too large to compare {MIN_ROWS} of them")
    wanted = max(1, min(2 * MAX_ROWS, total, _ASSOCIATION_BYTES // max(row_bytes, 1)))
    chosen = np.unique(np.linspace(0, total - 1, wanted).astype(np.int64))
    by_kind: dict[str, list[list[NDArray[Any]]]] = {
        "input": [[] for _ in first.inputs],
        "target": [[] for _ in first.targets],
    }
    offset = 0
    for part in recorded.sets:
        count = part.batches * part.rows
        here = chosen[(chosen >= offset) & (chosen < offset + count)] - offset
        offset += count
        for kind, arrays in (("input", part.inputs), ("target", part.targets)):
            for n, array in enumerate(arrays):
                by_kind[kind][n] += _chosen_rows(part, array, here)
        part.close()
    names = {s.name for s in usable}
    x = [
        Rows(np.concatenate(rows), tokens=_is_tokens(stats, spec))
        for rows, stats in zip(by_kind["input"], inputs, strict=True)
        if stats.name in names
    ]
    y = [
        Rows(np.concatenate(rows), classes=_is_classes(stats, spec))
        for rows, stats in zip(by_kind["target"], targets, strict=True)
    ]
    return associate(x, y)


def _chosen_rows(part: BatchSet, array: StoredArray, chosen: NDArray[np.int64]) -> list[NDArray[Any]]:
    """These rows (ascending) as pieces of shape (n, …), without more of the array in memory than a chunk."""
    row_bytes = array.nbytes // max(part.batches * part.rows, 1)
    step = max(1, CHUNK // max(row_bytes, 1))
    pieces: list[NDArray[Any]] = []
    at = 0
    while at < len(chosen):
        first = int(chosen[at])
        end = int(np.searchsorted(chosen, first + step))
        rows = part.rows_of(array, first, int(chosen[end - 1]) + 1)
        pieces.append(rows[chosen[at:end] - first])
        at = end
    return pieces


def _is_tokens(stats: ArrayStats, spec: ModelSpec | Missing) -> bool:
    """Token ids: whole numbers from 0 that an Embedding takes, or whole numbers in rows with a vocabulary of more than 16."""
    if not stats.integral or stats.min is None or stats.min < 0 or stats.max is None:
        return False
    if isinstance(spec, ModelSpec) and spec.layers:
        return any(layer.class_name == "Embedding" for layer in spec.layers)
    return (
        stats.dtype.startswith(("int", "uint")) and stats.dtype != "uint8" and len(stats.shape) <= 3 and stats.max > 16
    )


def _is_classes(stats: ArrayStats, spec: ModelSpec | Missing) -> bool:
    """Class labels: the loss takes classes, or targets are 0 and 1 or a few whole numbers."""
    if stats.row_sums_to_one:
        return True
    if not stats.integral or not stats.classes:
        return False
    if isinstance(spec, ModelSpec) and isinstance(spec.compile, CompileSpec) and spec.compile.losses:
        return (
            any("crossentropy" in loss.name or "hinge" in loss.name for loss in spec.compile.losses)
            and len(stats.classes) <= 100
        )
    rows = sum(count for _, count in stats.classes)
    return len(stats.classes) <= 20 and len(stats.classes) * 5 <= rows
