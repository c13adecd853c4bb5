"""What the recorder measures of a step, as TensorFlow operations that may stand in a graph."""

from __future__ import annotations

from typing import Any

import tensorflow as tf


def gradient_norm(grads: Any) -> Any:
    """Global norm, float32; of sparse gradients the norm of their slices. TensorFlow's l2_loss is half the squared norm."""
    parts = [tf.nn.l2_loss(_at_least_float32(getattr(g, "values", g))) for g in grads if g is not None]
    return tf.sqrt(2.0 * tf.add_n([tf.cast(p, tf.float32) for p in parts])) if parts else tf.constant(float("nan"))


def weights_finite(variables: Any) -> Any:
    """Whether the sum of squares of all floating-point variables is finite: one pass, no temporary.

    It is not finite also for finite entries beyond 1e19; whoever reads it has to look again before saying so.
    """
    values = [tf.convert_to_tensor(v.value) for v in variables]
    sums = [tf.nn.l2_loss(_at_least_float32(v)) for v in values if v.dtype.is_floating]
    return tf.math.is_finite(tf.add_n([tf.cast(s, tf.float32) for s in sums])) if sums else tf.constant(True)


def accumulates(optimizer: Any) -> bool:
    """Whether gradients are added up over several steps before they change the weights."""
    return bool(getattr(getattr(optimizer, "inner_optimizer", optimizer), "gradient_accumulation_steps", None))


def loss_scale(optimizer: Any) -> Any:
    """What the optimizer multiplies the loss by: the dynamic scale, the fixed factor, or 1."""
    dynamic = getattr(optimizer, "dynamic_scale", None)
    if dynamic is not None:
        return tf.convert_to_tensor(dynamic.value)
    fixed = getattr(optimizer, "initial_scale", None) or getattr(optimizer, "loss_scale_factor", None)
    return tf.constant(fixed or 1.0, tf.float32)


def learning_rate(optimizer: Any) -> Any:
    """The rate of the next step, float64; NaN where the optimizer has none that can be read."""
    try:
        rate = optimizer.learning_rate
        return tf.cast(tf.convert_to_tensor(getattr(rate, "value", rate)), tf.float64)
    except Exception:  # noqa: BLE001 - no optimizer, or a learning rate of the user's own kind
        return unknown()


def unknown() -> Any:
    """The scalar that stands for what is not known, float64."""
    return tf.constant(float("nan"), tf.float64)


def scalar(value: Any) -> Any:
    """The mean as a float32 scalar; NaN for None."""
    if value is None:
        return tf.constant(float("nan"), tf.float32)
    tensor = tf.cast(tf.convert_to_tensor(value), tf.float32)
    return tensor if tensor.shape.rank == 0 else tf.reduce_mean(tensor)


def _at_least_float32(value: Any) -> Any:
    return tf.cast(value, tf.float32) if value.dtype.size < 4 else value
