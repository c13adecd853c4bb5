"""The recorded batches as the child uses them: one object per batch, matched to the model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.replay.failure import CannotReplay

Array = NDArray[Any]

MAX_BATCHES = 256  # kept in memory; the last ones of a longer recording
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Batch:
    """One recorded batch.

    Attributes:
        index: position in the recording, from 0. step: the training step it was used in, None if not recorded.
        inputs, targets: arrays of shape (rows, …) in the order of the model's inputs and outputs.
        weight: sample weights of shape (rows,) or like the target, None without.
    """

    index: int
    inputs: tuple[Array, ...]
    targets: tuple[Array, ...]
    weight: Array | None = None
    step: int | None = None

    @property
    def rows(self) -> int:
        """Number of samples."""
        return len(self.inputs[0])

    def take(self, keep: NDArray[np.bool_]) -> Batch:
        """The rows where `keep` is True."""
        return replace(
            self,
            inputs=tuple(a[keep] for a in self.inputs),
            targets=tuple(a[keep] for a in self.targets),
            weight=None if self.weight is None else self.weight[keep],
        )


@dataclass(frozen=True, slots=True)
class Recording:
    """All batches that fit, in recorded order."""

    batches: tuple[Batch, ...]
    input_names: tuple[str, ...] = ()
    target_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def stacked_inputs(self, n: int = 0) -> Array:
        """Input `n` of all batches, joined along the rows."""
        return np.concatenate([b.inputs[n] for b in self.batches])

    def stacked_targets(self, n: int = 0) -> Array:
        """Target `n` of all batches, joined along the rows."""
        return np.concatenate([b.targets[n] for b in self.batches])


def arrange(recording: Recording, input_names: Sequence[str], output_names: Sequence[str]) -> Recording:
    """The recording with inputs and targets in the model's order.

    Args:
        recording: as read. Names are `x`, `x_0` or `x_<input name>`, likewise `y`.
        input_names, output_names: the model's, in order; empty where unknown.

    Raises:
        CannotReplay: another number of inputs or targets than the model takes.
    """
    columns = _order(recording.input_names, input_names, "inputs", "x")
    targets = _order(recording.target_names, output_names, "targets", "y") if recording.target_names else []
    arranged = tuple(
        replace(b, inputs=tuple(b.inputs[n] for n in columns), targets=tuple(b.targets[n] for n in targets))
        for b in recording.batches
    )
    return replace(
        recording,
        batches=arranged,
        input_names=tuple(recording.input_names[n] for n in columns),
        target_names=tuple(recording.target_names[n] for n in targets),
    )


def _order(found: Sequence[str], wanted: Sequence[str], what: str, letter: str) -> list[int]:
    if not wanted or len(found) == len(wanted) == 1:
        return list(range(len(found)))
    if len(found) != len(wanted):
        raise CannotReplay(
            f"the recorded batches hold {len(found)} {what} ({', '.join(found[:6])}), but the model has {len(wanted)} "
            f"({', '.join(wanted[:6])}); record one array for each, as {letter}_0, {letter}_1, … or {letter}_<name>"
        )
    plain = [name.removeprefix(f"{letter}_") for name in found]
    if sorted(plain) == sorted(wanted):
        return [plain.index(name) for name in wanted]
    return list(range(len(found)))


def check_shapes(recording: Recording, expected: Sequence[tuple[int | None, ...]], names: Sequence[str]) -> None:
    """Compare the rows' shapes with what the model's inputs take.

    Args:
        recording: arranged in the model's order.
        expected: shapes with the batch axis first, None for free extents. names: of the inputs.

    Raises:
        CannotReplay: they do not fit.
    """
    for n, shape in enumerate(expected):
        found = recording.batches[0].inputs[n].shape
        fits = len(found) == len(shape) and all(w is None or w == f for w, f in zip(shape[1:], found[1:], strict=True))
        squeezed = tuple(e for e in found[1:] if e != 1) == tuple(e for e in shape[1:] if e != 1)
        if not fits and not (squeezed and None not in shape[1:]):
            raise CannotReplay(
                f"the recorded batches do not fit the model: input '{names[n] if n < len(names) else n}' takes rows of shape "
                f"{tuple(shape[1:])}, the batches hold {tuple(found[1:])}; record the arrays that are given to fit()"
            )


def load_recording(path: str) -> Recording:
    """Read the recorded batches.

    Raises:
        CannotReplay: nothing usable in the file.
    """
    try:
        from ckptdoctor.evidence.batches import open_batches
    except ImportError:
        return _read_npz(path)

    rows: list[Batch] = []
    source = open_batches(path)
    for n, item in enumerate(source):
        inputs, targets, weight, step = item
        rows.append(
            Batch(n, tuple(np.asarray(a) for a in inputs), tuple(np.asarray(a) for a in _listed(targets)), weight, step)
        )
    return _bounded(rows, tuple(source.input_names), tuple(source.target_names))


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _bounded(rows: list[Batch], input_names: tuple[str, ...], target_names: tuple[str, ...]) -> Recording:
    rows = [b for b in rows if b.inputs and b.rows]
    if not rows:
        raise CannotReplay("the recorded batches hold no rows")
    kept: list[Batch] = []
    total = 0
    for batch in reversed(rows[-MAX_BATCHES:]):
        total += sum(a.nbytes for a in (*batch.inputs, *batch.targets))
        if kept and total > MAX_BYTES:
            break
        kept.append(batch)
    kept.reverse()
    notes = () if len(kept) == len(rows) else (f"the last {len(kept)} of {len(rows)} recorded batches were used",)
    return Recording(tuple(kept), input_names, target_names, notes)


def _read_npz(path: str) -> Recording:
    with np.load(path, allow_pickle=False) as file:
        names = [n for n in file.files if n == "x" or n.startswith("x_")]
        targets = [n for n in file.files if n == "y" or n.startswith("y_")]
        arrays = {n: file[n] for n in file.files}
    rows = [
        Batch(
            k,
            tuple(arrays[n][k] for n in names),
            tuple(arrays[n][k] for n in targets),
            arrays["sample_weight"][k] if "sample_weight" in arrays else None,
            int(arrays["step"][k]) if "step" in arrays else None,
        )
        for k in range(len(arrays[names[0]]))
    ]
    return _bounded(rows, tuple(names), tuple(targets))
