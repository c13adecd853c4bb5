"""Rules on logs, batches, timelines and replay: each fires, and stays silent on a near miss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from making import (
    array,
    batches,
    census,
    evidence,
    layer,
    log,
    loss,
    optimizer,
    point,
    replay,
    series,
    spec,
    state,
    tensor,
    timeline,
)
from table import Row, fires, stays_silent

from ckptdoctor.model import (
    Association,
    Batches,
    Cause,
    CompileSpec,
    Displacement,
    Experiment,
    FeatureStats,
    Growth,
    LayerActivity,
    LeftOut,
    LossSpec,
    NonfinitePoint,
    Phase,
    ReplayStatus,
    Severity,
    Status,
    StepRecord,
    TensorGlimpse,
)
from ckptdoctor.model.replay import Baseline, Skill, StartState

BAD = census(tensor(nan=5))
NAN = math.nan
STUCK = (2.303, 2.302, 2.303, 2.301, 2.302, 2.303, 2.302, 2.302)
CLASSIFIER = spec(
    layer("h"), layer("out", units=10, activation="softmax"), loss=loss("sparse_categorical_crossentropy")
)
FTRL = spec(
    layer("h"),
    layer("out", units=10, activation="softmax"),
    loss=loss("sparse_categorical_crossentropy"),
    optimizer=optimizer("Ftrl"),
)
BINARY = spec(layer("h"), layer("out", units=1, activation="sigmoid"), loss=loss("binary_crossentropy"))
RELU_HEAD = spec(layer("h"), layer("out", units=1, activation="relu"))
SGD = spec(optimizer=optimizer("SGD", 0.01))


def classes(n: int = 10, **changes):
    return array(
        "y",
        "target",
        min=0.0,
        max=n - 1.0,
        mean=(n - 1) / 2,
        std=2.0,
        integral=True,
        classes=tuple((float(i), 25) for i in range(n)),
        **changes,
    )


READER = spec(layer("words", "Embedding"), layer("out"))
GROWING = (1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0)
FALLING = (0.3, 0.35, 0.4, 0.42, 0.45, 0.5, 0.5, 0.55)


def sorted_by_name(loss_of_years: str):
    losses = (
        LossSpec("years", loss_of_years, False, False, {}),
        LossSpec("buys", "mean_squared_error", False, False, {}),
    )
    return evidence(
        spec=spec(layer("years", units=1), layer("buys", units=1), compile=CompileSpec(optimizer(), losses, (), False)),
        batches=Batches(
            "b.npz", 8, (), (array(),), (array("y_buys", "target", min=0.0, max=1.0), array("y_years", "target"))
        ),
    )


def mostly_dry(share: float):
    """A run that never got below the absolute error of a constant, with a share of its targets at zero."""
    dry = FeatureStats(0, 0, 0.0, 4.0, 0.33, 0.75, common=0.0, common_share=share)
    return standing_still(
        spec=spec(loss=loss("mean_absolute_error")),
        batches=batches(y=array("y", "target", min=0.0, max=4.0, features=(dry,))),
    )


def far_out(z: float):
    return FeatureStats(0, 0, 0.0, 1.0, 0.003, 0.06, outlier_z=z)


def by_heart(apart: float, *, weights: bool = False):
    """A run that learned a little of its rows; `apart` is the score of the changed ones on rows kept apart."""
    tried = tuple(
        replace(experiment(f"lr*{n}", Cause.LEARNING_RATE, learns=False), score=0.7, held_out=apart) for n in (1, 2, 3)
    )
    extra = {"sample_weights": (array("sample_weight", "sample_weight"),)} if weights else {}
    return stuck(
        logs=log(series(values=(2.9, 2.7, 2.6, 2.5, 2.4, 2.25, 2.15, 2.0))),
        batches=batches(y=classes(), association=known(0.01), **extra),
        replay=replay(
            skill=Skill(0.12, loss=2.0, trivial_loss=2.303),
            baseline=Baseline("first", None, 400, False, after=Skill(0.3, held_out=-0.02)),
            experiments=tried,
        ),
    )


def attending(*more):
    """A classifier of token sequences by attention; `more` stands beside the embedding of the tokens."""
    return spec(
        layer("words", "Embedding"),
        *more,
        layer("attend", "MultiHeadAttention"),
        layer("out", units=10, activation="softmax"),
        loss=loss("sparse_categorical_crossentropy"),
    )


TANH_HEAD = spec(layer("h"), layer("out", units=1, activation="tanh"), loss=loss("binary_crossentropy"))
SHARES = spec(layer("h"), layer("out", units=10, activation="softmax"), loss=loss("mean_squared_error"))


def near_variance(zeros: float):
    """A regression whose logged loss stays a little above the variance of the recorded targets, a share of them zero."""
    rain = FeatureStats(0, 0, 0.0, 4.0, 0.3, 0.75, common=0.0, common_share=zeros)
    y = array("y", "target", min=0.0, max=4.0, mean=0.3, std=0.75, features=(rain,))
    return evidence(
        census=census(iterations=400),
        spec=spec(),
        logs=log(series(values=(0.67, 0.61, 0.6, 0.6, 0.6, 0.6, 0.59, 0.59, 0.59, 0.59))),
        batches=batches(y=y, association=known(0.1)),
    )


def tokens():
    return array(min=0.0, max=49.0, mean=25.0, std=14.0, integral=True, dtype="int32")


def known(share: float) -> Association:
    return Association("ridge", share, 0.0, 0.01, 256)


def from_above(score: float = 0.0, reachable: float = 0.9):
    """A finite run whose loss still falls, and that from its start learns nothing unless its activation is changed."""
    return evidence(
        census=census(iterations=400),
        spec=spec(),
        logs=log(series(values=(3.0, 2.0, 1.7, 1.5, 1.4, 1.3, 1.2, 1.1))),
        batches=batches(association=known(reachable)),
        replay=replay(
            skill=Skill(0.01, loss=1.0, trivial_loss=1.0, prediction_std=0.1, target_std=1.0),
            baseline=Baseline("first", None, 100, False, after=Skill(score)),
            experiments=(experiment("safe_activation", Cause.ACTIVATION),),
        ),
    )


def unnamed(*curves, reachable: float = 0.0):
    """A finite run of which nothing names the loss."""
    return evidence(census=census(iterations=400), logs=log(*curves), batches=batches(association=known(reachable)))


def padded(share: float = 0.8, **embedding):
    readers = (
        layer("words", "Embedding", **embedding),
        layer("reader", "LSTM"),
        layer("out", units=1, activation="sigmoid"),
    )
    return stuck(
        spec=spec(*readers, loss=loss("binary_crossentropy")),
        batches=batches(array(shape=(8, 32, 60), padding=share, integral=True), classes(2)),
        logs=log(series(values=(0.693,) * 8)),
    )


def stuck(**parts):
    fields = {
        "census": census(iterations=400),
        "spec": CLASSIFIER,
        "logs": log(series(values=STUCK)),
        "batches": batches(y=classes()),
    }
    return evidence(**(fields | parts))


FAR_BELOW = (2.1, 1.9, 1.85, 1.82, 1.81, 1.8, 1.8, 1.8)  # 0.78 of an even guess over ten classes, and no longer falling
EASY = Association("ridge regression", 0.95, 0.0, 0.02, 256)
NO_SKILL = Skill(0.0, loss=2.303, trivial_loss=2.303)
PENALTY = LeftOut("regularizer", "group_lasso", "out")
CHANCE = Association("ridge regression", 0.0, 0.0, 0.02, 256)
HARD = Association("ridge regression", 0.30, 0.0, 0.02, 256)


HALVES = (0.693, 0.694, 0.693, 0.693, 0.694, 0.693, 0.693, 0.693)  # ln 2: one half for every row
NORMED = (
    layer("h"),
    layer("bn", "BatchNormalization"),
    layer("out", units=1, activation="linear"),
)


def coded(code: float | None, count: int) -> FeatureStats:
    """A feature with a value that stands for missing ones, or None."""
    return FeatureStats(0, 0, -3.0, code or 3.0, 0.0, 1.0, code=code, code_count=count)


def begun_at(iterations: int, largest: float = 0.3):
    """A timeline whose only healthy checkpoint, where replay began, took so many steps."""
    measured = census(tensor("h1/kernel", high=largest), iterations=iterations, path="epoch_000.keras")
    return {
        "timeline": timeline(point(0, measured), point(1, BAD, status=Status.SICK)),
        "start": StartState("epoch_000.keras", "last_healthy"),
    }


FEW_PIXELS = Skill(-0.7, accuracy=0.7, majority=0.89, loss=0.5, trivial_loss=0.3)
RISING = log(
    series(values=(0.68, 0.66, 0.62, 0.57, 0.52, 0.507, 0.505, 0.501)),
    series("accuracy", (0.56, 0.62, 0.66, 0.69, 0.698, 0.703, 0.702, 0.702)),
)
CONVOLVED = spec(layer("conv", "Conv2D"), *NORMED[1:])
ONE_IMAGE = array(shape=(8, 1, 4, 4, 1))
USUAL = spec(
    layer("h", config={"kernel_initializer": "glorot_uniform"}),
    layer("out", units=10, activation="softmax"),
    loss=loss("sparse_categorical_crossentropy"),
)
EASY_ROWS = batches(y=classes(), association=EASY)


IDS_LOSS = loss("sparse_categorical_crossentropy")
CLASSIFIER_OF_ROWS = spec(layer("h"), layer("out", units=None, activation="softmax"), loss=IDS_LOSS)
MEAN_SQUARES = spec(layer("h"), layer("out", units=1, activation="linear"))
NAN_VECTORS = census(tensor("embedding/embeddings", nan=5), iterations=0)


def tailed(z: float):
    """Targets of variance 1 whose farthest value lies `z` robust deviations outside."""
    return array("y", "target", features=(FeatureStats(0, 0, -3.0, 3.0, 0.0, 1.0, outlier_z=z),))


def rescaled(scale: float):
    first = layer("rescaling", "Rescaling", config={"scale": scale, "offset": 0.0})
    return spec(first, layer("h"), layer("out", units=10, activation="softmax"), loss=IDS_LOSS)


def held_back(held_out: float):
    """A run that explains a third and no longer moves; with a tenth of the rate it learns all."""
    better = replace(experiment("lr/10", Cause.LEARNING_RATE), score=0.99, held_out=held_out)
    unchanged = Baseline("first", None, 400, False, after=Skill(0.35))
    skill = Skill(0.33, loss=1.5, trivial_loss=2.303, target_std=0.3)
    flat = log(series(values=(2.2, 1.7, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5)))
    return stuck(replay=replay(skill=skill, baseline=unchanged, experiments=(better,)), logs=flat)


def answers_otherwise(accuracy: float, momentum: float = 0.9999, size: float = 1.0, steps: int = 400):
    """A network with BatchNormalization that ends training with an accuracy of 0.98."""
    normed = spec(
        layer("h"),
        layer("bn", "BatchNormalization", config={"momentum": momentum}),
        layer("out", units=10, activation="softmax"),
    )
    trained = log(series(values=(1.0, 0.3, 0.1, 0.05)), series("accuracy", (0.6, 0.9, 0.98, 0.98)))
    skill = Skill(0.2, accuracy=accuracy, majority=0.3)
    return evidence(
        spec=normed,
        logs=trained,
        census=census(iterations=steps),
        replay=replay(skill=skill),
        batches=batches(array(std=size)),
    )


DESCENT = spec(
    layer("h"), layer("out", units=10, activation="softmax"), loss=IDS_LOSS, optimizer=optimizer("SGD", 0.05)
)


def crawling(moved: float):
    own = spec(layer("h"), layer("out", units=1, activation="linear"), loss=loss("overlap", custom=True))
    slow = log(series(values=(0.83, 0.8296, 0.8292, 0.8288, 0.8285, 0.8281, 0.8277, 0.8273)))
    return evidence(
        census=census(iterations=400), spec=own, logs=slow, timeline=timeline(displacement=went(moved, moved))
    )


SLOW_FALL = log(series(values=tuple(2.2 - 0.041 * n for n in range(10))))


def half_spec():
    return spec(
        layer("h", dtype_policy="mixed_float16"),
        layer("out", units=10, activation="softmax"),
        loss=loss("sparse_categorical_crossentropy"),
    )


def one_step_used(moved: float):
    """The recurrent kernel of an LSTM never moved, its other kernel did, or did not."""
    kernels = census(tensor("lstm/recurrent_kernel"), tensor("lstm/kernel"))
    went_there = Displacement("layers/lstm", "lstm", "kernel", moved, 0.5)
    return timeline(
        point(0, kernels), point(1, kernels), unmoved=("layers/lstm/recurrent_kernel",), displacement=(went_there,)
    )


def redrawn(iterations: int):
    """Only other initial weights remove the failure."""
    fields = begun_at(iterations)
    tried = replace(experiment("reinitialise", Cause.INITIALIZATION), start="last_healthy")
    ran = replace(reproduced(tried).replay, start=fields["start"])
    return evidence(census=BAD, timeline=fields["timeline"], replay=ran)


def thrown(largest: float):
    """An overflow in the forward pass of the first replayed step."""
    fields = begun_at(400, largest)
    bad = NonfinitePoint(Phase.FORWARD, "h1", "MatMul", None, 0, 400, 0, (), "inf", message="MatMul overflowed")
    ran = replay(ReplayStatus.REPRODUCED, first_bad=bad, start=fields["start"])
    return evidence(census=BAD, timeline=fields["timeline"], replay=ran)


def went(*relative: float):
    """Displacements of kernels of size 0.5."""
    return tuple(Displacement(f"layers/h{n}", f"h{n}", "kernel", 0.5 * r, 0.5) for n, r in enumerate(relative))


def shrinking(factor: float):
    """Two checkpoints, the kernels of the second `factor` times the size of those of the first."""
    sizes = [
        census(tensor("h1/kernel", rms=rms), tensor("h2/kernel", rms=rms), iterations=n)
        for n, rms in ((0, 0.1), (400, 0.1 * factor))
    ]
    return timeline(*(point(n, measured) for n, measured in enumerate(sizes)))


def ids(values):
    """Class ids, each of them in 64 rows."""
    return array("y", "target", classes=tuple((v, 64) for v in values), integral=True, min=min(values), max=max(values))


def two_heads(counts, low: float):
    """A classifier with the heads `kind` and `shade` of two units each; `counts` are the class ids of the first."""
    heads = (layer("kind", units=2, activation="softmax"), layer("shade", units=2, activation="softmax"))
    both = spec(layer("h"), *heads, loss=loss("sparse_categorical_crossentropy"), outputs=("kind", "shade"))
    targets = (
        array("y_kind", "target", classes=counts, integral=True, min=low, max=1.0),
        array("y_shade", "target", classes=((0.0, 128), (1.0, 128)), integral=True, min=0.0, max=1.0),
    )
    return evidence(spec=both, batches=replace(batches(), targets=targets))


def substituted(**changes):
    """A run under a loss of the user's own, judged by the usual one: worse than a constant, though its loss fell."""
    skill = Skill(-0.3, loss=72.0, trivial_loss=55.0, **changes)
    start = StartState("epoch_004.keras", "last_healthy", loss="substituted")
    own = log(series(values=(1.9, 0.5, 0.1, 0.04, 0.03, 0.03, 0.03, 0.03)))
    return stuck(replay=replay(skill=skill, start=start), logs=own, batches=batches())


OWN_SIGMOID = spec(layer("h"), layer("out", units=3, activation="sigmoid"), loss=loss("own", custom=True))


def labelled(*values: float):
    """Targets of three columns that take just these values, and may be judged by a loss of the user's own."""
    counts = tuple((v, 100) for v in values)
    return array("y", "target", shape=(8, 32, 3), min=min(values), max=max(values), integral=True, classes=counts)


def too_good(accuracy: float, **recorded):
    """A classifier of ten classes whose loss fell to 0.08, with an accuracy that stayed where it is."""
    losses = series(values=(50.0, 8.0, 3.4, 1.5, 0.6, 0.3, 0.08, 0.08, 0.08))
    return stuck(
        logs=log(losses, series("accuracy", (accuracy,) * 9)), batches=replace(batches(y=classes()), **recorded)
    )


def three_epochs(accuracy: float):
    return stuck(logs=log(series(values=(1245.0, 939.0, 869.0)), series("accuracy", (0.09, 0.1, accuracy))))


def few_rows():
    """Eight recorded rows: what a model seems to know of them may be chance."""
    return batches(array(shape=(8, 1, 10)), classes(shape=(8, 1, 1)))


def experiment(key: str, cause: Cause, *, removes: bool | None = True, learns: bool | None = True) -> Experiment:
    return Experiment(key, key, cause, "", removes, learns, 50, 50, 1.0, 0.1)


def reproduced(
    *experiments: Experiment, losses=(1.0, 1.0, 1.0), phase: Phase = Phase.LOSS, op: str | None = "Log", **changes
):
    bad = NonfinitePoint(phase, changes.pop("layer", None), op, None, 2, 10, 0, (3,), "nan", message="it broke")
    records = tuple(StepRecord(n, 0, value, None, 1.0) for n, value in enumerate(losses))
    return evidence(
        census=BAD,
        spec=spec(),
        replay=replay(ReplayStatus.REPRODUCED, first_bad=bad, records=records, experiments=experiments, **changes),
    )


def activity(
    name: str = "h",
    *,
    dead: float | None = None,
    flat: float | None = None,
    gradient: float | None = None,
    kind: str = "relu",
    spread: float = 0.1,
    class_name: str = "Dense",
) -> LayerActivity:
    glimpse = TensorGlimpse(name, (32, 64), "float32", 0, 0.0, 1.0)
    return LayerActivity(name, class_name, kind, glimpse, dead, flat, spread, gradient_rms=gradient)


def standing_still(**changes):
    parts = {key: changes.pop(key) for key in ("spec", "batches") if key in changes}
    return stuck(replay=replay(**({"skill": Skill(0.0, loss=2.303, trivial_loss=2.303)} | changes)), **parts)


ROWS = [
    Row(
        "CKD201",
        lambda: evidence(logs=log(series(values=(1.0, NAN)))),
        lambda: evidence(logs=log(series("accuracy", (0.5, NAN)))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD202",
        lambda: evidence(logs=log(series(values=(NAN, NAN))), optimizer=state()),
        lambda: evidence(logs=log(series(values=(1.0, NAN))), optimizer=state()),
        cause=Cause.DATA_NONFINITE,
    ),
    Row(
        "CKD203",
        lambda: evidence(logs=log(series(values=(1.0, 0.5, 40.0, NAN)))),
        lambda: evidence(logs=log(series(values=(1.0, 0.5, 0.6, NAN)))),
        cause=Cause.LEARNING_RATE,
    ),
    Row(
        "CKD203",
        lambda: evidence(logs=log(series(values=(1.0, 0.5, 4e6)))),
        lambda: evidence(logs=log(series(values=(1.0, 0.5, 40.0)))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD203",
        lambda: evidence(logs=log(series(values=(3.0, 1.2, 0.9, 60.0, 12.0, 3.5, 3.1, 3.2)))),
        lambda: evidence(logs=log(series(values=(3.0, 1.2, 0.9, 60.0, 12.0, 1.5, 1.1, 0.8)))),
        severity=Severity.ERROR,
        cause=Cause.LEARNING_RATE,
        says="never came back below 3.1",
    ),
    Row(
        "CKD203",
        lambda: evidence(logs=log(series(values=(3.0, 1.2, 0.1, 5.0, 4.0, 3.5, 3.1, 3.2)))),
        # the noise of a run that has converged: relative jumps of something tiny
        lambda: evidence(logs=log(series(values=(3.0, 1e-3, 1e-6, 3e-4, 1e-4, 9e-5, 8e-5, 8e-5)))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD204",
        lambda: evidence(logs=log(series(values=(1.0, 0.5, 0.4, NAN)))),
        lambda: evidence(logs=log(series(values=(1.0, 0.5, 3.0, NAN)))),
        cause=Cause.DATA_NONFINITE,
    ),
    Row(
        "CKD205",
        lambda: evidence(logs=log(series(values=(0.5, -0.2, -3.0))), spec=BINARY),
        lambda: evidence(logs=log(series(values=(0.5, -0.2, -3.0))), spec=spec(loss=loss("gauss_nll", custom=True))),
        cause=Cause.LOSS_FUNCTION,
        severity=Severity.ERROR,
    ),
    Row(
        "CKD205",  # rows that weigh less than nothing
        lambda: evidence(logs=log(series(values=(0.5, -0.2, -3.0))), spec=CLASSIFIER, batches=batches()),
        lambda: evidence(
            logs=log(series(values=(0.5, -0.2, -3.0))),
            spec=CLASSIFIER,
            batches=batches(sample_weights=(array("sample_weight", "sample_weight", min=-4.0),)),
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD205",
        lambda: evidence(logs=log(series(values=(0.5, -0.2, -3.0))), spec=CLASSIFIER, batches=batches(y=classes(12))),
        lambda: evidence(logs=log(series(values=(0.5, -0.2, -3.0))), spec=CLASSIFIER, batches=batches(y=classes(10))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD206",
        lambda: evidence(logs=log(series(), series("accuracy", (0.5,) * 5))),
        lambda: evidence(logs=log(series(), series("accuracy", (0.5, 0.5, 0.6, 0.5, 0.5)))),
        cause=Cause.ACTIVATION,
        severity=Severity.ERROR,
    ),
    Row(
        "CKD206",  # the share of rows hit exactly by a regression is 0 for ever
        lambda: evidence(logs=log(series(), series("accuracy", (0.0,) * 5)), batches=batches(y=classes())),
        lambda: evidence(logs=log(series(), series("accuracy", (0.0,) * 5)), batches=batches()),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD207",
        lambda: evidence(logs=log(series(values=(0.6,) + (0.5293,) * 6)), spec=RELU_HEAD),
        lambda: evidence(
            logs=log(series(values=(0.6, 0.5293, 0.52931, 0.5292, 0.5293, 0.52935, 0.5293))), spec=RELU_HEAD
        ),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD208",
        lambda: evidence(logs=log(series(values=(900.0, 300.0))), spec=CLASSIFIER),
        lambda: evidence(logs=log(series(values=(9.0, 2.0))), spec=CLASSIFIER),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD209",
        lambda: evidence(logs=log(series(values=(1.0, 3.0, 0.9, 2.5, 0.8, 2.8, 1.0)))),
        lambda: evidence(logs=log(series(values=(1.0, 0.8, 0.82, 0.6, 0.5, 0.51, 0.4)))),
        cause=Cause.LEARNING_RATE,
    ),
    Row(
        "CKD210",
        lambda: evidence(
            logs=log(series(values=(254630.0, 250000.0, 247000.0, 243000.0, 240000.0))),
            spec=spec(),
            optimizer=state(),
            census=census(iterations=1600),
        ),
        lambda: evidence(
            logs=log(series(values=(25.0, 24.0, 23.0, 22.0, 21.0))),
            spec=spec(),
            optimizer=state(),
            census=census(iterations=1600),
        ),
        cause=Cause.LEARNING_RATE,
    ),
    Row(
        "CKD211",
        lambda: evidence(logs=log(series(values=(1.0, 0.5, NAN)), series("learning_rate", (0.01, 0.01, 1.0)))),
        lambda: evidence(logs=log(series(values=(1.0, 0.5, NAN)), series("learning_rate", (0.01, 0.02, 0.03)))),
        cause=Cause.LEARNING_RATE,
    ),
    Row(
        "CKD212",
        lambda: evidence(
            logs=log(
                series(values=(1.0, 0.9, 0.8, 0.7, 0.6, NAN)), series("grad_norm", (1.0, 1.1, 0.9, 1.0, 1.2, 80.0))
            )
        ),
        lambda: evidence(
            logs=log(series(values=(1.0, 0.9, 0.8, 0.7, 0.6, NAN)), series("grad_norm", (1.0, 1.1, 0.9, 1.0, 1.2, 3.0)))
        ),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row(
        "CKD213",
        lambda: evidence(logs=log(series(), series("val_loss", (1.0, 0.9, 0.9, 1.0, 1.1)))),
        lambda: evidence(logs=log(series(), series("val_loss", (1.0, 0.5, 0.3, 0.2, 0.12)))),
        severity=Severity.INFO,
    ),
    Row(
        "CKD214",
        lambda: evidence(logs=log(terminated=(3, 12))),
        lambda: evidence(logs=log()),
        severity=Severity.ERROR,
        says="batch 12",
    ),
    Row(
        "CKD215",
        lambda: evidence(logs=log(series(values=(0.0,) * 5), series("accuracy", (0.3, 0.3, 0.4, 0.3, 0.3)))),
        lambda: evidence(logs=log(series(values=(0.0,) * 5), series("accuracy", (1.0,) * 5))),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD302",
        lambda: evidence(
            timeline=timeline(growth=(Growth("p", "rnn", "kernel", 1.4, 0.99, 31.0, "epoch", 0.1, 50.0),))
        ),
        lambda: evidence(timeline=timeline(growth=(Growth("p", "rnn", "kernel", 9.0, 0.99, None, "epoch", 0.1, 0.4),))),
        says="overflows at about epoch 31",
    ),
    Row(
        "CKD303",
        lambda: evidence(timeline=timeline(point(0, BAD, status=Status.SICK), best_only_trap=True)),
        lambda: evidence(timeline=timeline()),
    ),
    Row(
        "CKD304",
        lambda: evidence(timeline=timeline(unmoved=("layers/dense/kernel",))),
        lambda: evidence(
            timeline=timeline(unmoved=("layers/dense/kernel",)),
            spec=spec(layer("dense", trainable=False), layer("out")),
        ),
        says="dense/kernel",
    ),
    Row(
        "CKD306",
        lambda: stuck(timeline=shrinking(0.001), spec=FTRL),
        lambda: stuck(timeline=shrinking(0.5), spec=FTRL),
        cause=Cause.OPTIMIZER,
        says="under Ftrl",
    ),
    Row(
        "CKD306",  # a healthy run may end with small weights
        lambda: stuck(timeline=shrinking(0.01)),
        lambda: evidence(timeline=shrinking(0.01)),
        cause=Cause.OPTIMIZER,
    ),
    Row(
        "CKD307",
        lambda: stuck(timeline=timeline(displacement=went(0.0004, 0.001, 0.0007))),
        lambda: stuck(timeline=timeline(displacement=went(0.1, 0.001, 0.0007))),
        cause=Cause.LEARNING_RATE,
        says="no kernel went further than 0.001 of its size",
    ),
    Row(
        "CKD307",
        lambda: stuck(timeline=timeline(displacement=went(19.0, 7.0, 10.0))),
        lambda: stuck(timeline=timeline(displacement=went(19.0, 0.7, 1.0))),  # one embedding that went far
        cause=Cause.LEARNING_RATE,
        says="the farthest 19 times",
    ),
    Row(
        "CKD307",
        lambda: stuck(timeline=timeline(displacement=went(0.0002, 0.0003, 0.002, 0.1))),
        lambda: stuck(timeline=timeline(displacement=went(0.05, 0.03, 0.02, 0.1))),
        cause=Cause.VANISHING_GRADIENTS,
        says="h3/kernel went 0.1 times its size, h0/kernel only 0.0002",
    ),
    Row(
        "CKD307",  # small steps may be enough
        lambda: stuck(timeline=timeline(displacement=went(0.001, 0.001))),
        lambda: evidence(timeline=timeline(displacement=went(0.001, 0.001))),
        severity=Severity.WARNING,
    ),
    Row(
        "CKD401",
        lambda: evidence(batches=batches(array(nan=1, bad_rows=((0, 5),), bad_row_count=1, bad_features=(2,)))),
        lambda: evidence(batches=batches()),
        cause=Cause.DATA_NONFINITE,
        severity=Severity.ERROR,
        says="row 5 of batch 0, feature 2",
    ),
    Row(
        "CKD401",  # weights saved after steps on such rows are finite: the model fills the gaps itself
        lambda: evidence(census=census(iterations=5), batches=batches(array(nan=40, bad_rows=((6, 5),)))),
        lambda: evidence(census=census(iterations=400), batches=batches(array(nan=40, bad_rows=((6, 5),)))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD402",
        lambda: evidence(
            census=BAD, batches=batches(y=array("y", "target", nan=3, bad_rows=((0, 1),), bad_row_count=3))
        ),
        lambda: evidence(census=census(), batches=batches(y=array("y", "target", nan=3))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD403",
        lambda: evidence(batches=batches(array(std=400.0))),
        lambda: evidence(batches=batches()),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD403",
        lambda: evidence(batches=batches(array(std=400.0)), spec=spec()),
        lambda: evidence(batches=batches(array(std=400.0)), spec=spec(layer("tokens", "Embedding"), layer("out"))),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD403",  # without a configuration: ids and a table with a row for each
        lambda: evidence(census=census(tensor(shape=(30, 8))), batches=batches(tokens())),
        lambda: evidence(census=census(tensor(shape=(60, 8))), batches=batches(tokens())),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD404",
        lambda: evidence(spec=spec(), batches=batches(y=array("y", "target", mean=500.0, std=10.0))),
        lambda: evidence(spec=CLASSIFIER, batches=batches(y=array("y", "target", mean=500.0, std=10.0))),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD405",
        lambda: evidence(spec=CLASSIFIER, batches=batches(y=array("y", "target", min=1.0, max=10.0, integral=True))),
        lambda: evidence(spec=CLASSIFIER, batches=batches(y=classes(10))),
        cause=Cause.LABELS,
        says="counted from 1",
    ),
    Row(
        "CKD406",
        lambda: evidence(spec=BINARY, batches=batches(y=classes(3))),
        lambda: evidence(spec=BINARY, batches=batches(y=array("y", "target", min=0.0, max=1.0, mean=0.5, std=0.5))),
        severity=Severity.ERROR,
        says="class ids",
    ),
    Row(
        "CKD407",
        lambda: evidence(spec=RELU_HEAD, batches=batches(y=array("y", "target", min=-1.0, max=1.0))),
        lambda: evidence(spec=RELU_HEAD, batches=batches(y=array("y", "target", min=0.0, max=9.0))),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD408",
        lambda: stuck(batches=batches(y=classes(), association=Association("ridge", 0.0, 0.0, 0.02, 256))),
        lambda: stuck(batches=batches(y=classes(), association=Association("ridge", 0.4, 0.0, 0.02, 256))),
        cause=Cause.LABELS,
    ),
    Row(
        "CKD409",
        lambda: evidence(batches=batches(y=array("y", "target", min=1.0, max=1.0, mean=1.0, std=0.0))),
        lambda: evidence(batches=batches(y=array("y", "target", min=0.0, max=1.0, mean=0.1, std=0.3))),
        cause=Cause.LABELS,
    ),
    Row(
        "CKD410",
        lambda: evidence(
            spec=spec(layer("e", "Embedding", config={"input_dim": 100}), layer("out")),
            batches=batches(array(min=0.0, max=100.0)),
        ),
        lambda: evidence(
            spec=spec(layer("e", "Embedding", config={"input_dim": 100}), layer("out")),
            batches=batches(array(min=0.0, max=99.0)),
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD411",
        lambda: evidence(
            census=BAD, spec=SGD, optimizer=state("SGD", 0.01), batches=batches(array(mean=30.0, std=20.0))
        ),
        lambda: evidence(census=BAD, spec=SGD, optimizer=state("SGD", 0.01), batches=batches(array())),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD412",
        lambda: evidence(
            spec=spec(layer("bn", "BatchNormalization"), layer("out")), batches=batches(array(shape=(8, 1, 10)))
        ),
        lambda: evidence(spec=spec(layer("bn", "BatchNormalization"), layer("out")), batches=batches()),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD412",  # images, but the layer stands behind the flattening
        lambda: evidence(spec=spec(layer("flat", "Flatten"), *NORMED), batches=batches(array(shape=(8, 1, 4, 4, 1)))),
        lambda: evidence(
            spec=spec(layer("conv", "Conv2D"), *NORMED[1:]), batches=batches(array(shape=(8, 1, 4, 4, 1)))
        ),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD412",  # convolutions that shrank to one pixel: the kernels before the layer never moved
        lambda: evidence(
            spec=CONVOLVED, batches=batches(ONE_IMAGE), timeline=timeline(unmoved=("layers/conv/kernel",))
        ),
        lambda: evidence(spec=CONVOLVED, batches=batches(ONE_IMAGE), timeline=timeline()),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD602",  # even wrong labels move every weight
        lambda: stuck(spec=USUAL, optimizer=state()),
        lambda: stuck(spec=USUAL, optimizer=state(), timeline=timeline(unmoved=("layers/h/kernel",))),
        cause=Cause.LABELS,
    ),
    Row(
        "CKD602",
        lambda: stuck(spec=USUAL, optimizer=state(), batches=EASY_ROWS, timeline=timeline(displacement=went(0.3, 0.2))),
        lambda: stuck(spec=USUAL, optimizer=state(), batches=EASY_ROWS, timeline=timeline(displacement=went(9.0, 9.0))),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD207",  # certain and wrong: the cross-entropy of a probability of 1e-7
        lambda: evidence(logs=log(series(values=(15.1,) + (16.118095,) * 6))),
        lambda: evidence(logs=log(series(values=(15.1,) + (16.3,) * 6))),
        cause=Cause.VANISHING_GRADIENTS,
        says="certain and wrong",
    ),
    Row(
        "CKD601",  # an accuracy that rises below that of always naming the largest class
        lambda: stuck(replay=replay(skill=FEW_PIXELS), logs=RISING, batches=batches()),
        lambda: stuck(replay=replay(skill=replace(FEW_PIXELS, majority=0.5)), logs=RISING, batches=batches()),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD207",  # behind a relu the NaN in the weights is a zero
        lambda: evidence(logs=log(series(values=(0.6,) + (0.5293,) * 6)), spec=RELU_HEAD),
        lambda: evidence(logs=log(series(values=(0.6,) + (0.5293,) * 6)), spec=RELU_HEAD, census=BAD),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD413",
        lambda: evidence(batches=batches(y=array("y", "target", classes=((0.0, 240), (1.0, 16)), integral=True))),
        lambda: evidence(batches=batches(y=array("y", "target", classes=((0.0, 140), (1.0, 116)), integral=True))),
        severity=Severity.INFO,
    ),
    Row(
        "CKD501",
        lambda: reproduced(),
        lambda: evidence(replay=replay()),
        cause=Cause.LOSS_FUNCTION,
        severity=Severity.ERROR,
    ),
    Row(
        "CKD501",  # a mean makes infinity only of what is huge already
        lambda: reproduced(losses=(), phase=Phase.FORWARD, op="Mean"),
        lambda: reproduced(losses=(), phase=Phase.FORWARD, op="Exp"),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row(
        "CKD501",
        lambda: reproduced(losses=(1.0, 50.0, 1e9), phase=Phase.FORWARD, op="MatMul"),
        lambda: reproduced(losses=(1.0, 0.9, 0.8), phase=Phase.LOSS),
        cause=Cause.LEARNING_RATE,
    ),
    Row(
        "CKD502",
        lambda: reproduced(
            experiment("standardise_inputs", Cause.DATA_SCALE), experiment("lr/10", Cause.LEARNING_RATE, learns=False)
        ),
        lambda: reproduced(
            experiment("standardise_inputs", Cause.DATA_SCALE, removes=False),
            experiment("lr/10", Cause.LEARNING_RATE, removes=False),
        ),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD502",
        lambda: reproduced(
            experiment("lr/10", Cause.LEARNING_RATE),
            experiment("clip_global_1", Cause.EXPLODING_GRADIENTS),
            experiment("standardise_inputs", Cause.DATA_SCALE, removes=False),
        ),
        lambda: reproduced(experiment("drop_bad_rows", Cause.DATA_NONFINITE)),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row(
        "CKD502",  # clipping keeps it finite, other initial weights heal
        lambda: reproduced(
            experiment("lr/100", Cause.LEARNING_RATE, removes=False),
            experiment("clip_global_1", Cause.EXPLODING_GRADIENTS, learns=False),
            experiment("reinitialise", Cause.INITIALIZATION),
        ),
        lambda: reproduced(
            experiment("lr/100", Cause.LEARNING_RATE, removes=False),
            experiment("clip_global_1", Cause.EXPLODING_GRADIENTS, learns=False),
            experiment("reinitialise", Cause.INITIALIZATION, removes=False),
        ),
        cause=Cause.INITIALIZATION,
    ),
    Row(
        "CKD502",
        lambda: reproduced(
            experiment("lr/100", Cause.LEARNING_RATE, removes=False),
            experiment("clip_global_1", Cause.EXPLODING_GRADIENTS),
        ),
        lambda: reproduced(
            experiment("lr/100", Cause.LEARNING_RATE, removes=False),
            experiment("clip_global_1", Cause.EXPLODING_GRADIENTS, removes=False),
        ),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row(
        "CKD503",
        lambda: standing_still(
            experiments=(
                experiment("standardise_inputs", Cause.DATA_SCALE, removes=None),
                experiment("lr*10", Cause.LEARNING_RATE, removes=None, learns=False),
            )
        ),
        lambda: standing_still(
            skill=Skill(0.8, loss=0.1, trivial_loss=2.3),
            experiments=(experiment("standardise_inputs", Cause.DATA_SCALE, removes=None),),
        ),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD504",
        lambda: standing_still(activity_end=(activity(dead=1.0),)),
        lambda: standing_still(activity_end=(activity(dead=0.6),)),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD505",
        lambda: standing_still(
            activity_end=(activity(flat=0.95, kind="tanh"),),
        ),
        lambda: standing_still(activity_end=(activity(flat=0.3, kind="tanh"),)),
    ),
    Row(
        "CKD506",
        lambda: standing_still(
            activity=(activity("a", gradient=1e-7), activity("b", gradient=1e-4), activity("c", gradient=1e-2))
        ),
        lambda: standing_still(
            activity=(activity("a", gradient=1e-3), activity("b", gradient=1e-3), activity("c", gradient=1e-2))
        ),
        cause=Cause.VANISHING_GRADIENTS,
    ),
    Row(
        "CKD507",
        lambda: evidence(replay=replay(label_range=(1, 5, 5))),
        lambda: evidence(replay=replay()),
        cause=Cause.LABELS,
    ),
    Row(
        "CKD508",
        lambda: evidence(replay=replay(disagreement="oneDNN hides the NaN")),
        lambda: evidence(replay=replay()),
    ),
    Row(
        "CKD509",
        lambda: evidence(
            census=BAD,
            optimizer=state("SGD", 1.0),
            replay=replay(records=(StepRecord(0, 0, 1.0, None, 1.0, sharpness=50.0),)),
        ),
        lambda: evidence(
            census=BAD,
            optimizer=state("SGD", 0.01),
            replay=replay(records=(StepRecord(0, 0, 1.0, None, 1.0, sharpness=50.0),)),
        ),
        cause=Cause.LEARNING_RATE,
    ),
    Row(
        "CKD510",
        lambda: evidence(census=BAD, replay=replay(custom_loss="rmse")),
        lambda: evidence(census=census(), replay=replay(custom_loss="rmse")),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD511",
        lambda: evidence(census=BAD, replay=replay()),
        lambda: evidence(census=census(), replay=replay()),
        cause=Cause.DATA_NONFINITE,
    ),
    Row("CKD512", lambda: evidence(replay=replay(not_restored=("a/kernel",))), lambda: evidence(replay=replay())),
    Row(
        "CKD513",
        lambda: standing_still(activity=(activity("a", spread=0.4), activity("pool", spread=0.0))),
        lambda: standing_still(activity=(activity("a", spread=0.4), activity("pool", spread=0.05))),
        says="After pool all rows look the same before training",
    ),
    Row(
        "CKD513",  # a first layer that only moves or scales is put beside the inputs
        lambda: standing_still(activity=(activity("norm", spread=0.0, class_name="LayerNormalization"),)),
        lambda: standing_still(activity=(activity("norm", spread=0.0),)),
        says="After norm all rows look the same before training",
    ),
    Row(
        "CKD601",  # coming down towards a constant's loss from above, where one change learns what simple models know
        lambda: from_above(),
        lambda: from_above(score=0.2),
        severity=Severity.ERROR,
    ),
    Row("CKD601", lambda: from_above(), lambda: from_above(reachable=0.3), severity=Severity.ERROR),
    Row(
        "CKD601",  # the variance of a few hundred rows most of which are zero is not that of all rows
        lambda: near_variance(0.1),
        lambda: near_variance(0.8),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # a loss of unknown name that grew while the accuracy fell
        lambda: unnamed(series(values=GROWING), series("accuracy", tuple(reversed(FALLING)))),
        lambda: unnamed(series(values=GROWING), series("accuracy", FALLING)),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # a loss of unknown name that stands on the variance of the targets
        lambda: unnamed(series(values=(4.0, 2.0, 1.1, 1.01, 1.0, 1.01, 1.0, 1.01, 1.0, 1.0)), reachable=0.9),
        lambda: unnamed(series(values=(4.0, 2.0, 1.1, 1.01, 0.9, 0.8, 0.7, 0.6, 0.55, 0.5)), reachable=0.9),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD511",  # a name that Keras knows since not long ago may be somebody's own function
        lambda: evidence(census=BAD, spec=spec(loss=loss("tversky", custom=True)), replay=replay(steps=100)),
        lambda: evidence(census=BAD, spec=spec(), replay=replay(steps=100)),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD503",
        lambda: standing_still(
            custom_loss="reward",
            baseline=Baseline("first", None, 100, False, after=Skill(0.9)),
            experiments=(experiment("lr/10", Cause.LEARNING_RATE, removes=None),),
        ),
        lambda: standing_still(
            custom_loss="reward",
            baseline=Baseline("first", None, 100, False, after=Skill(0.1)),
            experiments=(experiment("lr/10", Cause.LEARNING_RATE, removes=None),),
        ),
        cause=Cause.LOSS_FUNCTION,
        says="With the usual loss",
    ),
    Row(
        "CKD503",
        lambda: standing_still(experiments=(experiment("structure_pooling", Cause.ARCHITECTURE, removes=None),)),
        lambda: standing_still(
            experiments=(experiment("structure_pooling", Cause.ARCHITECTURE, removes=None, learns=False),)
        ),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD502",
        lambda: reproduced(experiment("structure_behind_head", Cause.ARCHITECTURE)),
        lambda: reproduced(experiment("structure_behind_head", Cause.ARCHITECTURE, removes=False, learns=None)),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD405",  # two heads, one of them with unlabelled rows
        lambda: two_heads(((-1.0, 80), (0.0, 88), (1.0, 88)), low=-1.0),
        lambda: two_heads(((0.0, 128), (1.0, 128)), low=0.0),
        cause=Cause.LABELS,
        says="Class ids of y_kind run from -1 to 1, but kind has 2 units",
    ),
    Row(
        "CKD601",  # a weak signal, but one that holds on rows that were not trained on
        lambda: stuck(),
        lambda: stuck(logs=log(series(values=STUCK), series("val_loss", (2.26, 2.25, 2.24, 2.24, 2.24, 2.25)))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # nobody knows the constant of an own loss
        lambda: crawling(0.004),
        lambda: crawling(0.4),
        severity=Severity.ERROR,
        says="no kernel went further than 0.004 of its size",
    ),
    Row(
        "CKD601",  # falling, but after eight epochs a hundred times what an even guess gives
        lambda: evidence(
            census=census(iterations=400),
            spec=CLASSIFIER,
            logs=log(series(values=tuple(900.0 - 80.0 * n for n in range(8)))),
        ),
        lambda: evidence(
            census=census(iterations=400),
            spec=CLASSIFIER,
            logs=log(series(values=tuple(30.0 - 3.0 * n for n in range(8)))),
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD307",  # plain descent at an ordinary rate, through many layers
        lambda: stuck(timeline=timeline(displacement=went(*(0.001,) * 12)), spec=DESCENT),
        lambda: stuck(timeline=timeline(displacement=went(*(0.1,) * 12)), spec=DESCENT),
        cause=Cause.VANISHING_GRADIENTS,
    ),
    Row(
        "CKD409",  # whole numbers, divided in place
        lambda: stuck(batches=batches(array(min=0.0, max=0.0, mean=0.0, std=0.0), classes())),
        lambda: evidence(batches=batches(array(min=0.0, max=1.0, mean=0.1, std=0.2), classes())),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD406",  # masks divided by 255 with the pictures
        lambda: evidence(
            spec=BINARY, batches=batches(y=array("y", "target", min=0.0, max=1 / 255, mean=0.001, std=0.001))
        ),
        lambda: evidence(spec=BINARY, batches=batches(y=array("y", "target", min=0.0, max=1.0, mean=0.2, std=0.4))),
        cause=Cause.LABELS,
        severity=Severity.ERROR,
        says="one 255th",
    ),
    Row(
        "CKD503",  # nothing moved under the own loss, and all is learned under another
        lambda: evidence(
            optimizer=state(untouched_slots=True),
            replay=replay(custom_loss="overlap", baseline=Baseline("first", None, 9, False, after=Skill(0.9))),
        ),
        lambda: evidence(
            optimizer=state(),
            replay=replay(custom_loss="overlap", baseline=Baseline("first", None, 9, False, after=Skill(0.9))),
        ),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD601",  # falls, but no kernel leaves its place while simple models learn all
        lambda: stuck(logs=SLOW_FALL, batches=EASY_ROWS, timeline=timeline(displacement=went(0.004, 0.003))),
        lambda: stuck(logs=SLOW_FALL, batches=EASY_ROWS, timeline=timeline(displacement=went(0.4, 0.3))),
        severity=Severity.ERROR,
        says="no kernel went further than 0.004 of its size",
    ),
    Row(
        "CKD516",
        lambda: answers_otherwise(accuracy=0.4),
        lambda: answers_otherwise(accuracy=0.9),
        cause=Cause.ARCHITECTURE,
        severity=Severity.ERROR,
        says="bn normalises with moving statistics that do not fit",
    ),
    Row(
        "CKD516",  # few rows of another scale rule the moving statistics
        lambda: answers_otherwise(accuracy=0.5, momentum=0.9, size=80.0),
        lambda: answers_otherwise(accuracy=0.5, momentum=0.9, size=80.0, steps=40),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD601",  # one change learns nearly all, on rows kept apart too
        lambda: held_back(held_out=0.95),
        lambda: held_back(held_out=0.3),
        severity=Severity.ERROR,
        says="from the same start lr/10 comes to 95%",
    ),
    Row(
        "CKD601",  # weighted rows are asked for something else than the constant of all rows
        lambda: stuck(logs=log(series(values=(9.0, 8.9, 8.8, 8.8, 8.8, 8.8)))),
        lambda: stuck(
            logs=log(series(values=(9.0, 8.9, 8.8, 8.8, 8.8, 8.8))),
            batches=batches(y=classes(), sample_weights=(array("sample_weight", "sample_weight"),)),
            spec=CLASSIFIER_OF_ROWS,
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # few targets far outside hide whether the others are predicted
        lambda: stuck(spec=MEAN_SQUARES, logs=log(series(values=(1.0,) * 8)), batches=batches(y=tailed(3.0))),
        lambda: stuck(spec=MEAN_SQUARES, logs=log(series(values=(1.0,) * 8)), batches=batches(y=tailed(60.0))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD403",  # divided by 255 by the generator and by the model
        lambda: stuck(spec=rescaled(1 / 255), batches=batches(array(min=0.0, max=1.0, mean=0.4, std=0.3))),
        lambda: stuck(spec=rescaled(1 / 255), batches=batches(array(min=0.0, max=255.0, mean=100.0, std=80.0))),
        cause=Cause.DATA_SCALE,
        says="they are scaled twice",
    ),
    Row(
        "CKD301",  # pretrained vectors with NaN rows
        lambda: evidence(timeline=timeline(point(0, NAN_VECTORS, status=Status.SICK))),
        lambda: evidence(timeline=timeline()),
        cause=Cause.DATA_NONFINITE,
    ),
    Row(
        "CKD134",
        lambda: stuck(
            spec=spec(
                layer("lstm", "LSTM", activation="sigmoid"), layer("out", units=10, activation="softmax"), loss=IDS_LOSS
            )
        ),
        lambda: stuck(
            spec=spec(
                layer("lstm", "LSTM", activation="tanh"), layer("out", units=10, activation="softmax"), loss=IDS_LOSS
            )
        ),
        cause=Cause.ACTIVATION,
        says="use sigmoid in place of tanh",
    ),
    Row(
        "CKD134",  # the divergence of a variational autoencoder
        lambda: stuck(
            spec=spec(
                layer("z", "Sampling", registered="my>Sampling"),
                layer("out", units=10, activation="softmax"),
                loss=IDS_LOSS,
            )
        ),
        lambda: stuck(
            spec=spec(
                layer("z", "Mixing", registered="my>Mixing"),
                layer("out", units=10, activation="softmax"),
                loss=IDS_LOSS,
            )
        ),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD419",  # minutes around 30,000, which float16 knows in steps of 16
        lambda: stuck(spec=half_spec(), batches=batches(array(mean=30000.0, std=40.0))),
        lambda: stuck(spec=half_spec(), batches=batches(array(mean=0.0, std=40.0))),
        cause=Cause.MIXED_PRECISION,
        says="1.4 steps of float16",
    ),
    Row(
        "CKD419",  # seconds since 1970
        lambda: stuck(batches=batches(array(mean=1.6e9, std=300.0))),
        lambda: stuck(batches=batches(array(mean=1.6e9, std=3e7))),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD304",  # the head reads the state of the first step
        lambda: stuck(timeline=one_step_used(moved=0.2)),
        lambda: stuck(timeline=one_step_used(moved=0.0)),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD601",  # coming back from a spike is no way forward
        lambda: stuck(logs=log(series(values=(2.31, 2.303, 2.32, 2.31, 2.6, 2.5, 2.35, 2.31)))),
        lambda: stuck(logs=log(series(values=(2.31, 2.303, 2.32, 2.31, 2.6, 2.5, 2.25, 2.21)))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD418",
        lambda: evidence(census=BAD, batches=batches(y=ids((-1.0, 0.0, 1.0, 2.0)))),
        lambda: evidence(census=BAD, batches=batches(y=ids((-1.0, 1.0)))),  # a hinge loss
        cause=Cause.LABELS,
        says="-1 in 64 rows",
    ),
    Row(
        "CKD418",
        lambda: evidence(census=BAD, batches=batches(y=ids((0.0, 1.0, 255.0)))),
        lambda: evidence(census=BAD, batches=batches(y=ids(tuple(float(n) for n in range(256))))),
        cause=Cause.LABELS,
    ),
    Row(
        "CKD416",
        lambda: stuck(batches=batches(y=array("y", "target", features=(coded(99999.0, 5),)))),
        lambda: stuck(batches=batches(y=array("y", "target", features=(coded(None, 0),)))),
        cause=Cause.LABELS,
        says="99999 stands 5 times",
    ),
    Row(
        "CKD416",
        lambda: evidence(census=BAD, batches=batches(array(features=(coded(-999.0, 9),)))),
        lambda: evidence(census=BAD, batches=batches(array(features=(coded(None, 0),)))),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD417",
        lambda: stuck(spec=BINARY, batches=batches(y=classes(2, shape=(8, 32, 2))), logs=log(series(values=HALVES))),
        lambda: stuck(spec=BINARY, batches=batches(y=classes(2, shape=(8, 32, 1))), logs=log(series(values=HALVES))),
        cause=Cause.LABELS,
        says="2 numbers a row, but out gives 1",
    ),
    Row(
        "CKD601",  # still falling, but after ten epochs far above what one value for all rows would give
        lambda: stuck(logs=log(series(values=tuple(80.0 - 7.0 * n for n in range(10))))),
        lambda: stuck(logs=log(series(values=tuple(80.0 - 16.0 * n for n in range(5))))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD502",
        lambda: reproduced(
            experiment("guard_operation", Cause.ARCHITECTURE),
            experiment("lr/10", Cause.LEARNING_RATE, removes=False, learns=None),
            phase=Phase.FORWARD,
        ),
        lambda: reproduced(experiment("guard_operation", Cause.ARCHITECTURE, removes=False, learns=None)),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD601",
        lambda: stuck(batches=batches(y=classes(), association=EASY), logs=log(series(values=FAR_BELOW))),
        lambda: stuck(batches=batches(y=classes(), association=HARD), logs=log(series(values=FAR_BELOW))),
        severity=Severity.ERROR,
        says="Simple models explain 95%",
    ),
    Row(
        "CKD601",
        lambda: stuck(replay=replay(skill=Skill(0.3, loss=1.5, trivial_loss=2.3)), batches=few_rows()),
        lambda: stuck(replay=replay(skill=Skill(0.3, loss=1.5, trivial_loss=2.3))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD502",  # weights that training had thrown far say nothing about those it began with
        lambda: redrawn(iterations=0),
        lambda: redrawn(iterations=400),
        cause=Cause.INITIALIZATION,
    ),
    Row(
        "CKD501",  # what overflows where weights are 1e28 already is no formula at fault
        lambda: thrown(1e28),
        lambda: thrown(0.3),
        cause=Cause.LEARNING_RATE,
        says="MatMul",
    ),
    Row(
        "CKD515",
        lambda: evidence(census=BAD, replay=replay(left_out=(PENALTY,))),
        lambda: evidence(census=BAD, replay=replay(ReplayStatus.REPRODUCED, left_out=(PENALTY,))),
        cause=Cause.LOSS_FUNCTION,
        says="Without the regularizer group_lasso of out",
    ),
    Row(
        "CKD515",
        lambda: stuck(
            replay=replay(
                left_out=(PENALTY,), skill=NO_SKILL, baseline=Baseline("first", None, 9, False, after=Skill(0.9))
            )
        ),
        lambda: stuck(
            replay=replay(
                left_out=(PENALTY,), skill=NO_SKILL, baseline=Baseline("first", None, 9, False, after=Skill(0.1))
            )
        ),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD511",  # what was replayed lacks a part of the run
        lambda: evidence(census=BAD, replay=replay()),
        lambda: evidence(census=BAD, replay=replay(left_out=(PENALTY,))),
        cause=Cause.DATA_NONFINITE,
    ),
    Row(
        "CKD601",  # targets of a single value: no prediction can be told from a constant
        lambda: stuck(replay=replay(skill=replace(NO_SKILL, target_std=0.1))),
        lambda: evidence(
            replay=replay(skill=replace(NO_SKILL, target_std=0.0)),
            census=census(iterations=400),
            spec=CLASSIFIER,
            logs=log(),
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # learned by heart
        lambda: stuck(
            batches=batches(y=classes(), association=CHANCE),
            replay=replay(skill=Skill(0.11, loss=2.25, trivial_loss=2.303)),
        ),
        lambda: stuck(
            batches=batches(y=classes(), association=CHANCE),
            replay=replay(skill=Skill(0.4, loss=2.0, trivial_loss=2.303)),
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # a loss of one's own may compare on another scale: the rows are in order
        lambda: substituted(rank_correlation=0.1),
        lambda: substituted(rank_correlation=0.9),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",
        lambda: stuck(),
        lambda: stuck(logs=log(series(values=(2.3, 2.2, 2.0, 1.8, 1.6, 1.5, 1.3, 1.2)))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD603",
        lambda: evidence(census=BAD, spec=CLASSIFIER, optimizer=state(), logs=log(series(values=(NAN, NAN)))),
        lambda: evidence(census=BAD, spec=CLASSIFIER, optimizer=state(), logs=log(series(values=(1.0, NAN)))),
        cause=Cause.LABELS,
    ),
    Row(
        "CKD414",
        lambda: evidence(census=BAD, batches=batches()),
        lambda: evidence(census=BAD, batches=batches(y=array("y", "target", nan=1))),
        says="are finite",
    ),
    Row(
        "CKD415",
        lambda: evidence(
            spec=spec(layer("rnn", "SimpleRNN"), layer("out")), batches=batches(array(shape=(8, 32, 60, 2)))
        ),
        lambda: evidence(spec=spec(layer("rnn", "LSTM"), layer("out")), batches=batches(array(shape=(8, 32, 60, 2)))),
        severity=Severity.INFO,
    ),
    Row(
        "CKD406",  # the losses of two heads, given in the wrong order
        lambda: sorted_by_name("binary_crossentropy"),
        lambda: sorted_by_name("mean_squared_error"),
        severity=Severity.ERROR,
        says="Targets y_years run from -3 to 3",
    ),
    Row(
        "CKD421",
        lambda: evidence(spec=READER, batches=batches(array(min=0.0, max=0.98))),
        lambda: evidence(spec=READER, batches=batches(array(min=0.0, max=90.0, integral=True))),
        cause=Cause.DATA_SCALE,
        severity=Severity.ERROR,
    ),
    Row(
        "CKD422",
        lambda: mostly_dry(0.8),
        lambda: mostly_dry(0.3),
        cause=Cause.LOSS_FUNCTION,
        says="80% of the targets y are 0",
    ),
    Row(
        "CKD423",
        lambda: stuck(batches=batches(array(features=(far_out(3e5),)), classes())),
        lambda: stuck(batches=batches(array(features=(far_out(60.0),)), classes())),
        cause=Cause.DATA_SCALE,
        severity=Severity.WARNING,
    ),
    Row(
        "CKD601",  # rows are learned by heart whatever is changed, and nothing of it holds elsewhere
        lambda: by_heart(-0.02),
        lambda: by_heart(0.4),
        severity=Severity.ERROR,
        says="learned by heart",
    ),
    Row("CKD601", lambda: by_heart(-0.02), lambda: by_heart(-0.02, weights=True), severity=Severity.ERROR),
    Row(
        "CKD144",  # a second embedding tells the places
        lambda: stuck(spec=attending()),
        lambda: stuck(spec=attending(layer("places", "Embedding"))),
        cause=Cause.ARCHITECTURE,
        says="attends to tokens whose places nothing tells",
    ),
    Row(
        "CKD407",  # class numbers under a loss of distances are no matter of range
        lambda: stuck(spec=SHARES, batches=batches(y=classes(10))),
        lambda: stuck(spec=SHARES, batches=batches(y=classes(30))),
        cause=Cause.LOSS_FUNCTION,
        says="class numbers from 0 to 9",
    ),
    Row(
        "CKD122",  # where the run stands still, a head that is no probability outweighs a rate that would hide it
        lambda: stuck(spec=TANH_HEAD),
        lambda: stuck(spec=CLASSIFIER),
        cause=Cause.ACTIVATION,
        says="no probability",
    ),
    Row(
        "CKD420",  # a mask spares the recurrence the padding
        lambda: padded(),
        lambda: padded(config={"mask_zero": True}),
        cause=Cause.ARCHITECTURE,
        says="about 48 steps of padding",
    ),
    Row("CKD420", lambda: padded(), lambda: padded(share=0.1)),
    Row(
        "CKD514",
        lambda: standing_still(one_element_norms=("norm",)),
        lambda: standing_still(),
        cause=Cause.ARCHITECTURE,
        says="norm normalises over a single element",
    ),
    Row(
        "CKD407",  # an own loss may leave out what stands for "no label"; two values of which one is -1 are two classes
        lambda: evidence(spec=OWN_SIGMOID, batches=batches(y=labelled(-1.0, 1.0))),
        lambda: evidence(spec=OWN_SIGMOID, batches=batches(y=labelled(-1.0, 0.0, 1.0))),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD601",  # a loss of 0.08 has room for a ninth of the rows being wrong, and four in five are
        lambda: too_good(0.2),
        lambda: too_good(0.7),
        severity=Severity.ERROR,
        says="A loss of 0.08 leaves room for 12% wrong rows at most, and 80% are wrong",
    ),
    Row(
        "CKD601",  # rows that are weighted may have any loss
        lambda: too_good(0.2),
        lambda: too_good(0.2, sample_weights=(array("sample_weight", "sample_weight"),)),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD601",  # three epochs are no plateau, but no beginning either where each is at chance and hundreds of times off
        lambda: three_epochs(0.1),
        lambda: three_epochs(0.3),
        severity=Severity.ERROR,
        says="After 3 epochs the loss is 869, 377 times that of always predicting one value",
    ),
    Row("CKD602", lambda: stuck(optimizer=state()), lambda: stuck(optimizer=state(rate=0.5)), cause=Cause.LABELS),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_fires(row: Row):
    fires(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_stays_silent_on_a_near_miss(row: Row):
    stays_silent(row)


def test_every_rule_has_a_row():
    import test_rules_checkpoint

    from ckptdoctor.rules.registry import all_rules

    tested = {row.code for row in (*ROWS, *test_rules_checkpoint.ROWS, *test_rules_checkpoint.MALICE)}
    assert {r.code for r in all_rules()} == tested


def test_features_of_equal_spread_are_no_disparity():
    features = tuple(FeatureStats(i, 0, -1.0, 1.0, 0.0, 1.0) for i in range(4))
    from table import run

    assert all(f.severity is Severity.INFO for f in run("CKD403", evidence(batches=batches(array(features=features)))))


def test_weights_that_went_bad_in_training_do_not_speak_of_their_initial_values():
    from ckptdoctor.rules.registry import run_rules

    trained = timeline(point(0, replace(NAN_VECTORS, scalars={"iterations": 9.0}), status=Status.SICK))
    (found,) = run_rules(evidence(timeline=trained), select=["CKD301"]).findings
    assert () == found.votes
