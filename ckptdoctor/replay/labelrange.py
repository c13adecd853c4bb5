"""Class indices outside the head: a CPU refuses them, a GPU (and XLA) quietly computes NaN.

Replay does as the GPU did, so that the failure shows; the rows are then known without any search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from ckptdoctor.model import NonfinitePoint, Phase
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.dialect import Dialect
from ckptdoctor.replay.opwatch import glimpse

OP = "SparseSoftmaxCrossEntropyWithLogits"


@dataclass(frozen=True, slots=True)
class LabelRange:
    """Recorded class indices against the head.

    Attributes:
        low, high: of the recorded indices. classes: units of the head. output: which target.
    """

    low: int
    high: int
    classes: int
    output: int = 0

    @property
    def shift(self) -> int | None:
        """What to add to make them fit, where a shift does it (labels that count from 1)."""
        return -self.low if self.high - self.low < self.classes else None


def find_label_range(
    names: Sequence[str], widths: Sequence[int], batches: Sequence[Batch], ignored: Sequence[int | None] = ()
) -> LabelRange | None:
    """The first sparse target with an index outside its head, None where all fit.

    Args:
        names: canonical losses, one an output. widths: size of each output's last axis.
        batches: in the model's order. ignored: the class that each loss leaves out (`ignore_class`).
    """
    for n, (name, width) in enumerate(zip(names, widths, strict=False)):
        if not name.startswith("sparse_categorical") or n >= len(batches[0].targets):
            continue
        values = np.concatenate([b.targets[n].reshape(-1) for b in batches])
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if n < len(ignored) and ignored[n] is not None:
            finite = finite[finite != ignored[n]]
        if finite.size and (finite.min() < 0 or finite.max() >= width):
            return LabelRange(int(finite.min()), int(finite.max()), int(width), n)
    return None


def as_on_a_gpu(dialect: Dialect, loss: Any, classes: int) -> Any:
    """The loss with NaN for rows whose index is out of range, as TensorFlow's GPU kernel gives."""

    class GpuLabels(dialect.keras.losses.Loss):  # type: ignore[misc,name-defined]
        def call(self, y_true: Any, y_pred: Any) -> Any:
            labels = tf.cast(y_true, tf.int64)
            good = tf.logical_and(labels >= 0, labels < classes)
            each = loss.call(tf.where(good, labels, tf.zeros_like(labels)), y_pred)
            mask = tf.reshape(good, tf.shape(each))
            return tf.where(mask, each, tf.fill(tf.shape(each), tf.cast(float("nan"), each.dtype)))

    return GpuLabels(name=loss.name)


def bad_label_rows(batch: Batch, found: LabelRange) -> tuple[int, ...]:
    """Rows of a batch with an index out of range."""
    labels = batch.targets[found.output].reshape(batch.rows, -1)
    outside = np.any((labels < 0) | (labels >= found.classes), axis=1)
    return tuple(int(n) for n in np.flatnonzero(outside)[:64])


def label_point(
    point: NonfinitePoint | None, batch: Batch, found: LabelRange, *, step: int, optimizer_step: int | None
) -> NonfinitePoint:
    """The failure as an out-of-range label, with the chain that was observed."""
    rows = bad_label_rows(batch, found)
    return NonfinitePoint(
        Phase.LOSS,
        None,
        OP,
        "y",
        step,
        optimizer_step,
        batch.index,
        rows,
        "nan",
        operands=(glimpse("labels", batch.targets[found.output].astype(np.float64)),),
        chain=point.chain if point is not None else (),
        message=(
            f"Class indices from {found.low} to {found.high} for a head of {found.classes} units (0 to {found.classes - 1}), in "
            f"{len(rows)} of {batch.rows} rows: a CPU refuses them, a GPU or XLA gives NaN; replayed as on a GPU."
        ),
    )
