"""What several rules ask of the evidence: did it go non-finite, what kind of task is it, how is it trained."""

from __future__ import annotations

import math

from ckptdoctor.model import (
    ArrayStats,
    Batches,
    Census,
    Evidence,
    LossSpec,
    ModelSpec,
    OptimizerState,
    Replay,
    ReplayStatus,
    Role,
    Timeline,
)
from ckptdoctor.rules.anatomy import DYING, head
from ckptdoctor.rules.parts import losses_of, maybe_spec, optimizer_spec_of

REGRESSION = frozenset(
    {
        "mean_squared_error",
        "mean_absolute_error",
        "mean_absolute_percentage_error",
        "mean_squared_logarithmic_error",
        "huber",
        "log_cosh",
    }
)
BOUNDED_BELOW_BY_ZERO = REGRESSION | {
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "binary_focal_crossentropy",
    "categorical_focal_crossentropy",
    "hinge",
    "squared_hinge",
    "categorical_hinge",
}
CATEGORICAL = frozenset(
    {"categorical_crossentropy", "sparse_categorical_crossentropy", "categorical_focal_crossentropy"}
)
BINARY = frozenset({"binary_crossentropy", "binary_focal_crossentropy"})
THROWN_FAR = 1e4  # magnitude that no kernel of a healthy model holds and no smaller step brings back; hand-chosen
NO_LABEL = (-1.0, 255.0, -100.0)
"""What data sets write where a row or pixel has no label: -1 in general, 255 in segmentation masks, -100 in token labels."""
FEWEST = 2  # further classes beside it; with fewer, -1 and 1 may be the two classes of a hinge loss

SETTLED, SETTLED_EPOCHS = 0.05, 5  # relative distance and epochs within which a loss stands on a number; hand-chosen


def nonfinite_weights(evidence: Evidence) -> bool:
    """A weight, statistic or slot of the examined checkpoint, or of any in the run, is non-finite."""
    if isinstance(evidence.census, Census) and any(
        t.nonfinite for t in evidence.census.of_role(Role.WEIGHT, Role.STATISTIC, Role.SLOT)
    ):
        return True
    return isinstance(evidence.timeline, Timeline) and evidence.timeline.first_bad is not None


def nonfinite_log(evidence: Evidence) -> bool:
    """Any log holds a non-finite loss."""
    from ckptdoctor.evidence.log_signals import is_loss_name

    logs = evidence.logs if isinstance(evidence.logs, tuple) else ()
    return any(s.nonfinite and is_loss_name(s.name) for log in logs for s in log.series)


def went_nonfinite(evidence: Evidence) -> bool:
    """The failure is one of NaN or infinity: in weights, in the log, or reproduced."""
    reproduced = isinstance(evidence.replay, Replay) and evidence.replay.status is ReplayStatus.REPRODUCED
    return reproduced or nonfinite_weights(evidence) or nonfinite_log(evidence)


def replay_start(evidence: Evidence) -> Census | None:
    """The census of the checkpoint that replay began from; None for fresh weights or without replay."""
    replay = evidence.replay
    path = replay.start.checkpoint if isinstance(replay, Replay) and replay.start is not None else None
    points = evidence.timeline.points if isinstance(evidence.timeline, Timeline) else ()
    known = [p.census for p in points if isinstance(p.census, Census)]
    if isinstance(evidence.census, Census):
        known.append(evidence.census)
    return next((c for c in known if path is not None and c.info.path == path), None)


def largest_kernel(census: Census | None) -> float:
    """Largest magnitude in a kernel; 0 without a census, and for embeddings, whose rows may be ids of any size."""
    sizes = [
        t.absmax or 0.0
        for t in (census.of_role(Role.WEIGHT) if census is not None else ())
        if len(t.info.shape) > 1 and "embedding" not in t.info.variable
    ]
    return max(sizes, default=0.0)


def main_loss(spec: ModelSpec | None) -> LossSpec | None:
    """The loss of a model with one; None for several outputs or an unknown set-up."""
    losses = losses_of(spec)
    return losses[0] if len(losses) == 1 else None


def nothing_moved(evidence: Evidence) -> bool:
    """Not one trainable weight moved, the bias of a head that always has a slope among them.

    Whatever is dead before it, such a bias is given the mean error of each batch: it is the step that is zero.
    """
    spec = maybe_spec(evidence)
    found = head(spec)
    if found is None or found[2] in DYING or own_losses(spec) or not isinstance(evidence.timeline, Timeline):
        return False
    went = evidence.timeline.displacement
    has_bias = any("bias" in d.variable for d in went if d.layer == found[0].name)
    return has_bias and len(went) > 2 and not any(d.distance for d in went)


def own_losses(spec: ModelSpec | None) -> bool:
    """Whether a loss is of the user's own making."""
    return any(loss.custom for loss in losses_of(spec))


def targets(evidence: Evidence) -> ArrayStats | None:
    """The targets of a run with a single output."""
    if isinstance(evidence.batches, Batches) and len(evidence.batches.targets) == 1:
        return evidence.batches.targets[0]
    return None


def optimizer_class(evidence: Evidence) -> str | None:
    """The optimizer's class name, from the configuration or from the slots."""
    spec = optimizer_spec_of(maybe_spec(evidence))
    if spec is not None:
        return spec.class_name
    return evidence.optimizer.class_name if isinstance(evidence.optimizer, OptimizerState) else None


def learning_rate(evidence: Evidence) -> float | None:
    """The learning rate in force, NaN included; None where nothing records it."""
    if isinstance(evidence.optimizer, OptimizerState) and isinstance(evidence.optimizer.learning_rate, float | int):
        return float(evidence.optimizer.learning_rate)
    spec = optimizer_spec_of(maybe_spec(evidence))
    if spec is not None and isinstance(spec.learning_rate, float | int):
        return float(spec.learning_rate)
    return None


def iterations(evidence: Evidence) -> int | None:
    """Optimizer steps at the examined checkpoint."""
    return evidence.census.iterations if isinstance(evidence.census, Census) else None


def trivial_loss(evidence: Evidence) -> tuple[float, str] | None:
    """The loss of the best constant prediction, from the recorded targets, in the units of the loss; and how it was got.

    Cross-entropy: the entropy of the classes. Squared error: the variance of the targets. Where no configuration names the
    loss, class targets are taken to be trained by a cross-entropy, which the logged loss of such runs nearly always is.
    """
    loss, target = main_loss(maybe_spec(evidence)), targets(evidence)
    if target is None or target.nonfinite:
        return None
    if loss is None:
        return (_by_targets(target) or _settled_on(target, evidence)) if not losses_of(maybe_spec(evidence)) else None
    if loss.name == "sparse_categorical_crossentropy" and target.classes:
        return _class_entropy(target)
    if loss.name == "categorical_crossentropy" and target.row_sums_to_one and target.integral:
        return _one_hot_entropy(target)
    means = [f.mean for f in target.features if f.mean is not None]
    # Soft targets have an entropy of their own below which no loss can fall: a share of the constant's loss says nothing.
    hard = target.integral
    if loss.name == "binary_crossentropy" and hard and means and all(0 <= p <= 1 for p in means):
        return sum(_binary_entropy(p) for p in means) / len(means), "entropy of the classes"
    if loss.name == "mean_squared_error" and target.std is not None:
        stds = [f.std for f in target.features if f.std is not None]
        variance = sum(s * s for s in stds) / len(stds) if stds else target.std**2
        return variance, "variance of the targets"
    return None


def majority_rate(evidence: Evidence) -> float | None:
    """Share of the most frequent class among the recorded targets; None for other targets."""
    target = targets(evidence)
    if target is None:
        return None
    means = [f.mean for f in target.features if f.mean is not None]
    if target.row_sums_to_one and target.shape[-1] > 1:
        return max(means) if len(means) > 1 else None
    if target.classes and len(target.classes) > 1 and target.integral:
        return max(n for _, n in target.classes) / sum(n for _, n in target.classes)
    return None


def _by_targets(target: ArrayStats) -> tuple[float, str] | None:
    if target.row_sums_to_one and target.integral and target.shape[-1] > 1 and len(target.features) > 1:
        return _one_hot_entropy(target)
    single = len(target.shape) == 2 or target.shape[-1] == 1
    if single and target.integral and 2 <= len(target.classes) <= 1000 and (target.min or 0.0) >= 0:
        return _class_entropy(target)
    return None


def _settled_on(target: ArrayStats, evidence: Evidence) -> tuple[float, str] | None:
    """The variance of real targets, where the loss, whose name is not known, stood there, or on their mean square, over its last half.

    A squared error of a constant does; that another loss of a model that learns should stand on that very number, epoch
    after epoch, would be a coincidence.
    """
    from ckptdoctor.rules.courses import training_loss

    series = training_loss(evidence)
    if target.integral or not target.std or series is None or series.axis != "epoch" or series.nonfinite:
        return None
    variance, later = target.std**2, series.values[len(series.values) // 2 :]
    squares = variance + (target.mean or 0.0) ** 2
    if len(later) < SETTLED_EPOCHS:
        return None
    if all(abs(v / variance - 1) <= SETTLED for v in later):
        return variance, "variance of the targets, on which the loss stands"
    if all(abs(v / squares - 1) <= SETTLED for v in later):
        return variance, "variance of the targets; the loss stands on their mean square, which the answer 0 gives"
    return None


def _class_entropy(target: ArrayStats) -> tuple[float, str]:
    total = sum(n for _, n in target.classes)
    return -sum(n / total * math.log(n / total) for _, n in target.classes), "entropy of the classes"


def _one_hot_entropy(target: ArrayStats) -> tuple[float, str] | None:
    means = [f.mean for f in target.features if f.mean is not None]
    if len(means) < 2:
        return None
    return -sum(p * math.log(p) for p in means if p > 0), "entropy of the classes"


def _binary_entropy(p: float) -> float:
    return 0.0 if p in (0.0, 1.0) else -(p * math.log(p) + (1 - p) * math.log(1 - p))


def unlabelled_code(array: ArrayStats) -> float | None:
    """The id for "no label", where all others are small whole numbers from 0 on without large gaps."""
    values = [value for value, _ in array.classes]
    for code in NO_LABEL:
        others = [v for v in values if v != code]
        dense = others and min(others) == 0 and max(others) < 2 * len(others) and code != max(others) + 1
        if code in values and array.integral and len(others) >= FEWEST and dense:
            return code
    return None
