"""What replay is asked to do: plain data that crosses over to the child process as JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ckptdoctor.model import (
    Association,
    Batches,
    Census,
    CkptDoctorError,
    Evidence,
    FlightRecord,
    JsonObject,
    Missing,
    ProblemKind,
    RecordedTraining,
    RecordedWindow,
    Timeline,
    TrainingLog,
)

if TYPE_CHECKING:
    from ckptdoctor.options import InspectOptions

DEFAULT_STEPS = 400
DEFAULT_BUDGET = 25.0  # seconds for experiments
DEFAULT_WALL = 170.0  # seconds for the whole child, its start included
DEFAULT_MEMORY = 6 << 30  # resident bytes; TensorFlow alone takes 0.6 GB


class ReplayError(CkptDoctorError):
    """A request that cannot be carried out as it was put: an absent GPU, a malformed `--build`."""


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """One checkpoint of the run: where it is and what its census said.

    Attributes:
        path: of the file or directory.
        format: value of `Format`.
        iterations: the optimizer's step count, where it is stored.
        nonfinite: non-finite entries in weights, statistics and slots.
        learning_rate: as stored, may be NaN. loss_scaled: whether it holds a loss scale.
        hostile: what in the file tries to lead its reader astray, empty for an honest file.
    """

    path: str
    format: str
    iterations: int | None = None
    nonfinite: int = 0
    learning_rate: float | None = None
    loss_scaled: bool = False
    hostile: str = ""


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Everything the child needs to know.

    Attributes:
        checkpoints: readable ones, in training order.
        last_healthy, first_bad: indices into `checkpoints`, or None.
        model_config, compile_config: as Keras serialised them, from the first checkpoint that holds one.
        keras_version: that wrote the configuration, where it is recorded.
        batches: path of the recorded batches.
        failed: the run went non-finite, by its weights or its log.
        plateau: the logged training loss no longer falls.
        reachable: share of the recorded targets that simple models explain out of sample, where that was measured.
        device: `auto`, `cpu`, `gpu`, `gpu:N`.
        steps: most training steps to replay. budget: seconds for experiments.
        wall_seconds, memory_bytes: limits of the child (wall clock, resident memory).
        build: `MODULE:FUNCTION` returning the (compiled) model. custom_objects: module with the run's own classes.
        quick: only reproduce, for a second look in another mode.
        window: what the flight recorder kept; window_start: index into `checkpoints` of the state before its first batch;
            training: how the run was trained; recorded_step, recorded_variables: the failing step and the weights that
            were non-finite after it; environment: of the training. window_unused: why there is no window, empty without a
            recording.
        read_limits: bounds on files that the user changed, by name.
        trust: rebuild configurations that would run code of their own. unsafe_lambda: Lambda layers too.
    """

    checkpoints: tuple[CheckpointRef, ...]
    last_healthy: int | None = None
    first_bad: int | None = None
    model_config: JsonObject | None = None
    compile_config: JsonObject | None = None
    keras_version: str | None = None
    batches: str | None = None
    failed: bool = False
    plateau: bool = False
    reachable: float | None = None
    device: str = "auto"
    steps: int = DEFAULT_STEPS
    budget: float = DEFAULT_BUDGET
    wall_seconds: float = DEFAULT_WALL
    memory_bytes: int = DEFAULT_MEMORY
    build: str | None = None
    custom_objects: str | None = None
    trust: bool = False
    unsafe_lambda: bool = False
    seed: int = 0
    experiments: bool = True
    quick: bool = False
    window: RecordedWindow | None = None
    window_start: int = 0
    training: RecordedTraining = RecordedTraining()
    recorded_step: int | None = None
    recorded_variables: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    read_limits: dict[str, float] = field(default_factory=dict)
    window_unused: str = ""

    @property
    def loss_scaled(self) -> bool:
        """Whether any checkpoint holds a loss scale."""
        return any(c.loss_scaled for c in self.checkpoints)


def request_from(evidence: Evidence, options: InspectOptions) -> ReplayRequest:
    """The request that follows from what was measured and what the user asked for."""
    timeline, focus = evidence.timeline, evidence.census
    censuses: list[Census] = []
    if isinstance(timeline, Timeline):
        censuses = [p.census for p in timeline.points if isinstance(p.census, Census)]
    elif isinstance(focus, Census):
        censuses = [focus]
    source = next((c for c in censuses if not isinstance(c.info.model_config, Missing)), None)
    compiled = next((c for c in censuses if not isinstance(c.info.compile_config, Missing)), None)
    healthy, bad = _bounds(censuses)
    version = source.info.keras_version if source is not None else Missing("no configuration")
    batches = evidence.files.batches[0] if evidence.files.batches else None
    request = ReplayRequest(
        checkpoints=tuple(_reference(c) for c in censuses),
        last_healthy=healthy,
        first_bad=bad,
        model_config=_present(source.info.model_config) if source is not None else None,
        compile_config=_present(compiled.info.compile_config) if compiled is not None else None,
        keras_version=None if isinstance(version, Missing) else version,
        batches=batches,
        failed=bad is not None or _log_failed(evidence.log),
        plateau=_plateau(evidence.log),
        reachable=_reachable(evidence),
        device=options.device,
        steps=options.steps,
        budget=options.budget,
        wall_seconds=DEFAULT_WALL + max(0.0, options.budget - DEFAULT_BUDGET),
        build=options.build,
        custom_objects=options.custom_objects,
        trust=options.trust,
        unsafe_lambda=options.unsafe_lambda,
        read_limits=dict(options.limits),
    )
    return request if isinstance(evidence.recorder, Missing) else _with_recording(request, evidence.recorder, censuses)


def _with_recording(request: ReplayRequest, record: FlightRecord, censuses: Sequence[Census]) -> ReplayRequest:
    """The request with what the flight recorder kept, or with the reason why that cannot be used."""
    request = replace(
        request,
        failed=request.failed or record.status == "failed",
        training=record.training,
        recorded_step=record.step if record.status == "failed" else None,
        recorded_variables=record.variables,
        environment=record.environment,
    )
    window = record.window
    if isinstance(window, Missing):
        return replace(request, window_unused=window.reason)
    if request.batches is None or os.path.realpath(request.batches) != os.path.realpath(window.batches):
        return replace(request, window_unused="other batches than the recorded ones were named with --batches")
    start = next(
        (n for n, c in enumerate(censuses) if os.path.realpath(c.info.path) == os.path.realpath(window.checkpoint)),
        None,
    )
    if start is None:
        return replace(request, window_unused=f"{window.checkpoint}, from which it begins, could not be read")
    if censuses[start].nonfinite:
        return replace(request, window_unused=f"{window.checkpoint}, from which it begins, is non-finite already")
    return replace(request, window=window, window_start=start)


def _present(config: JsonObject | Missing) -> JsonObject | None:
    return None if isinstance(config, Missing) else config


def _reference(census: Census) -> CheckpointRef:
    rate = census.scalars.get("learning_rate")
    scaled = "loss_scale" in census.scalars
    hostile = next((p.message for p in census.info.problems if p.kind is ProblemKind.HOSTILE), "")
    return CheckpointRef(
        census.info.path, census.info.format.value, census.iterations, census.nonfinite, rate, scaled, hostile[:400]
    )


def _bounds(censuses: list[Census]) -> tuple[int | None, int | None]:
    """Index of the first bad checkpoint, and of the last one before it that is wholly finite."""
    bad = next((n for n, c in enumerate(censuses) if c.nonfinite), None)
    before = censuses if bad is None else censuses[:bad]
    return (len(before) - 1 if before else None), bad


PLATEAU = 0.05  # relative fall over the last half below which a loss counts as flat; TheDeepChecker asks 5 % a window


def _plateau(log: TrainingLog | None) -> bool:
    from ckptdoctor.evidence.log_signals import loss_series

    series = loss_series(log) if log is not None else None
    values = [v for v in series.values if v == v and abs(v) != float("inf")] if series is not None else []
    if len(values) < 6:
        return False
    half = values[len(values) // 2 :]
    before, after = half[0], half[-1]
    return before - after < PLATEAU * abs(before)


def _reachable(evidence: Evidence) -> float | None:
    measured = evidence.batches.association if isinstance(evidence.batches, Batches) else None
    return measured.score if isinstance(measured, Association) else None


def _log_failed(log: TrainingLog | None) -> bool:
    if log is None:
        return False
    if log.terminated is not None:
        return True
    return any(s.first_nonfinite is not None for s in log.series if s.name.rpartition("_")[2] == "loss")
