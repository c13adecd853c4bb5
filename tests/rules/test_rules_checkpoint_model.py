"""Rules on the model that a checkpoint describes (CKD1xx): each fires, and stays silent on a near miss."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evidences import BAD, CLASSIFIER, IDS_LOSS, classes, deep, stuck
from making import array, batches, census, evidence, layer, log, loss, optimizer, series, spec, tensor
from table import Row, fires, stays_silent

from ckptdoctor.model import Cause, Operand, Role, Severity

DROP = layer("drop", "Dropout", activation=None)
LOGITS = loss("categorical_crossentropy", from_logits=True)
TANH_HEAD = spec(layer("h"), layer("out", units=1, activation="tanh"), loss=loss("binary_crossentropy"))


def maps(activation: str):
    return spec(
        layer("maps", "Conv2D", units=5, activation=activation),
        layer("mean", "GlobalAveragePooling2D"),
        layer("shares", "Activation", activation="softmax"),
        loss=loss("categorical_crossentropy"),
    )


def likelihood(name: str, activation: str = "linear"):
    """A failed run whose own loss takes a mean and a spread."""
    head = layer(name, units=1, activation=activation)
    return evidence(census=census(tensor(nan=3)), spec=spec(layer("h"), head, loss=loss("nll", custom=True)))


def residual(*more):
    """A failed run through five residual sums."""
    sums = tuple(replace(layer(f"add{n}", "Add"), inbound=("h", "x")) for n in range(5))
    whole = spec(layer("h"), *more, layer("out", units=1))
    return evidence(census=census(tensor(nan=3)), spec=replace(whole, layers=(*whole.layers, *sums)))


def graph(*layers):
    return spec(*layers, graph_known=True)


def log_of(name: str):
    return layer("log", "Log", operands=(Operand(name),))


def plus(name: str, number: float, **changes):
    return layer("plus", "Add", activation=None, operands=(Operand(name), Operand(number=number)), **changes)


def half_division(epsilon: float):
    half = {"dtype_policy": "float16", "config": {"dtype": "float16"}}
    return graph(
        layer("h", activation="relu", **half),
        plus("h", epsilon, **half),
        layer("divide", "Divide", operands=(Operand("h"), Operand("plus")), **half),
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


SCALED_HALF = spec(
    layer("h", dtype_policy="mixed_float16"),
    layer("out", units=10, activation="softmax"),
    loss=IDS_LOSS,
    optimizer=optimizer(loss_scaled=True),
)
EXP_HEAD = spec(layer("h"), layer("out", units=1, activation="exponential"))
ABOVE_VARIANCE = log(series(values=(9.0, 3.0, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5)))


def board(*between):
    """A map of one channel under a softmax, flattened before it or behind."""
    one = layer("places", "Conv2D", units=1, activation="linear")
    shares = layer("shares", "Activation", activation="softmax")
    last = () if between else (layer("flat", "Flatten"),)
    return spec(layer("h"), one, *between, shares, *last, loss=loss("categorical_crossentropy"))


def drawing(activation: str, name: str = "z_sigma"):
    """An encoder whose code is drawn by a layer of the user's own from a mean and a spread; it went non-finite."""
    mean, spread = layer("z_mean", units=2, activation="linear"), layer(name, units=2, activation=activation)
    whole = spec(layer("h"), mean, replace(spread, inbound=("h",)), layer("out", units=9, activation="sigmoid"))
    drawn = replace(layer("z", "Draw", registered="Draw"), inbound=("z_mean", name))
    return replace(whole, layers=(*whole.layers[:-1], drawn, whole.layers[-1]))


def looks_up(registered: str | None, dtype: str = "float32"):
    """Ids up to 20,000, looked up in half precision by a layer of one's own or by Keras'."""
    words = layer("words", "Words" if registered else "Embedding", registered=registered, dtype_policy="mixed_float16")
    ids = array(min=8000.0, max=20000.0, integral=True, dtype=dtype)
    half = spec(
        words, layer("out", units=10, activation="softmax"), loss=IDS_LOSS, optimizer=optimizer(loss_scaled=True)
    )
    return stuck(spec=half, batches=batches(ids, classes()))


def adapted(zeros: int):
    """A Normalization with a variance of 0 for so many columns, in a run that stands still."""
    variance = replace(tensor("norm/variance", shape=(1, 9), role=Role.STATISTIC), zeros=zeros)
    model = spec(layer("norm", "Normalization"), layer("out", units=10, activation="softmax"), loss=IDS_LOSS)
    return stuck(spec=model, census=census(variance, iterations=400))


ROWS = [
    Row(
        "CKD114",
        lambda: evidence(census=census(tensor(dtype="float16", nan=1)), spec=spec()),
        lambda: evidence(census=census(tensor(dtype="bfloat16", nan=1)), spec=spec()),
        cause=Cause.MIXED_PRECISION,
        says="epsilon",
    ),
    Row(
        "CKD114",  # scans of some thousands; pixels of 255 have squares that float16 holds
        lambda: stuck(spec=SCALED_HALF, batches=batches(array(min=0.0, max=3000.0), classes())),
        lambda: stuck(spec=SCALED_HALF, batches=batches(array(min=0.0, max=255.0), classes())),
        cause=Cause.MIXED_PRECISION,
        says="inputs reach 3000",
    ),
    Row(
        "CKD114",
        lambda: evidence(census=BAD, spec=spec(layer("h", dtype_policy="mixed_float16"))),
        lambda: evidence(
            census=census(tensor()),
            spec=spec(layer("h", dtype_policy="mixed_float16"), optimizer=optimizer(loss_scaled=True)),
        ),
        cause=Cause.MIXED_PRECISION,
        says="does not scale the loss",
    ),
    Row(
        "CKD121",
        lambda: evidence(
            spec=spec(
                layer("h"), layer("out", units=1, activation="linear"), layer("act", "Activation", activation="softmax")
            )
        ),
        lambda: evidence(spec=spec(layer("h"), layer("out", units=2, activation="softmax"))),
        cause=Cause.ACTIVATION,
        severity=Severity.ERROR,
    ),
    Row(
        "CKD122",
        lambda: evidence(spec=spec(layer("out", units=1, activation="sigmoid"), loss=loss("categorical_crossentropy"))),
        lambda: evidence(
            spec=spec(
                layer("out", units=3, activation="linear"), loss=loss("categorical_crossentropy", from_logits=True)
            )
        ),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD114",  # Keras casts floats before a layer sees them; ids are not looked up in steps of 16
        lambda: looks_up("my>Words"),
        lambda: looks_up("my>Words", "int32"),
        cause=Cause.MIXED_PRECISION,
        says="whole numbers up to 20000 become steps of 16 in float16",
    ),
    Row(
        "CKD114",
        lambda: looks_up("my>Words"),
        lambda: looks_up(None),
        cause=Cause.MIXED_PRECISION,
    ),
    Row(
        "CKD146",
        lambda: evidence(census=BAD, spec=drawing("relu")),
        lambda: evidence(census=BAD, spec=drawing("softplus")),
        cause=Cause.ACTIVATION,
        says="z_sigma ends in relu",
    ),
    Row(
        "CKD146",  # a logarithm of the variance that cannot be below 0 makes noise, not NaN
        lambda: stuck(spec=drawing("relu", "z_log_var"), batches=batches(y=array("y", "target", std=1.5))),
        lambda: evidence(census=BAD, spec=drawing("relu", "z_log_var")),
        cause=Cause.ACTIVATION,
    ),
    Row("CKD147", lambda: adapted(2), lambda: adapted(0), cause=Cause.DATA_SCALE, says="norm divides 2 of 9 columns"),
    Row(
        "CKD121",  # a map of one channel, flattened: a softmax over its places
        lambda: evidence(spec=board()),
        lambda: evidence(spec=board(layer("flat", "Flatten"))),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD122",  # each row of the board sums to 1
        lambda: evidence(spec=board()),
        lambda: evidence(spec=board(layer("flat", "Flatten"))),
        cause=Cause.ARCHITECTURE,
        severity=Severity.ERROR,
        says="shares takes its softmax before the map is made flat",
    ),
    Row(
        "CKD122",  # what a layer of its own makes of the scores may well be a probability
        lambda: evidence(spec=spec(layer("out", units=1, activation="linear"), loss=loss("binary_crossentropy"))),
        lambda: evidence(
            spec=spec(
                layer("out", units=1, activation="linear"), layer("last", "Lambda"), loss=loss("binary_crossentropy")
            )
        ),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD122",  # where the run stands still, a head that is no probability outweighs a rate that would hide it
        lambda: stuck(spec=TANH_HEAD),
        lambda: stuck(spec=CLASSIFIER),
        cause=Cause.ACTIVATION,
        says="no probability",
    ),
    Row(
        "CKD123",
        lambda: evidence(spec=spec(layer("out", units=1, activation="relu"))),
        lambda: evidence(spec=spec(layer("out", units=1, activation="softplus"))),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD123",  # of a run that stands still
        lambda: stuck(spec=EXP_HEAD, logs=ABOVE_VARIANCE, batches=batches()),
        lambda: evidence(spec=EXP_HEAD, logs=ABOVE_VARIANCE),
        cause=Cause.ACTIVATION,
        says="ends in exponential",
    ),
    Row(
        "CKD124",
        lambda: evidence(census=BAD, spec=deep(3, "exponential")),
        lambda: evidence(census=BAD, spec=spec(layer("h"), layer("out", units=1, activation="exponential"))),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD124",
        lambda: evidence(
            census=BAD,
            spec=spec(
                layer("rnn", "SimpleRNN", activation="relu", units=8), layer("out", units=1, activation="linear")
            ),
        ),
        lambda: evidence(
            census=BAD,
            spec=spec(
                layer("rnn", "SimpleRNN", activation="tanh", units=8), layer("out", units=1, activation="linear")
            ),
        ),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row(
        "CKD125",
        lambda: evidence(spec=deep(3, "sigmoid")),
        lambda: evidence(
            spec=spec(
                layer("a", activation="sigmoid"),
                layer("bn", "BatchNormalization"),
                layer("b", activation="sigmoid"),
                layer("out"),
            )
        ),
        cause=Cause.VANISHING_GRADIENTS,
    ),
    Row(
        "CKD126",
        lambda: evidence(spec=deep(2, "linear")),
        lambda: evidence(spec=deep(1, "linear")),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD127",
        lambda: evidence(census=BAD, spec=spec(layer("rnn", "SimpleRNN", activation="tanh", units=8), layer("out"))),
        lambda: evidence(
            census=BAD,
            spec=spec(
                layer("rnn", "SimpleRNN", activation="tanh", units=8), layer("out"), optimizer=optimizer(clipnorm=1.0)
            ),
        ),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row(
        "CKD128",
        lambda: evidence(census=BAD, spec=spec(loss=loss("rmse", custom=True))),
        lambda: evidence(census=census(), spec=spec(loss=loss("rmse", custom=True))),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD129",
        lambda: evidence(spec=spec(optimizer=optimizer("SGD", momentum=0.999))),
        lambda: evidence(spec=spec(optimizer=optimizer("SGD", momentum=0.9))),
        cause=Cause.OPTIMIZER,
    ),
    Row("CKD132", lambda: evidence(spec=deep(9)), lambda: evidence(spec=deep(5))),
    Row(
        "CKD133",
        lambda: evidence(spec=spec(layer("drop", "Dropout", config={"rate": 0.95}), layer("out"))),
        lambda: evidence(spec=spec(layer("drop", "Dropout", config={"rate": 0.5}), layer("out"))),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD133",
        lambda: evidence(spec=spec(layer("neck", units=1), layer("out", units=8, activation="softmax"))),
        lambda: evidence(spec=spec(layer("neck", units=4), layer("out", units=8, activation="softmax"))),
        cause=Cause.ARCHITECTURE,
        says="squeezes",
    ),
    Row(
        "CKD134",
        lambda: evidence(spec=spec(layer("h", activation="softmax"), layer("out", units=1, activation="linear"))),
        lambda: evidence(spec=spec(layer("h", activation="gelu"), layer("out", units=3, activation="softmax"))),
        cause=Cause.ACTIVATION,
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
        "CKD134",  # nobody tested a layer of one's own; what is called a loss is a part of it
        lambda: evidence(spec=spec(layer("pool", "Pool", registered="my>Pool"), layer("out")), census=BAD),
        lambda: evidence(spec=spec(layer("pool", "GlobalAveragePooling1D"), layer("out")), census=BAD),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD134",
        lambda: evidence(spec=spec(layer("b", "Balance", registered="my>LossBalance"), layer("out")), census=BAD),
        lambda: evidence(spec=spec(layer("b", "Balance", registered="my>Balance"), layer("out")), census=BAD),
        cause=Cause.LOSS_FUNCTION,
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
        "CKD136",
        lambda: evidence(spec=spec(layer("h", trainable=False), layer("out", trainable=False))),
        lambda: evidence(spec=spec(layer("h", trainable=False), layer("out"))),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD137",
        lambda: evidence(census=BAD, spec=graph(layer("h", activation="relu"), log_of("h"))),
        lambda: evidence(census=BAD, spec=graph(layer("h", activation="softplus"), plus("h", 1e-6), log_of("plus"))),
        cause=Cause.ARCHITECTURE,
        says="takes the logarithm of h, which can be exactly 0",
    ),
    Row(
        "CKD137",
        lambda: evidence(census=BAD, spec=half_division(1e-12)),
        lambda: evidence(census=BAD, spec=half_division(1e-3)),
        cause=Cause.MIXED_PRECISION,
        says="epsilon 1e-12 is 0 in float16",
    ),
    Row(
        "CKD138",
        lambda: evidence(census=BAD, spec=spec(layer("out", units=3, activation="softmax"), DROP)),
        lambda: evidence(census=BAD, spec=spec(DROP, layer("out", units=3, activation="softmax"))),
        cause=Cause.ARCHITECTURE,
        severity=Severity.WARNING,
        says="ends in Dropout (drop), behind out (softmax)",
    ),
    Row(
        "CKD138",
        lambda: evidence(
            census=BAD, spec=spec(layer("out", units=3, activation="softmax"), layer("bn", "BatchNormalization"))
        ),
        # an embedding that is normalised last is common
        lambda: evidence(
            census=BAD, spec=spec(layer("out", units=3, activation="linear"), layer("bn", "BatchNormalization"))
        ),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD141",  # class maps with a relu, averaged and given to a softmax
        lambda: evidence(census=BAD, spec=maps("relu")),
        lambda: evidence(census=BAD, spec=maps("linear")),
        cause=Cause.ACTIVATION,
        severity=Severity.WARNING,
        says="The scores of maps pass relu before softmax",
    ),
    Row(
        "CKD141",
        lambda: evidence(census=BAD, spec=spec(layer("out", units=3), loss=LOGITS)),
        lambda: evidence(census=BAD, spec=spec(layer("out", units=3, activation="linear"), loss=LOGITS)),
        cause=Cause.ACTIVATION,
        says="before the loss takes them for logits",
    ),
    Row(
        "CKD143",
        lambda: likelihood("sigma"),
        lambda: likelihood("log_sigma"),
        cause=Cause.ACTIVATION,
        says="sigma is linear",
    ),
    Row("CKD143", lambda: likelihood("sigma"), lambda: likelihood("sigma", activation="softplus")),
    Row(
        "CKD144",  # a second embedding tells the places
        lambda: stuck(spec=attending()),
        lambda: stuck(spec=attending(layer("places", "Embedding"))),
        cause=Cause.ARCHITECTURE,
        says="attends to tokens whose places nothing tells",
    ),
    Row(
        "CKD145",
        lambda: residual(),
        lambda: residual(layer("norm", "LayerNormalization")),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_fires(row: Row):
    fires(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_stays_silent_on_a_near_miss(row: Row):
    stays_silent(row)
