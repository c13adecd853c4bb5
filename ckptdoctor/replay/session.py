"""What the stages of a replay share: the rebuilt model, the batches, the states to begin from."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from ckptdoctor.model import (
    CheckpointInfo,
    Format,
    Missing,
    ModelSpec,
    RecordedWindow,
    Repeat,
    ReplayStatus,
    StartState,
)
from ckptdoctor.replay.batches import Recording, load_recording
from ckptdoctor.replay.child import Reporter
from ckptdoctor.replay.environment import choose_device, describe, settle
from ckptdoctor.replay.rebuild import Rebuilt, choose_dialect, rebuild
from ckptdoctor.replay.recorded import as_recorded, make_global_seed, restore_seeds, trace_as_recorded
from ckptdoctor.replay.request import CheckpointRef, ReplayRequest
from ckptdoctor.replay.state import LoadReport, Snapshot, load, put, take
from ckptdoctor.replay.step import TrainingStep


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
    seeds_lost: list[str] = field(default_factory=list)
    mode: str = "graph"  # how the run's steps were taken
    traced_as_recorded: bool = False

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


def prepare(request: ReplayRequest, reporter: Reporter) -> Session:
    """Everything before the first step."""
    device = choose_device(request.device)
    settle()
    reporter.stage("rebuilding the model")
    assert request.batches is not None
    recording, window_problem = as_recorded(load_recording(request.batches, spec_of(request)), request.window)
    if window_problem:
        request = replace(request, window=None)
        reporter.found(repeat=Repeat("not used", window_problem))
    dialect = choose_dialect(request)
    with tf.device(device):
        rebuilt = rebuild(request, dialect, recording)
        if request.window is not None:
            make_global_seed(request.window)
        step = TrainingStep(dialect, rebuilt.model, rebuilt.plan)
    policy = str(getattr(rebuilt.model.dtype_policy, "name", "float32"))
    traced = request.window is not None and trace_as_recorded(step, request.window, rebuilt.recording)
    session = Session(request, reporter, rebuilt, rebuilt.recording, step, take(step.variables), device)
    session.traced_as_recorded = traced
    session.notes.extend((*rebuilt.notes, *rebuilt.recording.notes))
    labels = rebuilt.labels
    reporter.found(
        status=ReplayStatus.NOT_REPRODUCED,
        device=device,
        environment=describe(dialect, device, policy),
        layer_names=step.owners.trained,
        custom_loss=rebuilt.plan.custom,
        left_out=rebuilt.left_out,
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
    if request.window is not None:
        starts.append(recorded_start(session, request.window))
    if request.last_healthy is not None:
        wanted = [request.last_healthy] if request.last_healthy == 0 else [request.last_healthy, 0]
        for index in wanted:
            reference = request.checkpoints[index]
            snapshot, report = session.state_of(reference)
            if index == request.last_healthy:
                session.reporter.found(not_restored=report.not_restored)
            state = StartState(reference.path, "last_healthy", slots_restored=report.slots_restored, loss=how)
            if all(reference.path != other.state.checkpoint for other in starts):
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


def recorded_start(session: Session, window: RecordedWindow) -> Start:
    """The state that the flight recorder kept before its batches, dropout's seeds included.

    Raises:
        CannotReplay: the checkpoint does not fit the model.
    """
    reference = session.request.checkpoints[session.request.window_start]
    snapshot, report = session.state_of(reference)
    session.reporter.found(not_restored=report.not_restored)
    put(session.step.variables, snapshot)
    session.seeds_lost = restore_seeds(session.rebuilt.model, window)
    state = StartState(
        reference.path, "last_healthy", slots_restored=report.slots_restored, loss=session.rebuilt.plan.source
    )
    return Start(state, take(session.step.variables))


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
