"""The recorded batches as the child uses them: one object per batch, matched to the model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import Missing, ModelSpec
from ckptdoctor.replay.failure import CannotReplay, brief

Array = NDArray[Any]

MAX_BATCHES = 256  # kept in memory; the last ones of a longer recording
MAX_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Batch:
    """One recorded batch.

    Attributes:
        index: position in the recording, from 0. step: the training step it was used in, None if not recorded.
        inputs, targets: arrays of shape (rows, …) in the order of the model's inputs and outputs.
        weight: sample weights of shape (rows,) or like the target, None without; a tuple with one for each target.
        input_dtypes: dtypes the step saw, where the file could not hold them; None for an input as stored.
    """

    index: int
    inputs: tuple[Array, ...]
    targets: tuple[Array, ...]
    weight: Array | tuple[Array, ...] | None = None
    step: int | None = None
    input_dtypes: tuple[str | None, ...] = ()

    @property
    def rows(self) -> int:
        """Number of samples."""
        return len(self.inputs[0])

    @property
    def weights(self) -> tuple[Array, ...]:
        """The sample weights: none, one array, or one an output."""
        if self.weight is None:
            return ()
        return self.weight if isinstance(self.weight, tuple) else (self.weight,)

    def take(self, keep: NDArray[np.bool_]) -> Batch:
        """The rows where `keep` is True."""
        return replace(
            self,
            inputs=tuple(a[keep] for a in self.inputs),
            targets=tuple(a[keep] for a in self.targets),
            weight=tuple(w[keep] for w in self.weight)
            if isinstance(self.weight, tuple)
            else None
            if self.weight is None
            else self.weight[keep],
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
        replace(
            b,
            inputs=tuple(b.inputs[n] for n in columns),
            targets=tuple(b.targets[n] for n in targets),
            weight=tuple(b.weight[n] for n in targets) if isinstance(b.weight, tuple) else b.weight,
            input_dtypes=tuple(b.input_dtypes[n] for n in columns) if b.input_dtypes else (),
        )
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


def load_recording(path: str, spec: ModelSpec | Missing) -> Recording:
    """Read the recorded batches: arrays, or a saved tf.data dataset, which only TensorFlow can read.

    Args:
        path: file or directory. spec: of the model; tells whether the first axis counts batches.

    Raises:
        CannotReplay: nothing usable in the file.
    """
    from ckptdoctor.evidence.batches import BatchesError, open_batches

    try:
        with open_batches(path, spec) as source:
            rows = [
                Batch(n, tuple(inputs), tuple(targets), _weights(weight, len(targets)), step)
                for n, (inputs, targets, weight, step) in enumerate(source)
            ]
            return _bounded(rows, tuple(source.input_names), tuple(source.target_names))
    except BatchesError as error:
        if error.needs_replay:
            return _load_dataset(path)
        raise CannotReplay(str(error)) from error


def _weights(weight: Any, targets: int) -> Array | tuple[Array, ...] | None:
    """One array of sample weights, or one for each target."""
    if isinstance(weight, list):
        if len(weight) == targets > 1:
            return tuple(weight)
        weight = weight[0] if weight else None
    return None if weight is None else np.asarray(weight)


def _load_dataset(path: str) -> Recording:
    """A saved tf.data dataset of batches: (x, y) or (x, y, sample_weight); x and y may be tuples or mappings.

    Raises:
        CannotReplay: TensorFlow cannot read it, or its elements are something else.
    """
    import tensorflow as tf

    try:
        elements = list(tf.data.Dataset.load(path).take(MAX_BATCHES).as_numpy_iterator())
    except (tf.errors.OpError, ValueError, TypeError, OSError) as error:
        raise CannotReplay(f"{path} cannot be read as a saved tf.data dataset ({brief(error, 160)})") from error
    rows: list[Batch] = []
    names: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    for n, element in enumerate(elements):
        parts = element if isinstance(element, tuple) else (element,)
        inputs, targets = _named(parts[0], "x"), _named(parts[1] if len(parts) > 1 else None, "y")
        names = (tuple(inputs), tuple(targets))
        weight = np.asarray(parts[2]) if len(parts) > 2 and parts[2] is not None else None
        rows.append(Batch(n, tuple(inputs.values()), tuple(targets.values()), weight))
    return _bounded(rows, *names)


def _named(value: Any, letter: str) -> dict[str, Array]:
    if value is None:
        return {}
    if isinstance(value, dict):
        return {f"{letter}_{name}": np.asarray(v) for name, v in value.items()}
    if isinstance(value, (tuple, list)):
        return {f"{letter}_{n}": np.asarray(v) for n, v in enumerate(value)}
    return {letter: np.asarray(value)}


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
