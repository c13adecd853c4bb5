"""The course of a replay inside the child: rebuild, reproduce, look closely, try changes."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from ckptdoctor.model import (
    CheckpointInfo,
    Format,
    Missing,
    ModelSpec,
    NonfinitePoint,
    Phase,
    ReplayStatus,
    StartState,
    StepRecord,
)
from ckptdoctor.replay.activity import joined_rows, measure_activity
from ckptdoctor.replay.batches import Recording, load_recording
from ckptdoctor.replay.child import Reporter
from ckptdoctor.replay.closeup import examine, observe
from ckptdoctor.replay.curvature import sharpness
from ckptdoctor.replay.environment import choose_device, describe, settle
from ckptdoctor.replay.failure import CannotReplay
from ckptdoctor.replay.labelrange import bad_label_rows, label_point
from ckptdoctor.replay.rebuild import Rebuilt, choose_dialect, rebuild
from ckptdoctor.replay.reproduce import RunOutcome, run
from ckptdoctor.replay.request import CheckpointRef, ReplayRequest
from ckptdoctor.replay.skill import judge_for, learns, measure_skill
from ckptdoctor.replay.state import LoadReport, Snapshot, load, put, take
from ckptdoctor.replay.step import TrainingStep

CYCLES_WITHOUT_FAILURE = 4  # passes over the batches of a run that shows no failure: enough for its own steps


@dataclass(slots=True)
class Session:
    """What the stages share."""

    request: ReplayRequest
    reporter: Reporter
    rebuilt: Rebuilt
    recording: Recording
    step: TrainingStep
    fresh: Snapshot
    device: str
    notes: list[str] = field(default_factory=list)
    loaded: dict[str, tuple[Snapshot, LoadReport]] = field(default_factory=dict)

    def state_of(self, reference: CheckpointRef) -> tuple[Snapshot, LoadReport]:
        """Weights and slots of a checkpoint, loaded once.

        Raises:
            CannotReplay: it does not fit the model.
        """
        if reference.path not in self.loaded:
            put(self.step.variables, self.fresh)
            report = load(self.rebuilt.model, self.rebuilt.dialect, reference)
            self.loaded[reference.path] = (take(self.step.variables), report)
        return self.loaded[reference.path]


@dataclass(frozen=True, slots=True)
class Start:
    """A state to begin from and how it was obtained."""

    state: StartState
    snapshot: Snapshot


def replay(request: ReplayRequest, reporter: Reporter) -> None:
    """Carry out a request, handing over results as they come.

    Raises:
        CannotReplay, UsageError: with the sentence for the user.
    """
    session = prepare(request, reporter)
    starts = start_states(session)
    outcome, start = reproduce(session, starts)
    report_run(session, outcome, start)
    if outcome.failed_step is not None:
        look_closely(session, outcome)
    look_at_layers(session, outcome, start)


def prepare(request: ReplayRequest, reporter: Reporter) -> Session:
    """Everything before the first step."""
    device = choose_device(request.device)
    settle()
    reporter.stage("rebuilding the model")
    assert request.batches is not None
    recording = load_recording(request.batches, spec_of(request))
    dialect = choose_dialect(request)
    with tf.device(device):
        rebuilt = rebuild(request, dialect, recording)
        step = TrainingStep(dialect, rebuilt.model, rebuilt.plan)
    policy = str(getattr(rebuilt.model.dtype_policy, "name", "float32"))
    session = Session(request, reporter, rebuilt, rebuilt.recording, step, take(step.variables), device)
    session.notes.extend((*rebuilt.notes, *rebuilt.recording.notes))
    labels = rebuilt.labels
    reporter.found(
        status=ReplayStatus.NOT_REPRODUCED,
        device=device,
        environment=describe(dialect, device, policy),
        layer_names=step.owners.trained,
        custom_loss=rebuilt.plan.custom,
        label_range=None if labels is None else (labels.low, labels.high, labels.classes),
        seconds_startup=time.monotonic() - reporter.started,
        findings_notes=tuple(session.notes),
    )
    return session


def spec_of(request: ReplayRequest) -> ModelSpec | Missing:
    """The model as the configuration in the request describes it."""
    from ckptdoctor.evidence.config import read_spec

    if request.model_config is None:
        return Missing("the model comes from a build function")
    unknown = Missing("not needed")
    reference = request.checkpoints[0]
    return read_spec(
        CheckpointInfo(
            reference.path,
            Format(reference.format),
            0,
            request.keras_version or unknown,
            unknown,
            unknown,
            request.model_config,
            request.compile_config or unknown,
        )
    )


def start_states(session: Session) -> list[Start]:
    """States to begin from, the most faithful first.

    The last healthy checkpoint; the first one, if that is another; without a healthy one the first bad one healed
    and, last, fresh weights.
    """
    request, starts = session.request, list[Start]()
    how = session.rebuilt.plan.source
    if request.last_healthy is not None:
        wanted = [request.last_healthy] if request.last_healthy == 0 else [request.last_healthy, 0]
        for index in wanted:
            reference = request.checkpoints[index]
            snapshot, report = session.state_of(reference)
            if index == request.last_healthy:
                session.reporter.found(not_restored=report.not_restored)
            state = StartState(reference.path, "last_healthy", slots_restored=report.slots_restored, loss=how)
            starts.append(Start(state, snapshot))
        return starts
    reference = request.checkpoints[0 if request.first_bad is None else request.first_bad]
    snapshot, report = session.state_of(reference)
    session.reporter.found(not_restored=report.not_restored)
    names = variable_labels(session)
    healed, paths = heal(snapshot, session.fresh, names)
    state = StartState(reference.path, "healed", seed=request.seed, healed=paths, slots_restored=False, loss=how)
    starts.append(Start(state, healed))
    starts.append(Start(StartState(None, "fresh", seed=request.seed, loss=how), session.fresh))
    return starts


def variable_labels(session: Session) -> list[str]:
    """Paths of the variables of the step, in order."""
    from ckptdoctor.replay.state import variable_names

    return variable_names(session.rebuilt.model, session.rebuilt.dialect)


def heal(snapshot: Snapshot, fresh: Snapshot, names: list[str]) -> tuple[Snapshot, tuple[str, ...]]:
    """Non-finite entries replaced by freshly initialised ones (slots by zeros), for the experiment only."""
    values, paths = list(snapshot.values), []
    for n in snapshot.nonfinite():
        bad = ~np.isfinite(values[n].astype(np.float64))
        values[n] = np.where(bad, fresh.values[n], values[n]).astype(values[n].dtype)
        paths.append(names[n])
    return Snapshot(tuple(values)), tuple(paths)


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


def look_closely(session: Session, outcome: RunOutcome) -> None:
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


def look_at_layers(session: Session, outcome: RunOutcome, start: Start) -> None:
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
    known = learns(skill) if not session.rebuilt.plan.substituted else None
    session.reporter.found(
        activity=activity,
        activity_end=activity_end,
        skill=skill,
        prediction_std=skill.prediction_std,
        target_std=skill.target_std,
        learns=None if outcome.failed_step is not None else known,
    )
