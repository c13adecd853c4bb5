"""What every layer puts out over recorded rows at one state: ranges, dead units, saturation, incoming gradient."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ckptdoctor.model import LayerActivity
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.dialect import Dialect
from ckptdoctor.replay.naming import NamedLayer
from ckptdoctor.replay.opwatch import floats, glimpse
from ckptdoctor.replay.state import Snapshot, put
from ckptdoctor.replay.step import TrainingStep, tensors

MAX_ROWS = 256  # enough to tell a dead unit from a rarely active one
FLAT_SLOPE = 0.01  # a tanh or sigmoid is saturated where its derivative is below this share of 1

_CLIPPED = frozenset({"relu", "relu6", "ReLU", "hard_shrink", "threshold"})
_WITHOUT_RECURRENCE = ("Dense", "Conv", "EinsumDense", "Separable", "Depthwise")
_ACTIVATION_LAYERS = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "PReLU": "prelu",
    "ELU": "elu",
    "Softmax": "softmax",
}


@dataclass(slots=True)
class Tapped:
    """One call of a layer."""

    named: NamedLayer
    output: Any
    before: Any | None  # the value its activation was applied to


@contextlib.contextmanager
def tapping(dialect: Dialect, layers: Sequence[NamedLayer]) -> Iterator[list[Tapped]]:
    """Record the output, and where it can be had the pre-activation, of every call of these layers."""
    calls: list[Tapped] = []
    named = {id(n.layer): n for n in layers}
    layer_class = dialect.keras.layers.Layer
    plain = layer_class.__call__

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = plain(layer, *args, **kwargs)
        owner = named.get(id(layer))
        if owner is not None:
            tensor = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
            if getattr(getattr(tensor, "dtype", None), "is_floating", False):
                calls.append(Tapped(owner, tensor, _before(plain, layer, args, kwargs)))
        return outputs

    layer_class.__call__ = call
    try:
        yield calls
    finally:
        layer_class.__call__ = plain


def _before(plain: Callable[..., Any], layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any | None:
    """The value before the activation: the input of an activation layer, or the layer run once more without one."""
    kind = type(layer).__name__
    if kind == "Activation" or kind in _ACTIVATION_LAYERS:
        return args[0] if args else None
    name = getattr(getattr(layer, "activation", None), "__name__", "linear")
    if name == "linear" or not kind.startswith(_WITHOUT_RECURRENCE):
        return None
    kept = layer.activation
    layer.activation = None
    try:
        return plain(layer, *args, **kwargs)
    finally:
        layer.activation = kept


def activation_name(layer: Any) -> str | None:
    """The layer's activation, None where its class has none."""
    kind = type(layer).__name__
    if kind in _ACTIVATION_LAYERS:
        return _ACTIVATION_LAYERS[kind]
    activation = getattr(layer, "activation", None)
    if activation is None:
        return None
    return str(getattr(activation, "__name__", type(activation).__name__))


def joined_rows(batches: Sequence[Batch], rows: int = MAX_ROWS) -> Batch:
    """Rows of the last batches as one batch, those with non-finite entries left out where any are left."""
    chosen: list[Batch] = []
    count = 0
    for batch in reversed(batches):
        clean = batch.take(finite_rows(batch))
        if clean.rows:
            chosen.append(clean)
            count += clean.rows
        if count >= rows:
            break
    if not chosen:
        return batches[-1]
    chosen.reverse()
    first = chosen[0]
    return Batch(
        first.index,
        tuple(np.concatenate([b.inputs[n] for b in chosen]) for n in range(len(first.inputs))),
        tuple(np.concatenate([b.targets[n] for b in chosen]) for n in range(len(first.targets))),
    )


def finite_rows(batch: Batch) -> np.ndarray[Any, Any]:
    """True for rows without a non-finite entry in inputs, targets or sample weights."""
    keep = np.ones(batch.rows, dtype=bool)
    for array in (*batch.inputs, *batch.targets, *batch.weights):
        if array.dtype.kind in "fc" and len(array) == batch.rows:
            keep &= np.isfinite(array.reshape(batch.rows, -1)).all(axis=1)
    return keep


def measure_activity(step: TrainingStep, state: Snapshot, batch: Batch) -> tuple[LayerActivity, ...]:
    """Every leaf layer's output over a batch in inference mode.

    Args:
        step: of the model. state: to measure at; the model is left in it. batch: rows to feed.
    """
    put(step.variables, state)
    inputs, targets, _ = tensors(batch)
    with tapping(step.dialect, step.owners.layers) as calls, tf.GradientTape() as tape:
        prediction = step.forward(inputs, training=False)
        loss = step.loss(inputs, targets, None, prediction) if targets else tf.reduce_mean(prediction)
    gradients = tape.gradient(loss, [c.output for c in calls])
    return tuple(_activity(c, g) for c, g in zip(calls, gradients, strict=True))


def one_element_norms(step: TrainingStep, activity: Sequence[LayerActivity], rows: int) -> tuple[str, ...]:
    """Normalisations whose statistics are over a single element: their output does not depend on the input.

    Args:
        step: of the model. activity: its layers, for their output shapes. rows: of the smallest batch.
    """
    places = {a.layer: a.output.shape for a in activity}
    return tuple(
        owned.name
        for owned in step.owners.layers
        if owned.name in places and _elements(owned.class_name, owned.layer, places[owned.name], rows) == 1
    )


def _elements(class_name: str, layer: Any, shape: tuple[int, ...], rows: int) -> int | None:
    """Over how many elements a normalisation takes one mean; None for other layers. `shape` has the batch axis first."""
    axis = getattr(layer, "axis", -1)
    axes = [int(a) for a in axis] if isinstance(axis, (list, tuple)) else [int(axis)] if isinstance(axis, int) else [-1]
    if class_name == "BatchNormalization":
        return math.prod(shape[1:]) // max(1, shape[axes[0]]) * rows
    if class_name == "LayerNormalization":
        return math.prod(shape[a] for a in axes)
    if class_name == "GroupNormalization":
        groups = getattr(layer, "groups", 0)
        return math.prod(shape[1:]) // groups if isinstance(groups, int) and groups > 0 else None
    return None


def _activity(call: Tapped, gradient: Any) -> LayerActivity:
    name = activation_name(call.named.layer)
    array = floats(call.output)
    assert array is not None
    before = floats(call.before) if call.before is not None else None
    flow = floats(gradient) if gradient is not None and not isinstance(gradient, tf.IndexedSlices) else None
    with np.errstate(all="ignore"):
        return LayerActivity(
            layer=call.named.name,
            class_name=call.named.class_name,
            activation=name,
            output=glimpse("output", call.output),
            dead_fraction=_dead(array) if name in _CLIPPED else None,
            saturated_fraction=_saturated(name, array),
            row_std=_row_std(array),
            pre_min=_extreme(before, np.nanmin),
            pre_max=_extreme(before, np.nanmax),
            gradient_rms=None if flow is None else _finite(np.sqrt(np.mean(np.square(flow, dtype=np.float64)))),
        )


def _dead(array: np.ndarray[Any, Any]) -> float:
    """Share of units (last axis) that are exactly 0 for every row and position."""
    if array.ndim < 2:
        return float((array == 0).all())
    return float((array.reshape(-1, array.shape[-1]) == 0).all(axis=0).mean())


def _saturated(name: str | None, array: np.ndarray[Any, Any]) -> float | None:
    """Share of entries where the activation is flat; for softmax share of rows whose largest probability is flat."""
    if name == "tanh":
        return float((1 - np.square(array) < FLAT_SLOPE).mean())
    if name == "sigmoid":
        return float((array * (1 - array) < FLAT_SLOPE).mean())
    if name in ("hard_sigmoid", "hard_tanh"):
        return float(((array == 0) | (np.abs(array) == 1)).mean())
    if name == "softmax":
        most = array.max(axis=-1)
        return float((most * (1 - most) < FLAT_SLOPE).mean())
    return None


def _row_std(array: np.ndarray[Any, Any]) -> float | None:
    if array.ndim == 0 or len(array) < 2:
        return None
    return _finite(array.reshape(len(array), -1).astype(np.float64).std(axis=0).mean())


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _extreme(array: np.ndarray[Any, Any] | None, choose: Callable[[Any], Any]) -> float | None:
    if array is None or not array.size or not np.isfinite(array).any():
        return None
    return float(choose(np.where(np.isfinite(array), array, np.nan)))
