"""What a custom loss of a familiar name usually computes, with the weak spot that its usual form has.

The run's own code is not at hand, so a failure under such a formula is a suspicion and never a reproduction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

GUARD = 1e-7  # Keras' own default epsilon


@dataclass(frozen=True, slots=True)
class Formula:
    """A usual formula and its guarded form.

    Attributes:
        words: any of these in the loss's name (lower case, without underscores) selects it.
        text: the formula in words. code: the guarded line to write.
        usual, guarded: functions (targets, predictions) → loss per row.
    """

    words: tuple[str, ...]
    text: str
    code: str
    usual: Callable[[Any, Any], Any]
    guarded: Callable[[Any, Any], Any]


def _mean(value: Any) -> Any:
    return tf.reduce_mean(value, axis=-1)


def _rmse(guard: float) -> Callable[[Any, Any], Any]:
    return lambda y, p: tf.sqrt(_mean(tf.square(y - p)) + guard)


def _rmsle(guard: float) -> Callable[[Any, Any], Any]:
    def loss(y: Any, p: Any) -> Any:
        p = tf.maximum(p, 0.0) if guard else p
        return tf.sqrt(_mean(tf.square(tf.math.log(y + 1.0) - tf.math.log(p + 1.0))) + guard)

    return loss


def _binary(guard: float) -> Callable[[Any, Any], Any]:
    def loss(y: Any, p: Any) -> Any:
        p = tf.clip_by_value(p, guard, 1.0 - guard) if guard else p
        return -_mean(y * tf.math.log(p) + (1.0 - y) * tf.math.log(1.0 - p))

    return loss


def _categorical(guard: float) -> Callable[[Any, Any], Any]:
    return lambda y, p: -tf.reduce_sum(y * tf.math.log(tf.maximum(p, guard) if guard else p), axis=-1)


def _dice(guard: float) -> Callable[[Any, Any], Any]:
    def loss(y: Any, p: Any) -> Any:
        y, p = tf.reshape(y, (tf.shape(y)[0], -1)), tf.reshape(p, (tf.shape(p)[0], -1))
        both, each = tf.reduce_sum(y * p, axis=-1), tf.reduce_sum(y + p, axis=-1)
        return 1.0 - (2.0 * both + guard) / (each + guard)

    return loss


def _percentage(guard: float) -> Callable[[Any, Any], Any]:
    return lambda y, p: _mean(tf.abs(y - p) / (tf.maximum(tf.abs(y), guard) if guard else tf.abs(y)))


def _poisson(guard: float) -> Callable[[Any, Any], Any]:
    return lambda y, p: _mean(p - y * tf.math.log(p + guard))


def _euclidean(guard: float) -> Callable[[Any, Any], Any]:
    return lambda y, p: tf.sqrt(tf.reduce_sum(tf.square(y - p), axis=-1) + guard)


def _triplet(guard: float) -> Callable[[Any, Any], Any]:
    """Over all valid triplets of a batch, divided by their number."""

    def loss(y: Any, p: Any) -> Any:
        labels = tf.reshape(y, (-1,))
        squares = tf.reduce_sum(tf.square(p[:, None] - p[None]), axis=-1)
        same = labels[:, None] == labels[None]
        pairs = tf.logical_and(same, tf.logical_not(tf.eye(tf.shape(labels)[0], dtype=tf.bool)))
        valid = tf.cast(pairs[:, :, None] & tf.logical_not(same)[:, None, :], p.dtype)
        hinge = tf.nn.relu(squares[:, :, None] - squares[:, None, :] + 1.0)
        count = tf.reduce_sum(valid)
        mean = tf.reduce_sum(hinge * valid) / (tf.maximum(count, 1.0) if guard else count)
        return tf.fill((tf.shape(labels)[0],), mean)

    return loss


FORMULAS = (
    Formula(
        ("rmsle", "rootmeansquaredlog"),
        "the root of the mean squared logarithmic error",
        "tf.sqrt(tf.reduce_mean(tf.square(tf.math.log1p(y_true) - tf.math.log1p(tf.nn.relu(y_pred))), -1) + 1e-7)",
        _rmsle(0.0),
        _rmsle(GUARD),
    ),
    Formula(
        ("rmse", "rootmeansquare", "rmsloss"),
        "the root of the mean squared error",
        "tf.sqrt(tf.reduce_mean(tf.square(y_true - y_pred), axis=-1) + 1e-7)",
        _rmse(0.0),
        _rmse(GUARD),
    ),
    Formula(
        ("triplet",),
        "the mean over all valid triplets of the batch",
        "loss = tf.reduce_sum(hinge * valid) / tf.maximum(tf.reduce_sum(valid), 1.0)",
        _triplet(0.0),
        _triplet(GUARD),
    ),
    Formula(
        ("dice", "iou", "jaccard", "f1"),
        "one minus twice the overlap over the sum of both",
        "1 - (2 * tf.reduce_sum(y_true * y_pred) + 1e-7) / (tf.reduce_sum(y_true + y_pred) + 1e-7)",
        _dice(0.0),
        _dice(GUARD),
    ),
    Formula(
        ("mape", "percentage", "relativeerror"),
        "the mean of |error| / |target|",
        "tf.reduce_mean(tf.abs(y_true - y_pred) / tf.maximum(tf.abs(y_true), 1e-7), axis=-1)",
        _percentage(0.0),
        _percentage(GUARD),
    ),
    Formula(
        ("poisson",),
        "prediction minus target times its logarithm",
        "y_pred - y_true * tf.math.log(y_pred + 1e-7)",
        _poisson(0.0),
        _poisson(GUARD),
    ),
    Formula(
        ("euclid", "l2norm", "l2dist", "distanceloss"),
        "the Euclidean distance",
        "tf.sqrt(tf.reduce_sum(tf.square(y_true - y_pred), axis=-1) + 1e-7)",
        _euclidean(0.0),
        _euclidean(GUARD),
    ),
    Formula(
        ("categorical", "softmaxloss"),
        "minus the target times the logarithm of the prediction",
        "-tf.reduce_sum(y_true * tf.math.log(tf.maximum(y_pred, 1e-7)), axis=-1)",
        _categorical(0.0),
        _categorical(GUARD),
    ),
    Formula(
        ("bce", "crossentropy", "logloss", "loglikelihood", "nll"),
        "the binary cross-entropy written out",
        "p = tf.clip_by_value(y_pred, 1e-7, 1 - 1e-7); -tf.reduce_mean(y_true * tf.math.log(p) + (1 - y_true) * tf.math.log(1 - p))",
        _binary(0.0),
        _binary(GUARD),
    ),
)


def usual_formula(name: str) -> Formula | None:
    """The formula that a custom loss of this name most often is, None for an unfamiliar name."""
    flat = "".join(c for c in name.lower() if c.isalnum())
    return next((f for f in FORMULAS if any(word in flat for word in f.words)), None)
