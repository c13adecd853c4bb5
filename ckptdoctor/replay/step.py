"""One training step as Keras takes it, compiled, with a vector of measurements beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.dialect import Dialect, raw
from ckptdoctor.replay.losses import LossPlan
from ckptdoctor.replay.naming import Ownership, ownership
from ckptdoctor.replay.rebuild import head_activation
from ckptdoctor.replay.state import all_variables

LOSS, ACCURACY, GRADIENT_BAD, WEIGHT_BAD, SLOT_BAD, SCALE, RATE, WEIGHT_NORM = range(8)
FIXED = 8  # places of the vector before the per-layer blocks


@dataclass(frozen=True, slots=True)
class Measured:
    """What one step measured. Norms are Euclidean; those of gradients are of the unscaled gradient before clipping."""

    loss: float
    accuracy: float | None
    gradient_bad: bool
    weight_bad: bool
    slot_bad: bool
    loss_scale: float | None
    learning_rate: float
    weight_norm: float
    gradient_norms: tuple[float, ...]
    update_ratios: tuple[float, ...]

    @property
    def gradient_norm(self) -> float:
        """Over all layers."""
        return math.sqrt(sum(n * n for n in self.gradient_norms)) if self.gradient_norms else 0.0

    @property
    def failed(self) -> bool:
        """Whether something that matters is non-finite.

        An infinite gradient under loss scaling is probing, not a fault: the step is skipped and the scale halved.
        """
        probing = self.loss_scale is not None and math.isfinite(self.loss)
        return not math.isfinite(self.loss) or self.weight_bad or self.slot_bad or (self.gradient_bad and not probing)


class TrainingStep:
    """A compiled training step over a model, its optimizer and its loss.

    The learning rate and a global clipping norm are variables of the graph, so that changing them costs no compile.
    """

    def __init__(self, dialect: Dialect, model: Any, plan: LossPlan) -> None:
        self.dialect, self.model, self.plan = dialect, model, plan
        self.owners: Ownership = ownership(model)
        self.variables = all_variables(model, dialect)
        self.trainable = list(model.trainable_variables)
        self.raw_trainable = [raw(v) for v in self.trainable]
        self.clip_norm = tf.Variable(math.inf, dtype=tf.float32, trainable=False)
        self.rate_factor = tf.Variable(1.0, dtype=tf.float32, trainable=False)
        self._install_rate_factor()
        self._accuracy = _accuracy_of(model, plan)
        self._compiled = tf.function(self._measure, jit_compile=False, reduce_retracing=True)

    # --- learning rate ------------------------------------------------------------------------

    def _install_rate_factor(self) -> None:
        """Multiply the rate, a variable or a schedule, by `rate_factor` inside the graph."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        inner = optimizer._learning_rate  # noqa: SLF001 - the setter would fix a schedule to a number
        if not callable(inner):
            return
        factor, base = self.rate_factor, self.dialect.keras.optimizers.schedules.LearningRateSchedule

        class Scaled(base):  # type: ignore[misc,valid-type]
            def __call__(self, step: Any) -> Any:
                return inner(step) * factor

            def get_config(self) -> dict[str, Any]:
                return {}

        optimizer._learning_rate = Scaled()  # noqa: SLF001

    def set_rate_factor(self, factor: float, base: float) -> None:
        """Train on with `factor` times the rate; `base` is the rate a constant one had."""
        self.rate_factor.assign(factor)
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        rate = optimizer._learning_rate  # noqa: SLF001
        if not callable(rate) or hasattr(rate, "assign"):
            raw(rate).assign(base * factor)

    @property
    def learning_rate(self) -> float:
        """In force at the current iteration."""
        return float(np.asarray(self._rate()))

    def _rate(self) -> Any:
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        rate = optimizer._learning_rate  # noqa: SLF001
        if callable(rate) and not hasattr(rate, "assign"):
            return tf.cast(rate(raw(optimizer.iterations)), tf.float64)
        return tf.cast(tf.convert_to_tensor(raw(rate)), tf.float64)

    # --- the step -----------------------------------------------------------------------------

    def forward(self, inputs: tuple[Any, ...], *, training: bool) -> Any:
        """The model's output(s)."""
        x = inputs[0] if len(inputs) == 1 else list(inputs)
        return self.model(x, training=training)

    def loss(self, inputs: tuple[Any, ...], targets: tuple[Any, ...], weight: Any, prediction: Any) -> Any:
        """The scalar loss, regularisation included, as Keras adds it up."""
        x = inputs[0] if len(inputs) == 1 else list(inputs)
        y = None if not targets else targets[0] if len(targets) == 1 else list(targets)
        return self.model.compute_loss(x=x, y=y, y_pred=prediction, sample_weight=weight)

    def gradients(self, inputs: tuple[Any, ...], targets: tuple[Any, ...], weight: Any) -> tuple[Any, Any, list[Any]]:
        """Loss, prediction, and the gradients as the optimizer is given them (scaled under loss scaling)."""
        with tf.GradientTape() as tape:
            prediction = self.forward(inputs, training=True)
            loss = self.loss(inputs, targets, weight, prediction)
            scaled = self.dialect.scale_loss(self.model.optimizer, loss)
        gradients = tape.gradient(scaled, self.raw_trainable)
        return loss, prediction, list(gradients)

    def apply(self, gradients: list[Any]) -> None:
        """Let the optimizer take the step, as `fit` does."""
        gradients = self.dialect.unscale(self.model.optimizer, gradients)
        pairs = [(g, v) for g, v in zip(gradients, self.trainable, strict=True) if g is not None]
        if pairs:
            self.model.optimizer.apply_gradients(pairs)

    def _measure(self, inputs: tuple[Any, ...], targets: tuple[Any, ...], weight: Any) -> Any:
        rate = self._rate()
        scale = self.dialect.loss_scale(self.model.optimizer)
        scale = tf.constant(math.nan, tf.float64) if scale is None else tf.cast(tf.convert_to_tensor(scale), tf.float64)
        loss, prediction, gradients = self.gradients(inputs, targets, weight)
        before = [tf.identity(v) for v in self.raw_trainable]
        squares = [_square_sum(g) for g in gradients]
        bad = _any_nonfinite(gradients)
        self.apply(self._clipped(gradients, squares))
        after = [v.read_value() for v in self.raw_trainable]
        divisor = tf.where(tf.math.is_nan(scale), tf.ones_like(scale), scale)
        weights = [_square_sum(w) for w in before]
        updates = [_square_sum(a - b) for a, b in zip(after, before, strict=True)]
        head = tf.stack(
            [
                tf.cast(loss, tf.float64),
                self._accuracy(targets, prediction),
                tf.cast(bad, tf.float64),
                tf.cast(_any_nonfinite([*after, *self._statistics()]), tf.float64),
                tf.cast(_any_nonfinite(self._slots()), tf.float64),
                scale,
                rate,
                tf.sqrt(tf.add_n(weights)) if weights else tf.constant(0.0, tf.float64),
            ]
        )
        blocks = [self._by_layer(squares), self._by_layer(updates), self._by_layer(weights)]
        return tf.concat([head, tf.sqrt(blocks[0]) / divisor, tf.sqrt(blocks[1]), tf.sqrt(blocks[2])], axis=0)

    def _clipped(self, gradients: list[Any], squares: list[Any]) -> list[Any]:
        """Clip by global norm where `clip_norm` is finite; a factor of exactly 1 otherwise."""
        if not squares:
            return gradients
        norm = tf.cast(tf.sqrt(tf.add_n(squares)), tf.float32)
        limit = self.clip_norm
        factor = tf.where(tf.math.is_inf(limit), tf.ones_like(norm), limit / tf.maximum(norm, limit))
        return [None if g is None else _times(g, factor) for g in gradients]

    def _statistics(self) -> list[Any]:
        """Moving mean and variance and the like, after the step."""
        return [raw(v).read_value() for v in self.model.non_trainable_variables if raw(v).dtype.is_floating]

    def _slots(self) -> list[Any]:
        owned = {id(v) for v in self.raw_trainable}
        optimizer = self.dialect.optimizer_variables(self.model.optimizer)
        return [v.read_value() for v in optimizer if v.dtype.is_floating and id(v) not in owned]

    def _by_layer(self, squares: list[Any]) -> Any:
        if not squares:
            return tf.zeros((0,), tf.float64)
        return tf.math.segment_sum(
            tf.stack([squares[n] for n in self._sorted]), tf.constant([self.owners.owners[n] for n in self._sorted])
        )

    @property
    def _sorted(self) -> list[int]:
        return sorted(range(len(self.trainable)), key=lambda n: self.owners.owners[n])

    def __call__(self, batch: Batch) -> Measured:
        """Take one compiled step.

        Raises:
            tf.errors.InvalidArgumentError: the batch does not fit (class or token indices out of range, on a CPU).
        """
        return self.take_prepared(tensors(batch))

    def take_prepared(self, prepared: tuple[tuple[Any, ...], tuple[Any, ...], Any]) -> Measured:
        """The same with a batch that `tensors` made."""
        return self.read(self._compiled(*prepared).numpy())

    def read(self, vector: np.ndarray[Any, Any]) -> Measured:
        """The measurements in the vector a step returned."""
        count = len(self.owners.trained)
        gradients = vector[FIXED : FIXED + count]
        updates, weights = vector[FIXED + count : FIXED + 2 * count], vector[FIXED + 2 * count :]
        with np.errstate(all="ignore"):
            ratios = np.where(
                weights > 0, updates / np.where(weights > 0, weights, 1), np.where(updates > 0, np.inf, 0.0)
            )
        return Measured(
            loss=float(vector[LOSS]),
            accuracy=None if math.isnan(vector[ACCURACY]) else float(vector[ACCURACY]),
            gradient_bad=bool(vector[GRADIENT_BAD]),
            weight_bad=bool(vector[WEIGHT_BAD]),
            slot_bad=bool(vector[SLOT_BAD]),
            loss_scale=None if math.isnan(vector[SCALE]) else float(vector[SCALE]),
            learning_rate=float(vector[RATE]),
            weight_norm=float(vector[WEIGHT_NORM]),
            gradient_norms=tuple(float(v) for v in gradients),
            update_ratios=tuple(float(v) for v in ratios),
        )


def tensors(batch: Batch) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Inputs, targets and sample weights of a batch as tensors."""
    inputs = tuple(tf.constant(a) for a in batch.inputs)
    targets = tuple(tf.constant(a) for a in batch.targets)
    return inputs, targets, None if batch.weight is None else tf.constant(batch.weight)


def _values(tensor: Any) -> Any:
    return tensor.values if isinstance(tensor, tf.IndexedSlices) else tensor


def _square_sum(tensor: Any) -> Any:
    """Sum of squares as float64; 0 for an absent gradient."""
    if tensor is None:
        return tf.constant(0.0, tf.float64)
    values = _values(tensor)
    if values.dtype.size < 4:
        values = tf.cast(values, tf.float32)
    return tf.cast(tf.reduce_sum(tf.square(values)), tf.float64)


def _any_nonfinite(tensors_: Sequence[Any]) -> Any:
    flags = [
        tf.reduce_all(tf.math.is_finite(_values(t))) for t in tensors_ if t is not None and _values(t).dtype.is_floating
    ]
    return tf.logical_not(tf.reduce_all(tf.stack(flags))) if flags else tf.constant(False)


def _times(gradient: Any, factor: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(
            gradient.values * tf.cast(factor, gradient.values.dtype), gradient.indices, gradient.dense_shape
        )
    return gradient * tf.cast(factor, gradient.dtype)


def _accuracy_of(model: Any, plan: LossPlan) -> Any:
    """A function (targets, prediction) → accuracy as a float64 scalar; NaN where the loss is not one of classes."""
    name = plan.names[0] if len(plan.names) == 1 else ""
    logits = head_activation(model) not in ("sigmoid", "softmax")

    def none(targets: tuple[Any, ...], prediction: Any) -> Any:
        del targets, prediction
        return tf.constant(math.nan, tf.float64)

    def categorical(targets: tuple[Any, ...], prediction: Any) -> Any:
        hits = tf.equal(tf.argmax(targets[0], axis=-1), tf.argmax(prediction, axis=-1))
        return tf.reduce_mean(tf.cast(hits, tf.float64))

    def sparse(targets: tuple[Any, ...], prediction: Any) -> Any:
        found = tf.reshape(tf.argmax(prediction, axis=-1), (-1,))
        return tf.reduce_mean(tf.cast(tf.equal(tf.reshape(tf.cast(targets[0], tf.int64), (-1,)), found), tf.float64))

    def binary(targets: tuple[Any, ...], prediction: Any) -> Any:
        said = tf.reshape(tf.cast(prediction, tf.float32) > (0.0 if logits else 0.5), (-1,))
        wanted = tf.reshape(tf.cast(targets[0], tf.float32), (-1,))
        return tf.reduce_mean(tf.cast(tf.equal(tf.cast(said, tf.float32), wanted), tf.float64))

    if name.startswith("sparse_categorical"):
        return sparse
    if name.startswith("categorical"):
        return categorical
    return binary if name.startswith("binary") else none
