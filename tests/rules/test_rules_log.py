"""Rules on training logs (CKD2xx): each fires, and stays silent on a near miss."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evidences import BAD, BINARY, CLASSIFIER, NAN, RELU_HEAD, classes
from making import array, batches, census, evidence, layer, log, loss, optimizer, series, spec, state, tensor
from table import Row, fires, run, stays_silent

from ckptdoctor.model import Cause, Severity

RECURRENT_NET = spec(
    layer("cells", "SimpleRNN", activation="tanh", units=16), layer("out", units=1, activation="linear")
)


def replace_optimizer(model, **changes):
    return replace(model, compile=replace(model.compile, optimizer=optimizer("SGD", 0.02, **changes)))


def thrown_out(model, first=(0.63, 0.43, 0.31, 0.25, 0.208, 0.214), last=(0.55, 0.56, 0.55, 0.55, 0.56, 0.55)):
    """A loss that came down and jumped back to what a constant gives (0.5528)."""
    y = array("y", "target", mean=0.0, std=0.7435)
    return evidence(
        logs=log(series(values=(*first, *last))), spec=model, batches=batches(y=y), census=census(iterations=900)
    )


FAR_OFF = (314436.0, 314435.0, 314435.0, 314435.0)
SIGMOID = layer("out", units=1, activation="sigmoid")

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
        "CKD207",  # certain and wrong: the cross-entropy of a probability of 1e-7
        lambda: evidence(logs=log(series(values=(15.1,) + (16.118095,) * 6))),
        lambda: evidence(logs=log(series(values=(15.1,) + (16.3,) * 6))),
        cause=Cause.VANISHING_GRADIENTS,
        says="certain and wrong",
    ),
    Row(
        "CKD207",  # behind a relu the NaN in the weights is a zero
        lambda: evidence(logs=log(series(values=(0.6,) + (0.5293,) * 6)), spec=RELU_HEAD),
        lambda: evidence(logs=log(series(values=(0.6,) + (0.5293,) * 6)), spec=RELU_HEAD, census=BAD),
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
        "CKD217",  # it had learned before it was thrown out
        lambda: thrown_out(RECURRENT_NET),
        lambda: thrown_out(RECURRENT_NET, first=(0.6, 0.58, 0.57, 0.56, 0.55, 0.55)),
        cause=Cause.EXPLODING_GRADIENTS,
        says="had come down to 0.208 by epoch 4 and ends at",
    ),
    Row(
        "CKD217",  # clipped, it is the rate
        lambda: thrown_out(replace_optimizer(RECURRENT_NET, global_clipnorm=1.0)),
        lambda: thrown_out(RECURRENT_NET, last=(0.22, 0.2, 0.2, 0.19, 0.19)),
        cause=Cause.LEARNING_RATE,
    ),
    Row(
        "CKD216",
        lambda: evidence(logs=log(series(values=FAR_OFF)), spec=spec(SIGMOID)),
        lambda: evidence(logs=log(series(values=FAR_OFF)), spec=spec(layer("out", units=1, activation="linear"))),
        cause=Cause.ACTIVATION,
        says="the targets lie outside",
    ),
    Row(
        "CKD216",  # an error of 46 of an output from 0 to 1 needs no plateau to be a fault
        lambda: evidence(logs=log(series(values=(2200.0, 2160.0, 2150.0, 2146.0, 2144.0))), spec=spec(SIGMOID)),
        lambda: evidence(logs=log(series(values=(4.4, 4.2, 4.1, 4.0, 3.9))), spec=spec(SIGMOID)),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD216",  # a loss that sums grows with the batch
        lambda: evidence(logs=log(series(values=FAR_OFF)), spec=spec(SIGMOID)),
        lambda: evidence(
            logs=log(series(values=FAR_OFF)), spec=spec(SIGMOID, loss=loss("mean_squared_error", reduction="sum"))
        ),
        severity=Severity.ERROR,
    ),
    Row(
        "CKD216",  # the recorded targets tell it better
        lambda: evidence(logs=log(series(values=FAR_OFF)), spec=spec(SIGMOID)),
        lambda: evidence(logs=log(series(values=FAR_OFF)), spec=spec(SIGMOID), batches=batches()),
        cause=Cause.ACTIVATION,
    ),
    Row(
        "CKD216",  # behind a layer that stretches it, a sigmoid can give more than 1
        lambda: evidence(logs=log(series(values=FAR_OFF)), spec=spec(SIGMOID, layer("flat", "Flatten"))),
        lambda: evidence(logs=log(series(values=FAR_OFF)), spec=spec(SIGMOID, layer("wide", "Rescaling"))),
        cause=Cause.ACTIVATION,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_fires(row: Row):
    fires(row)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.code)
def test_stays_silent_on_a_near_miss(row: Row):
    stays_silent(row)


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


def test_what_an_autoencoder_cannot_give_are_its_own_inputs():
    width = {"batch_shape": [None, 20]}
    model = spec(layer("h", config=width), layer("out", units=20, activation="sigmoid"))
    (found,) = run("CKD216", evidence(logs=log(series(values=FAR_OFF)), spec=model))
    weights = {v.cause: v.weight for v in found.votes}
    assert weights[Cause.DATA_SCALE] > weights[Cause.ACTIVATION] > 0 > weights[Cause.LEARNING_RATE]


def test_no_rate_is_too_small_for_targets_beyond_the_head():
    falling = log(series(values=(254630.0, 250000.0, 247000.0, 243000.0, 240000.0)))
    parts = {"logs": falling, "optimizer": state(), "census": census(iterations=1600)}
    assert [] == run("CKD210", evidence(spec=spec(SIGMOID), **parts))
