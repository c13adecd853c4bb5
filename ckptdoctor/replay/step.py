"""One training step as Keras takes it, compiled, with a vector of measurements beside it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.dialect import Dialect, raw
from ckptdoctor.replay.losses import LossPlan
from ckptdoctor.replay.naming import Ownership, ownership
from ckptdoctor.replay.rebuild import head_activation, mapping_keys
from ckptdoctor.replay.state import all_variables

LOSS, ACCURACY, GRADIENT_BAD, WEIGHT_BAD, SCALE, RATE, WEIGHT_NORM = range(7)
LARGE = 1 << 16  # entries from which sums of squares are taken in float32
SLOT_LIMIT, SLOT_LIMIT_HALF = 1e15, 100.0  # gradient norms below which no square overflows float32, or float16
FIXED = 7  # places of the vector before the per-layer blocks


@dataclass(slots=True)
class Measured:
    """What one step measured, read from its vector on demand.

    Norms are Euclidean; those of gradients are of the unscaled gradient before clipping.

    Attributes:
        vector: float64, as the step returned it. layers: number of trained layers. slot_bad: a slot is non-finite.
    """

    vector: np.ndarray[Any, Any]
    layers: int
    slot_bad: bool = False

    @property
    def loss(self) -> float:
        """Of this batch, regularisation included."""
        return float(self.vector[LOSS])

    @property
    def accuracy(self) -> float | None:
        """None where the loss is not one of classes."""
        return _present(self.vector[ACCURACY])

    @property
    def gradient_bad(self) -> bool:
        """Whether a gradient held a non-finite entry."""
        return bool(self.vector[GRADIENT_BAD])

    @property
    def weight_bad(self) -> bool:
        """Whether a weight or statistic is non-finite after the step."""
        return bool(self.vector[WEIGHT_BAD])

    @property
    def loss_scale(self) -> float | None:
        """None without loss scaling."""
        return _present(self.vector[SCALE])

    @property
    def learning_rate(self) -> float:
        """In force at this step."""
        return float(self.vector[RATE])

    @property
    def weight_norm(self) -> float:
        """Over all trainable weights, before the step."""
        return float(self.vector[WEIGHT_NORM])

    @property
    def gradient_norms(self) -> tuple[float, ...]:
        """Per trained layer."""
        return tuple(self.vector[FIXED : FIXED + self.layers].tolist())

    @property
    def update_ratios(self) -> tuple[float, ...]:
        """Norm of the update over norm of the weights, per trained layer; infinite for weights that were all zero."""
        updates = self.vector[FIXED + self.layers : FIXED + 2 * self.layers].tolist()
        weights = self.vector[FIXED + 2 * self.layers :].tolist()
        return tuple(u / w if w > 0 else (math.inf if u > 0 else 0.0) for u, w in zip(updates, weights, strict=True))

    @property
    def gradient_norm(self) -> float:
        """Over all layers."""
        norms = self.vector[FIXED : FIXED + self.layers]
        return math.sqrt(float(norms @ norms)) if self.layers else 0.0

    @property
    def failed(self) -> bool:
        """Whether something that matters is non-finite.

        An infinite gradient under loss scaling is probing, not a fault: the step is skipped and the scale halved.
        """
        if not math.isfinite(self.vector[LOSS]) or self.weight_bad or self.slot_bad:
            return True
        return self.gradient_bad and self.loss_scale is None


def _present(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


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
        self._prepare_blocks()
        half = any(v.dtype.size < 4 for v in self.raw_trainable)
        self._slot_limit = SLOT_LIMIT_HALF if half else SLOT_LIMIT
        self._input_keys = mapping_keys(model, "_inputs_struct")
        self._accuracy = _accuracy_of(model, plan)
        self._compiled = tf.function(self._measure, jit_compile=False, reduce_retracing=True)
        self._runner: Callable[..., Any] = self._compiled

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
            return tf.cast(rate(self.dialect.counter(optimizer)), tf.float64)
        return tf.cast(tf.convert_to_tensor(raw(rate)), tf.float64)

    # --- the step -----------------------------------------------------------------------------

    def _arranged(self, inputs: tuple[Any, ...]) -> Any:
        """Inputs as the model takes them: one, a list, or a mapping."""
        if len(self._input_keys) == len(inputs):
            return dict(zip(self._input_keys, inputs, strict=True))
        return inputs[0] if len(inputs) == 1 else list(inputs)

    def forward(self, inputs: tuple[Any, ...], *, training: bool) -> Any:
        """The model's output(s)."""
        x = self._arranged(inputs)
        return self.model(x, training=training)

    def loss(self, inputs: tuple[Any, ...], targets: tuple[Any, ...], weight: Any, prediction: Any) -> Any:
        """The scalar loss, regularisation included, as Keras adds it up."""
        x = self._arranged(inputs)
        y = None if not targets else targets[0] if len(targets) == 1 else list(targets)
        if isinstance(weight, tuple):
            by_name = isinstance(prediction, dict)
            weight = dict(zip(sorted(prediction), weight, strict=True)) if by_name else list(weight)
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
        scaled = self.dialect.loss_scale(self.model.optimizer)
        scale = (
            tf.constant(math.nan, tf.float64) if scaled is None else tf.cast(tf.convert_to_tensor(scaled), tf.float64)
        )
        loss, prediction, gradients = self.gradients(inputs, targets, weight)
        before = [tf.identity(v) for v in self.raw_trainable]
        squares = [_square_sum(g) for g in gradients]
        self.apply(self._clipped(gradients, squares))
        weights = [_square_sum(w) for w in before]
        updates = [_square_sum(v.read_value() - b) for v, b in zip(self.raw_trainable, before, strict=True)]
        nothing = tf.constant(0.0, tf.float64)
        head = tf.stack(
            [
                tf.cast(loss, tf.float64),
                self._accuracy(targets, prediction),
                _bad(squares, gradients),
                tf.maximum(_bad(updates, self.raw_trainable), tf.cast(_any_nonfinite(self._statistics()), tf.float64)),
                scale,
                rate,
                tf.sqrt(tf.add_n(weights)) if weights else nothing,
            ]
        )
        unscaled = squares if scaled is None else [one / tf.square(scale) for one in squares]
        return tf.concat([head, self._norms_by_layer(unscaled, updates, weights)], axis=0)

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

    def _slots_bad(self) -> bool:
        """Whether a slot holds a non-finite entry."""
        owned = {id(v) for v in self.raw_trainable}
        for variable in self.dialect.optimizer_variables(self.model.optimizer):
            if variable.dtype.is_floating and id(variable) not in owned:
                value = variable.numpy()
                if not np.isfinite(value.astype(np.float32) if value.dtype.itemsize < 4 else value).all():
                    return True
        return False

    def _prepare_blocks(self) -> None:
        """Order of the variables by layer, once."""
        self._sorted = sorted(range(len(self.trainable)), key=lambda n: self.owners.owners[n])
        self._owner_of_sorted = [self.owners.owners[n] for n in self._sorted]

    def _norms_by_layer(self, *blocks: list[Any]) -> Any:
        """Square roots of sums of squares per layer: one row a block, joined."""
        if not self.trainable:
            return tf.zeros((0,), tf.float64)
        table = tf.stack([tf.stack([block[n] for n in self._sorted]) for block in blocks], axis=1)
        sums = tf.math.unsorted_segment_sum(table, self._owner_of_sorted, len(self.owners.trained))  # known to XLA
        return tf.reshape(tf.sqrt(tf.transpose(sums)), (-1,))

    def __call__(self, batch: Batch) -> Measured:
        """Take one compiled step.

        Raises:
            tf.errors.InvalidArgumentError: the batch does not fit (class or token indices out of range, on a CPU).
        """
        return self.take_prepared(tensors(batch))

    def take_prepared(self, prepared: tuple[tuple[Any, ...], tuple[Any, ...], Any]) -> Measured:
        """The same with a batch that `tensors` made."""
        measured = Measured(self._runner(*prepared).numpy(), len(self.owners.trained))
        if not measured.gradient_norm < self._slot_limit:  # a square of it may have overflowed a second moment
            measured.slot_bad = self._slots_bad()
        return measured

    def trace_for(self, inputs: tuple[Any, ...], targets: tuple[Any, ...], weight: Any) -> None:
        """Compile the step for these `tf.TensorSpec`s; batches that fit them then run it, whatever their own shapes."""
        self._compiled.get_concrete_function(inputs, targets, weight)

    @contextlib.contextmanager
    def taken_as(self, mode: str) -> Iterator[None]:
        """Take steps meanwhile as `graph`, `eager` (op by op) or `xla` (compiled by XLA, which draws other random numbers)."""
        if mode == "eager":
            self._runner = self._measure
        elif mode == "xla":
            self._runner = tf.function(self._measure, jit_compile=True)
        try:
            yield
        finally:
            self._runner = self._compiled


def tensors(batch: Batch) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Inputs, targets and sample weights of a batch as tensors."""
    inputs = tuple(tf.constant(a) for a in batch.inputs)
    if batch.input_dtypes:
        inputs = tuple(tf.cast(i, dtype) if dtype else i for i, dtype in zip(inputs, batch.input_dtypes, strict=True))
    targets = tuple(tf.constant(a) for a in batch.targets)
    weight = batch.weight
    if isinstance(weight, tuple):
        return inputs, targets, tuple(tf.constant(w) for w in weight)
    return inputs, targets, None if weight is None else tf.constant(weight)


def _values(tensor: Any) -> Any:
    return tensor.values if isinstance(tensor, tf.IndexedSlices) else tensor


def _square_sum(tensor: Any) -> Any:
    """Sum of squares as float64; 0 for an absent gradient. Small tensors are squared in float64, where none overflows."""
    if tensor is None:
        return tf.constant(0.0, tf.float64)
    values = _values(tensor)
    if _is_large(values):
        wide = tf.cast(values, tf.float32) if values.dtype.size < 4 else values
        return 2.0 * tf.cast(tf.nn.l2_loss(wide), tf.float64)
    return 2.0 * tf.nn.l2_loss(tf.cast(values, tf.float64))


def _is_large(values: Any) -> bool:
    count = values.shape.num_elements()
    return count is None or count > LARGE


def _bad(squares: list[Any], tensors_: Sequence[Any]) -> Any:
    """1 where a tensor holds a non-finite entry, by its sum of squares, else 0. Large ones, whose sum may overflow, are tested."""
    small = [s for s, t in zip(squares, tensors_, strict=True) if t is not None and not _is_large(_values(t))]
    large = [t for t in tensors_ if t is not None and _is_large(_values(t))]
    total = tf.add_n(small) if small else tf.constant(0.0, tf.float64)
    flag = tf.logical_not(tf.math.is_finite(total))
    return tf.cast(tf.logical_or(flag, _any_nonfinite(large)) if large else flag, tf.float64)


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
