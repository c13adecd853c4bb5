"""What the replay of the last batches showed. Made in a child process; plain data so that it can cross over."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from ckptdoctor.model.base import Cause, Phase


class ReplayStatus(str, Enum):
    """How far replay came."""

    REPRODUCED = "reproduced"  # a non-finite value reached the loss, a gradient or a weight
    NOT_REPRODUCED = "not_reproduced"  # ran, everything that matters stayed finite
    NOT_RUN = "not_run"  # see reason
    FAILED = "failed"  # the child was killed, ran out of memory or time, or could not rebuild; see reason


@dataclass(frozen=True, slots=True)
class TensorGlimpse:
    """A tensor seen during replay, summed up. Extremes are over finite entries."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    nonfinite: int
    min: float | None
    max: float | None
    mean: float | None = None
    std: float | None = None


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One station on the way of a non-finite value from its origin to the weights, in order of occurrence."""

    phase: Phase
    layer: str | None
    what: str  # "output", "loss per sample", "gradient of the output", "gradient of kernel", "update of kernel", …
    nonfinite: int
    size: int
    min: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class NonfinitePoint:
    """The first place in a training step that went non-finite.

    Attributes:
        phase, layer, op, variable: where. op is TensorFlow's op type (`Exp`, `RealDiv`, `SqrtGrad`, …).
        step: replayed steps before this one (0 = the first). optimizer_step: the optimizer's iteration count.
        batch: index of the recorded batch. rows: rows of that batch that caused it (empty = all or unknown).
        kind: `nan` or `inf`.
        operands: the op's inputs. chain: how it got from there to the weights.
        features: for phase input the offending indices along the last axis.
    """

    phase: Phase
    layer: str | None
    op: str | None
    variable: str | None
    step: int
    optimizer_step: int | None
    batch: int | None
    rows: tuple[int, ...]
    kind: str
    operands: tuple[TensorGlimpse, ...] = ()
    chain: tuple[ChainLink, ...] = ()
    features: tuple[int, ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One replayed training step. Lists per layer are in the order of `Replay.layer_names`."""

    step: int
    batch: int
    loss: float
    accuracy: float | None
    gradient_norm: float
    layer_gradient_norms: tuple[float, ...] = ()
    layer_update_ratios: tuple[float, ...] = ()
    sharpness: float | None = None  # curvature along the gradient; lr × sharpness > 2 diverges
    loss_scale: float | None = None


@dataclass(frozen=True, slots=True)
class LayerActivity:
    """One layer's output over one recorded batch at one checkpoint (forward pass, inference mode).

    Attributes:
        dead_fraction: share of units that output exactly 0 for every row (after relu-like activations).
        saturated_fraction: share of entries in the flat part of tanh/sigmoid/softmax-like activations.
        row_std: mean over units of the standard deviation over rows; 0 means the layer ignores its input.
        pre_min, pre_max: range before the activation where it could be computed.
        gradient_rms: rms of the loss gradient flowing into this output, None where not measured.
    """

    layer: str
    class_name: str
    activation: str | None
    output: TensorGlimpse
    dead_fraction: float | None
    saturated_fraction: float | None
    row_std: float | None
    pre_min: float | None = None
    pre_max: float | None = None
    gradient_rms: float | None = None


@dataclass(frozen=True, slots=True)
class Experiment:
    """The same state and batches, run again with one change.

    Attributes:
        key: stable name, e.g. `lr/10`, `lr/100`, `lr*10`, `clip_global_1`, `drop_bad_rows`, `standardise_inputs`,
            `standardise_inputs_targets`, `impute_nan`, `stable_loss`, `safe_activation`, `epsilon`, `float32`,
            `loss_scaling`, `add_normalisation`, `reinitialise`, `shift_labels`, `output_activation`, `optimizer_adam`.
        change: for people: "learning rate 0.01 instead of 1.0".
        cause: what this fix speaks for when it works.
        code: the line(s) to write, with this model's numbers and names.
        removes_failure: None where it could not be decided (`note` says why).
        learns: loss fell, and predictions are not constant, by the same measure as for the baseline.
        steps_survived: finite steps. steps: steps tried.
        losses: loss per step, at most 200 points.
        layer: what the change touched, where it was one layer.
    """

    key: str
    change: str
    cause: Cause
    code: str
    removes_failure: bool | None
    learns: bool | None
    steps_survived: int
    steps: int
    loss_before: float | None
    loss_after: float | None
    losses: tuple[float, ...] = ()
    accuracy_after: float | None = None
    layer: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class StartState:
    """What replay started from.

    Attributes:
        checkpoint: path, or None for a fresh initialisation.
        kind: `last_healthy`, `healed` (non-finite entries drawn again from their initializers), `fresh` (new weights).
        seed: for `fresh` and `healed`.
        healed: paths of tensors that were redrawn.
        slots_restored: whether the optimizer's state was restored.
        loss: how the loss was obtained: `rebuilt`, `build function`, `custom objects`, `substituted`.
    """

    checkpoint: str | None
    kind: str
    seed: int | None = None
    healed: tuple[str, ...] = ()
    slots_restored: bool = False
    loss: str = "rebuilt"


@dataclass(frozen=True, slots=True)
class Replay:
    """Everything replay found.

    Attributes:
        reason: for NOT_RUN and FAILED one sentence with the remedy.
        mode: how the failing step was found: `graph`, `graph, oneDNN on`, `eager`, ….
        environment: tensorflow, keras, numpy versions, precision, xla, onednn, determinism, as strings.
        disagreement: for example "oneDNN hides the NaN: loss finite in fused mode, NaN in eager".
        steps: replayed steps. records: at most 500 of them (first and last kept).
        activity: layers at the start state; activity_end: at the last finite state of the run.
        prediction_std: standard deviation over rows of the model's output (mean over outputs), at the end state.
        target_std: the same of the targets. Both over the recorded batches.
        learns: whether the unchanged run learns (loss fell markedly), None if it failed first.
        skipped_experiments: (change, why).
        seconds_startup: TensorFlow's import and the rebuild; seconds: all.
    """

    status: ReplayStatus
    reason: str = ""
    device: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    start: StartState | None = None
    mode: str = ""
    steps: int = 0
    first_bad: NonfinitePoint | None = None
    records: tuple[StepRecord, ...] = ()
    layer_names: tuple[str, ...] = ()
    activity: tuple[LayerActivity, ...] = ()
    activity_end: tuple[LayerActivity, ...] = ()
    initial_loss: float | None = None
    prediction_std: float | None = None
    target_std: float | None = None
    learns: bool | None = None
    disagreement: str = ""
    findings_notes: tuple[str, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    skipped_experiments: tuple[tuple[str, str], ...] = ()
    seconds_startup: float = 0.0
    seconds: float = 0.0
