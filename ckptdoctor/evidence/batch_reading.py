"""Recorded batches on disk: arrays found, checked and read by ranges, never unpickled and never whole.

A set of batches is an `.npz`, an `.npy` beside others, or a directory of either. Every array has a leading batch axis (K, B, …),
or holds rows only (N, …), which are then one batch.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckptdoctor.evidence.batch_arrays import (
    ARRAY_NAME,
    STEP_NAMES,
    Array,
    BatchesError,
    StoredArray,
    as_numbers,
    open_arrays,
)
from ckptdoctor.model import Missing, ModelSpec

__all__ = ["BatchSet", "BatchesError", "RecordedBatches", "is_saved_dataset", "open_batches"]

MAX_FILES = 10_000
MAX_ROW = 1 << 26
"""Bytes of one row; a row of 64 MB is not a sample of anything that a batch of 32 could be made of."""

_KINDS = {"x": "input", "y": "target", "sample_weight": "sample_weight", "sample_weights": "sample_weight"}


_NO_SPEC = Missing("no configuration was given")


@dataclass(slots=True)
class BatchSet:
    """The arrays of one file, or of several `.npy` files side by side: batches of equal shapes.

    Attributes:
        batched: True where the arrays have a leading batch axis.
        batches: number of batches; rows: rows of each.
    """

    path: str
    inputs: list[StoredArray]
    targets: list[StoredArray]
    weights: list[StoredArray]
    steps: list[int]
    batched: bool
    batches: int
    rows: int

    @property
    def arrays(self) -> list[StoredArray]:
        """Inputs, targets and sample weights."""
        return [*self.inputs, *self.targets, *self.weights]

    def batch(self, array: StoredArray, k: int) -> Array:
        """Batch `k` of one of the arrays, shape (B, …)."""
        if not self.batched:
            return as_numbers(array.read(0, array.shape[0]))
        return as_numbers(array.read(k, k + 1)[0])

    def rows_of(self, array: StoredArray, start: int, stop: int) -> Array:
        """Rows `start` to `stop` over all batches together, shape (n, …)."""
        return as_numbers(array.rows(start, stop, 2 if self.batched else 1))

    def close(self) -> None:
        """Release the files."""
        for array in self.arrays:
            array.close()


@dataclass(slots=True)
class RecordedBatches:
    """Recorded batches in order. Iterating gives (inputs, targets, sample weight, step) for each.

    Inputs and targets are lists of arrays (rows, …) in the order of `input_names` and `target_names`; the sample weight is an
    array, a list of arrays where there are several, or None; the step an int or None.

    Attributes:
        source: as given. sets: one for each file.
        notes: what was left out and why.
        needs_replay: always False here: what only TensorFlow can read raises BatchesError instead.
    """

    source: str
    sets: list[BatchSet]
    notes: list[str]
    needs_replay: bool = False

    @property
    def count(self) -> int:
        """Number of batches."""
        return sum(s.batches for s in self.sets)

    @property
    def steps(self) -> tuple[int, ...]:
        """Training steps of the batches, where recorded."""
        return tuple(step for s in self.sets for step in s.steps)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the input arrays."""
        return tuple(a.name for a in self.sets[0].inputs)

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the target arrays."""
        return tuple(a.name for a in self.sets[0].targets)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[list[Array], list[Array], Array | list[Array] | None, int | None]]:
        for part in self.sets:
            for k in range(part.batches):
                weights = [part.batch(a, k) for a in part.weights]
                yield (
                    [part.batch(a, k) for a in part.inputs],
                    [part.batch(a, k) for a in part.targets],
                    weights[0] if len(weights) == 1 else weights or None,
                    part.steps[k] if k < len(part.steps) else None,
                )
            part.close()

    def close(self) -> None:
        """Release all files."""
        for part in self.sets:
            part.close()

    def __enter__(self) -> RecordedBatches:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def is_saved_dataset(path: str) -> bool:
    """Whether a directory was written by `tf.data.Dataset.save`."""
    folder = Path(path)
    return (folder / "dataset_spec.pb").is_file() and (folder / "snapshot.metadata").is_file()


def open_batches(path: str | os.PathLike[str], spec: ModelSpec | Missing = _NO_SPEC) -> RecordedBatches:
    """Open recorded batches: headers are read, data are not.

    Args:
        path: an `.npz` or `.npy` file, or a directory of them (one batch or stack of batches each, in the order of their names).
        spec: tells the rank of an input, which settles whether the first axis counts batches.

    Raises:
        BatchesError: nothing usable: absent, damaged, holds Python objects, has no array `x`, or needs TensorFlow.
    """
    path = os.fspath(path)
    notes: list[str] = []
    sets = [_arrange(name, arrays, steps, spec, notes) for name, arrays, steps in _files(path, notes)]
    kept = [s for s in sets if s is not None]
    if not kept:
        because = f": {notes[0]}" if notes else ""
        raise BatchesError(
            f"expected recorded batches with arrays x and y of shape (batches, rows, …), found none in {path}{because}"
        )
    names = [a.name for a in kept[0].arrays]
    same = [s for s in kept if [a.name for a in s.arrays] == names]
    if len(same) < len(kept):
        notes.append(f"{len(kept) - len(same)} files with other arrays than the first were left out")
    return RecordedBatches(path, same, notes)


def _files(path: str, notes: list[str]) -> Iterator[tuple[str, list[StoredArray], list[int]]]:
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError) as error:
        raise BatchesError(
            f"cannot read the recorded batches {path}: {getattr(error, 'strerror', None) or error}"
        ) from error
    if stat.S_ISREG(mode):
        arrays = open_arrays(path)
        yield path, arrays, _steps(arrays, path)
        return
    if not stat.S_ISDIR(mode):
        raise BatchesError(f"expected an .npz file or a directory of them, found something else: {path}")
    if is_saved_dataset(path):
        raise BatchesError(
            f"{path} is a saved tf.data dataset: only TensorFlow reads it, so it needs replay; "
            "install ckptdoctor[replay] and run without --no-replay, or save the batches as .npz",
            needs_replay=True,
        )
    yield from _directory(path, notes)


def _directory(path: str, notes: list[str]) -> Iterator[tuple[str, list[StoredArray], list[int]]]:
    names = sorted((n for n in os.listdir(path) if not n.startswith(".")), key=natural_key)
    single: list[StoredArray] = []
    for name in names[:MAX_FILES]:
        full = f"{path}/{name}"
        if name.endswith(".npz"):
            try:
                arrays = open_arrays(full)
                steps = _steps(arrays, full)
            except BatchesError as error:
                notes.append(str(error))
                continue
            yield full, arrays, steps
        elif name.endswith(".npy") and (ARRAY_NAME.match(name[:-4]) or name[:-4] in STEP_NAMES):
            try:
                single += open_arrays(full)
            except BatchesError as error:
                notes.append(str(error))
    if single:
        yield path, single, _steps(single, path)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that orders numbers in names by value: `batch_10` after `batch_9`."""
    return [(0, int(p), "") if p.isdigit() and len(p) < 19 else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


def _steps(arrays: list[StoredArray], path: str) -> list[int]:
    """Take the step array out of the list."""
    for array in list(arrays):
        if array.name in STEP_NAMES:
            arrays.remove(array)
            if array.dtype.kind in "iuf" and array.nbytes <= 1 << 24 and len(array.shape) == 1:
                values = array.read(0, array.shape[0])
                array.close()
                return [int(v) for v in values if np.isfinite(v)]
            if not array.shape:
                return []
            raise BatchesError(f"array 'step' of {path} is not a list of numbers")
    return []


def _arrange(
    path: str, arrays: list[StoredArray], steps: list[int], spec: ModelSpec | Missing, notes: list[str]
) -> BatchSet | None:
    """Sort the arrays by kind and settle whether the first axis counts batches."""
    by_kind: dict[str, list[StoredArray]] = {"input": [], "target": [], "sample_weight": []}
    for array in sorted(arrays, key=lambda a: natural_key(a.name)):
        found = ARRAY_NAME.match(array.name)
        if found is None:
            continue
        if not array.shape or 0 in array.shape:
            notes.append(f"array '{array.name}' of {path} is empty")
            continue
        if array.dtype.kind not in "biufcSUV":
            notes.append(f"array '{array.name}' of {path} has dtype {array.dtype}: not numbers")
            continue
        by_kind[_KINDS[found["base"]]].append(array)
    inputs, targets, weights = by_kind["input"], by_kind["target"], by_kind["sample_weight"]
    if not inputs:
        notes.append(f"there is no array x in {path}")
        return None
    batched = _is_batched(inputs, targets, steps, spec)
    lead = inputs[0].shape[: 2 if batched else 1]
    for group in (inputs, targets, weights):
        for array in list(group):
            if array.shape[: len(lead)] != lead:
                group.remove(array)
                notes.append(
                    f"array '{array.name}' of {path} has shape {array.shape}, which does not go with "
                    f"'{inputs[0].name}' of shape {inputs[0].shape}: it was left out"
                )
    if any(a.row_bytes // (lead[1] if batched else 1) > MAX_ROW for a in (*inputs, *targets)):
        notes.append(f"rows of more than {MAX_ROW:,} bytes in {path}: not samples of a batch")
        return None
    batches, rows = (lead[0], lead[1]) if batched else (1, lead[0])
    return BatchSet(path, inputs, targets, weights, steps[:batches], batched, batches, rows)


def _is_batched(
    inputs: Sequence[StoredArray], targets: Sequence[StoredArray], steps: Sequence[int], spec: ModelSpec | Missing
) -> bool:
    """Whether arrays are (K, B, …): `step` has K entries, or the model's input rank says so, or all share two axes."""
    lead = inputs[0].shape
    ranked = _input_rank(spec)
    if len(lead) < 2:
        return False
    if steps and all(a.shape[0] == len(steps) for a in (*inputs, *targets)):
        return len(steps) > 1 or (all(len(a.shape) >= 2 for a in (*inputs, *targets)) and ranked != len(lead))
    if ranked is not None and len(lead) in (ranked, ranked + 1):
        return len(lead) == ranked + 1
    if len(lead) < 3:
        return False
    return bool(targets) and all(len(a.shape) >= 2 and a.shape[:2] == lead[:2] for a in (*inputs, *targets))


def _input_rank(spec: ModelSpec | Missing) -> int | None:
    """Rank of the first input with its batch axis, as the configuration has it."""
    if isinstance(spec, Missing):
        return None
    for layer in spec.layers:
        if layer.name in spec.inputs or layer.class_name == "InputLayer":
            shape = layer.config.get("batch_shape", layer.config.get("batch_input_shape"))
            if isinstance(shape, Sequence) and not isinstance(shape, str):
                return len(shape)
    return None
