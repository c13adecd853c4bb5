"""What a run left behind: its files, its log, its last batches, its checkpoints over time."""

from __future__ import annotations

from dataclasses import dataclass, field

from ckptdoctor.model.base import Missing, Status
from ckptdoctor.model.checkpoint import Census


@dataclass(frozen=True, slots=True)
class IgnoredFile:
    """A file of the run directory that was not used, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What belongs together, by path. Nothing is open yet.

    Attributes:
        path: what the user asked about.
        checkpoints: candidates in training order as far as names and times tell; the saved iteration
            count, read later, outranks this order.
        logs, batches: files or directories.
        ignored: what else was there.
        recorder: the flight recorder's `recorder.json`, where there is exactly one.
    """

    path: str
    checkpoints: tuple[str, ...]
    logs: tuple[str, ...]
    batches: tuple[str, ...]
    ignored: tuple[IgnoredFile, ...] = ()
    recorder: str | None = None


# --- log ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Series:
    """One metric over time.

    The points are downsampled for display (extremes, first, last and every change between finite and
    non-finite kept); the counts and extremes beside them are exact over everything that was read.

    Attributes:
        name: as the log spells it (`loss`, `val_loss`, `epoch_loss`, `grad_norm`, …), with `validation/`
            before TensorBoard series of the validation writer.
        axis: `epoch`, `step` or `batch`; what `steps` count. Epochs count from 0 as Keras writes them.
        steps, values: equally long; values may be NaN or infinite.
        count: points read. nonfinite: how many of them were NaN or infinite.
        first_nonfinite: (step, value) of the first such point.
        min, max: over finite points, None without any.
    """

    name: str
    axis: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    count: int
    nonfinite: int
    first_nonfinite: tuple[float, float] | None
    min: float | None
    max: float | None


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """One log, whatever its format.

    Attributes:
        source: path. format: `csv`, `history-json`, `jsonl`, `tensorboard`, `console`, `mlflow`, ….
        series: by appearance.
        terminated: batch index named by a TerminateOnNaN line, with the epoch (or None) it was in.
        restarts: values of the axis at which the log starts again (a resumed run).
        notes: what was skipped and why.
        running_average: True where per-batch losses are running averages (console captures).
    """

    source: str
    format: str
    series: tuple[Series, ...]
    terminated: tuple[int | None, int] | None = None
    restarts: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    running_average: bool = False

    def find(self, name: str) -> Series | None:
        """The series of that exact name."""
        return next((s for s in self.series if s.name == name), None)


# --- recorder ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SeedState:
    """State of one seed generator of a layer; `layer` is None for Keras' global generator."""

    layer: str | None
    index: int
    state: tuple[int, int]


@dataclass(frozen=True, slots=True)
class RecordedArgument:
    """How one argument of the training step is made of recorded arrays.

    Attributes:
        form: `single`, `list` or `dict`. names: dict keys or input names. keys: of the arrays, in the same order.
    """

    form: str
    names: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordedWindow:
    """What the flight recorder kept to repeat the last steps.

    Attributes:
        checkpoint: path of the state before the first batch. batches: path of the batches; both inside the run directory.
        first_step, last_step: training steps of the batches, one after the other.
        x, y, sample_weight: the arguments of the step; None where there was none.
        traced_as: static shapes the step was compiled for, by array; an extent is None where it was free. Arrays of
            unknown rank, and those of a step that was not compiled, are absent.
        rows: of every batch, rows of each replica.
        densified: arrays that were ragged or sparse. stored_as: dtype the step saw, where the file cannot hold it.
        seeds: states of the seed generators before the first batch.
        losses: (step, loss) of the window's steps, as steps.jsonl has them.
    """

    checkpoint: str
    batches: str
    first_step: int
    last_step: int
    x: RecordedArgument
    y: RecordedArgument | None = None
    sample_weight: RecordedArgument | None = None
    traced_as: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    rows: tuple[tuple[int, ...], ...] = ()
    densified: tuple[str, ...] = ()
    stored_as: dict[str, str] = field(default_factory=dict)
    seeds: tuple[SeedState, ...] = ()
    losses: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class RecordedTraining:
    """How the model was being trained; each None where unknown.

    Attributes:
        loop: `fit` or `custom`. replicas: of a distribution strategy. loss_scaling: dynamic or fixed.
    """

    loop: str = "fit"
    jit_compile: bool | None = None
    run_eagerly: bool | None = None
    steps_per_execution: int | None = None
    gradient_accumulation_steps: int | None = None
    loss_scaling: bool | None = None
    dtype_policy: str | None = None
    optimizer: str | None = None
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class FlightRecord:
    """What the flight recorder's `recorder.json` says.

    Attributes:
        source: its path.
        status: `running` (the process was killed), `failed`, `interrupted` or `finished`.
        kind, text: why recording ended: `loss`, `weights`, `gradients`, `signal`, `exception` or `exit`; empty at an orderly
            end. step, epoch, batch, loss: of the step it ended with. variables: non-finite weights after it, at most 64.
        steps_taken: training steps.
        window: Missing where nothing can be repeated.
        environment: of the training: versions, devices, oneDNN.
        problems: what the recorder could not keep, in its words.
    """

    source: str
    status: str
    kind: str = ""
    text: str = ""
    step: int | None = None
    epoch: int | None = None
    batch: int | None = None
    loss: float | None = None
    variables: tuple[str, ...] = ()
    steps_taken: int = 0
    window: RecordedWindow | Missing = Missing("nothing was kept to repeat")
    training: RecordedTraining = RecordedTraining()
    environment: dict[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


# --- batches -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FeatureStats:
    """One feature (index along the last axis) over all rows. Moments are over finite entries."""

    index: int
    nonfinite: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    outlier_z: float | None = None  # largest robust z-score (median and MAD) in the feature
    code: float | None = (
        None  # a value far outside all others that stands repeatedly, as a missing value's stand-in does
    )
    code_count: int = 0  # how often it stands among the values that were looked at
    common: float | None = None  # the most frequent of the values that were looked at
    common_share: float = 0.0  # its share among them


@dataclass(frozen=True, slots=True)
class ArrayStats:
    """One array of the recorded batches, shape (K, B, …) or (N, …).

    Attributes:
        name: `x`, `x_0`, `x_<input>`, `y`, `y_<output>`, `sample_weight`.
        kind: `input`, `target` or `sample_weight`.
        shape, dtype: as stored. min, max, mean, std: over finite entries.
        bad_rows: (batch, row) pairs with a non-finite entry, at most 256. bad_row_count: all of them.
        bad_features: indices along the last axis with a non-finite entry, at most 256.
        integral: every finite entry is a whole number.
        classes: distinct values with their counts, where there are at most 1,000 of them and they are integral.
        features: per-feature statistics, at most 512 features; empty for images and the like (rank > 3).
        constant_features: indices of features with one value throughout, at most 256.
        duplicate_rows: rows that stand more than once (by hash).
        row_sums_to_one: for targets with a last axis > 1: all rows sum to 1 within 1e-3 (one-hot or soft).
        padding: of inputs with a time axis, (rows, steps) or (rows, steps, features): the share of steps at the end of a row
            that are zero throughout, median over rows; None for other arrays.
        sampled: True where the array was too large to read whole.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    nan: int
    posinf: int
    neginf: int
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    bad_rows: tuple[tuple[int, int], ...] = ()
    bad_row_count: int = 0
    bad_features: tuple[int, ...] = ()
    integral: bool = False
    classes: tuple[tuple[float, int], ...] = ()
    features: tuple[FeatureStats, ...] = ()
    constant_features: tuple[int, ...] = ()
    duplicate_rows: int = 0
    row_sums_to_one: bool = False
    padding: float | None = None
    sampled: bool = False

    @property
    def nonfinite(self) -> int:
        """NaN and both infinities."""
        return self.nan + self.posinf + self.neginf


@dataclass(frozen=True, slots=True)
class Association:
    """Does x predict y at all? Cross-validated, against the same with y permuted.

    Attributes:
        method: how it was measured, in words.
        score: share of y's variance (or of the entropy of classes) explained out of sample, clipped to [-1, 1].
        chance: mean score over permutations; chance_std: its standard deviation.
        rows: rows used.
        by_number: class ids were taken as numbers, since as classes nothing predicts them: ages, or grades. That they are
            related is then told, not how well a classifier could do.
    """

    method: str
    score: float
    chance: float
    chance_std: float
    rows: int
    by_number: bool = False


@dataclass(frozen=True, slots=True)
class Batches:
    """The last batches, measured."""

    source: str
    count: int
    steps: tuple[int, ...]
    inputs: tuple[ArrayStats, ...]
    targets: tuple[ArrayStats, ...]
    sample_weights: tuple[ArrayStats, ...] = ()
    association: Association | Missing = Missing("not measured")
    notes: tuple[str, ...] = ()


# --- timeline ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TimelinePoint:
    """One checkpoint of the run. `census` is Missing where it could not be read; its reason says why."""

    path: str
    epoch: int | None
    step: int | None
    status: Status
    nonfinite: int
    census: Census | Missing


@dataclass(frozen=True, slots=True)
class Growth:
    """A tensor's rms fitted as an exponential of the epoch (or checkpoint index) over healthy checkpoints.

    Attributes:
        path, layer, variable: which tensor.
        doubling: units of `axis` per doubling; negative for shrinking.
        r2: of the straight line through log2(rms).
        overflow_at: value of `axis` at which the dtype's largest finite number is reached, None if shrinking
            or more than 10,000 units away.
        axis: `epoch`, `step` or `checkpoint`.
    """

    path: str
    layer: str | None
    variable: str
    doubling: float
    r2: float
    overflow_at: float | None
    axis: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Displacement:
    """How far a weight went between two checkpoints, entry by entry (large ones sampled).

    Attributes:
        path, layer, variable: which weight.
        distance: rms of the difference. size: rms of the weight in the earlier checkpoint.
    """

    path: str
    layer: str | None
    variable: str
    distance: float
    size: float

    @property
    def relative(self) -> float | None:
        """Distance over size; None for a weight that was zero."""
        return self.distance / self.size if self.size > 0 else None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The run's checkpoints in training order.

    Attributes:
        points: in order. order: by what: `iterations`, `numbers in names`, `modification time`.
        last_healthy, first_bad: indices into `points`, or None.
        resume_from: index of the checkpoint to continue from; resume_reason says why, or why none.
        growth: fitted tensors, steepest first, at most 64.
        unmoved: paths of trainable weights whose statistics are equal in all healthy checkpoints though steps passed.
        displacement: of trainable weights from the first healthy checkpoint to the last, in the order of the layers.
        best_only_trap: the kept "best" checkpoint is sick and will never be overwritten.
    """

    points: tuple[TimelinePoint, ...]
    order: str
    last_healthy: int | None
    first_bad: int | None
    resume_from: int | None
    resume_reason: str
    growth: tuple[Growth, ...] = ()
    unmoved: tuple[str, ...] = ()
    displacement: tuple[Displacement, ...] = ()
    best_only_trap: bool = False
    notes: tuple[str, ...] = field(default=())
