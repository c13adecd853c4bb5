"""Rules on checkpoints and configurations: each fires, and stays silent on a near miss."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from making import (
    array,
    batches,
    census,
    evidence,
    fingerprint,
    gradient,
    layer,
    log,
    loss,
    optimizer,
    point,
    series,
    spec,
    state,
    tensor,
    timeline,
    units,
)
from table import Row, fires, run, stays_silent

from ckptdoctor.model import Cause, Operand, Pattern, Problem, ProblemKind, Role, Severity, Status

BAD = census(tensor(nan=5))


def pattern(kind: str, **changes):
    fields = {"message": "a pattern", "layer": "h1", "variable": "kernel", "indices": (2,), "count": 1, "of": 10}
    return evidence(census=BAD, fingerprint=fingerprint(Pattern(kind, **(fields | changes))))


def deep(n: int, activation: str = "relu", *, norm: bool = False, **changes):
    return spec(
        *[layer(f"h{i}", activation=activation) for i in range(n)],
        *([layer("bn", "BatchNormalization", activation=None)] if norm else []),
        layer("out", units=1, activation="linear"),
        **changes,
    )


DROP = layer("drop", "Dropout", activation=None)


def variance(low: float):
    return tensor("bn/moving_variance", shape=(64,), role=Role.STATISTIC, low=low)


def heavy(momentum: float):
    return optimizer("SGD", 0.3, momentum=momentum)


LOGITS = loss("categorical_crossentropy", from_logits=True)


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


def constant_start():
    """A model whose two kernels began with equal units; in the first, rounding told them apart."""
    same, other = units(distinct=1), units()
    begun = census(tensor("enc/kernel", units=same), tensor("code/kernel", units=same), iterations=0)
    now = census(tensor("enc/kernel", units=other), tensor("code/kernel", units=same))
    return evidence(census=now, timeline=timeline(point(0, begun), point(9, now)))


def untouched(*tensors):
    return evidence(census=census(*tensors), optimizer=state(untouched_slots=True), spec=deep(2, "relu"))


def warming(steps: float = 4000.0, values=(1.4, 1.4, 1.39, 1.39)):
    """A classifier of four classes whose schedule warms up, after 70 steps."""
    schedule = {"class_name": "Noam", "config": {"d_model": 16, "warmup_steps": steps}}
    return evidence(
        census=census(iterations=70),
        optimizer=state(),
        spec=spec(optimizer=optimizer(schedule=schedule)),
        logs=log(series(values=values)),
        batches=batches(
            y=array("y", "target", min=0.0, max=3.0, integral=True, classes=tuple((float(i), 9) for i in range(4)))
        ),
    )


def accumulating(steps: int):
    return spec(optimizer=optimizer(config={"gradient_accumulation_steps": steps}))


def standing(**parts):
    """A finite run whose loss stays at that of an even guess over ten classes."""
    head = layer("out", units=10, activation="softmax")
    fields = {
        "spec": spec(layer("h1"), head, loss=loss("sparse_categorical_crossentropy")),
        "logs": log(series(values=(2.31, 2.303, 2.304, 2.303, 2.303, 2.303))),
    }
    return evidence(**(fields | parts))


def biased(value: float) -> dict:
    return {"bias_initializer": {"class_name": "Constant", "config": {"value": value}}}


def narrow_start():
    """Four kernels, each with a quarter of the usual spread: a signal that passes all of them is 256 times smaller."""
    kernels = [tensor(f"h{i}/kernel", shape=(64, 64), rms=0.25 * math.sqrt(2 / 64)) for i in range(4)]
    return census(*kernels, iterations=0)


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


ROWS = [
    Row(
        "CKD101",
        lambda: evidence(census=census(tensor(nan=3))),
        lambda: evidence(census=census(tensor())),
        severity=Severity.ERROR,
        says="3 entries are NaN",
    ),
    Row(
        "CKD102",
        lambda: pattern("kernel_rows", means="input feature"),
        lambda: pattern("kernel_rows", means="unit of the layer before"),
        cause=Cause.DATA_NONFINITE,
        says="feature 2",
    ),
    Row("CKD103", lambda: pattern("embedding_rows", means="token id"), lambda: pattern("kernel_rows")),
    Row("CKD104", lambda: pattern("trainables_only"), lambda: pattern("everything"), cause=Cause.LABELS),
    Row("CKD105", lambda: pattern("upstream_only"), lambda: pattern("everything"), cause=Cause.ACTIVATION),
    Row("CKD106", lambda: pattern("statistics_only"), lambda: pattern("trainables_only"), cause=Cause.ARCHITECTURE),
    Row(
        "CKD107",
        lambda: evidence(census=census(tensor(), tensor(role=Role.SLOT, slot="velocity", posinf=4))),
        lambda: evidence(census=census(tensor(nan=1), tensor(role=Role.SLOT, slot="velocity", posinf=4))),
        cause=Cause.EXPLODING_GRADIENTS,
        says="squared gradients overflowed",
    ),
    Row("CKD108", lambda: pattern("downstream_only"), lambda: pattern("everything"), cause=Cause.ACTIVATION),
    Row(
        "CKD110",
        lambda: evidence(optimizer=state(rate=math.nan)),
        lambda: evidence(optimizer=state(rate=0.0)),
        cause=Cause.LEARNING_RATE,
        severity=Severity.ERROR,
    ),
    Row(
        "CKD111",
        lambda: evidence(census=BAD, optimizer=state("SGD", rate=100.0)),
        lambda: evidence(census=BAD, optimizer=state("SGD", rate=0.1)),
        cause=Cause.LEARNING_RATE,
        says="above the usual range for SGD",
    ),
    Row(
        "CKD112",
        lambda: evidence(census=BAD, optimizer=state(rate=0.001)),
        lambda: evidence(census=BAD, optimizer=state(rate=0.01)),
    ),
    Row(
        "CKD113",
        lambda: evidence(optimizer=state(iterations=100, loss_scale=0.25, skipped_updates=100)),
        lambda: evidence(optimizer=state(iterations=100, loss_scale=16384.0, skipped_updates=2)),
        cause=Cause.MIXED_PRECISION,
    ),
    Row(
        "CKD114",
        lambda: evidence(census=census(tensor(dtype="float16", nan=1)), spec=spec()),
        lambda: evidence(census=census(tensor(dtype="bfloat16", nan=1)), spec=spec()),
        cause=Cause.MIXED_PRECISION,
        says="epsilon",
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
        "CKD115",
        lambda: evidence(
            optimizer=state(
                gradients=(gradient("a", 1e-7), gradient("b", 1e-4), gradient("c", 1e-2)), profile_ratio=1e-5
            )
        ),
        lambda: evidence(
            optimizer=state(
                gradients=(gradient("a", 1e-3), gradient("b", 1e-3), gradient("c", 1e-2)), profile_ratio=0.1
            )
        ),
        cause=Cause.VANISHING_GRADIENTS,
    ),
    Row(
        "CKD115",
        lambda: evidence(
            optimizer=state(gradients=(gradient("a", 1e4), gradient("b", 1e2), gradient("c", 1.0)), profile_ratio=1e4)
        ),
        lambda: evidence(
            optimizer=state(
                gradients=(gradient("a", 1e-2), gradient("b", 1e-4), gradient("c", 1e-6)), profile_ratio=1e4
            )
        ),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row(
        "CKD116",
        lambda: evidence(optimizer=state(gradients=(gradient("a", ratio=3.0), gradient("b", ratio=1.0)))),
        lambda: evidence(optimizer=state(gradients=(gradient("a", ratio=0.3), gradient("b", ratio=0.001)))),
        cause=Cause.LEARNING_RATE,
    ),
    Row(
        "CKD117",
        lambda: evidence(census=census(tensor(rms=1e9))),
        lambda: evidence(census=census(tensor(rms=500.0), tensor("e/embeddings", rms=1e9))),
        cause=Cause.LEARNING_RATE,
        severity=Severity.ERROR,
    ),
    Row(
        "CKD118",
        lambda: evidence(census=census(tensor(units=units(distinct=1)))),
        lambda: evidence(census=census(tensor(units=units(distinct=1)), iterations=0)),
        cause=Cause.INITIALIZATION,
        severity=Severity.ERROR,
    ),
    Row(
        "CKD118",  # rounding may have told the units of the first layer apart since
        lambda: constant_start(),
        lambda: evidence(census=census(tensor("enc/kernel", units=units()))),
        says="units of enc/kernel",
    ),
    Row(
        "CKD118",
        lambda: evidence(census=census(tensor(units=units(distinct=1), trainable=True))),
        lambda: evidence(
            census=census(tensor(units=units(distinct=1), trainable=False), tensor(units=units(distinct=1, zero=64)))
        ),
    ),
    Row(
        "CKD119",
        lambda: evidence(census=census(tensor(rms=5.0), iterations=0)),
        lambda: evidence(census=census(tensor(rms=0.4), iterations=0)),
        cause=Cause.INITIALIZATION,
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
        "CKD123",
        lambda: evidence(spec=spec(layer("out", units=1, activation="relu"))),
        lambda: evidence(spec=spec(layer("out", units=1, activation="softplus"))),
        cause=Cause.ACTIVATION,
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
    Row(
        "CKD130",
        lambda: evidence(
            census=census(tensor("h/bias", shape=(64,), rms=40.0)),
            spec=spec(layer("h", activation="tanh"), layer("out")),
        ),
        lambda: evidence(
            census=census(tensor("h/bias", shape=(64,), rms=40.0)),
            spec=spec(layer("h", activation="relu"), layer("out")),
        ),
    ),
    Row(
        "CKD131",
        lambda: evidence(census=BAD, optimizer=state("SGD"), spec=spec(optimizer=optimizer("SGD"))),
        lambda: evidence(census=BAD, optimizer=state("Adam"), spec=spec()),
    ),
    Row("CKD132", lambda: evidence(spec=deep(9)), lambda: evidence(spec=deep(5))),
    Row(
        "CKD119",
        lambda: evidence(census=census(tensor("h/bias", shape=(64,), rms=10.0, mean=-10.0), iterations=0)),
        lambda: evidence(census=census(tensor("lstm/bias", shape=(64,), rms=0.5, mean=0.25), iterations=0)),
        cause=Cause.INITIALIZATION,
        says="h/bias",
    ),
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
        "CKD135",
        lambda: evidence(
            optimizer=state("SGD", untouched_slots=True), spec=spec(layer("h", dtype_policy="mixed_float16"))
        ),
        lambda: evidence(optimizer=state("SGD", untouched_slots=True, iterations=3)),
        cause=Cause.MIXED_PRECISION,
    ),
    Row(
        "CKD135",  # nothing in the model is exactly flat: the own loss is
        lambda: evidence(optimizer=state(untouched_slots=True), spec=deep(2, "tanh", loss=loss("sign", custom=True))),
        lambda: evidence(optimizer=state(untouched_slots=True, iterations=3), spec=deep(2, "tanh")),
        cause=Cause.LOSS_FUNCTION,
    ),
    Row(
        "CKD135",  # two factors that start at zero hold each other there
        lambda: untouched(tensor("low/a", rms=0.0, low=0.0, high=0.0), tensor("low/b", rms=0.0, low=0.0, high=0.0)),
        lambda: untouched(tensor("low/a", rms=0.0, low=0.0, high=0.0), tensor("low/b")),
        cause=Cause.INITIALIZATION,
        says="2 kernels are zero throughout, first low/a",
    ),
    Row(
        "CKD142",
        lambda: warming(values=(1.4, 1.4, 1.39, 1.39, 1.39)),
        lambda: warming(values=(1.4, 1.2, 0.9, 0.6, 0.4)),
        cause=Cause.LEARNING_RATE,
        severity=Severity.ERROR,
        says="took 70 steps",
    ),
    Row("CKD142", lambda: warming(), lambda: warming(steps=90.0)),
    Row(
        "CKD143",
        lambda: likelihood("sigma"),
        lambda: likelihood("log_sigma"),
        cause=Cause.ACTIVATION,
        says="sigma is linear",
    ),
    Row(
        "CKD145",
        lambda: residual(),
        lambda: residual(layer("norm", "LayerNormalization")),
        cause=Cause.EXPLODING_GRADIENTS,
    ),
    Row("CKD143", lambda: likelihood("sigma"), lambda: likelihood("sigma", activation="softplus")),
    Row(
        "CKD135",  # gradient_accumulation_steps was given the wanted batch size
        lambda: evidence(optimizer=state(untouched_slots=True, iterations=196), spec=accumulating(256)),
        lambda: evidence(optimizer=state(untouched_slots=True, iterations=196), spec=accumulating(8)),
        cause=Cause.OPTIMIZER,
        says="over 256 steps",
    ),
    Row(
        "CKD119",  # word vectors of which none was found
        lambda: evidence(census=census(tensor("words/embeddings", rms=0.0, trainable=False), iterations=0)),
        lambda: evidence(census=census(tensor("words/embeddings", rms=0.05, trainable=False), iterations=0)),
        cause=Cause.INITIALIZATION,
        says="words/embeddings held zeros only, and it is frozen",
    ),
    Row(
        "CKD111",
        lambda: evidence(census=BAD, optimizer=state("SGD", rate=0.3), spec=spec(optimizer=heavy(0.9))),
        lambda: evidence(census=BAD, optimizer=state("SGD", rate=0.3), spec=spec(optimizer=heavy(0.0))),
        cause=Cause.LEARNING_RATE,
        says="with a momentum of 0.9",
    ),
    Row(
        "CKD139",
        lambda: evidence(census=census(variance(-0.4)), spec=spec(layer("bn", "BatchNormalization"))),
        lambda: evidence(census=census(variance(-1e-9)), spec=spec(layer("bn", "BatchNormalization"))),
        cause=Cause.INITIALIZATION,
        severity=Severity.ERROR,
        says="reaches down to -0.4",
    ),
    Row(
        "CKD139",
        lambda: evidence(
            census=census(variance(-0.4)), spec=spec(layer("bn", "BatchNormalization", config={"momentum": 9}))
        ),
        lambda: evidence(
            census=census(variance(0.4)), spec=spec(layer("bn", "BatchNormalization", config={"momentum": 9}))
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
        "CKD140",
        lambda: standing(census=census(tensor("h1/bias", shape=(64,), rms=4.5), iterations=400)),
        lambda: standing(census=census(tensor("h1/bias", shape=(64,), rms=0.4), iterations=400)),
        cause=Cause.LEARNING_RATE,
        says="h1/bias was driven far out",
    ),
    Row(
        "CKD140",  # an output's bias says where the targets lie
        lambda: standing(census=census(tensor("out/bias", shape=(64,), rms=45.0), iterations=400)),
        lambda: standing(census=census(tensor("out/bias", shape=(64,), rms=4.5), iterations=400)),
        cause=Cause.LEARNING_RATE,
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
        "CKD119",  # told by the configuration alone
        lambda: evidence(census=census(), spec=spec(layer("out", units=1, activation="sigmoid", config=biased(49.0)))),
        lambda: evidence(census=census(), spec=spec(layer("out", units=1, activation="sigmoid", config=biased(-4.6)))),
        cause=Cause.INITIALIZATION,
        says="out starts with a bias of 49",
    ),
    Row(
        "CKD119",
        lambda: evidence(census=narrow_start(), spec=deep(4)),
        lambda: evidence(census=narrow_start(), spec=deep(4, norm=True)),
        cause=Cause.INITIALIZATION,
        says="together they shrink the signal",
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
        "CKD136",
        lambda: evidence(spec=spec(layer("h", trainable=False), layer("out", trainable=False))),
        lambda: evidence(spec=spec(layer("h", trainable=False), layer("out"))),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD301",
        lambda: evidence(timeline=timeline(point(0), point(1, BAD, status=Status.SICK))),
        lambda: evidence(timeline=timeline()),
        severity=Severity.ERROR,
        says="epoch_000.keras before it is healthy",
    ),
    Row(
        "CKD701",
        lambda: evidence(census=census(problems=(Problem(ProblemKind.DAMAGED, "cut off"),))),
        lambda: evidence(census=census(problems=(Problem(ProblemKind.UNSUPPORTED, "a filter"),))),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD702",
        lambda: evidence(census=census(problems=(Problem(ProblemKind.HOSTILE, "external storage"),))),
        lambda: evidence(census=census()),
        severity=Severity.ERROR,
    ),
]


def config(*layers: dict, **compile_config) -> object:
    return evidence(
        census=census(
            model_config={
                "class_name": "Sequential",
                "module": "keras",
                "config": {"name": "m", "layers": list(layers)},
            },
            compile_config=compile_config or {"loss": "mse"},
        )
    )


def dense(module: str = "keras.layers", class_name: str = "Dense", **changes) -> dict:
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": "d", "units": 4} | changes,
        "registered_name": None,
    }


MALICE = [
    Row(
        "CKD703",
        lambda: config(dense(class_name="Lambda")),
        lambda: config(dense()),
        severity=Severity.WARNING,
        says="CVE-2024-3660",
    ),
    Row("CKD704", lambda: config(dense("os", "system")), lambda: config(dense()), severity=Severity.ERROR),
    Row(
        "CKD705",
        lambda: config(dense(enable_unsafe_deserialization=True)),
        lambda: config(dense()),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD706",
        lambda: config(dense(class_name="StringLookup", vocabulary="http://example.org/words")),
        lambda: config(dense(class_name="StringLookup", vocabulary="words.txt")),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD707",
        lambda: config(dense(class_name="StringLookup", vocabulary="words.txt")),
        lambda: config(dense(class_name="StringLookup", vocabulary=["a", "b"])),
        severity=Severity.WARNING,
    ),
    Row("CKD708", lambda: config(dense(units=10**12)), lambda: config(dense(units=10**6)), severity=Severity.ERROR),
]


@pytest.mark.parametrize("row", ROWS + MALICE, ids=lambda r: r.code)
def test_fires(row: Row):
    fires(row)


@pytest.mark.parametrize("row", ROWS + MALICE, ids=lambda r: r.code)
def test_stays_silent_on_a_near_miss(row: Row):
    stays_silent(row)


def test_the_first_layer_of_a_hand_set_initialiser_is_named_though_a_later_one_is_further_off():
    drawn = {"kernel_initializer": {"class_name": "RandomNormal", "config": {"stddev": 1.0, "seed": None}}}
    usual = {"kernel_initializer": {"class_name": "HeNormal", "config": {}}}
    stack = spec(
        layer("pre", config=usual), layer("h1", config=drawn), layer("h2", config=drawn), layer("out", units=1)
    )
    weights = census(
        tensor("pre/kernel", shape=(10, 10), rms=0.45),
        tensor("h1/kernel", shape=(10, 64), rms=1.0),
        tensor("h2/kernel", shape=(64, 64), rms=1.0),
        iterations=0,
    )
    (finding,) = run("CKD119", evidence(census=weights, spec=stack))
    assert finding.layer == "h1"
    assert "h2/kernel was 5.7 times" in finding.message


def test_a_loss_of_zero_names_the_single_unit_it_cannot_see():
    logs = log(series(values=(0.0,) * 5), series("accuracy", (0.3, 0.3, 0.4, 0.3, 0.3)))
    (finding,) = run(
        "CKD215", evidence(logs=logs, census=census(tensor("h/kernel"), tensor("out/kernel", shape=(64, 1))))
    )
    assert finding.layer == "out"
    (finding,) = run(
        "CKD215", evidence(logs=logs, census=census(tensor("h/kernel"), tensor("out/kernel", shape=(64, 5))))
    )
    assert finding.layer is None


def test_the_smallest_rate_there_is_can_be_compared():
    (found,) = run("CKD111", evidence(census=BAD, optimizer=state("SGD", rate=5e-324)))
    assert found.measured == 5e-324
