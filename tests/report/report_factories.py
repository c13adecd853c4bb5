"""Reports made by hand, as realistic as the real ones: what renderings are tested and looked at with."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from ckptdoctor.model import (
    ArrayStats,
    Association,
    AxisNonfinite,
    Baseline,
    Batches,
    Cause,
    Census,
    ChainLink,
    CheckpointInfo,
    CompileSpec,
    Contribution,
    Diagnosis,
    Evidence,
    Experiment,
    FeatureStats,
    Finding,
    Fingerprint,
    Fix,
    Format,
    Grade,
    GradientScale,
    Growth,
    IgnoredFile,
    LayerActivity,
    LayerSpec,
    LossSpec,
    Missing,
    ModelSpec,
    NonfinitePoint,
    OptimizerSpec,
    OptimizerState,
    Origin,
    Pattern,
    Phase,
    Problem,
    ProblemKind,
    RankedCause,
    Replay,
    ReplayStatus,
    Report,
    Role,
    RuleFailure,
    RunFiles,
    Series,
    Severity,
    Skipped,
    StartState,
    Status,
    StepRecord,
    TensorGlimpse,
    TensorInfo,
    TensorStats,
    Timeline,
    TimelinePoint,
    TrainingLog,
    Verdict,
    Vote,
)

NAN, INF = math.nan, math.inf
VERSION = "0.1.0"

# --- small parts -------------------------------------------------------------------------------


def tensor(
    layer: str | None,
    variable: str,
    shape: tuple[int, ...],
    *,
    nan: int = 0,
    inf: int = 0,
    rms: float | None = 0.1,
    role: Role = Role.WEIGHT,
    slot: str | None = None,
    dtype: str = "float32",
    index: int = 0,
    axes: tuple[AxisNonfinite, ...] = (),
    zeros: int = 0,
) -> TensorStats:
    size = math.prod(shape)
    all_bad = nan + inf >= size
    path = f"layers/{layer}/vars/{index}" if slot is None else f"optimizer/vars/{layer}_{variable}_{slot}"
    info = TensorInfo(
        path,
        layer,
        f"layers/{layer}" if layer else None,
        variable,
        role,
        shape,
        dtype,
        size * 4,
        slot,
        f"layers/{layer}/vars/{index}" if slot else None,
        role is Role.WEIGHT,
    )
    if all_bad or rms is None:
        return TensorStats(info, nan=nan, posinf=inf, axes=axes)
    span = rms * 2.9
    mean = rms if slot == "velocity" else rms * 0.03
    low = 0.0 if slot == "velocity" else -span
    return TensorStats(info, nan, inf, 0, zeros, low, span * 1.07, mean, rms, axes)


def layer_spec(
    name: str,
    class_name: str,
    inbound: Sequence[str],
    depth: int,
    *,
    activation: str | None = None,
    units: int | None = None,
    policy: str = "float32",
    trainable: bool = True,
) -> LayerSpec:
    return LayerSpec(name, class_name, None, tuple(inbound), activation, units, policy, trainable, depth, {})


def optimizer_spec(class_name: str, rate: float, **settings: object) -> OptimizerSpec:
    values: dict[str, object] = {
        "custom": False,
        "learning_rate": rate,
        "schedule": None,
        "epsilon": 1e-7,
        "momentum": None,
        "clipnorm": None,
        "clipvalue": None,
        "global_clipnorm": None,
        "use_ema": False,
        "loss_scaled": False,
        "config": {},
        **settings,
    }
    return OptimizerSpec(class_name, **values)  # type: ignore[arg-type]  # the values stand above


def model_spec(
    layers: Sequence[LayerSpec],
    loss: str,
    optimizer: OptimizerSpec,
    *,
    class_name: str = "Sequential",
    policy: str = "float32",
) -> ModelSpec:
    taken = {name for layer in layers for name in layer.inbound}
    return ModelSpec(
        "model",
        class_name,
        tuple(layers),
        tuple(layer.name for layer in layers if not layer.inbound),
        tuple(layer.name for layer in layers if layer.name not in taken),
        True,
        (),
        policy,
        CompileSpec(optimizer, (LossSpec(None, loss, False, False, {}),), ("accuracy",), None),
    )


def info(path: str, size: int = 96_412) -> CheckpointInfo:
    return CheckpointInfo(
        path, Format.KERAS_ZIP, size, "3.15.1", "2026-02-11T09:14:03", Missing("Keras does not record it"), {}, {}
    )


def series(name: str, values: Sequence[float], axis: str = "epoch") -> Series:
    finite = [v for v in values if math.isfinite(v)]
    bad = [(float(i), v) for i, v in enumerate(values) if not math.isfinite(v)]
    return Series(
        name,
        axis,
        tuple(float(i) for i in range(len(values))),
        tuple(values),
        len(values),
        len(bad),
        bad[0] if bad else None,
        min(finite, default=None),
        max(finite, default=None),
    )


def ranked(
    cause: Cause,
    confidence: float,
    terms: Sequence[tuple[str | None, float, str]],
    fix: Fix | None = None,
    grade: Grade | None = None,
) -> RankedCause:
    contributions = tuple(Contribution(f, w, r) for f, w, r in terms)
    return RankedCause(
        cause,
        confidence,
        grade or (Grade.LIKELY if confidence > 0.5 else Grade.POSSIBLE),
        sum(c.weight for c in contributions),
        contributions,
        fix or Fix(f"What usually helps against {cause.value}."),
    )


# --- NaN in a feature ------------------------------------------------------------------------------


def _mlp_census(path: str, epoch: int, *, bad: bool, growth: float = 1.0) -> Census:
    row = (AxisNonfinite(0, 10, 1, 1, (2,)), AxisNonfinite(1, 64, 64, 0, tuple(range(64))))
    nan = 64 if bad else 0
    axes = row if bad else ()
    tensors = [
        tensor("dense", "kernel", (10, 64), nan=nan, rms=0.164 * growth, axes=axes),
        tensor("dense", "bias", (64,), rms=0.011 * (epoch + 0.1), index=1),
        tensor("dense_1", "kernel", (64, 32), rms=0.143 * growth),
        tensor("dense_1", "bias", (32,), rms=0.008 * (epoch + 0.1), index=1),
        tensor("dense_2", "kernel", (32, 1), rms=0.23 * growth),
        tensor("dense_2", "bias", (1,), rms=0.02 * (epoch + 0.1), index=1),
    ]
    for layer, shape in (("dense", (10, 64)), ("dense_1", (64, 32)), ("dense_2", (32, 1))):
        count = nan if layer == "dense" else 0
        tensors.append(tensor(layer, "kernel", shape, nan=count, rms=3.1e-3, role=Role.SLOT, slot="momentum"))
        tensors.append(tensor(layer, "kernel", shape, nan=count, rms=2.4e-5, role=Role.SLOT, slot="velocity"))
    scalars = {"iterations": 4.0 * (epoch + 1), "learning_rate": 1e-3}
    return Census(info(path), tuple(tensors), scalars, 0.004, 96_000)


def nan_feature() -> Report:
    """One NaN at row 5, feature 2: the loss stays finite, row 2 of the first kernel is NaN."""
    names = [f"checkpoints/epoch_{n:03d}.keras" for n in range(6)]
    censuses = [_mlp_census(f"runs/nan_feature/{n}", e, bad=e > 0, growth=1 + 0.02 * e) for e, n in enumerate(names)]
    points = tuple(
        TimelinePoint(c.info.path, e, 4 * e, Status.SICK if c.nonfinite else Status.HEALTHY, c.nonfinite, c)
        for e, c in enumerate(censuses)
    )
    spec = model_spec(
        [
            layer_spec("input_layer", "InputLayer", (), 0, units=10),
            layer_spec("dense", "Dense", ("input_layer",), 1, activation="relu", units=64),
            layer_spec("dense_1", "Dense", ("dense",), 2, activation="relu", units=32),
            layer_spec("dense_2", "Dense", ("dense_1",), 3, activation="linear", units=1),
        ],
        "mean_squared_error",
        optimizer_spec("Adam", 1e-3),
    )
    rng = random.Random(4)
    features = tuple(
        FeatureStats(
            i, int(i == 2), -2.1 - rng.random(), 2.0 + rng.random(), rng.gauss(0, 0.05), 1 + rng.gauss(0, 0.04), 3.1
        )
        for i in range(10)
    )
    x = ArrayStats(
        "x", "input", (4, 25, 10), "float32", 1, 0, 0, -2.94, 2.87, 0.012, 1.003,
        bad_rows=((0, 5),), bad_row_count=1, bad_features=(2,), features=features,
    )  # fmt: skip
    y = ArrayStats(
        "y",
        "target",
        (4, 25, 1),
        "float32",
        0,
        0,
        0,
        -3.2,
        3.9,
        0.1,
        1.4,
        features=(FeatureStats(0, 0, -3.2, 3.9, 0.1, 1.4, 2.8),),
    )
    loss = (2.213, 2.051, 1.944, 1.871, 1.823)
    drop = tuple(2.2 * 0.985**i + 0.02 * math.sin(i) for i in range(60))
    still = (2.2, 2.19) + (NAN,) * 58
    chain = (
        ChainLink(Phase.INPUT, None, "input x", 1, 250, -2.94, 2.87),
        ChainLink(Phase.FORWARD, "dense", "output before relu", 64, 1600, -3.1, 3.4),
        ChainLink(Phase.LOSS, None, "loss per sample", 1, 25, 0.004, 8.9),
        ChainLink(Phase.BACKWARD, "dense", "gradient of kernel", 64, 640, -0.31, 0.28),
        ChainLink(Phase.UPDATE, "dense", "kernel after the update", 64, 640, -0.48, 0.47),
    )
    replay = Replay(
        ReplayStatus.REPRODUCED,
        device="CPU (Xeon, 2 cores)",
        environment={"tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.2.1", "oneDNN": "off", "XLA": "off", "deterministic ops": "on"},
        start=StartState("runs/nan_feature/checkpoints/epoch_000.keras", "last_healthy", slots_restored=True),
        mode="graph",
        steps=1,
        first_bad=NonfinitePoint(
            Phase.INPUT, "dense", "MatMul", "kernel", 0, 4, 0, (5,), "nan",
            (TensorGlimpse("x", (25, 10), "float32", 1, -2.94, 2.87), TensorGlimpse("kernel", (10, 64), "float32", 0, -0.28, 0.28)),
            chain, (2,), "input x holds a NaN in row 5, feature 2",
        ),
        records=tuple(StepRecord(i, i % 4, v, None, 1.2 + 0.1 * i, (0.8, 0.5, 0.3)) for i, v in enumerate((2.2, 2.19, NAN))),
        layer_names=("dense", "dense_1", "dense_2"),
        disagreement="oneDNN hides the NaN: the loss is finite in fused graph mode and NaN without it",
        experiments=(
            Experiment("drop_bad_rows", "without row 5 of batch 0", Cause.DATA_NONFINITE, "mask = np.isfinite(x).all(axis=1)\nx, y = x[mask], y[mask]", True, True, 60, 60, 2.21, 0.91, drop),
            Experiment("impute_nan", "NaN replaced by the feature's mean", Cause.DATA_NONFINITE, "x = np.where(np.isnan(x), np.nanmean(x, axis=0), x)", True, True, 60, 60, 2.21, 0.93, tuple(v + 0.02 for v in drop)),
            Experiment("lr/100", "learning rate 1e-05 instead of 0.001", Cause.LEARNING_RATE, "keras.optimizers.Adam(1e-5)", False, None, 2, 60, 2.21, None, still),
            Experiment("clip_global_1", "gradients clipped to a global norm of 1", Cause.EXPLODING_GRADIENTS, "keras.optimizers.Adam(global_clipnorm=1.0)", False, None, 2, 60, 2.21, None, still),
            Experiment("standardise_inputs", "inputs standardised", Cause.DATA_SCALE, "keras.layers.Normalization()", False, None, 2, 60, 2.21, None, still),
        ),
        skipped_experiments=(("float32", "the model is float32 already"), ("stable_loss", "mean_squared_error has no other form")),
        seconds_startup=4.1,
        seconds=11.8,
    )  # fmt: skip
    findings = (
        Finding("CKD101", Severity.ERROR, "The kernel of layer dense holds 64 NaN of 640 entries, all of row 2 and no other.", "dense", "kernel", 1, 4, 64, 0, "entries", (Vote(Cause.DATA_NONFINITE, 2.6, "a NaN kernel row is what a NaN in that input feature leaves behind"),), 1.0, "CKD101-1"),
        Finding("CKD401", Severity.ERROR, "Input x holds 1 NaN: batch 0, row 5, feature 2.", None, None, None, 4, 1, 0, "entries", (Vote(Cause.DATA_NONFINITE, 4.1, "observed directly in the recorded batch"), Vote(Cause.LEARNING_RATE, -1.5, "the data explain it")), 1.0, "CKD401-1"),
        Finding("CKD501", Severity.ERROR, "Removing row 5 of batch 0 removed the failure, and the model then learned (loss 2.21 to 0.91 in 60 steps).", None, None, None, None, 60, 60, "steps survived", (Vote(Cause.DATA_NONFINITE, 3.5, "one change removed a reproduced failure"),), 1.0, "CKD501-1"),
        Finding("CKD502", Severity.INFO, "A learning rate 100 times smaller did not remove the failure.", None, None, None, None, 2, 60, "steps survived", (Vote(Cause.LEARNING_RATE, -2.4, "a smaller rate changes nothing"),), 1.0, "CKD502-1"),
        Finding("CKD203", Severity.WARNING, "The logged loss stayed finite in all 5 epochs although weights are NaN: the CPU's fused relu turned NaN into 0.", None, None, None, None, "finite", None, None, (), 0.9, "CKD203-1"),
    )  # fmt: skip
    fix = Fix(
        "Drop or repair the rows with NaN before training; here it is row 5 of the first batch, feature 2.",
        "mask = np.isfinite(x).all(axis=1)\nx, y = x[mask], y[mask]",
        True,
        "`np.isfinite(x).all()` on every batch of the pipeline.",
    )
    causes = (
        ranked(Cause.DATA_NONFINITE, 0.985, [(None, -2.3, "prior: how often this cause is met"), ("CKD401-1", 4.1, "observed directly in the recorded batch"), ("CKD501-1", 3.5, "one change removed a reproduced failure"), ("CKD101-1", 2.6, "a NaN kernel row is what a NaN in that input feature leaves behind")], fix, Grade.CONFIRMED),
        ranked(Cause.LEARNING_RATE, 0.006, [(None, -1.6, "prior: how often this cause is met"), ("CKD401-1", -1.5, "the data explain it"), ("CKD502-1", -2.4, "a smaller rate changes nothing")]),
        ranked(Cause.LABELS, 0.004, [(None, -2.3, "prior: how often this cause is met"), ("CKD401-1", -1.0, "targets are finite")]),
        ranked(Cause.EXPLODING_GRADIENTS, 0.002, [(None, -2.2, "prior: how often this cause is met"), ("CKD502-1", -2.0, "clipping changes nothing")]),
    )  # fmt: skip
    patterns = (
        Pattern("kernel_rows", "Row 2 of dense/kernel is NaN and no other: the weights of input feature 2.", "dense", "kernel", "input feature", (2,), 1, 10),
    )  # fmt: skip
    verdict = Verdict(
        Status.SICK,
        Cause.DATA_NONFINITE,
        Grade.CONFIRMED,
        0.985,
        "Input feature 2 holds a NaN (row 5 of the first batch), and it made row 2 of the first kernel NaN while the loss stayed finite.",
        "Drop or repair that row, then continue from epoch_000.keras.",
    )
    return Report(
        Evidence(
            RunFiles("runs/nan_feature", tuple(c.info.path for c in censuses), ("runs/nan_feature/training_log.csv",), ("runs/nan_feature/last_batches.npz",), (IgnoredFile("runs/nan_feature/notes.md", "not a checkpoint, a log or batches"),)),
            censuses[1],
            spec,
            Fingerprint(patterns, ("dense",), "dense", 4),
            _adam_state(("dense", "dense_1", "dense_2"), (4.9e-3, 3.2e-3, 5.8e-3), 8, 1e-3, bad=("dense",)),
            Timeline(points, "iterations", 0, 1, 0, "it is the last one in which every weight and slot is finite"),
            (TrainingLog("runs/nan_feature/training_log.csv", "csv", (series("loss", loss), series("val_loss", tuple(v * 1.06 for v in loss)))),),
            Batches("runs/nan_feature/last_batches.npz", 4, (1, 2, 3, 4), (x,), (y,), (), Association("ridge regression, 5 folds", 0.41, 0.0, 0.02, 99)),
            replay,
        ),
        findings,
        (Skipped("CKD310", "not selected"), Skipped("CKD110", "needs spec: no normalisation layers")),
        (),
        Diagnosis(verdict, causes, Origin("dense", "kernel", Phase.INPUT, "MatMul", 1, 4, 0, (5,), "replay from epoch_000.keras, and the recorded batch itself")),
        VERSION,
        12.6,
        {"device": "auto", "steps": 400},
    )  # fmt: skip


def _adam_state(
    layers: Sequence[str],
    gradients: Sequence[float],
    iterations: int,
    rate: float,
    *,
    bad: Sequence[str] = (),
    loss_scale: float | None = None,
) -> OptimizerState:
    scales = tuple(
        GradientScale(
            f"layers/{n}/vars/0",
            n,
            "kernel",
            None if n in bad else g,
            g * 0.6,
            None if n in bad else rate * 0.8 / 0.15,
            0.15,
        )
        for n, g in zip(layers, gradients, strict=True)
    )
    return OptimizerState(
        "Adam", iterations, rate, "stored scalar", scales, gradients[0] / gradients[-1], loss_scale, None, False
    )


# --- exploding recurrent network -------------------------------------------------------------------


def _rnn_census(path: str, epoch: int, *, bad: bool) -> Census:
    scale = 2 ** (epoch / 1.4)
    shapes = (
        ("simple_rnn", "kernel", (10, 100)),
        ("simple_rnn", "recurrent_kernel", (100, 100)),
        ("simple_rnn", "bias", (100,)),
        ("dense", "kernel", (100, 1)),
        ("dense", "bias", (1,)),
    )
    tensors = []
    for i, (layer, variable, shape) in enumerate(shapes):
        factor = scale if variable == "recurrent_kernel" else scale**0.4
        tensors.append(tensor(layer, variable, shape, nan=math.prod(shape) if bad else 0, rms=0.1 * factor, index=i))
    for layer, variable, shape in shapes[:4:3] + shapes[1:2]:
        tensors.append(
            tensor(
                layer,
                variable,
                shape,
                nan=math.prod(shape) if bad else 0,
                rms=1e-2 * scale**3,
                role=Role.SLOT,
                slot="velocity",
            )
        )
    return Census(info(path, 148_220), tuple(tensors), {"iterations": 32.0 * epoch, "learning_rate": 0.05}, 0.006, 140_000)  # fmt: skip


def exploding_rnn() -> Report:
    """A recurrent net whose loss grows over decades until it overflows in epoch 11."""
    paths = [f"runs/rnn/checkpoints/epoch_{n:03d}.keras" for n in range(14)]
    censuses = [_rnn_census(p, e, bad=e >= 12) for e, p in enumerate(paths)]
    points = tuple(
        TimelinePoint(c.info.path, e, 32 * e, Status.SICK if c.nonfinite else Status.HEALTHY, c.nonfinite, c)
        for e, c in enumerate(censuses)
    )
    rng = random.Random(1)
    loss = [1.4e4 * math.exp(0.55 * e**1.35) * (1 + 0.1 * rng.random()) for e in range(11)] + [INF, NAN, NAN]
    val = [v * (1.1 + 0.2 * rng.random()) if math.isfinite(v) else v for v in loss[:10]] + [INF, NAN, NAN, NAN]
    rate = [0.05] * 5 + [0.1] * 9
    spec = model_spec(
        [
            layer_spec("input_layer", "InputLayer", (), 0, units=10),
            layer_spec("simple_rnn", "SimpleRNN", ("input_layer",), 1, activation="relu", units=100),
            layer_spec("dense", "Dense", ("simple_rnn",), 2, activation="linear", units=1),
        ],
        "mean_squared_error",
        optimizer_spec("SGD", 0.1, momentum=0.0, epsilon=None),
    )
    x = ArrayStats("x", "input", (8, 32, 25, 10), "float32", 0, 0, 0, -412.0, 398.0, 0.7, 99.4)
    y = ArrayStats("y", "target", (8, 32, 1), "float32", 0, 0, 0, -310.0, 344.0, 2.1, 101.3, duplicate_rows=3)
    records = tuple(
        StepRecord(i, i % 8, 3e9 * 10 ** (i * 1.9) if i < 16 else INF, None, 4e4 * 10 ** (i * 1.3) if i < 16 else NAN, (3e4 * 10 ** (i * 1.3), 40.0 * 10**i))
        for i in range(17)
    )  # fmt: skip
    heal = tuple(1.4e4 * 0.97**i + 300 for i in range(80))
    finite = tuple(1.4e4 * (1 - 0.001 * i) for i in range(80))
    fails = tuple(1.4e4 * 10 ** (i * 0.15) for i in range(16)) + (INF,) + (NAN,) * 63
    replay = Replay(
        ReplayStatus.REPRODUCED,
        device="CPU",
        environment={"tensorflow": "2.21.0", "keras": "3.15.1", "oneDNN": "off", "XLA": "off"},
        start=StartState(paths[11], "last_healthy", slots_restored=True),
        mode="graph",
        steps=17,
        first_bad=NonfinitePoint(
            Phase.BACKWARD, "simple_rnn", "MatMul", "recurrent_kernel", 16, 368, 0, (), "inf",
            (TensorGlimpse("gradient of the state at time 3", (32, 100), "float32", 0, -2.9e38, 3.1e38), TensorGlimpse("recurrent_kernel", (100, 100), "float32", 0, -91.0, 97.5)),
            (
                ChainLink(Phase.BACKWARD, "simple_rnn", "gradient of the state", 412, 3200, -3.1e38, 3.2e38),
                ChainLink(Phase.BACKWARD, "simple_rnn", "gradient of recurrent_kernel", 10000, 10000, None, None),
                ChainLink(Phase.UPDATE, "simple_rnn", "recurrent_kernel after the update", 10000, 10000, None, None),
                ChainLink(Phase.FORWARD, "simple_rnn", "output of the next step", 3200, 3200, None, None),
                ChainLink(Phase.LOSS, None, "loss per sample of the next step", 32, 32, None, None),
            ),
        ),
        records=records,
        layer_names=("simple_rnn", "dense"),
        baseline=Baseline("last_healthy", paths[11], 16, True, fails[:17]),
        activity=(
            LayerActivity("simple_rnn", "SimpleRNN", "relu", TensorGlimpse("simple_rnn", (32, 100), "float32", 0, 0.0, 4.4e6), 0.31, None, 9.1e5, -2e6, 4.4e6, 310.0),
            LayerActivity("dense", "Dense", "linear", TensorGlimpse("dense", (32, 1), "float32", 0, -8e6, 7e6), None, None, 4.2e6, None, None, 2.2),
        ),
        experiments=(
            Experiment("clip_global_1", "gradients clipped to a global norm of 1", Cause.EXPLODING_GRADIENTS, "keras.optimizers.SGD(0.1, global_clipnorm=1.0)", True, True, 80, 80, 1.4e4, 1560.0, heal),
            Experiment("lr/100", "learning rate 0.001 instead of 0.1", Cause.LEARNING_RATE, "keras.optimizers.SGD(0.001)", True, True, 80, 80, 1.4e4, 1810.0, tuple(v * 1.1 for v in heal)),
            Experiment("standardise_inputs_targets", "inputs and targets standardised", Cause.DATA_SCALE, "keras.layers.Normalization()", True, False, 80, 80, 1.4e4, 1.29e4, finite),
            Experiment("lr/10", "learning rate 0.01 instead of 0.1", Cause.LEARNING_RATE, "keras.optimizers.SGD(0.01)", False, None, 16, 80, 1.4e4, None, fails),
            Experiment("drop_bad_rows", "without the 3 duplicated rows", Cause.LABELS, "", None, None, 0, 80, None, None, (), note="no row stands out"),
        ),
        seconds_startup=4.0,
        seconds=31.0,
    )  # fmt: skip
    findings = (
        Finding("CKD201", Severity.ERROR, "The loss grew 71 times per 5 epochs before it became infinite in epoch 11.", None, None, 11, None, 71.0, 10.0, "x over 5 epochs", (Vote(Cause.EXPLODING_GRADIENTS, 1.2, "growth over decades"),), 1.0, "CKD201-1"),
        Finding("CKD301", Severity.ERROR, "The recurrent kernel doubles every 1.4 epochs.", "simple_rnn", "recurrent_kernel", 11, None, 1.4, 4.0, "epochs per doubling", (Vote(Cause.EXPLODING_GRADIENTS, 1.9, "recurrent weights grow exponentially"),), 1.0, "CKD301-1"),
        Finding("CKD402", Severity.WARNING, "Inputs have a standard deviation of 99.4; 1 is usual.", None, None, None, None, 99.4, 10.0, "standard deviation", (Vote(Cause.DATA_SCALE, 1.1, "large features"), Vote(Cause.EXPLODING_GRADIENTS, 0.2, "large inputs make large gradients")), 1.0, "CKD402-1"),
        Finding("CKD501", Severity.ERROR, "Clipping to a global norm of 1 removed the failure, and the model then learned.", None, None, None, None, 80, 80, "steps survived", (Vote(Cause.EXPLODING_GRADIENTS, 2.2, "clipping heals"), Vote(Cause.DATA_SCALE, -1.3, "standardising does not make it learn")), 1.0, "CKD501-1"),
        Finding("CKD204", Severity.INFO, "The learning rate doubled in epoch 5.", None, None, 5, None, 0.1, None, None, (Vote(Cause.LEARNING_RATE, 0.9, "a jump shortly before the blow-up"),), 1.0, "CKD204-1"),
    )  # fmt: skip
    causes = (
        ranked(Cause.EXPLODING_GRADIENTS, 0.81, [(None, -2.2, "prior: how often this cause is met"), ("CKD501-1", 2.2, "clipping heals"), ("CKD301-1", 1.9, "recurrent weights grow exponentially"), ("CKD201-1", 1.2, "growth over decades"), ("CKD402-1", 0.2, "large inputs make large gradients")], Fix("Clip gradients by their global norm.", 'model.compile(\n    optimizer=keras.optimizers.SGD(0.1, global_clipnorm=1.0),\n    loss="mse",\n)', True, "the gradient norm: it should stay near 1."), Grade.CONFIRMED),
        ranked(Cause.LEARNING_RATE, 0.11, [(None, -1.6, "prior: how often this cause is met"), ("CKD501-1", 1.4, "a smaller rate heals too"), ("CKD204-1", 0.9, "a jump shortly before the blow-up")]),
        ranked(Cause.DATA_SCALE, 0.07, [(None, -2.0, "prior: how often this cause is met"), ("CKD402-1", 1.1, "large features"), ("CKD501-1", -1.3, "standardising does not make it learn")]),
    )  # fmt: skip
    growth = (
        Growth("layers/simple_rnn/vars/1", "simple_rnn", "recurrent_kernel", 1.4, 0.998, 178.0, "epoch", 0.1, 23.0),
    )
    verdict = Verdict(
        Status.SICK, Cause.EXPLODING_GRADIENTS, Grade.CONFIRMED, 0.81,
        "The recurrent kernel doubled every 1.4 epochs until its gradient overflowed in epoch 11; clipping gradients removes the failure.",
        "Clip gradients by global norm and start again from epoch_004.keras.",
    )  # fmt: skip
    return Report(
        Evidence(
            RunFiles("runs/rnn", tuple(paths), ("runs/rnn/training_log.csv",), ("runs/rnn/last_batches.npz",)),
            censuses[12],
            spec,
            Fingerprint((Pattern("everything", "Every trainable weight is NaN."),), ("simple_rnn", "dense"), "simple_rnn", 32),
            OptimizerState("SGD", 384, 0.1, "stored scalar", (), None, None, None, False),
            Timeline(points, "iterations", 11, 12, 4, "the last one before the loss began to climb", growth, notes=("epoch_013.keras holds the same as epoch_012.keras",)),
            (TrainingLog("runs/rnn/training_log.csv", "csv", (series("loss", loss), series("val_loss", val), series("learning_rate", rate))),),
            Batches("runs/rnn/last_batches.npz", 8, tuple(range(361, 369)), (x,), (y,)),
            replay,
        ),
        findings, (), (),
        Diagnosis(verdict, causes, Origin("simple_rnn", "recurrent_kernel", Phase.BACKWARD, "MatMul", 11, 368, 0, (), "replay from epoch_011.keras")),
        VERSION, 33.4,
    )  # fmt: skip


# --- float16 overflow in a residual network ------------------------------------------------------------


def float16_overflow() -> Report:
    """A branching mixed-precision network whose attention-like softmax overflows."""
    layers = [layer_spec("image", "InputLayer", (), 0, units=3)]
    tensors: list[TensorStats] = []
    last, depth = "image", 0
    for block in range(4):
        width = 32 * 2**block
        for part in ("conv_a", "bn_a", "relu_a", "conv_b", "bn_b"):
            name = f"block{block}_{part}"
            kind = {"conv": "Conv2D", "bn": "BatchNormalization", "relu": "Activation"}[part.split("_")[0]]
            depth += 1
            layers.append(
                layer_spec(
                    name,
                    kind,
                    (last,),
                    depth,
                    activation="relu" if kind == "Activation" else None,
                    units=width,
                    policy="mixed_float16",
                )
            )
            if kind == "Conv2D":
                tensors.append(tensor(name, "kernel", (3, 3, width // 2 or 3, width), rms=0.06))
            elif kind == "BatchNormalization":
                tensors += [
                    tensor(name, "gamma", (width,), rms=1.0),
                    tensor(name, "moving_variance", (width,), rms=0.9, role=Role.STATISTIC, index=3),
                ]
            last = name
        shortcut = f"block{block}_shortcut"
        source = layers[-6].name
        layers.append(layer_spec(shortcut, "Conv2D", (source,), depth, units=width, policy="mixed_float16"))
        tensors.append(tensor(shortcut, "kernel", (1, 1, width // 2 or 3, width), rms=0.11))
        depth += 1
        layers.append(layer_spec(f"block{block}_add", "Add", (last, shortcut), depth, policy="mixed_float16"))
        last = f"block{block}_add"
    for name, kind, units in (
        ("pool", "GlobalAveragePooling2D", None),
        ("logits", "Dense", 10),
        ("probabilities", "Activation", 10),
    ):
        depth += 1
        layers.append(
            layer_spec(
                name,
                kind,
                (last,),
                depth,
                activation="softmax" if kind == "Activation" else None,
                units=units,
                policy="float32" if name == "probabilities" else "mixed_float16",
            )
        )
        last = name
    bad = {"block3_conv_a", "block3_conv_b", "block3_shortcut", "logits", "block3_bn_a", "block3_bn_b"}
    tensors += [tensor("logits", "kernel", (256, 10), rms=0.2), tensor("logits", "bias", (10,), rms=0.01, index=1)]
    sick = tuple(
        tensor(t.info.layer, t.info.variable, t.info.shape, nan=t.info.size, rms=None) if t.info.layer in bad and t.info.role is Role.WEIGHT else t
        for t in tensors
    )  # fmt: skip
    slots = tuple(
        tensor(t.info.layer, "kernel", t.info.shape, inf=t.info.size if t.info.layer in bad else 0, rms=1e-4 * (1 + i), role=Role.SLOT, slot="velocity")
        for i, t in enumerate(tensors) if t.info.variable == "kernel"
    )  # fmt: skip
    census = Census(
        info("run16/ckpt-00004.keras", 6_220_114),
        sick + slots,
        {"iterations": 812.0, "learning_rate": 3e-3, "loss_scale": 1.0},
        0.02,
        6_000_000,
    )
    before = Census(info("run16/ckpt-00003.keras", 6_220_114), tuple(tensors), {"iterations": 640.0}, 0.02, 6_000_000)
    spec = model_spec(
        layers,
        "sparse_categorical_crossentropy",
        optimizer_spec("Adam", 3e-3, loss_scaled=True),
        class_name="Functional",
        policy="mixed_float16",
    )
    points = (
        TimelinePoint("run16/ckpt-00001.keras", None, 320, Status.HEALTHY, 0, before),
        TimelinePoint("run16/ckpt-00002.keras", None, 480, Status.UNREADABLE, 0, Missing("the save was cut off at 61 % of its bytes")),
        TimelinePoint("run16/ckpt-00003.keras", None, 640, Status.HEALTHY, 0, before),
        TimelinePoint("run16/ckpt-00004.keras", None, 812, Status.SICK, census.nonfinite, census),
    )  # fmt: skip
    rng = random.Random(9)
    losses = [
        2.3 * math.exp(-i / 300) + 0.12 * rng.random() + (3.0 * rng.random() if i > 700 else 0)
        for i in range(0, 795, 5)
    ] + [NAN] * 4
    batch_loss = Series(
        "batch_loss",
        "step",
        tuple(float(5 * i) for i in range(len(losses))),
        tuple(losses),
        len(losses) * 5,
        17,
        (795.0, NAN),
        0.2,
        4.1,
    )
    names = tuple(layer.name for layer in layers if layer.class_name in ("Conv2D", "Dense"))
    finding = Finding(
        "CKD120",
        Severity.ERROR,
        "The loss scale fell to 1 and 148 of the last 172 updates were skipped.",
        None,
        None,
        None,
        812,
        1.0,
        2.0,
        "loss scale",
        (Vote(Cause.MIXED_PRECISION, 1.8, "the loss scale collapsed"),),
        1.0,
        "CKD120-1",
    )
    second = Finding(
        "CKD102",
        Severity.ERROR,
        "The second moment of block3_conv_a/kernel is infinite while earlier layers are finite.",
        "block3_conv_a",
        "kernel",
        None,
        812,
        INF,
        65504.0,
        None,
        (
            Vote(Cause.MIXED_PRECISION, 0.9, "an overflow, not a NaN, stands first"),
            Vote(Cause.EXPLODING_GRADIENTS, 0.7, "infinite second moments"),
        ),
        1.0,
        "CKD102-1",
    )
    causes = (
        ranked(Cause.MIXED_PRECISION, 0.64, [(None, -2.6, "prior: how often this cause is met"), ("CKD120-1", 1.8, "the loss scale collapsed"), ("CKD102-1", 0.9, "an overflow, not a NaN, stands first")], Fix("Keep the head in float32 and divide activations before block 3.", 'logits = keras.layers.Dense(10, dtype="float32")(x)', False, "the loss scale: it should grow again."), Grade.LIKELY),
        ranked(Cause.EXPLODING_GRADIENTS, 0.22, [(None, -2.2, "prior: how often this cause is met"), ("CKD102-1", 0.7, "infinite second moments")]),
        ranked(Cause.LEARNING_RATE, 0.1, [(None, -1.6, "prior: how often this cause is met")]),
    )  # fmt: skip
    verdict = Verdict(
        Status.SICK, Cause.MIXED_PRECISION, Grade.LIKELY, 0.64,
        "float16 overflowed in block 3 around step 795: the loss scale collapsed to 1 and the second moments there are infinite.",
        "Keep the head in float32 and continue from ckpt-00003.keras.",
    )  # fmt: skip
    return Report(
        Evidence(
            RunFiles("run16", tuple(p.path for p in points), ("run16/train/events.out.tfevents.1700",), ()),
            census, spec,
            Fingerprint((Pattern("downstream_only", "Only layers from block3_conv_a on are NaN.", "block3_conv_a"),), tuple(sorted(bad)), "block3_conv_a", 172),
            _adam_state(names, tuple(1e-4 * (i + 1) for i in range(len(names))), 812, 3e-3, bad=tuple(n for n in names if n in bad), loss_scale=1.0),
            Timeline(points, "numbers in names", 2, 3, 2, "it is the last readable one in which everything is finite"),
            (TrainingLog("run16/train/events.out.tfevents.1700", "tensorboard", (batch_loss,), notes=("the last record is cut off",)),),
            Missing("no recorded batches were found"),
            Replay(ReplayStatus.NOT_RUN, "there are no recorded batches to replay"),
            (("run16/ckpt-00002.keras", "the save was cut off at 61 % of its bytes"),),
        ),
        (finding, second),
        tuple(Skipped(f"CKD4{n:02d}", "needs batches: no recorded batches were found") for n in range(1, 9)),
        (),
        Diagnosis(verdict, causes, Origin("block3_conv_a", "kernel", Phase.FORWARD, None, None, 795, None, (), "fingerprint of ckpt-00004.keras and the log")),
        VERSION, 1.4,
    )  # fmt: skip


# --- nothing wrong, nothing readable, nothing known --------------------------------------------------------


def healthy() -> Report:
    """A run in which nothing is wrong."""
    paths = [f"runs/good/checkpoints/epoch_{n:03d}.keras" for n in range(8)]
    censuses = [_mlp_census(p, e, bad=False, growth=1 + 0.05 * e) for e, p in enumerate(paths)]
    points = tuple(TimelinePoint(c.info.path, e, 4 * e, Status.HEALTHY, 0, c) for e, c in enumerate(censuses))
    base = nan_feature()
    loss = tuple(2.2 * math.exp(-0.3 * e) + 0.1 for e in range(8))
    verdict = Verdict(
        Status.HEALTHY,
        Cause.HEALTHY,
        Grade.LIKELY,
        0.93,
        "Nothing wrong was found: all weights are finite and the loss falls.",
        "Nothing to do.",
    )
    return Report(
        Evidence(
            RunFiles("runs/good", tuple(paths), ("runs/good/training_log.csv",), ()),
            censuses[-1], base.evidence.spec,
            Fingerprint((), (), None),
            _adam_state(("dense", "dense_1", "dense_2"), (4.9e-3, 3.2e-3, 5.8e-3), 32, 1e-3),
            Timeline(points, "iterations", 7, None, None, "the run did not fail"),
            (TrainingLog("runs/good/training_log.csv", "csv", (series("loss", loss), series("val_loss", tuple(v * 1.1 for v in loss)))),),
        ),
        (Finding("CKD210", Severity.INFO, "The validation loss is 10 % above the training loss.", measured=0.1, threshold=0.5, unit="relative gap", id="CKD210-1"),),
        tuple(Skipped(f"CKD4{n:02d}", "needs batches: no recorded batches were found") for n in range(1, 9)),
        (),
        Diagnosis(verdict, (ranked(Cause.HEALTHY, 0.93, [(None, 2.6, "nothing speaks for a fault")]),), Origin()),
        VERSION, 0.2,
    )  # fmt: skip


def unreadable() -> Report:
    """A file that is no checkpoint any more."""
    sentence = "model.keras ends at 48 % of its length: the save was cut off; its configuration could still be read"
    verdict = Verdict(
        Status.UNREADABLE, Cause.UNKNOWN, Grade.UNKNOWN, 0.0, sentence, "Inspect an earlier checkpoint of the run."
    )
    return Report(
        Evidence(RunFiles("model.keras", ("model.keras",), (), ()), Missing(sentence), unreadable=(("model.keras", sentence),)),
        (), (), (),
        Diagnosis(verdict, (), Origin()),
        VERSION, 0.01,
    )  # fmt: skip


def nothing_known() -> Report:
    """A weights file alone: sick, and nothing else was kept."""
    census = Census(
        CheckpointInfo("w.weights.h5", Format.WEIGHTS_H5, 4000, Missing("not stored in .weights.h5"), Missing("not stored"), Missing("not stored"), Missing("weights only"), Missing("weights only"), problems=(Problem(ProblemKind.INCOMPLETE, "there is no optimizer state", None),), coverage=0.97),
        (tensor("dense", "kernel", (10, 4), nan=40, rms=None), tensor("dense", "bias", (4,), nan=4, rms=None, index=1)),
        {},
    )  # fmt: skip
    verdict = Verdict(
        Status.SICK, Cause.UNKNOWN, Grade.UNKNOWN, 0.3,
        "All weights are NaN, and nothing is left that tells why.",
        "Record the last batches and a checkpoint from before the failure: ckptdoctor.FlightRecorder keeps both.",
    )  # fmt: skip
    finding = Finding(
        "CKD101", Severity.ERROR, "All 44 entries are NaN.", measured=44, threshold=0, unit="entries", id="CKD101-1"
    )
    causes = (
        ranked(Cause.LEARNING_RATE, 0.3, [(None, -0.9, "prior: how often this cause is met")]),
        ranked(Cause.DATA_NONFINITE, 0.25, [(None, -1.1, "prior: how often this cause is met")]),
    )
    return Report(
        Evidence(RunFiles("w.weights.h5", ("w.weights.h5",), (), ()), census, optimizer=Missing("weights only: no optimizer state")),
        (finding,),
        (Skipped("CKD201", "needs logs: no training log was found"), Skipped("CKD301", "needs timeline: only one checkpoint was given")),
        (RuleFailure("CKD103", "ZeroDivisionError: division by zero"),),
        Diagnosis(verdict, causes, Origin()),
        VERSION, 0.02,
    )  # fmt: skip


# --- hostile and huge --------------------------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script>",
    "\x1b[31mred\x1b[0m\x07",
    "=cmd|'/c calc'!A0",
    "two\nlines\r::error::injected",
    "`code` **bold** [link](https://evil.example) @everyone #1 | cell",
    "a]]><!--b-->&amp;\"'",
    "\u202egnp.exe\u202c",
    "{{ 7*7 }}{% raw %}",
    "x" * 300,
)


def hostile() -> Report:
    """Names and messages that would do harm where they are not shown as text."""
    layers = [layer_spec("input", "InputLayer", (), 0)]
    tensors: list[TensorStats] = []
    for depth, name in enumerate(HOSTILE, 1):
        layers.append(layer_spec(name, "Dense\n<b>", (layers[-1].name,), depth, activation="relu"))
        tensors += [tensor(name, "kernel<i>", (8, 8), nan=64 if depth == 1 else 0), tensor(name, "bias", (8,), index=1)]
    findings = tuple(
        Finding("CKD101", Severity.ERROR, f"Layer {name} is NaN.", name, "kernel", measured=name, unit=name, votes=(Vote(Cause.LABELS, 0.5, name),), id=f"CKD101-{n}")
        for n, name in enumerate(HOSTILE, 1)
    )  # fmt: skip
    text = " ".join(HOSTILE)
    path = "-rf/<img src=x onerror=alert(1)>\x1b]0;title\x07.keras"
    verdict = Verdict(Status.SICK, Cause.LABELS, Grade.LIKELY, 0.7, f"Broke at {text}", f"Look at {text}")
    fix = Fix(f"Change {text}", f"```\n</code></pre><script>alert(2)</script>\n{text}", True, text)
    census = Census(info(path), tuple(tensors), {"iterations": 3.0})
    experiment = Experiment(
        "shift_labels", text, Cause.LABELS, text, True, True, 3, 3, 1.0, 0.5, (1.0, NAN, 0.5), note=text
    )
    chain = tuple(ChainLink(Phase.FORWARD, name, name, 3, 9, None, None) for name in HOSTILE)
    replay = Replay(
        ReplayStatus.REPRODUCED, text, text, {text: text}, StartState(path, text), text, 3,
        NonfinitePoint(Phase.LOSS, HOSTILE[0], HOSTILE[2], HOSTILE[3], 0, 1, 0, (1,), "nan", (TensorGlimpse(HOSTILE[0], (1,), text, 1, None, None),), chain, (), text),
        experiments=(experiment,), skipped_experiments=((text, text),), disagreement=text,
        records=(StepRecord(0, 0, 1.0, None, 1.0), StepRecord(1, 0, NAN, None, NAN)),
    )  # fmt: skip
    array = ArrayStats(
        HOSTILE[0],
        "input",
        (2, 4, 3),
        HOSTILE[3],
        1,
        0,
        0,
        0.0,
        1.0,
        0.5,
        0.2,
        bad_rows=((0, 1),),
        bad_row_count=1,
        features=(FeatureStats(0, 1, 0.0, 1.0, 0.5, 0.1),),
    )
    return Report(
        Evidence(
            RunFiles(path, (path,), (text,), (text,), (IgnoredFile(path, text),)),
            census,
            model_spec(layers, HOSTILE[0], optimizer_spec(HOSTILE[2], NAN)),
            Fingerprint((Pattern(text, text, text),), HOSTILE, HOSTILE[0]),
            OptimizerState(text, 3, NAN, text, (), None, None, None, False, (text,)),
            Missing(text),
            (TrainingLog(text, text, (series(HOSTILE[0], (1.0, NAN, INF)), series("loss", (1.0, NAN, INF))), notes=(text,)),),
            Batches(text, 2, (1, 2), (array,), (array,), notes=(text,)),
            replay,
            ((path, text),),
        ),
        findings,
        (Skipped("CKD999", text),),
        (RuleFailure("CKD998", text),),
        Diagnosis(verdict, (ranked(Cause.LABELS, 0.7, [("CKD101-1", 1.0, text), (None, -1.0, text)], fix),), Origin(HOSTILE[0], HOSTILE[1], Phase.LOSS, HOSTILE[2], 1, 2, 3, (4,), text)),
        VERSION, 0.1, {text: text},
    )  # fmt: skip


def large(layers: int = 4000, checkpoints: int = 12) -> Report:
    """A deep stack of dense and normalisation layers, NaN from the middle on, with a census per checkpoint."""
    rng = random.Random(0)
    names = [f"stage_{i // 40:03d}/{'dense' if i % 2 == 0 else 'norm'}_{i:04d}" for i in range(layers)]
    specs = [layer_spec("tokens", "InputLayer", (), 0)]
    for i, name in enumerate(names):
        inbound = (specs[-1].name,) if i % 40 or i < 40 else (specs[-1].name, specs[-39].name)
        specs.append(
            layer_spec(
                name,
                "Dense" if i % 2 == 0 else "LayerNormalization",
                inbound,
                i + 1,
                activation="gelu" if i % 2 == 0 else None,
                units=512,
            )
        )
    scales = [0.05 * math.exp(rng.gauss(0, 0.3)) for _ in names]

    def census(epoch: int, bad_from: int | None) -> Census:
        tensors: list[TensorStats] = []
        for i, name in enumerate(names):
            bad = bad_from is not None and i >= bad_from
            variable, shape = ("kernel", (512, 512)) if i % 2 == 0 else ("gamma", (512,))
            size = math.prod(shape)
            rms = scales[i] * 1.1**epoch
            tensors.append(tensor(name, variable, shape, nan=size if bad else 0, rms=rms))
            tensors.append(
                tensor(name, "bias" if i % 2 == 0 else "beta", (512,), nan=512 if bad else 0, rms=rms / 9, index=1)
            )
            tensors.append(
                tensor(name, variable, shape, inf=size if bad else 0, rms=rms**2, role=Role.SLOT, slot="velocity")
            )
        return Census(
            info(f"big/epoch_{epoch:03d}.keras", 2_100_000_000), tuple(tensors), {"iterations": 100.0 * epoch}
        )

    half = layers // 2
    censuses = [census(e, None if e < checkpoints - 2 else half) for e in range(checkpoints)]
    points = tuple(
        TimelinePoint(c.info.path, e, 100 * e, Status.SICK if e >= checkpoints - 2 else Status.HEALTHY, 1 if e >= checkpoints - 2 else 0, c)
        for e, c in enumerate(censuses)
    )  # fmt: skip
    findings = tuple(
        Finding("CKD101", Severity.ERROR, f"All weights of layer {name} are NaN.", name, "kernel", checkpoints - 2, None, 1.0, 0.0, "share", (Vote(Cause.EXPLODING_GRADIENTS, 0.01, "non-finite weights"),), 1.0, f"CKD101-{n}")
        for n, name in enumerate(names[half:], 1)
    )  # fmt: skip
    terms = [
        (None, -2.2, "prior: how often this cause is met"),
        *((f.id, 0.01, "non-finite weights") for f in findings),
    ]
    verdict = Verdict(
        Status.SICK,
        Cause.EXPLODING_GRADIENTS,
        Grade.POSSIBLE,
        0.42,
        f"All layers from {names[half]} on are NaN.",
        "Record the last batches.",
    )
    loss = (*tuple(3.0 * math.exp(-e / 5) for e in range(checkpoints - 2)), NAN, NAN)
    return Report(
        Evidence(
            RunFiles("big", tuple(c.info.path for c in censuses), ("big/history.json",), ()),
            censuses[checkpoints - 2],
            model_spec(specs, "mean_squared_error", optimizer_spec("Adam", 1e-3), class_name="Functional"),
            Fingerprint((Pattern("downstream_only", f"Only layers from {names[half]} on are NaN.", names[half]),), tuple(names[half:]), names[half], 100),
            _adam_state(names[::2], [s**2 for s in scales[::2]], 100, 1e-3),
            Timeline(points, "iterations", checkpoints - 3, checkpoints - 2, checkpoints - 3, "the last finite one"),
            (TrainingLog("big/history.json", "history-json", (series("loss", loss),)),),
        ),
        findings, (), (),
        Diagnosis(verdict, (ranked(Cause.EXPLODING_GRADIENTS, 0.42, terms), ranked(Cause.LEARNING_RATE, 0.3, [(None, -1.6, "prior")])), Origin(names[half], "kernel", Phase.FORWARD, None, checkpoints - 2, None, None, (), "fingerprint")),
        VERSION, 4.2,
    )  # fmt: skip


ALL = {
    "nan_feature": nan_feature,
    "exploding_rnn": exploding_rnn,
    "float16_overflow": float16_overflow,
    "healthy": healthy,
    "unreadable": unreadable,
    "nothing_known": nothing_known,
    "hostile": hostile,
}
