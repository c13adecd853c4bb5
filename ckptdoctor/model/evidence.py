"""All that was measured: what rules read. Every part is present or Missing, never guessed."""

from __future__ import annotations

from dataclasses import dataclass, field

from ckptdoctor.model.base import Missing
from ckptdoctor.model.checkpoint import Census
from ckptdoctor.model.config import ModelSpec
from ckptdoctor.model.replay import Replay
from ckptdoctor.model.run import Batches, FlightRecord, RunFiles, Timeline, TrainingLog


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regularity in where the non-finite entries stand.

    Attributes:
        kind: `everything`, `trainables_only`, `kernel_rows`, `kernel_columns`, `embedding_rows`, `channel`,
            `upstream_only`, `downstream_only`, `statistics_only`, `slots_only`, `optimizer_scalars`, `scattered`,
            `frozen_finite`, `single_layer`.
        message: one sentence with the indices.
        layer, variable: what it is about, None for the whole model.
        means: what the indices count: `input feature`, `unit`, `token id`, `channel`, ….
        indices: the first 64.
        count: how many there are. of: out of how many.
    """

    kind: str
    message: str
    layer: str | None = None
    variable: str | None = None
    means: str | None = None
    indices: tuple[int, ...] = ()
    count: int = 0
    of: int = 0


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The geometry of the non-finite entries in one checkpoint.

    Attributes:
        patterns: most telling first.
        layers: layers with non-finite weights or statistics, in the model's order where known.
        first_layer: the one nearest to the input, None where nothing is non-finite or the order is unknown.
        steps_since: optimizer steps between the last healthy checkpoint and this one, None if unknown: a pattern
            says much after one step and little after many.
    """

    patterns: tuple[Pattern, ...]
    layers: tuple[str, ...]
    first_layer: str | None
    steps_since: int | None = None


@dataclass(frozen=True, slots=True)
class GradientScale:
    """What the optimizer remembers of one weight's gradient.

    Attributes:
        gradient_rms: root of the (bias-corrected) mean second moment; None for optimizers without one.
        momentum_rms: rms of the first moment.
        update_ratio: rms of the last update over rms of the weight; None where the optimizer does not tell.
        stats: `path` of the weight's TensorStats.
    """

    path: str
    layer: str | None
    variable: str
    gradient_rms: float | None
    momentum_rms: float | None
    update_ratio: float | None
    weight_rms: float | None


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """The optimizer's state in one checkpoint, interpreted.

    Attributes:
        learning_rate: in force at this checkpoint: the stored scalar, else a schedule evaluated at `iterations`,
            else the configured number. May be NaN.
        learning_rate_source: which of the three.
        gradients: per weight, in the model's order.
        profile_ratio: gradient_rms of the first kernel over that of the last one; small = vanishing, large = exploding
            towards the input. None with fewer than two kernels.
        loss_scale, skipped_updates: dynamic loss scaling; skipped = outer minus inner iterations.
        untouched_slots: True where every slot is exactly zero although iterations > 0.
    """

    class_name: str | None
    iterations: int | None
    learning_rate: float | Missing
    learning_rate_source: str
    gradients: tuple[GradientScale, ...]
    profile_ratio: float | None
    loss_scale: float | None
    skipped_updates: int | None
    untouched_slots: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything rules may look at.

    Attributes:
        files: what was found, used and ignored.
        census: the checkpoint the verdict is about: the first bad one of a run, else the last one, else the file given.
        spec: the model, from the first checkpoint that holds a configuration.
        timeline: for runs with more than one checkpoint.
        logs: every readable log, most informative first; Missing if none.
        recorder: what the flight recorder wrote beside the files.
    """

    files: RunFiles
    census: Census | Missing
    spec: ModelSpec | Missing = Missing("no configuration was read")
    fingerprint: Fingerprint | Missing = Missing("not measured")
    optimizer: OptimizerState | Missing = Missing("not measured")
    timeline: Timeline | Missing = Missing("only one checkpoint was given")
    logs: tuple[TrainingLog, ...] | Missing = Missing("no training log was found")
    batches: Batches | Missing = Missing("no recorded batches were found")
    replay: Replay | Missing = Missing("replay was not asked for")
    unreadable: tuple[tuple[str, str], ...] = field(default=())  # (path, sentence): files that could not be opened
    recorder: FlightRecord | Missing = Missing("the run was not recorded by the flight recorder")

    @property
    def log(self) -> TrainingLog | None:
        """The most informative log, if any."""
        return self.logs[0] if isinstance(self.logs, tuple) and self.logs else None
