"""Running the recorded batches as training did, until something becomes non-finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import tensorflow as tf

from ckptdoctor.model import StepRecord
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.failure import brief
from ckptdoctor.replay.state import Snapshot, put, take
from ckptdoctor.replay.step import Measured, TrainingStep, tensors

SNAPSHOT_EVERY = 16  # steps; a failing step is found again by running at most this many once more
MAX_RECORDS = 500
FLOOR_OF_LOSS_SCALE = 1.0  # a dynamic scale that falls below it has found no scale at all at which gradients are finite


@dataclass(slots=True)
class RunOutcome:
    """One run over the batches.

    Attributes:
        steps: finite steps taken. failed_step: index of the failing step, None if none failed.
        failed_batch: the batch it used. measured: what that step measured.
        before: the state before the failing step (or at the end).
        error: where TensorFlow refused a batch, its message.
        stalled: the dynamic loss scale collapsed: no update is applied any more.
    """

    steps: int = 0
    failed_step: int | None = None
    failed_batch: Batch | None = None
    measured: Measured | None = None
    before: Snapshot | None = None
    error: str = ""
    error_batch: Batch | None = None
    stalled: bool = False
    out_of_time: bool = False
    records: list[StepRecord] = field(default_factory=list)
    seconds: float = 0.0


def record_of(step: int, batch: Batch, measured: Measured) -> StepRecord:
    """The step's entry in the report."""
    return StepRecord(
        step=step,
        batch=batch.index,
        loss=measured.loss,
        accuracy=measured.accuracy,
        gradient_norm=measured.gradient_norm,
        layer_gradient_norms=measured.gradient_norms,
        layer_update_ratios=measured.update_ratios,
        loss_scale=measured.loss_scale,
        weight_norm=measured.weight_norm,
        learning_rate=measured.learning_rate,
    )


def run(
    step: TrainingStep,
    start: Snapshot,
    batches: Sequence[Batch],
    steps: int,
    *,
    deadline: float = math.inf,
    prepare: Callable[[], None] | None = None,
    offset: int = 0,
) -> RunOutcome:
    """Take steps over the batches, cyclically, from a state until one fails.

    Args:
        step: the compiled step; its model is left in the last state.
        start: the state to start from.
        batches: in recorded order.
        steps: most steps.
        deadline: of `time.monotonic()`.
        offset: steps taken before, for a run that goes on: where in the cycle of batches to begin.
        prepare: called after the start state was put in; an experiment sets its learning rate there.
    """
    outcome = RunOutcome()
    started = time.monotonic()
    put(step.variables, start)
    if prepare is not None:
        prepare()
        start = take(step.variables)
    kept, kept_at = start, 0
    prepared = [tensors(b) for b in batches]
    taken: list[tuple[int, Batch, Measured]] = []
    for n in range(steps):
        if n and n % SNAPSHOT_EVERY == 0:
            kept, kept_at = take(step.variables), n
        place = (n + offset) % len(batches)
        batch = batches[place]
        try:
            measured = step.take_prepared(prepared[place])
        except tf.errors.InvalidArgumentError as error:
            outcome.error, outcome.error_batch = brief(error), batch
            break
        _keep(taken, (n + offset, batch, measured))
        outcome.stalled = measured.loss_scale is not None and measured.loss_scale < FLOOR_OF_LOSS_SCALE
        if measured.failed or outcome.stalled:
            outcome.failed_step, outcome.failed_batch, outcome.measured = n + offset, batch, measured
            outcome.before = _state_before(step, kept, batches, kept_at + offset, n + offset)
            break
        outcome.steps = n + 1
        if time.monotonic() > deadline:
            outcome.out_of_time = True
            break
    if outcome.before is None:
        outcome.before = take(step.variables)
    outcome.records = [record_of(*one) for one in taken]
    outcome.seconds = time.monotonic() - started
    return outcome


def _keep(taken: list[tuple[int, Batch, Measured]], one: tuple[int, Batch, Measured]) -> None:
    """Append; beyond the limit the middle is thinned, so that first and last stay."""
    taken.append(one)
    if len(taken) > MAX_RECORDS:
        del taken[MAX_RECORDS // 2]


def _state_before(step: TrainingStep, kept: Snapshot, batches: Sequence[Batch], kept_at: int, failed: int) -> Snapshot:
    """The state before step `failed`, found again from the last snapshot (ops are deterministic)."""
    put(step.variables, kept)
    for n in range(kept_at, failed):
        step(batches[n % len(batches)])
    return take(step.variables)
