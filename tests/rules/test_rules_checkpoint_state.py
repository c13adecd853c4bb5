"""Rules on the weights and the optimizer of a checkpoint (CKD1xx): each fires, and stays silent on a near miss."""

from __future__ import annotations

import math

import pytest
from evidences import BAD, deep
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

from ckptdoctor.model import Cause, Pattern, Role, Severity


def pattern(kind: str, **changes):
    fields = {"message": "a pattern", "layer": "h1", "variable": "kernel", "indices": (2,), "count": 1, "of": 10}
    return evidence(census=BAD, fingerprint=fingerprint(Pattern(kind, **(fields | changes))))


def variance(low: float):
    return tensor("bn/moving_variance", shape=(64,), role=Role.STATISTIC, low=low)


def heavy(momentum: float):
    return optimizer("SGD", 0.3, momentum=momentum)


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
        "CKD111",
        lambda: evidence(census=BAD, optimizer=state("SGD", rate=0.3), spec=spec(optimizer=heavy(0.9))),
        lambda: evidence(census=BAD, optimizer=state("SGD", rate=0.3), spec=spec(optimizer=heavy(0.0))),
        cause=Cause.LEARNING_RATE,
        says="with a momentum of 0.9",
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
        "CKD119",
        lambda: evidence(census=census(tensor("h/bias", shape=(64,), rms=10.0, mean=-10.0), iterations=0)),
        lambda: evidence(census=census(tensor("lstm/bias", shape=(64,), rms=0.5, mean=0.25), iterations=0)),
        cause=Cause.INITIALIZATION,
        says="h/bias",
    ),
    Row(
        "CKD119",  # word vectors of which none was found
        lambda: evidence(census=census(tensor("words/embeddings", rms=0.0, trainable=False), iterations=0)),
        lambda: evidence(census=census(tensor("words/embeddings", rms=0.05, trainable=False), iterations=0)),
        cause=Cause.INITIALIZATION,
        says="words/embeddings held zeros only, and it is frozen",
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
        "CKD135",  # gradient_accumulation_steps was given the wanted batch size
        lambda: evidence(optimizer=state(untouched_slots=True, iterations=196), spec=accumulating(256)),
        lambda: evidence(optimizer=state(untouched_slots=True, iterations=196), spec=accumulating(8)),
        cause=Cause.OPTIMIZER,
        says="over 256 steps",
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
        "CKD142",
        lambda: warming(values=(1.4, 1.4, 1.39, 1.39, 1.39)),
        lambda: warming(values=(1.4, 1.2, 0.9, 0.6, 0.4)),
        cause=Cause.LEARNING_RATE,
        severity=Severity.ERROR,
        says="took 70 steps",
    ),
    Row("CKD142", lambda: warming(), lambda: warming(steps=90.0)),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_fires(row: Row):
    fires(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
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


def test_the_smallest_rate_there_is_can_be_compared():
    (found,) = run("CKD111", evidence(census=BAD, optimizer=state("SGD", rate=5e-324)))
    assert found.measured == 5e-324


def test_a_high_rate_says_less_where_a_loss_of_unknown_code_went_nonfinite():
    def weight(named):
        parts = {"census": BAD, "optimizer": state(rate=0.2), "spec": spec(loss=named)}
        (found,) = run("CKD111", evidence(**parts))
        return found.votes[0].weight

    assert 0 < weight(loss("focal", custom=True)) < weight(loss("binary_crossentropy"))


def test_an_own_loss_says_less_beside_a_layer_of_ones_own():
    def weight(*layers):
        (found,) = run("CKD128", evidence(census=BAD, spec=spec(*layers, loss=loss("margins", custom=True))))
        return found.votes[0].weight

    assert 0 < weight(layer("capsules", "Capsules", registered="my>Capsules"), layer("out")) < weight(layer("out"))


def test_kernels_that_are_each_a_little_too_large_grow_the_signal_together():
    def first(times):
        wide = math.sqrt(2 / 10) * times
        kernels = [tensor(f"h{n}/kernel", rms=wide) for n in range(8)]
        return evidence(census=census(*kernels, iterations=0), spec=deep(8))

    assert [] == run("CKD119", first(1.3))
    (found,) = run("CKD119", first(2.5))
    assert "one after another" in found.message
    assert found.layer == "h0"


def test_a_head_may_begin_at_zero_and_a_hidden_layer_may_not():
    def first(name):
        kernels = [tensor(f"{n}/kernel", rms=0.0 if n == name else 0.44) for n in ("h1", "h2", "out")]
        return evidence(census=census(*kernels, iterations=0), spec=spec())

    assert [] == run("CKD119", first("out"))
    assert "h1/kernel was constant" in run("CKD119", first("h1"))[0].message
