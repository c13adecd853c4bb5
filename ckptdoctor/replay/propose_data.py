"""Experiments with the data: rows, labels, scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ckptdoctor.model import Cause
from ckptdoctor.replay import changes, surgery
from ckptdoctor.replay.activity import finite_rows
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.lab import Trial
from ckptdoctor.replay.labelrange import bad_label_rows
from ckptdoctor.replay.losses import masked_targets
from ckptdoctor.replay.rebuild import head_activation
from ckptdoctor.replay.situation import Situation, all_finite

TINY_TARGETS = 0.03  # rms, as CKD404
FEW_VALUES = 20  # distinct targets that may be classes; hand-chosen
FAR_OUT = 20.0  # widths of the middle 98 % from which a value sets the scale of all others; hand-chosen


def rows(at: Situation) -> list[Trial]:
    trials: list[Trial] = []
    bad = sum(int((~finite_rows(b)).sum()) for b in at.batches)
    total = sum(b.rows for b in at.batches)
    if bad and bad < total:
        code = "keep = np.isfinite(x).all(axis=tuple(range(1, x.ndim))); x, y = x[keep], y[keep]"
        if any(not all_finite(b.targets) for b in at.batches):
            code = "keep = np.isfinite(y).reshape(len(y), -1).all(axis=1); x, y = x[keep], y[keep]"
        if any(not all_finite(b.weights) for b in at.batches):
            code = "keep = np.isfinite(sample_weight); x, y, sample_weight = x[keep], y[keep], sample_weight[keep]"
        trials.append(
            changes.data_trial(
                "drop_bad_rows",
                f"the {bad} of {total} recorded rows with non-finite entries left out",
                Cause.DATA_NONFINITE,
                code,
                changes.drop_nonfinite_rows,
            )
        )
    if any(not all_finite(b.inputs) for b in at.batches):
        trials.append(
            changes.data_trial(
                "impute_nan",
                "non-finite input entries replaced by their feature's mean",
                Cause.DATA_NONFINITE,
                "x = np.where(np.isfinite(x), x, np.nanmean(x, axis=0))",
                changes.impute(at.batches),
            )
        )
    if any(not all_finite(b.targets) for b in at.batches) and len(at.step.plan.losses) == 1:
        loss = masked_targets(at.step.dialect, at.step.plan.losses[0])
        trials.append(
            surgery.in_place_trial(
                "mask_nan_targets",
                "non-finite targets masked in the loss",
                Cause.DATA_NONFINITE,
                "y = tf.where(tf.math.is_finite(y_true), y_true, tf.stop_gradient(y_pred))  # in the loss",
                [],
                plan=replace(at.step.plan, losses=(loss,)),
            )
        )
    point = at.point
    if not bad and point is not None and point.batch is not None and 0 < len(point.rows) <= 32:
        place = next((n for n, b in enumerate(at.batches) if b.index == point.batch), None)
        if place is not None and len(point.rows) < at.batches[place].rows:
            rows = ", ".join(str(r) for r in point.rows[:8])
            trials.append(
                changes.data_trial(
                    "drop_bad_rows",
                    f"rows {rows} of batch {point.batch} left out",
                    Cause.DATA_SCALE,
                    f"rows {rows} of recorded batch {point.batch}: look at them before leaving them out",
                    changes.drop_rows(at.batches, place, point.rows),
                )
            )
    return trials


def labels(at: Situation) -> list[Trial]:
    found = at.labels
    assert found is not None
    trials: list[Trial] = []
    if found.shift:
        trials.append(
            changes.data_trial(
                "shift_labels",
                f"class indices {found.low}…{found.high} moved by {found.shift} to start at 0",
                Cause.LABELS,
                f"y = y - {found.low}" if found.low > 0 else f"y = y + {-found.low}",
                changes.shift_labels(found.output, found.shift),
            )
        )

    def inside(batch: Batch) -> Batch:
        keep = np.ones(batch.rows, dtype=bool)
        keep[list(bad_label_rows(batch, found))] = False
        return batch.take(keep)

    trials.append(
        changes.data_trial(
            "drop_bad_rows",
            f"rows with a class index outside 0…{found.classes - 1} left out",
            Cause.LABELS,
            f"keep = (y >= 0) & (y < {found.classes}); x, y = x[keep], y[keep]  # or give the head {found.high + 1} units",
            inside,
        )
    )
    return trials


def shares(at: Situation) -> list[Trial]:
    """Targets divided by their largest value, where a sigmoid is asked for numbers from 0 to beyond 1, as pixels of 0 to 255."""
    if len(at.step.plan.names) != 1 or head_activation(at.model) != "sigmoid":
        return []
    values = np.concatenate([np.ravel(b.targets[0]) for b in at.batches if b.rows])
    values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    top = float(values.max()) if values.size else 0.0
    distinct = np.unique(values)
    if values.size == 0 or values.min() < 0 or top <= 1 or 2 < len(distinct) <= FEW_VALUES:
        return []  # a few whole numbers are classes, which want another head
    crossentropy = "crossentropy" in at.step.plan.names[0]
    return [
        changes.data_trial(
            "scale_targets",
            f"targets divided by {top:.4g}, so that they run from 0 to 1",
            Cause.LABELS if crossentropy else Cause.DATA_SCALE,
            f"y = y / {top:.4g}",
            changes.divide_targets(top),
        )
    ]


def specks(at: Situation) -> list[Trial]:
    """Targets multiplied, where all of them are so small that a squared error has hardly a slope: densities, probabilities."""
    if len(at.step.plan.names) != 1 or "crossentropy" in at.step.plan.names[0]:
        return []
    values = np.concatenate([np.ravel(b.targets[0]) for b in at.batches if b.rows]).astype(np.float64)
    values = values[np.isfinite(values)]
    size = float(np.sqrt(np.square(values).mean())) if values.size else 0.0
    if not 0 < size < TINY_TARGETS or head_activation(at.model) not in (None, "linear", "relu"):
        return []
    factor = float(10 ** round(-np.log10(size)))
    return [
        changes.data_trial(
            "scale_targets",
            f"targets times {factor:g}",
            Cause.DATA_SCALE,
            f"y = y * {factor:g}",
            changes.divide_targets(1 / factor),
        )
    ]


def standardising(at: Situation) -> list[Trial]:
    first = at.batches[0]
    inputs = [changes.scale_of([b.inputs[n] for b in at.batches]) for n in range(len(first.inputs))]
    targets = [changes.scale_of([b.targets[n] for b in at.batches]) for n in range(len(first.targets))]
    present = [s for s in inputs if s is not None]
    trials: list[Trial] = []
    none: list[changes.Scale | None] = [None] * len(targets)
    if not present:
        at.skipped.append(("inputs standardised", "they are indices"))
    elif all(s.usual for s in present):
        at.skipped.append(("inputs standardised", "they are near mean 0 and deviation 1 already"))
    else:
        trials.append(
            changes.data_trial(
                "standardise_inputs",
                f"inputs standardised ({_extent(present)})",
                Cause.DATA_SCALE,
                "x = (x - x_train.mean(axis=0)) / x_train.std(axis=0)",
                changes.standardise(inputs, none),
            )
        )
    clips = [changes.clip_of([b.inputs[n] for b in at.batches]) for n in range(len(first.inputs))]
    if any(c is not None and c.far >= FAR_OUT for c in clips):
        trials.append(
            changes.data_trial(
                "robust_inputs",
                "inputs clipped to the middle 98 % of each feature, then standardised",
                Cause.DATA_SCALE,
                "x = np.clip(x, *np.percentile(x_train, [1, 99], axis=0)); x = (x - x.mean(axis=0)) / x.std(axis=0)",
                changes.clipped(clips),
            )
        )
    regression = not any("crossentropy" in n for n in at.step.plan.names) and head_activation(at.model) in (
        None,
        "linear",
    )
    wide = [s for s in targets if s is not None]
    if regression and wide and (trials or not all(s.usual for s in wide)):
        trials.append(
            changes.data_trial(
                "standardise_inputs_targets",
                f"inputs and targets standardised (targets {_extent(wide)})",
                Cause.DATA_SCALE,
                "x = (x - x_train.mean(0)) / x_train.std(0); y = (y - y_train.mean(0)) / y_train.std(0)",
                changes.standardise(inputs, targets),
            )
        )
    return trials


def _extent(scales: Sequence[changes.Scale]) -> str:
    means = np.concatenate([np.ravel(s.mean) for s in scales])
    stds = np.concatenate([np.ravel(s.std) for s in scales])
    return f"means {means.min():.3g} to {means.max():.3g}, deviations {stds.min():.3g} to {stds.max():.3g}"
