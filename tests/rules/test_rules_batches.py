"""Rules on the recorded batches (CKD4xx): each fires, and stays silent on a near miss."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evidences import BAD, BINARY, CLASSIFIER, IDS_LOSS, RELU_HEAD, classes, standing_still, stuck
from making import array, batches, census, evidence, layer, log, loss, optimizer, series, spec, state, tensor, timeline
from table import Row, fires, run, stays_silent

from ckptdoctor.model import Association, Batches, Cause, CompileSpec, FeatureStats, LossSpec, Severity

SGD = spec(optimizer=optimizer("SGD", 0.01))
READER = spec(layer("words", "Embedding"), layer("out"))
SHARES = spec(layer("h"), layer("out", units=10, activation="softmax"), loss=loss("mean_squared_error"))
HALVES = (0.693, 0.694, 0.693, 0.693, 0.694, 0.693, 0.693, 0.693)  # ln 2: one half for every row
NORMED = (
    layer("h"),
    layer("bn", "BatchNormalization"),
    layer("out", units=1, activation="linear"),
)
CONVOLVED = spec(layer("conv", "Conv2D"), *NORMED[1:])
ONE_IMAGE = array(shape=(8, 1, 4, 4, 1))
OWN_SIGMOID = spec(layer("h"), layer("out", units=3, activation="sigmoid"), loss=loss("own", custom=True))


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


def tokens():
    return array(min=0.0, max=49.0, mean=25.0, std=14.0, integral=True, dtype="int32")


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


def coded(code: float | None, count: int) -> FeatureStats:
    """A feature with a value that stands for missing ones, or None."""
    return FeatureStats(0, 0, -3.0, code or 3.0, 0.0, 1.0, code=code, code_count=count)


def rescaled(scale: float):
    first = layer("rescaling", "Rescaling", config={"scale": scale, "offset": 0.0})
    return spec(first, layer("h"), layer("out", units=10, activation="softmax"), loss=IDS_LOSS)


def half_spec():
    return spec(
        layer("h", dtype_policy="mixed_float16"),
        layer("out", units=10, activation="softmax"),
        loss=loss("sparse_categorical_crossentropy"),
    )


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


def labelled(*values: float):
    """Targets of three columns that take just these values, and may be judged by a loss of the user's own."""
    counts = tuple((v, 100) for v in values)
    return array("y", "target", shape=(8, 32, 3), min=min(values), max=max(values), integral=True, classes=counts)


INCOMES = array("y", "target", min=2.7e4, max=6.4e4, mean=4.58e4, std=1e4)
COSINE = spec(layer("h"), layer("out", units=1, activation="linear"), loss=loss("cosine_similarity"))
SPECKS = array("y", "target", min=0.0, max=0.1, mean=0.009, std=0.0134)

ROWS = [
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
        "CKD403",  # divided by 255 by the generator and by the model
        lambda: stuck(spec=rescaled(1 / 255), batches=batches(array(min=0.0, max=1.0, mean=0.4, std=0.3))),
        lambda: stuck(spec=rescaled(1 / 255), batches=batches(array(min=0.0, max=255.0, mean=100.0, std=80.0))),
        cause=Cause.DATA_SCALE,
        says="they are scaled twice",
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
        "CKD405",  # two heads, one of them with unlabelled rows
        lambda: two_heads(((-1.0, 80), (0.0, 88), (1.0, 88)), low=-1.0),
        lambda: two_heads(((0.0, 128), (1.0, 128)), low=0.0),
        cause=Cause.LABELS,
        says="Class ids of y_kind run from -1 to 1, but kind has 2 units",
    ),
    Row(
        "CKD406",
        lambda: evidence(spec=BINARY, batches=batches(y=classes(3))),
        lambda: evidence(spec=BINARY, batches=batches(y=array("y", "target", min=0.0, max=1.0, mean=0.5, std=0.5))),
        severity=Severity.ERROR,
        says="class ids",
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
        "CKD406",  # the losses of two heads, given in the wrong order
        lambda: sorted_by_name("binary_crossentropy"),
        lambda: sorted_by_name("mean_squared_error"),
        severity=Severity.ERROR,
        says="Targets y_years run from -3 to 3",
    ),
    Row(
        "CKD407",
        lambda: evidence(spec=RELU_HEAD, batches=batches(y=array("y", "target", min=-1.0, max=1.0))),
        lambda: evidence(spec=RELU_HEAD, batches=batches(y=array("y", "target", min=0.0, max=9.0))),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD407",  # without a log, too: not even their mean can be given
        lambda: evidence(spec=RELU_HEAD, batches=batches(y=array("y", "target", min=-9.0, max=1.0, mean=-4.0))),
        lambda: evidence(spec=RELU_HEAD, batches=batches(y=array("y", "target", min=-1.0, max=9.0, mean=4.0))),
        cause=None,
        severity=Severity.ERROR,
    ),
    Row(
        "CKD407",  # class numbers under a loss of distances are no matter of range
        lambda: stuck(spec=SHARES, batches=batches(y=classes(10))),
        lambda: stuck(spec=SHARES, batches=batches(y=classes(30))),
        cause=Cause.LOSS_FUNCTION,
        says="class numbers from 0 to 9",
    ),
    Row(
        "CKD407",  # an own loss may leave out what stands for "no label"; two values of which one is -1 are two classes
        lambda: evidence(spec=OWN_SIGMOID, batches=batches(y=labelled(-1.0, 1.0))),
        lambda: evidence(spec=OWN_SIGMOID, batches=batches(y=labelled(-1.0, 0.0, 1.0))),
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
        "CKD409",  # one-hot targets that are the same for all rows
        lambda: evidence(
            batches=batches(y=array("y", "target", min=0.0, max=1.0, mean=0.5, std=0.5, duplicate_rows=255))
        ),
        lambda: evidence(
            batches=batches(y=array("y", "target", min=0.0, max=1.0, mean=0.5, std=0.5, duplicate_rows=254))
        ),
        cause=Cause.LABELS,
        says="are the same",
    ),
    Row(
        "CKD404",  # nearly no slope is left
        lambda: stuck(spec=spec(), batches=batches(y=SPECKS), logs=log(series(values=(0.0001802, *[0.0001801] * 9)))),
        lambda: evidence(spec=spec(), batches=batches(y=SPECKS)),
        cause=Cause.DATA_SCALE,
        says="are tiny",
    ),
    Row(
        "CKD406",  # the direction of a single number is its sign
        lambda: evidence(spec=COSINE, batches=batches(y=array("y", "target"))),
        lambda: evidence(spec=COSINE, batches=batches(y=array("y", "target", shape=(8, 32, 4)))),
        cause=Cause.LOSS_FUNCTION,
        severity=Severity.ERROR,
        says="one number a row",
    ),
    Row(
        "CKD404",  # weights only: the loss stands on the mean square of targets in the ten thousands
        lambda: evidence(logs=log(series(values=(2.2e9, *[2.199e9] * 11))), batches=batches(y=INCOMES)),
        lambda: evidence(logs=log(series(values=(2.2e9, *[7e8] * 11))), batches=batches(y=INCOMES)),
        cause=Cause.DATA_SCALE,
    ),
    Row(
        "CKD406",  # noise on the labels of a discriminator
        lambda: evidence(spec=BINARY, batches=batches(y=array("y", "target", min=0.0, max=1.5, mean=0.5, std=0.5))),
        lambda: evidence(spec=BINARY, batches=batches(y=array("y", "target", min=0.0, max=1.05, mean=0.5, std=0.5))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD409",  # whole numbers, divided in place
        lambda: stuck(batches=batches(array(min=0.0, max=0.0, mean=0.0, std=0.0), classes())),
        lambda: evidence(batches=batches(array(min=0.0, max=1.0, mean=0.1, std=0.2), classes())),
        cause=Cause.DATA_SCALE,
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
        "CKD413",
        lambda: evidence(batches=batches(y=array("y", "target", classes=((0.0, 240), (1.0, 16)), integral=True))),
        lambda: evidence(batches=batches(y=array("y", "target", classes=((0.0, 140), (1.0, 116)), integral=True))),
        severity=Severity.INFO,
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
        "CKD420",  # a mask spares the recurrence the padding
        lambda: padded(),
        lambda: padded(config={"mask_zero": True}),
        cause=Cause.ARCHITECTURE,
        says="about 48 steps of padding",
    ),
    Row("CKD420", lambda: padded(), lambda: padded(share=0.1)),
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
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_fires(row: Row):
    fires(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_stays_silent_on_a_near_miss(row: Row):
    stays_silent(row)


def test_features_of_equal_spread_are_no_disparity():
    features = tuple(FeatureStats(i, 0, -1.0, 1.0, 0.0, 1.0) for i in range(4))
    assert all(f.severity is Severity.INFO for f in run("CKD403", evidence(batches=batches(array(features=features)))))


def test_the_units_behind_a_wrapper_are_the_head():
    """A linear layer applied at each step was once passed over, and the tanh of the cells before it accused."""
    model = spec(
        layer("cells", "LSTM", activation="tanh", units=12),
        layer("steps", "TimeDistributed", activation="linear", units=1),
    )
    targets = array("y", "target", shape=(256, 16, 1), min=-3.0, max=0.6, mean=-1.5)
    for code in ("CKD407", "CKD417"):
        assert [] == run(code, evidence(spec=model, batches=batches(y=targets)))
