"""The course of a replay inside the child: reproduce, look closely, look at the layers, try changes."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import tensorflow as tf

from ckptdoctor.model import LayerActivity, NonfinitePoint, Phase, ReplayStatus, Skill, StepRecord
from ckptdoctor.replay.activity import joined_rows, measure_activity
from ckptdoctor.replay.child import Reporter
from ckptdoctor.replay.closeup import examine, observe
from ckptdoctor.replay.curvature import sharpness
from ckptdoctor.replay.failure import CannotReplay
from ckptdoctor.replay.heads import head_fix
from ckptdoctor.replay.lab import CLEARLY_LEARNT
from ckptdoctor.replay.labelrange import bad_label_rows, label_point
from ckptdoctor.replay.reproduce import RunOutcome, run
from ckptdoctor.replay.request import ReplayRequest
from ckptdoctor.replay.session import Session, Start, prepare, start_states
from ckptdoctor.replay.skill import judge_for, learns, measure_skill
from ckptdoctor.replay.state import put
from ckptdoctor.replay.suspicion import suspect
from ckptdoctor.replay.trials import run_trials

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
    activity, skill = look_at_layers(session, outcome, start)
    suspicion = None
    if session.rebuilt.plan.substituted and request.failed and outcome.failed_step is None:
        reporter.stage(f"trying the usual formula of '{session.rebuilt.plan.custom}'")
        suspicion = suspect(session, starts)
        reporter.found(suspected=suspicion[0] if suspicion is not None else None)
    if request.experiments and wants_experiments(session, outcome, skill):
        run_trials(session, outcome, start, point, activity, suspicion)


def wants_experiments(session: Session, outcome: RunOutcome, skill: Skill) -> bool:
    """After a failure always; for a finite run where it does not predict better than a constant, or the log says so."""
    if outcome.failed_step is not None or session.request.failed or session.request.collapsed:
        return True
    return learns(skill) is False or unfit_head(session, skill)


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


def report_run(session: Session, outcome: RunOutcome, start: Start) -> None:
    """Hand over what the fast run showed."""
    failed = outcome.failed_step is not None
    if outcome.error and outcome.error_batch is not None:
        raise CannotReplay(_refused_batch(outcome), ReplayStatus.FAILED)
    note = "graph, labels as on a GPU" if session.rebuilt.labels is not None else "graph"
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
    labels = session.rebuilt.labels
    if labels is not None and bad_label_rows(batch, labels):
        point = label_point(point, batch, labels, step=index, optimizer_step=iteration)
    if point is None:
        point = coarse_point(outcome, iteration)
        session.reporter.found(
            disagreement="the compiled step goes non-finite, the same step run op by op stays finite: the two round differently"
        )
    session.reporter.found(first_bad=point, seconds_closeup=seen.seconds)
    return point


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
    known = learns(skill) and not unfit_head(session, skill) if not session.rebuilt.plan.substituted else None
    if known is False and steps_taken(session) == 0:
        known = None  # nothing was trained yet; the baseline will tell
    session.reporter.found(
        activity=activity,
        activity_end=activity_end,
        skill=skill,
        prediction_std=skill.prediction_std,
        target_std=skill.target_std,
        learns=None if outcome.failed_step is not None else known,
    )
    return (activity, activity_end), skill
