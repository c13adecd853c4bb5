"""How sharply the loss bends along its gradient: gradient descent diverges where rate × curvature exceeds 2."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.state import Snapshot, put
from ckptdoctor.replay.step import TrainingStep, tensors

STEP = 1e-3  # of the weights' norm: small against the curvature's own scale, large against float32's 6e-8


def sharpness(step: TrainingStep, state: Snapshot, batch: Batch) -> float | None:
    """Curvature of the loss along its gradient, by a finite difference of two gradients.

    Args:
        step: of the model; its model is left at `state`. state: where. batch: on which rows.

    Returns:
        uᵀHu for the unit gradient u, in units of loss per squared weight; None where a gradient is zero or non-finite.
    """
    put(step.variables, state)
    prepared = tensors(batch)
    here = _flat(step, prepared)
    norm = float(np.linalg.norm(here))
    if not math.isfinite(norm) or norm == 0:
        return None
    trainable = step.raw_trainable
    weights = np.concatenate([v.numpy().astype(np.float64).ravel() for v in trainable])
    length = STEP * max(float(np.linalg.norm(weights)), 1e-3)
    moved = weights + here / norm * length
    put(step.variables, state)
    offset = 0
    for variable in trainable:
        count = int(np.prod(variable.shape, dtype=np.int64))
        part = moved[offset : offset + count].reshape(tuple(variable.shape))
        variable.assign(part.astype(variable.dtype.as_numpy_dtype))
        offset += count
    there = _flat(step, prepared)
    put(step.variables, state)
    value = float((there - here) @ here) / norm / length
    return value if math.isfinite(value) else None


def _flat(step: TrainingStep, prepared: tuple[Any, Any, Any]) -> np.ndarray[Any, Any]:
    """The gradient of the unscaled loss as one float64 vector."""
    inputs, targets, weight = prepared
    with tf.GradientTape() as tape:
        loss = step.loss(inputs, targets, weight, step.forward(inputs, training=True))
    found = tape.gradient(loss, step.raw_trainable)
    parts = [
        np.zeros(int(np.prod(v.shape, dtype=np.int64)))
        if g is None
        else tf.convert_to_tensor(g).numpy().astype(np.float64).ravel()
        for g, v in zip(found, step.raw_trainable, strict=True)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)
