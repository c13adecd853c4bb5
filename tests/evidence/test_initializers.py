"""The scale of a variable right after creation follows from its configured initializer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ckptdoctor.evidence.initializers import expected, expected_std, fans
from ckptdoctor.model import LayerSpec

DENSE = LayerSpec("d", "Dense", None, (), "relu", 64, "float32", trainable=True, depth=1, config={})


def layer(**config: object) -> LayerSpec:
    return replace(DENSE, config=config)


def test_fans_count_the_receptive_field() -> None:
    assert fans((20, 30)) == (20, 30)
    assert fans((3, 3, 8, 16)) == (72, 144)
    assert fans((7,)) == (7, 7)
    assert fans(()) == (1, 1)


@pytest.mark.parametrize(
    ("initializer", "config", "std"),
    [
        ("GlorotUniform", {}, math.sqrt(2 / 500)),
        ("GlorotNormal", {}, math.sqrt(2 / 500)),
        ("HeNormal", {}, math.sqrt(2 / 300)),
        ("HeUniform", {}, math.sqrt(2 / 300)),
        ("LecunNormal", {}, math.sqrt(1 / 300)),
        ("LecunUniform", {}, math.sqrt(1 / 300)),
        ("VarianceScaling", {"scale": 3.0, "mode": "fan_out", "distribution": "uniform"}, math.sqrt(3 / 200)),
        ("VarianceScaling", {"scale": 2.0}, math.sqrt(2 / 300)),
        ("RandomNormal", {"mean": 0.0, "stddev": 1.0}, 1.0),
        ("TruncatedNormal", {"stddev": 0.05}, 0.05 * 0.8796),
        ("RandomUniform", {"minval": -1.0, "maxval": 1.0}, 2 / math.sqrt(12)),
        ("Orthogonal", {"gain": 2.0}, 2 / math.sqrt(300)),
        ("Zeros", {}, 0.0),
        ("Constant", {"value": 0.7}, 0.0),
    ],
)
def test_standard_deviation_of_every_initializer(initializer: str, config: dict, std: float) -> None:
    made = layer(kernel_initializer={"module": "keras.initializers", "class_name": initializer, "config": config})
    assert expected_std(made, "kernel", (300, 200)) == pytest.approx(std, rel=1e-3)


def test_names_of_keras_2_and_strings_are_understood() -> None:
    assert expected_std(layer(kernel_initializer="normal"), "kernel", (3, 3)) == 0.05
    assert expected_std(layer(kernel_initializer="he_normal"), "kernel", (2, 9)) == 1.0


def test_constants_are_told_with_their_value() -> None:
    found = expected(layer(kernel_initializer={"class_name": "Constant", "config": {"value": 0.5}}), "kernel", (4, 4))
    assert found is not None
    assert (found.constant, found.mean, found.rms, found.limit) == (True, 0.5, 0.5, 0.5)


def test_the_identity_has_ones_on_its_diagonal() -> None:
    found = expected(layer(kernel_initializer={"class_name": "Identity", "config": {}}), "kernel", (4, 4))
    assert found is not None
    assert found.mean == 0.25
    assert found.rms == pytest.approx(0.5)


def test_wrappers_pass_on_what_they_wrap() -> None:
    inner = {
        "class_name": "LSTM",
        "config": {"recurrent_initializer": "zeros", "kernel_initializer": "ones", "name": "l"},
    }
    wrapper = replace(layer(layer=inner), class_name="Bidirectional")
    assert expected_std(wrapper, "kernel", (4, 4)) == 0.0


def test_recurrent_biases_start_with_an_open_forget_gate() -> None:
    found = expected(layer(bias_initializer="zeros", unit_forget_bias=True), "bias", (40,))
    assert found is not None
    assert (found.mean, found.rms) == (0.25, 0.5)


def test_defaults_hold_for_keras_own_layers_only() -> None:
    assert expected_std(layer(), "kernel", (300, 200)) == pytest.approx(math.sqrt(2 / 500))
    assert expected_std(replace(layer(), registered="my>Layer"), "kernel", (300, 200)) is None


@pytest.mark.parametrize("initializer", [{"class_name": "MyInit", "config": {}}, {"class_name": 3}, 7, [], "nonsense"])
def test_what_is_not_known_is_none(initializer: object) -> None:
    assert expected_std(layer(kernel_initializer=initializer), "kernel", (3, 3)) is None
