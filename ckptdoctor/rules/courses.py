"""The course of a run in its log: loss and accuracy over the epochs, and whether they still move."""

from __future__ import annotations

import math
from statistics import median

from ckptdoctor.model import Evidence, Series, TrainingLog

MIN_EPOCHS = 4  # fewer epochs than this are no plateau; hand-chosen, early epochs are noisy


def epochs(evidence: Evidence) -> int:
    """Points of the training loss where the log has it by epoch, else 0."""
    series = training_loss(evidence)
    return series.count if series is not None and series.axis == "epoch" else 0


def training_loss(evidence: Evidence) -> Series | None:
    """The training loss, by epoch where a log has it so."""
    from ckptdoctor.evidence.log_signals import loss_series

    logs: tuple[TrainingLog, ...] = evidence.logs if isinstance(evidence.logs, tuple) else ()
    found = [s for log in logs if (s := loss_series(log)) is not None]
    return next((s for s in found if s.axis == "epoch"), found[0] if found else None)


def training_accuracy(evidence: Evidence) -> Series | None:
    """The training accuracy, by epoch where a log has it so."""
    from ckptdoctor.evidence.log_signals import accuracy_series

    logs: tuple[TrainingLog, ...] = evidence.logs if isinstance(evidence.logs, tuple) else ()
    found = [s for log in logs if (s := accuracy_series(log)) is not None]
    return next((s for s in found if s.axis == "epoch"), found[0] if found else None)


def late_fall(series: Series) -> float | None:
    """Relative fall of a loss over its last half: median of its third quarter against the last one. None if too short."""
    values = [v for v in series.values if math.isfinite(v)]
    if len(values) < MIN_EPOCHS:
        return None
    half = values[len(values) // 2 :] if len(values) >= 2 * MIN_EPOCHS else values[1:]
    cut = max(len(half) // 2, 1)
    before, after = median(half[:cut]), median(half[-cut:])
    return (before - after) / max(abs(before), 1e-12)


def rise(series: Series) -> float | None:
    """Median of the last third less that of the first; None if too short."""
    values = [v for v in series.values if math.isfinite(v)]
    if len(values) < MIN_EPOCHS:
        return None
    third = max(len(values) // 3, 1)
    return median(values[-third:]) - median(values[:third])


def below_what_it_was(series: Series) -> bool:
    """Whether the last quarter lies below all of the first half: coming back from a spike is no way forward."""
    values = [v for v in series.values if math.isfinite(v)]
    return median(values[-max(len(values) // 4, 1) :]) < min(values[: max(len(values) // 2, 1)])
