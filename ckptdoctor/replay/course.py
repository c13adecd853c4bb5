"""The course of a replay inside the child: reproduce, look closely, look at the layers, try changes."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import tensorflow as tf

from ckptdoctor.model import LayerActivity, NonfinitePoint, Phase, ReplayStatus, Skill, StepRecord
from ckptdoctor.replay.activity import activation_name, joined_rows, measure_activity, one_element_norms
from ckptdoctor.replay.child import Reporter
from ckptdoctor.replay.closeup import examine, observe
from ckptdoctor.replay.curvature import sharpness
from ckptdoctor.replay.failure import CannotReplay
from ckptdoctor.replay.heads import head_fix
from ckptdoctor.replay.lab import CLEARLY_LEARNT
from ckptdoctor.replay.labelrange import bad_label_rows, label_point
from ckptdoctor.replay.repeat import repeat_window
from ckptdoctor.replay.reproduce import RunOutcome, run
from ckptdoctor.replay.request import ReplayRequest
from ckptdoctor.replay.session import Session, Start, prepare, start_states
from ckptdoctor.replay.situation import GROWING_OPS
from ckptdoctor.replay.skill import judge_for, learns, measure_skill
from ckptdoctor.replay.state import Snapshot, put, take
from ckptdoctor.replay.step import TrainingStep
from ckptdoctor.replay.suspicion import suspect
from ckptdoctor.replay.trials import run_trials

HELD_BACK = 0.6  # share explained below which a run whose loss is flat may be held back by something; hand-chosen
FAR_BELOW = 0.6  # share of the targets' variation between a simple model and this one; hand-chosen
THROWN_FAR = 1e4  # magnitude of a weight that no healthy model holds and no smaller step brings back; hand-chosen
SEEDS = 3  # fresh initialisations that are tried where no healthy checkpoint is left
CYCLES_WITHOUT_FAILURE = 4  # passes over the batches of a run that shows no failure: enough for its own steps


def replay(request: ReplayRequest, reporter: Reporter) -> None:
    """Carry out a request, handing over results as they come.

    Raises:
        CannotReplay, UsageError: with the sentence for the user.
    """
    session = prepare(request, reporter)
    starts = start_states(session)
    outcome, start = reproduce(session, starts)
    report_run(session, outcome, start)
    if request.quick:
        return
    point = look_closely(session, outcome) if outcome.failed_step is not None else None
    if request.last_healthy is None and not session.rebuilt.plan.substituted:
        fresh_seeds(session)
    activity, skill = look_at_layers(session, outcome, start)
    suspicion = None
    if session.rebuilt.plan.substituted and request.failed and outcome.failed_step is None:
        reporter.stage(f"trying the usual formula of '{session.rebuilt.plan.custom}'")
        suspicion = suspect(session, starts)
        reporter.found(suspected=suspicion[0] if suspicion is not None else None)
    blocked = bool(constant_norms(session, activity[0]))
    if request.experiments and (blocked or wants_experiments(session, outcome, skill)):
        ground, beginning = experiment_ground(session, outcome, start, starts)
        behind = far_below_reach(session, skill)
        run_trials(session, ground, beginning, point, activity, suspicion, behind=behind)


def experiment_ground(
    session: Session, outcome: RunOutcome, start: Start, starts: list[Start]
) -> tuple[RunOutcome, Start]:
    """From where the changes are tried: where the failure was repeated from, unless its weights were thrown far by then.

    No change of rate, loss or scale brings such weights back. If the run fails from its first checkpoint too, that is the
    place to try.
    """
    first = next((s for s in starts if s.state.kind == "last_healthy" and s is not start), None)
    size = largest_weight(session, start)
    if (
        outcome.failed_step is None
        or first is None
        or size < THROWN_FAR
        or largest_weight(session, first) >= THROWN_FAR
    ):
        return outcome, start
    session.reporter.stage("replaying from the first checkpoint")
    with tf.device(session.device):
        again = run(
            session.step,
            first.snapshot,
            session.recording.batches,
            session.request.steps,
            deadline=time.monotonic() + 15,
        )
    if again.failed_step is None:
        return outcome, start
    session.notes.append(
        f"in the last healthy checkpoint weights had grown to {size:.1e}: the changes were tried from the first checkpoint, "
        f"from where the recorded batches fail at step {again.failed_step}"
    )
    session.reporter.found(findings_notes=tuple(session.notes))
    return again, first


def largest_weight(session: Session, start: Start) -> float:
    """Largest magnitude among the trainable weights of a state; infinity where one is not finite."""
    own = {id(v) for v in session.step.model.trainable_variables}
    values = [a for v, a in zip(session.step.variables, start.snapshot.values, strict=True) if id(v) in own]
    sizes = [float(np.abs(a.astype(np.float64)).max()) for a in values if a.size]
    return max((size if np.isfinite(size) else np.inf for size in sizes), default=0.0)


def constant_norms(session: Session, activity: tuple[LayerActivity, ...]) -> tuple[str, ...]:
    """BatchNormalization layers that see one element in the smallest recorded batch: in training nothing passes them."""
    return one_element_norms(session.step, activity, min(b.rows for b in session.recording.batches))


def wants_experiments(session: Session, outcome: RunOutcome, skill: Skill) -> bool:
    """After a failure always; for a finite run where it does not predict better than a constant, or far worse than is easy."""
    if outcome.failed_step is not None or session.request.failed:
        return True
    if session.request.plateau and skill.score is not None and skill.score < HELD_BACK:
        return True
    return learns(skill) is False or unfit_head(session, skill) or far_below_reach(session, skill)


def far_below_reach(session: Session, skill: Skill) -> bool:
    """Whether simple models explain far more of the recorded targets than the model does after its training."""
    reachable = session.request.reachable
    return reachable is not None and skill.score is not None and reachable - skill.score > FAR_BELOW


def steps_taken(session: Session) -> int | None:
    """Training steps of the last finite checkpoint, None where it does not tell."""
    request = session.request
    return None if request.last_healthy is None else request.checkpoints[request.last_healthy].iterations


def unfit_head(session: Session, skill: Skill) -> bool:
    """Whether the head cannot fit the targets and the predictions show it."""
    if not session.recording.batches[0].targets or (skill.score is not None and skill.score >= CLEARLY_LEARNT):
        return False
    fix = head_fix(session.step, session.recording.stacked_targets())
    return fix is not None and fix.severe


def reproduce(session: Session, starts: list[Start]) -> tuple[RunOutcome, Start]:
    """Run from each state in turn until one fails; without a failure the first run counts."""
    first: tuple[RunOutcome, Start] | None = None
    batches = session.recording.batches
    if session.request.window is not None:
        once = repeat_window(session, starts[0], session.request.window)
        if once is not None and once.failed_step is not None:
            return once, starts[0]
    limit = session.request.steps
    if not session.request.failed:
        limit = min(limit, CYCLES_WITHOUT_FAILURE * len(batches))
    for start in starts:
        session.reporter.stage(f"replaying {len(batches)} batches from {start.state.kind.replace('_', ' ')}")
        with tf.device(session.device):
            outcome = run(session.step, start.snapshot, batches, limit, deadline=time.monotonic() + 30)
        if outcome.failed_step is not None or outcome.error:
            return outcome, start
        first = first or (outcome, start)
        if not session.request.failed or session.rebuilt.plan.substituted:
            break
    if first is None:
        raise CannotReplay("there is no state to start from", ReplayStatus.FAILED)
    return first


def fresh_seeds(session: Session) -> None:
    """Where no healthy checkpoint is left: does the failure come from fresh weights of other seeds, too?"""
    told = []
    for seed in range(session.request.seed, session.request.seed + SEEDS):
        state = reseeded(session, seed)
        if state is None:
            return
        with tf.device(session.device):
            outcome = run(
                session.step, state, session.recording.batches, session.request.steps, deadline=time.monotonic() + 5
            )
        end = (
            f"fails at step {outcome.failed_step}"
            if outcome.failed_step is not None
            else f"{outcome.steps} finite steps"
        )
        told.append(f"seed {seed}: {end}")
    session.notes.append("from fresh weights, " + ", ".join(told))
    session.reporter.found(findings_notes=tuple(session.notes))


def reseeded(session: Session, seed: int) -> Snapshot | None:
    """Weights drawn from the model's own initializers with a seed; None where the model cannot be made again."""
    model, dialect = session.rebuilt.model, session.rebuilt.dialect
    dialect.set_seed(seed)
    try:
        with dialect.keras.utils.custom_object_scope(dict(session.rebuilt.known)):
            other = type(model).from_config(model.get_config())
        if not other.built:
            other(session.recording.batches[0].inputs[0][:1])
        put(session.step.variables, session.fresh)
        model.set_weights(other.get_weights())
    except (ValueError, TypeError, NotImplementedError, AttributeError):
        return None
    return take(session.step.variables)


def report_run(session: Session, outcome: RunOutcome, start: Start) -> None:
    """Hand over what the fast run showed."""
    failed = outcome.failed_step is not None
    if outcome.error and outcome.error_batch is not None:
        raise CannotReplay(_refused_batch(outcome), ReplayStatus.FAILED)
    note = f"{session.mode}, labels as on a GPU" if session.rebuilt.labels is not None else session.mode
    session.reporter.found(
        status=ReplayStatus.REPRODUCED if failed else ReplayStatus.NOT_REPRODUCED,
        start=start.state,
        mode=note,
        steps=outcome.steps,
        records=tuple(with_sharpness(session, outcome, start)),
        initial_loss=outcome.records[0].loss if outcome.records else None,
        seconds_reproduce=outcome.seconds,
    )


def _refused_batch(outcome: RunOutcome) -> str:
    assert outcome.error_batch is not None
    text = f"TensorFlow refuses batch {outcome.error_batch.index} of the recording ({outcome.error})"
    if "is not in [0," in outcome.error or "valid range" in outcome.error:
        text += "; an index is outside the table or head it looks into: a CPU raises this error, a GPU goes on with zeros or NaN"
    return text


def with_sharpness(session: Session, outcome: RunOutcome, start: Start) -> list[StepRecord]:
    """The records with the curvature at the first step and at the last one with a known finite state."""
    records = list(outcome.records)
    if not records:
        return records
    batches = session.recording.batches
    places = {0: start.snapshot}
    if outcome.before is not None and len(records) > 1:
        places[len(records) - 1] = outcome.before
    with tf.device(session.device):
        for index, state in places.items():
            value = sharpness(session.step, state, batches[records[index].step % len(batches)])
            records[index] = replace(records[index], sharpness=value)
    return records


def look_closely(session: Session, outcome: RunOutcome) -> NonfinitePoint:
    """Repeat the failing step eagerly with everything watched, and hand over the first bad place."""
    batch, before, index = outcome.failed_batch, outcome.before, outcome.failed_step
    assert batch is not None
    assert before is not None
    assert index is not None
    session.reporter.stage(f"looking closely at step {index}")
    with tf.device(session.device):
        put(session.step.variables, before)
        iteration = session.rebuilt.dialect.iterations(session.rebuilt.model.optimizer)
        seen = observe(session.step, before, batch)
        point = examine(session.step, seen, step_index=index, optimizer_step=iteration)
        if point is None and outcome.stalled:
            point = at_a_scale_of_one(session, before, step_index=index, optimizer_step=iteration)
    labels = session.rebuilt.labels
    if labels is not None and bad_label_rows(batch, labels):
        point = label_point(point, batch, labels, step=index, optimizer_step=iteration)
    if point is None:
        point = coarse_point(outcome, iteration)
        session.reporter.found(
            disagreement="the compiled step goes non-finite, the same step run op by op stays finite: the two round differently"
        )
    point = with_first_of_kind(session.step, point)
    session.reporter.found(first_bad=point, seconds_closeup=seen.seconds)
    return point


def at_a_scale_of_one(
    session: Session, before: Snapshot, *, step_index: int, optimizer_step: int
) -> NonfinitePoint | None:
    """Where a loss scale that collapsed began to: the first non-finite place of any recorded batch without scaling.

    A scale falls because gradients overflow; what overflows at a scale of 1 is no probing any more.
    """
    step = session.step
    scale = step.dialect.loss_scale(step.model.optimizer)
    if session.rebuilt.dialect.legacy or scale is None:
        return None
    values = [np.ones_like(a) if v is scale else a for v, a in zip(step.variables, before.values, strict=True)]
    for batch in session.recording.batches:
        seen = observe(step, Snapshot(tuple(values)), batch)
        point = examine(step, seen, step_index=step_index, optimizer_step=optimizer_step, probing=False)
        if point is not None:
            text = "The dynamic loss scale collapsed, and no update is applied any more. Without scaling: "
            return replace(point, message=text + point.message)
    return None


def coarse_point(outcome: RunOutcome, iteration: int) -> NonfinitePoint:
    """What the compiled step alone tells about the failure: the phase."""
    measured, batch = outcome.measured, outcome.failed_batch
    assert measured is not None
    assert batch is not None
    assert outcome.failed_step is not None
    if outcome.stalled:
        phase, text = Phase.BACKWARD, "The dynamic loss scale collapsed: gradients overflow at every scale."
    elif not math.isfinite(measured.loss):
        phase, text = Phase.LOSS, "The loss became non-finite."
    elif measured.gradient_bad:
        phase, text = Phase.BACKWARD, "A gradient became non-finite under a finite loss."
    else:
        phase, text = Phase.UPDATE, "A weight or slot became non-finite under finite gradients."
    kind = "inf" if math.isinf(measured.loss) else "nan"
    return NonfinitePoint(phase, None, None, None, outcome.failed_step, iteration, batch.index, (), kind, message=text)


def with_first_of_kind(step: TrainingStep, point: NonfinitePoint) -> NonfinitePoint:
    """Name the first layer with the same growing activation: one exp of an exp of an exp overflows, the first is the cause."""
    if (point.op or "").removesuffix("Grad") not in GROWING_OPS or point.layer is None:
        return point
    names = [n.name for n in step.owners.layers]
    kinds = [activation_name(n.layer) for n in step.owners.layers]
    if point.layer not in names or kinds[names.index(point.layer)] in (None, "linear"):
        return point
    kind = kinds[names.index(point.layer)]
    return replace(point, first_of_kind=names[kinds.index(kind)])


def look_at_layers(
    session: Session, outcome: RunOutcome, start: Start
) -> tuple[tuple[tuple[LayerActivity, ...], tuple[LayerActivity, ...]], Skill]:
    """Hand over the layers' activity at the first and at the last finite state, and how well the last one predicts."""
    session.reporter.stage("measuring the layers")
    request, batches = session.request, session.recording.batches
    rows = joined_rows(batches)
    first = start.snapshot
    if request.last_healthy is not None:
        first = session.state_of(request.checkpoints[0])[0]
    with tf.device(session.device):
        activity = measure_activity(session.step, first, rows)
        last = outcome.before if outcome.failed_step is not None and outcome.before is not None else start.snapshot
        activity_end = measure_activity(session.step, last, rows)
        judge = judge_for(session.step, batches)
        skill = measure_skill(session.step, last, batches, judge)
    one = constant_norms(session, activity)
    if one:
        session.notes.append(
            f"{', '.join(one)} normalises over a single element: what comes out does not depend on what goes in, "
            "and a kernel that divides by n - 1 makes its moving variance NaN; use larger batches or LayerNormalization"
        )
        session.reporter.found(findings_notes=tuple(session.notes))
    known = learns(skill) and not unfit_head(session, skill) if not session.rebuilt.plan.substituted else None
    if (known is False and steps_taken(session) == 0) or one:
        known = None  # nothing was, or could be, trained yet; the baseline will tell
    session.reporter.found(
        activity=activity,
        activity_end=activity_end,
        skill=skill,
        one_element_norms=one,
        prediction_std=skill.prediction_std,
        target_std=skill.target_std,
        learns=None if outcome.failed_step is not None else known,
    )
    return (activity, activity_end), skill
