"""The course of a replay inside the child: rebuild, reproduce, look closely, try changes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from ckptdoctor.model import ReplayStatus, StartState
from ckptdoctor.replay.batches import Recording, arrange, check_shapes, load_recording
from ckptdoctor.replay.child import Reporter
from ckptdoctor.replay.environment import choose_device, describe, settle
from ckptdoctor.replay.failure import CannotReplay
from ckptdoctor.replay.rebuild import Rebuilt, choose_dialect, input_names, output_names, rebuild
from ckptdoctor.replay.reproduce import RunOutcome, run
from ckptdoctor.replay.request import CheckpointRef, ReplayRequest
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
        look_closely(session, outcome, start)
    look_at_layers(session, outcome, start)


def prepare(request: ReplayRequest, reporter: Reporter) -> Session:
    """Everything before the first step."""
    device = choose_device(request.device)
    settle()
    reporter.stage("rebuilding the model")
    assert request.batches is not None
    recording = load_recording(request.batches)
    dialect = choose_dialect(request)
    with tf.device(device):
        rebuilt = rebuild(request, dialect, recording)
        model = rebuilt.model
        recording = arrange(recording, input_names(model), output_names(model))
        if getattr(model, "inputs", None):
            check_shapes(recording, [tuple(i.shape) for i in model.inputs], input_names(model))
        step = TrainingStep(dialect, model, rebuilt.plan)
    policy = str(getattr(model.dtype_policy, "name", "float32"))
    session = Session(request, reporter, rebuilt, recording, step, take(step.variables), device)
    session.notes.extend((*rebuilt.notes, *recording.notes))
    reporter.found(
        status=ReplayStatus.NOT_REPRODUCED,
        device=device,
        environment=describe(dialect, device, policy),
        layer_names=step.owners.trained,
        custom_loss=rebuilt.plan.custom,
        seconds_startup=time.monotonic() - reporter.started,
        findings_notes=tuple(session.notes),
    )
    return session


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
    session.reporter.found(
        status=ReplayStatus.REPRODUCED if outcome.failed_step is not None else ReplayStatus.NOT_REPRODUCED,
        start=start.state,
        mode="graph",
        steps=outcome.steps,
        records=tuple(outcome.records),
        initial_loss=outcome.records[0].loss if outcome.records else None,
        seconds_reproduce=outcome.seconds,
    )


def look_closely(session: Session, outcome: RunOutcome, start: Start) -> None:
    """Repeat the failing step eagerly with everything watched, and hand over the first bad place."""
    from ckptdoctor.replay.closeup import examine, observe

    assert outcome.failed_batch is not None
    assert outcome.before is not None
    assert outcome.failed_step is not None
    session.reporter.stage(f"looking closely at step {outcome.failed_step}")
    with tf.device(session.device):
        put(session.step.variables, outcome.before)
        iteration = session.rebuilt.dialect.iterations(session.rebuilt.model.optimizer)
        seen = observe(session.step, outcome.before, outcome.failed_batch)
        point = examine(session.step, seen, step_index=outcome.failed_step, optimizer_step=iteration)
    del start
    session.reporter.found(first_bad=point, seconds_closeup=seen.seconds)


def look_at_layers(session: Session, outcome: RunOutcome, start: Start) -> None:
    """Hand over the layers' activity at the first and at the last finite state, and how well the last one predicts."""
    from ckptdoctor.replay.activity import joined_rows, measure_activity
    from ckptdoctor.replay.skill import judge_for, learns, measure_skill

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
