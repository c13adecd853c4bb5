"""Changes that need no new graph: rate, clipping, data, initial weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import Cause
from ckptdoctor.replay.activity import activation_name, finite_rows
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.code import OptimizerCode, number
from ckptdoctor.replay.lab import Lab, Setup, Trial
from ckptdoctor.replay.naming import NamedLayer
from ckptdoctor.replay.state import Snapshot
from ckptdoctor.replay.step import TrainingStep

RELU_LIKE = frozenset({"relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "mish", "prelu"})


def rate_trial(code: OptimizerCode, factor: float) -> Trial:
    """Train with another learning rate."""
    key = f"lr*{factor:g}" if factor > 1 else f"lr/{1 / factor:g}"
    new = code.rate * factor
    change = f"learning rate {number(new)} instead of {number(code.rate)}"
    if code.scheduled:
        change += " (the whole schedule scaled)"

    @contextlib.contextmanager
    def setup(lab: Lab) -> Iterator[Setup]:
        plain = lab.plain()
        plain.prepare = lambda: lab.step.set_rate_factor(factor, code.rate)
        try:
            yield plain
        finally:
            lab.step.set_rate_factor(1.0, code.rate)

    return Trial(key, change, Cause.LEARNING_RATE, code.with_rate(new), setup)


def clip_trial(code: OptimizerCode, limit: float = 1.0) -> Trial:
    """Clip gradients by their global norm."""

    @contextlib.contextmanager
    def setup(lab: Lab) -> Iterator[Setup]:
        lab.step.clip_norm.assign(limit)
        try:
            yield lab.plain()
        finally:
            lab.step.clip_norm.assign(math.inf)

    return Trial(
        f"clip_global_{limit:g}",
        f"gradients clipped to a global norm of {limit:g}",
        Cause.EXPLODING_GRADIENTS,
        code.with_options(global_clipnorm=limit),
        setup,
    )


def data_trial(key: str, change: str, cause: Cause, code: str, alter: Callable[[Batch], Batch]) -> Trial:
    """Change the recorded batches; batches left without rows are skipped."""

    @contextlib.contextmanager
    def setup(lab: Lab) -> Iterator[Setup]:
        plain = lab.plain()
        plain.train = [b for b in (alter(b) for b in lab.train) if b.rows]
        plain.held_out = [b for b in (alter(b) for b in lab.held_out) if b.rows]
        if not plain.train:
            raise ValueError("no rows are left")
        yield plain

    return Trial(key, change, cause, code, setup)


# --- rows -------------------------------------------------------------------------------------


def drop_nonfinite_rows(batch: Batch) -> Batch:
    """Only rows that are wholly finite."""
    return batch.take(finite_rows(batch))


def drop_rows(batches: Sequence[Batch], index: int, rows: Sequence[int]) -> Callable[[Batch], Batch]:
    """Leave out the rows of one batch, and every equal row of the others."""
    culprit = batches[index]
    marks = {_fingerprint(culprit, row) for row in rows}

    def alter(batch: Batch) -> Batch:
        return batch.take(np.array([_fingerprint(batch, n) not in marks for n in range(batch.rows)], dtype=bool))

    return alter


def _fingerprint(batch: Batch, row: int) -> tuple[bytes, ...]:
    return tuple(a[row].tobytes() for a in (*batch.inputs, *batch.targets))


def impute(batches: Sequence[Batch]) -> Callable[[Batch], Batch]:
    """Non-finite input entries replaced by the mean of their feature over the recording (0 where it has none)."""
    means = [_moments([b.inputs[n] for b in batches])[0] for n in range(len(batches[0].inputs))]

    def alter(batch: Batch) -> Batch:
        filled = []
        for array, mean in zip(batch.inputs, means, strict=True):
            if array.dtype.kind == "f":
                filled.append(np.where(np.isfinite(array), array, mean.astype(array.dtype)).astype(array.dtype))
            else:
                filled.append(array)
        return replace(batch, inputs=tuple(filled))

    return alter


# --- scale ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scale:
    """Means and standard deviations per feature (last axis) of one array."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array standardised, in its own dtype."""
        return ((array.astype(np.float64) - self.mean) / self.std).astype(array.dtype)

    @property
    def usual(self) -> bool:
        """Whether the data are near what networks are initialised for: centres within 3, spreads from 0.1 to 5."""
        return bool((np.abs(self.mean) <= 3).all() and (self.std <= 5).all() and float(np.median(self.std)) >= 0.1)


def _moments(arrays: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    joined = np.concatenate([a.reshape(-1, a.shape[-1]) if a.ndim > 1 else a.reshape(-1, 1) for a in arrays])
    wide = np.where(np.isfinite(joined), joined.astype(np.float64), np.nan)
    counts = np.maximum(np.isfinite(wide).sum(axis=0), 1)
    mean = np.nansum(wide, axis=0) / counts
    std = np.sqrt(np.nansum(np.square(wide - mean), axis=0) / counts)
    return mean, std


def scale_of(arrays: Sequence[NDArray[Any]]) -> Scale | None:
    """Scale of recorded arrays; None for integers (token ids and class indices are not standardised)."""
    if arrays[0].dtype.kind != "f" or not arrays[0].size:
        return None
    mean, std = _moments(arrays)
    if arrays[0].ndim == 1:
        mean, std = mean[0], std[0]
    return Scale(np.asarray(mean), np.where(std > 1e-12, std, 1.0))


@dataclass(frozen=True, slots=True)
class Clip:
    """The middle 98 % of each feature (last axis), and its scale once the rest is clipped to it.

    `far` is how often the middle's width fits into the distance of the furthest value, at most over the features.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    scale: Scale
    far: float

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array clipped and standardised, in its own dtype."""
        return self.scale.apply(np.clip(array, self.low, self.high).astype(array.dtype))


def clip_of(arrays: Sequence[NDArray[Any]]) -> Clip | None:
    """Where to clip recorded arrays of shape (rows, features); None for integers, other ranks, and values not finite."""
    if arrays[0].dtype.kind != "f" or arrays[0].ndim != 2:
        return None
    joined = np.concatenate(list(arrays)).astype(np.float64)
    if not joined.size or not np.isfinite(joined).all():
        return None
    low, high = np.percentile(joined, [1, 99], axis=0)
    width = np.where(high > low, high - low, np.inf)
    far = float((np.maximum(joined.max(axis=0) - high, low - joined.min(axis=0)) / width).max())
    scale = scale_of([np.clip(joined, low, high)])
    return Clip(low, high, scale, far) if scale is not None else None


def clipped(clips: Sequence[Clip | None]) -> Callable[[Batch], Batch]:
    """Inputs clipped to the middle 98 % of their features, then standardised."""

    def alter(batch: Batch) -> Batch:
        x = tuple(a if c is None else c.apply(a) for a, c in zip(batch.inputs, clips, strict=True))
        return replace(batch, inputs=x)

    return alter


def standardise(inputs: Sequence[Scale | None], targets: Sequence[Scale | None]) -> Callable[[Batch], Batch]:
    """Inputs, and targets where scales are given, with mean 0 and standard deviation 1."""

    def alter(batch: Batch) -> Batch:
        x = tuple(a if s is None else s.apply(a) for a, s in zip(batch.inputs, inputs, strict=True))
        y = tuple(a if s is None else s.apply(a) for a, s in zip(batch.targets, targets, strict=True))
        return replace(batch, inputs=x, targets=y)

    return alter


def shift_labels(output: int, by: int) -> Callable[[Batch], Batch]:
    """Class indices moved by a constant."""

    def alter(batch: Batch) -> Batch:
        moved = [t + np.asarray(by, dtype=t.dtype) if n == output else t for n, t in enumerate(batch.targets)]
        return replace(batch, targets=tuple(moved))

    return alter


def divide_targets(by: float) -> Callable[[Batch], Batch]:
    """All targets divided by a number, as float32."""

    def alter(batch: Batch) -> Batch:
        return replace(batch, targets=tuple((t / by).astype("float32") for t in batch.targets))

    return alter


# --- initial weights --------------------------------------------------------------------------


def reinitialise_trial(seed: int, layer: str | None, code: str) -> Trial:
    """Weights drawn anew: He normal before relu-like activations, Glorot uniform elsewhere; slots reset."""

    @contextlib.contextmanager
    def setup(lab: Lab) -> Iterator[Setup]:
        plain = lab.plain()
        plain.start = redrawn(lab.step, lab.fresh or lab.start, seed)
        yield plain

    return Trial(
        "reinitialise",
        "weights drawn anew (He normal before relu, Glorot uniform elsewhere), biases 0",
        Cause.INITIALIZATION,
        code,
        setup,
        layer=layer,
    )


def redrawn(step: TrainingStep, base: Snapshot, seed: int) -> Snapshot:
    """A start state with every trainable kernel drawn anew and every trainable bias 0."""
    generator = np.random.default_rng(seed + 1)
    owners: dict[int, NamedLayer] = {}
    for named in step.owners.layers:
        for variable in named.layer.trainable_variables:
            owners[id(_inner(variable))] = named
    trainable = {id(v) for v in step.raw_trainable}
    values = []
    for n, (variable, value) in enumerate(zip(step.variables, base.values, strict=True)):
        if id(variable) not in trainable:
            values.append(value)
            continue
        owner = owners.get(id(variable))
        relu = owner is not None and _relu_follows(step, owner)
        values.append(_draw(generator, value, str(getattr(variable, "name", n)), relu=relu))
    return Snapshot(tuple(values))


def _inner(variable: Any) -> Any:
    from ckptdoctor.replay.dialect import raw

    return raw(variable)


def _relu_follows(step: TrainingStep, named: NamedLayer) -> bool:
    """Whether the layer's output passes through a relu-like activation, its own or that of the next layer."""
    own = activation_name(named.layer)
    if own is not None and own != "linear":
        return own in RELU_LIKE
    layers = list(step.owners.layers)
    place = layers.index(named)
    if place + 1 < len(layers) and not layers[place + 1].layer.trainable_variables:
        return activation_name(layers[place + 1].layer) in RELU_LIKE
    return False


def _draw(generator: np.random.Generator, value: NDArray[Any], name: str, *, relu: bool) -> NDArray[Any]:
    if value.ndim < 2:
        keep_ones = "gamma" in name or (value.size > 0 and bool((value == 1).all()))
        return value if keep_ones else np.zeros_like(value)
    receptive = int(np.prod(value.shape[:-2], dtype=np.int64)) if value.ndim > 2 else 1
    fan_in, fan_out = value.shape[-2] * receptive, value.shape[-1] * receptive
    if relu:  # He et al. 2015
        drawn = generator.normal(0.0, math.sqrt(2.0 / max(1, fan_in)), value.shape)
    else:  # Glorot and Bengio 2010
        limit = math.sqrt(6.0 / max(1, fan_in + fan_out))
        drawn = generator.uniform(-limit, limit, value.shape)
    return drawn.astype(value.dtype)
