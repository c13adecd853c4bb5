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


CLEARLY = 0.5  # share explained from which a run under a stand-in for its loss counts as having learned; hand-chosen


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
    first_of_kind: str | None = (
        None  # first layer with the same growing activation as the overflowing one, upstream of it
    )


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
    weight_norm: float | None = None  # Euclidean norm over all trainable weights, before this step's update
    learning_rate: float | None = None  # in force at this step


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
            `loss_scaling`, `add_normalisation`, `reinitialise`, `shift_labels`, `scale_targets`, `output_activation`,
            `optimizer_adam`.
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
    score: float | None = None  # of the end state, see `Skill`
    baseline_score: float | None = None  # of the unchanged run from the same start over the same steps
    start: str = "last_healthy"  # kind of the start state, see `StartState`; may differ from the replay's own
    held_out: float | None = None  # score on rows kept apart, see `Skill`


@dataclass(frozen=True, slots=True)
class Skill:
    """How well predictions do against the best constant prediction, on recorded rows.

    Attributes:
        score: share of what a constant leaves unexplained that the model explains: R² for regression, the same of
            the misclassification rate (Cohen-like: (accuracy - majority) / (1 - majority)) for classes. 1 is perfect,
            0 is a constant, negative is worse than a constant; clipped at -1. None where targets allow neither.
        held_out: the same over rows that were not trained on; None with fewer than 32 of them.
        accuracy, majority: of classes; None for regression.
        loss: mean of the run's own loss. trivial_loss: the same of the best constant prediction, where computable.
        prediction_std, target_std: standard deviation over rows, mean over outputs.
        rank_correlation: Spearman's, of predictions and targets over rows, mean of its absolute value over outputs that
            vary: whatever scale the run's own loss asks for, a model that learned orders the rows.
        signed_rank_correlation: the same with its sign: below zero where predictions run against the targets.
        outputs: how many numbers a row have such a correlation.
    """

    score: float | None
    held_out: float | None = None
    accuracy: float | None = None
    majority: float | None = None
    loss: float | None = None
    trivial_loss: float | None = None
    prediction_std: float | None = None
    target_std: float | None = None
    rank_correlation: float | None = None
    signed_rank_correlation: float | None = None
    outputs: int | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """The unchanged run, repeated from the start state that the experiments use.

    Attributes:
        start: kind of the start state. checkpoint: its path, None for fresh weights.
        steps: finite steps. failed: whether a non-finite value came up.
        progress: share of the way from the first loss to the loss of the best constant that was covered; above 1
            means better than a constant; None where either is unknown.
        before, after: at the start and at the end.
    """

    start: str
    checkpoint: str | None
    steps: int
    failed: bool
    losses: tuple[float, ...] = ()
    progress: float | None = None
    before: Skill | None = None
    after: Skill | None = None


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
class Repeat:
    """The steps that the flight recorder kept, taken once more.

    Attributes:
        outcome: `same step` (fails at the step training failed at), `other step`, `finite` (nothing failed), or
            `not used` (reason says why).
        first_step, last_step: training steps of the window. failed_step: the one that failed now, None if none did.
        compared: finite steps whose loss was compared with the recorded one. equal: how many were equal to the last bit.
        difference: largest relative difference between the two, None where none was compared.
        seeds: generators whose state was put back.
        variables: non-finite weights after the failing step, at most 64. variables_agree: the same as recorded; None
            where either is unknown.
        honoured, not_honoured: what of the training was repeated exactly, and what was not, in words.
    """

    outcome: str
    reason: str = ""
    first_step: int | None = None
    last_step: int | None = None
    failed_step: int | None = None
    compared: int = 0
    equal: int = 0
    difference: float | None = None
    seeds: int = 0
    variables: tuple[str, ...] = ()
    variables_agree: bool | None = None
    honoured: tuple[str, ...] = ()
    not_honoured: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of the user's own that was rebuilt without, since its code is not at hand.

    Attributes:
        kind: `regularizer`, `constraint` or `initializer`. name: of the function or class. layer: whose it is.
    """

    kind: str
    name: str
    layer: str


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
        learns: whether the unchanged run learns: its recorded end state predicts markedly better than a constant, or
            the baseline comes to do so. None if it failed first or the targets do not allow to tell.
        skill: of the run's recorded end state on the recorded batches (the last finite checkpoint).
        baseline: the unchanged run from the start of the experiments, None where none was run.
        not_restored: paths of variables that the checkpoint did not fill ("skipped while loading").
        refused: reasons why the configuration was not rebuilt without `--trust`.
        label_range: for class indices outside the head: (lowest, highest, classes); None where they fit.
        suspected: a failure seen only under the usual formula for a custom loss of that name; never a reproduction.
        custom_loss: name of the run's loss where its code is not at hand and a substitute was used.
        left_out: parts of the user's own that the rebuilt model lacks.
        one_element_norms: normalisations that take their mean over a single element of a recorded batch.
        seconds_reproduce, seconds_closeup, seconds_eager_step: parts of `seconds`.
        skipped_experiments: (change, why).
        seconds_startup: TensorFlow's import and the rebuild; seconds: all.
        repeat: how the flight recorder's window was repeated; None without a recording.
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
    skill: Skill | None = None
    baseline: Baseline | None = None
    not_restored: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    label_range: tuple[int, int, int] | None = None
    suspected: NonfinitePoint | None = None
    left_out: tuple[LeftOut, ...] = ()
    custom_loss: str = ""
    seconds_reproduce: float = 0.0
    seconds_closeup: float = 0.0
    seconds_eager_step: float = 0.0
    one_element_norms: tuple[str, ...] = ()
    repeat: Repeat | None = None

    @property
    def learns_under_another_loss(self) -> bool:
        """The run's own loss is not at hand, and under the usual one that stood in for it the unchanged run learns clearly."""
        after = self.baseline.after if self.baseline is not None else None
        return bool(self.custom_loss) and after is not None and after.score is not None and after.score >= CLEARLY
