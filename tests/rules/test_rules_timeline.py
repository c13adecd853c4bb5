"""Rules on the checkpoints of a run in their order (CKD3xx): each fires, and stays silent on a near miss."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evidences import BAD, IDS_LOSS, stuck, went
from making import census, evidence, layer, loss, optimizer, point, replay, spec, tensor, timeline
from table import Row, fires, stays_silent

from ckptdoctor.model import Cause, Displacement, Growth, Severity, Status
from ckptdoctor.model.replay import StartState
from ckptdoctor.rules.registry import run_rules

FTRL = spec(
    layer("h"),
    layer("out", units=10, activation="softmax"),
    loss=loss("sparse_categorical_crossentropy"),
    optimizer=optimizer("Ftrl"),
)
NAN_VECTORS = census(tensor("embedding/embeddings", nan=5), iterations=0)
DESCENT = spec(
    layer("h"), layer("out", units=10, activation="softmax"), loss=IDS_LOSS, optimizer=optimizer("SGD", 0.05)
)


def one_step_used(moved: float):
    """The recurrent kernel of an LSTM never moved, its other kernel did, or did not."""
    kernels = census(tensor("lstm/recurrent_kernel"), tensor("lstm/kernel"))
    went_there = Displacement("layers/lstm", "lstm", "kernel", moved, 0.5)
    return timeline(
        point(0, kernels), point(1, kernels), unmoved=("layers/lstm/recurrent_kernel",), displacement=(went_there,)
    )


def only_the_bias(distance: float):
    """The bias of the head went this far, and no kernel to speak of."""
    kernels = [Displacement(f"layers/{name}", name, "kernel", 1e-6, 0.5) for name in ("h", "out")]
    return (*kernels, Displacement("layers/out", "out", "bias", distance, 0.0))


def nothing_moved(bias: float = 0.0):
    """No kernel of a run moved; the bias of its head went this far."""
    still = census(tensor("h/kernel"), tensor("out/kernel"), tensor("out/bias", shape=(10,)))
    kernels = [Displacement(f"layers/{name}", name, "kernel", 0.0, 0.5) for name in ("h", "out")]
    head = Displacement("layers/out", "out", "bias", bias, 0.0)
    unmoved = ("layers/h/kernel", "layers/out/kernel")
    return timeline(point(0, still), point(1, still), unmoved=unmoved, displacement=(*kernels, head))


def shrinking(factor: float):
    """Two checkpoints, the kernels of the second `factor` times the size of those of the first."""
    sizes = [
        census(tensor("h1/kernel", rms=rms), tensor("h2/kernel", rms=rms), iterations=n)
        for n, rms in ((0, 0.1), (400, 0.1 * factor))
    ]
    return timeline(*(point(n, measured) for n, measured in enumerate(sizes)))


ROWS = [
    Row(
        "CKD301",
        lambda: evidence(timeline=timeline(point(0), point(1, BAD, status=Status.SICK))),
        lambda: evidence(timeline=timeline()),
        severity=Severity.ERROR,
        says="epoch_000.keras before it is healthy",
    ),
    Row(
        "CKD301",  # pretrained vectors with NaN rows
        lambda: evidence(timeline=timeline(point(0, NAN_VECTORS, status=Status.SICK))),
        lambda: evidence(timeline=timeline()),
        cause=Cause.DATA_NONFINITE,
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
        "CKD304",  # the head reads the state of the first step
        lambda: stuck(timeline=one_step_used(moved=0.2)),
        lambda: stuck(timeline=one_step_used(moved=0.0)),
        cause=Cause.ARCHITECTURE,
    ),
    Row(
        "CKD304",  # dead units would leave the bias of a linear head its gradient
        lambda: stuck(timeline=nothing_moved(), spec=DESCENT),
        lambda: stuck(timeline=nothing_moved(bias=0.01), spec=DESCENT),
        cause=Cause.LEARNING_RATE,
        says="the bias of the head included",
    ),
    Row(
        "CKD307",  # by the same rate the bias of the head went an ordinary way
        lambda: stuck(timeline=timeline(displacement=only_the_bias(0.08))),
        lambda: stuck(timeline=timeline(displacement=only_the_bias(1e-4))),
        cause=Cause.ACTIVATION,
        says="what reaches out is zero for every row",
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
        "CKD307",  # plain descent at an ordinary rate, through many layers
        lambda: stuck(timeline=timeline(displacement=went(*(0.001,) * 12)), spec=DESCENT),
        lambda: stuck(timeline=timeline(displacement=went(*(0.1,) * 12)), spec=DESCENT),
        cause=Cause.VANISHING_GRADIENTS,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_fires(row: Row):
    fires(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_stays_silent_on_a_near_miss(row: Row):
    stays_silent(row)


def test_weights_that_went_bad_in_training_do_not_speak_of_their_initial_values():
    trained = timeline(point(0, replace(NAN_VECTORS, scalars={"iterations": 9.0}), status=Status.SICK))
    (found,) = run_rules(evidence(timeline=trained), select=["CKD301"]).findings
    assert () == found.votes


def test_weights_that_are_no_numbers_before_the_first_step_were_begun_so():
    bias = census(tensor("out/bias", shape=(10,), nan=10), iterations=0)
    began = timeline(point(0, bias, status=Status.SICK), point(1, bias, status=Status.SICK))
    replayed = replay(start=StartState("epoch_000.keras", "healed", healed=("out/bias",)))
    outcome = run_rules(evidence(timeline=began, census=bias, replay=replayed), select=["CKD301", "CKD511"])
    weights = {}
    for finding in outcome.findings:
        for vote in finding.votes:
            weights[vote.cause] = weights.get(vote.cause, 0.0) + vote.weight
    assert weights[Cause.INITIALIZATION] > 4 * weights[Cause.DATA_NONFINITE] > 0


def test_kernels_that_a_penalty_pulls_to_zero_are_not_the_optimizers_doing():
    held = {"kernel_regularizer": {"class_name": "L2", "config": {"l2": 0.05}}}
    penalised = spec(layer("h1", config=held), layer("h2"), layer("out", units=10, activation="softmax"), loss=IDS_LOSS)
    outcome = run_rules(stuck(timeline=shrinking(0.001), spec=penalised), select=["CKD306"])
    weights = {v.cause: v.weight for v in outcome.findings[0].votes}
    assert max(weights, key=lambda c: weights[c]) is Cause.ARCHITECTURE
