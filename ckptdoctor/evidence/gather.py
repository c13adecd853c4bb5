"""From the files of a run to `Evidence`: every measurement in turn, each allowed to be missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.evidence.census import take_census
from ckptdoctor.evidence.config import read_spec
from ckptdoctor.evidence.fingerprint import fingerprint
from ckptdoctor.evidence.optimizer import optimizer_state
from ckptdoctor.model import (
    Batches,
    Census,
    CkptDoctorError,
    Evidence,
    FlightRecord,
    IgnoredFile,
    Missing,
    ModelSpec,
    OptimizerState,
    Replay,
    RunFiles,
    Timeline,
    TimelinePoint,
    TrainingLog,
)

if TYPE_CHECKING:
    from ckptdoctor.options import InspectOptions, Progress


def gather(files: RunFiles, options: InspectOptions, progress: Progress) -> Evidence:
    """Measure everything the run left behind.

    Raises:
        CkptDoctorError: no checkpoint could be read and nothing else was found either.
    """
    checkpoints = _read_checkpoints(files, options, progress)
    spec = _first_spec(checkpoints)
    recorder = _read_recorder(files)
    files = _with_recorded_batches(files, recorder, options)
    logs = _read_logs(files, progress)
    batches = _read_batches(files, spec, progress)
    if isinstance(checkpoints.focus, Missing) and isinstance(logs, Missing) and isinstance(batches, Missing):
        raise CkptDoctorError(checkpoints.focus.reason)
    before = checkpoints.last_healthy
    census = checkpoints.focus
    evidence = Evidence(
        files=files,
        census=census,
        spec=spec,
        fingerprint=fingerprint(census, spec, before=before)
        if isinstance(census, Census)
        else Missing("no checkpoint could be read"),
        optimizer=_optimizer(checkpoints, spec),
        timeline=checkpoints.timeline,
        logs=logs,
        batches=batches,
        unreadable=checkpoints.unreadable,
        recorder=recorder,
    )
    return _with_replay(evidence, options, progress)


@dataclass(frozen=True, slots=True)
class _Checkpoints:
    """The checkpoints of a run after their census.

    `focus` is the one the verdict is about: the first bad one, else the last readable one.
    """

    focus: Census | Missing
    last_healthy: Census | None
    all: tuple[Census, ...]
    timeline: Timeline | Missing
    unreadable: tuple[tuple[str, str], ...]


def _read_checkpoints(files: RunFiles, options: InspectOptions, progress: Progress) -> _Checkpoints:
    if not files.checkpoints:
        reason = f"no checkpoint was found in {files.path}; give the path of one, or of the directory that holds them"
        return _Checkpoints(Missing(reason), None, (), Missing("no checkpoint was found"), ())
    progress(f"measuring {len(files.checkpoints)} checkpoint{'s' if len(files.checkpoints) > 1 else ''}")
    if len(files.checkpoints) == 1:
        return _read_one(files.checkpoints[0], options)
    from ckptdoctor.evidence.timeline import build_timeline

    timeline = build_timeline(files, threads=options.threads)
    readable = [p.census for p in timeline.points if isinstance(p.census, Census)]
    unreadable = tuple((p.path, p.census.reason) for p in timeline.points if isinstance(p.census, Missing))
    first_bad, last_healthy = _at(timeline.points, timeline.first_bad), _at(timeline.points, timeline.last_healthy)
    focus: Census | Missing
    if first_bad is not None:
        focus = first_bad
    elif readable:
        focus = readable[-1]
    else:
        focus = Missing("; ".join(reason for _, reason in unreadable[:3]))
    return _Checkpoints(focus, last_healthy, tuple(readable), timeline, unreadable)


def _at(points: Sequence[TimelinePoint], index: int | None) -> Census | None:
    if index is None:
        return None
    census = points[index].census
    return census if isinstance(census, Census) else None


def _read_one(path: str, options: InspectOptions) -> _Checkpoints:
    only = Missing("only one checkpoint was given")
    try:
        with open_checkpoint(path) as checkpoint:
            census = take_census(checkpoint, threads=options.threads)
    except CkptDoctorError as error:
        return _Checkpoints(Missing(str(error)), None, (), only, ((path, str(error)),))
    return _Checkpoints(census, None, (census,), only, ())


def _first_spec(checkpoints: _Checkpoints) -> ModelSpec | Missing:
    """The configuration of the focus, else of any other checkpoint of the run."""
    candidates = [checkpoints.focus, *checkpoints.all]
    reason = Missing("no checkpoint holds the model's configuration")
    for census in candidates:
        if isinstance(census, Census):
            spec = read_spec(census.info)
            if isinstance(spec, ModelSpec):
                return spec
            reason = spec
    return reason


def _optimizer(checkpoints: _Checkpoints, spec: ModelSpec | Missing) -> OptimizerState | Missing:
    """The optimizer's state where it still says something: the last healthy one of a run that took a step."""
    focus = checkpoints.focus
    if isinstance(focus, Missing):
        return Missing("no checkpoint could be read")
    healthy = checkpoints.last_healthy
    census = healthy if focus.nonfinite and healthy is not None and healthy.iterations else focus
    try:
        with open_checkpoint(census.info.path) as checkpoint:
            return optimizer_state(census, spec, checkpoint)
    except CkptDoctorError:
        return optimizer_state(census, spec, None)


def _read_logs(files: RunFiles, progress: Progress) -> tuple[TrainingLog, ...] | Missing:
    if not files.logs:
        return Missing("no training log was found")
    from ckptdoctor.logs import read_log

    progress("reading the log")
    logs, reasons = [], []
    for path in files.logs:
        try:
            logs.append(read_log(path))
        except CkptDoctorError as error:
            reasons.append(str(error))
    if not logs:
        return Missing("; ".join(reasons[:3]))
    # The log with the most kinds of metrics, then the most points, tells most.
    return tuple(sorted(logs, key=lambda log: (-len(log.series), -sum(s.count for s in log.series))))


def _read_recorder(files: RunFiles) -> FlightRecord | Missing:
    if files.recorder is None:
        return Missing("the run was not recorded by the flight recorder")
    from ckptdoctor.evidence.recording import read_record

    try:
        return read_record(files.recorder)
    except CkptDoctorError as error:
        return Missing(str(error))


def _with_recorded_batches(files: RunFiles, recorder: FlightRecord | Missing, options: InspectOptions) -> RunFiles:
    """The files with the batches that the recorder names, unless the user named others."""
    if options.batches or isinstance(recorder, Missing) or isinstance(recorder.window, Missing):
        return files
    recorded = recorder.window.batches
    if files.batches and os.path.realpath(files.batches[0]) == os.path.realpath(recorded):
        return files
    passed = tuple(IgnoredFile(p, "the flight recorder's batches were used") for p in files.batches)
    ignored = (*(i for i in files.ignored if os.path.realpath(i.path) != os.path.realpath(recorded)), *passed)
    return replace(files, batches=(recorded,), ignored=ignored)


def _read_batches(files: RunFiles, spec: ModelSpec | Missing, progress: Progress) -> Batches | Missing:
    if not files.batches:
        return Missing("no recorded batches were found")
    from ckptdoctor.evidence.batches import measure_batches

    progress("measuring the last batches")
    reasons = []
    for path in files.batches:
        try:
            return measure_batches(path, spec)
        except CkptDoctorError as error:
            reasons.append(str(error))
    return Missing("; ".join(reasons[:3]))


def _with_replay(evidence: Evidence, options: InspectOptions, progress: Progress) -> Evidence:
    return replace(evidence, replay=_replay(evidence, options, progress))


def _replay(evidence: Evidence, options: InspectOptions, progress: Progress) -> Replay | Missing:
    if options.replay is False:
        return Missing("replay was switched off with --no-replay")
    if isinstance(evidence.batches, Missing) and not options.replay:
        return Missing(f"replay needs the last batches: {evidence.batches.reason}")
    from ckptdoctor.replay import run_replay
    from ckptdoctor.replay.request import request_from

    return run_replay(request_from(evidence, options), progress=progress)
