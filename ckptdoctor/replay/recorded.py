"""What a recording changes about the start of a replay: the batches' own structure, the traced shapes, the seed states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

from ckptdoctor.evidence.batch_reading import natural_key
from ckptdoctor.model import RecordedArgument, RecordedWindow
from ckptdoctor.recorder.rng import restore_seed_states
from ckptdoctor.replay.batches import Recording
from ckptdoctor.replay.step import TrainingStep

NOT_IN_NPZ = ("bfloat16", "float8_e4m3fn", "float8_e5m2")


def as_recorded(recording: Recording, window: RecordedWindow | None) -> tuple[Recording, str]:
    """The batches with inputs and targets in the order, and under the names, that the step was given.

    Returns:
        the recording, and why it is not the one that the window describes (empty where it is).
    """
    if window is None:
        return recording, ""
    found, wanted = len(recording.batches), len(window.rows)
    if found != wanted:
        return recording, f"it names {wanted} batches, and {found} could be read"
    for n, (batch, rows) in enumerate(zip(recording.batches, window.rows, strict=True)):
        if batch.step != window.first_step + n or batch.rows != sum(rows):
            return recording, f"batch {n} is not the one of step {window.first_step + n} with {sum(rows)} rows"
    inputs = _places(recording.input_names, window.x)
    targets = _places(recording.target_names, window.y) if window.y is not None else []
    if inputs is None or targets is None:
        return recording, "the batches hold other arrays than it names"
    weights = _weight_places(window)
    dtypes = tuple(d if (d := window.stored_as.get(key)) in NOT_IN_NPZ else None for key in window.x.keys)
    batches = tuple(
        replace(
            b,
            inputs=tuple(b.inputs[i] for i in inputs),
            targets=tuple(b.targets[i] for i in targets),
            weight=tuple(b.weight[i] for i in weights) if isinstance(b.weight, tuple) and weights else b.weight,
            input_dtypes=dtypes if any(dtypes) else (),
        )
        for b in recording.batches
    )
    names = _names(window.x, "x")
    return replace(
        recording, batches=batches, input_names=names, target_names=_names(window.y, "y") if window.y else ()
    ), ""


def _places(stored: Sequence[str], argument: RecordedArgument) -> list[int] | None:
    if sorted(stored) != sorted(argument.keys):
        return None
    return [list(stored).index(key) for key in argument.keys]


def _weight_places(window: RecordedWindow) -> list[int]:
    """Where among the stored sample weights, which are read in the order of their names, that of each target stands."""
    weights, y = window.sample_weight, window.y
    if weights is None or y is None or len(weights.keys) != len(y.keys):
        return []
    stored = sorted(weights.keys, key=natural_key)
    by_name = set(weights.names) == set(y.names)
    return [stored.index(weights.keys[weights.names.index(name) if by_name else n]) for n, name in enumerate(y.names)]


def _names(argument: RecordedArgument, letter: str) -> tuple[str, ...]:
    """Names as `arrange` reads them: with the letter before the input's own, unsanitised name."""
    return tuple(argument.keys) if argument.form == "single" else tuple(f"{letter}_{n}" for n in argument.names)


def trace_as_recorded(step: TrainingStep, window: RecordedWindow, recording: Recording) -> bool:
    """Compile the step for the static shapes that training compiled it for: other ones may take other kernels.

    Returns:
        whether it was. A signature that the rebuilt step does not take is passed over: the step is then compiled for the
        batches as they are, as it is where sample weights are given for each output.
    """
    batch = recording.batches[0]
    if not window.traced_as or isinstance(batch.weight, tuple):
        return False
    traced = _traced(window.x, "x", window) | _traced(window.y, "y", window)

    def specs(arrays: Sequence[Any], names: Sequence[str]) -> tuple[Any, ...]:
        return tuple(tf.TensorSpec(traced.get(n, a.shape), a.dtype) for a, n in zip(arrays, names, strict=True))

    inputs = specs(batch.inputs, recording.input_names)
    if batch.input_dtypes:
        inputs = tuple(tf.TensorSpec(s.shape, d or s.dtype) for s, d in zip(inputs, batch.input_dtypes, strict=True))
    weight: Any = None
    if batch.weight is not None and window.sample_weight is not None:
        shape = window.traced_as.get(window.sample_weight.keys[0], batch.weight.shape)
        weight = tf.TensorSpec(shape, batch.weight.dtype)
    targets = specs(batch.targets, recording.target_names)
    given = zip((*inputs, *targets), (*batch.inputs, *batch.targets), strict=True)
    if not all(spec.shape.is_compatible_with(array.shape) for spec, array in given):
        return False
    try:
        step.trace_for(inputs, targets, weight)
    except (TypeError, ValueError, tf.errors.OpError):
        return False
    return True


def _traced(
    argument: RecordedArgument | None, letter: str, window: RecordedWindow
) -> dict[str, tuple[int | None, ...]]:
    if argument is None:
        return {}
    names = zip(_names(argument, letter), argument.keys, strict=True)
    return {name: tuple(window.traced_as[key]) for name, key in names if key in window.traced_as}


def make_global_seed(window: RecordedWindow) -> None:
    """Make Keras' global generator before the step, so that its state counts among the step's variables."""
    if any(seed.layer is None for seed in window.seeds):
        from keras.src.random.seed_generator import global_seed_generator

        global_seed_generator()


def restore_seeds(model: Any, window: RecordedWindow) -> list[str]:
    """Put the recorded seed states back; returns a sentence for each that found no place."""
    entries = [{"layer": s.layer, "index": s.index, "state": list(s.state)} for s in window.seeds]
    return restore_seed_states(model, entries)
