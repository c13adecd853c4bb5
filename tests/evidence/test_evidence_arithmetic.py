"""Arithmetic in a graph: what can leave the numbers, and what is guarded. Real configurations, written by Keras 3 and 2."""

from __future__ import annotations

import pytest

from ckptdoctor.evidence.arithmetic import Bound, hazards
from ckptdoctor.evidence.config import read_spec
from ckptdoctor.model import CheckpointInfo, Format, Missing, ModelSpec, Operand

NONE = Missing("not part of this test")


def spec_of(*layers, inputs="x", outputs=None) -> ModelSpec:
    """A functional model in Keras 3's form."""
    config = {
        "name": "m",
        "layers": [{"class_name": "InputLayer", "name": "x", "config": {"name": "x"}, "inbound_nodes": []}, *layers],
        "input_layers": [[inputs, 0, 0]],
        "output_layers": [[outputs or layers[-1]["name"], 0, 0]],
    }
    return read(config)


def read(config) -> ModelSpec:
    document = {"class_name": "Functional", "module": "keras", "config": config}
    info = CheckpointInfo(
        path="m.keras",
        format=Format.KERAS_ZIP,
        size_bytes=1,
        keras_version="3.15.1",
        saved_at=NONE,
        backend=NONE,
        model_config=document,
        compile_config=NONE,
    )
    spec = read_spec(info)
    assert isinstance(spec, ModelSpec)
    return spec


def tensor(name: str, dtype: str = "float32") -> dict:
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None, 4], "dtype": dtype, "keras_history": [name, 0, 0]},
    }


def op(class_name: str, *args, name: str | None = None, **config) -> dict:
    """An operation or layer called on tensors (names or `tensor(...)`) and numbers."""
    name = name or class_name.lower()
    given = [tensor(a) if isinstance(a, str) else a for a in args]
    return {
        "class_name": class_name,
        "module": "keras.src.ops.numpy",
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": [{"args": given, "kwargs": {}}],
    }


def kinds(spec: ModelSpec) -> list[tuple[str, str]]:
    return [(h.layer, h.kind) for h in hazards(spec)]


def test_a_division_by_a_sum_of_relus_can_be_by_zero():
    spec = spec_of(
        op("Dense", "x", name="raw", activation="relu"), op("Sum", "raw", axis=-1), op("Divide", "raw", "sum")
    )
    assert kinds(spec) == [("divide", "division")]
    assert hazards(spec)[0].bound is Bound.NONNEGATIVE


@pytest.mark.parametrize(
    "guard",
    [
        op("Add", "sum", 1e-6, name="safe"),
        op("Maximum", "sum", 1e-6, name="safe"),
        op("Clip", "sum", name="safe", x_min=1e-6, x_max=10.0),
    ],
)
def test_an_epsilon_a_maximum_or_a_clip_guards_it(guard):
    spec = spec_of(
        op("Dense", "x", name="raw", activation="relu"), op("Sum", "raw"), guard, op("Divide", "raw", "safe")
    )
    assert kinds(spec) == []


def test_softplus_is_enough_for_a_division_but_not_for_a_logarithm():
    raw = op("Dense", "x", name="raw", activation="softplus")
    assert kinds(spec_of(raw, op("Divide", "x", "raw"))) == []
    assert kinds(spec_of(raw, op("Log", "raw"))) == [("log", "logarithm")]


def test_a_division_by_a_number_is_no_hazard():
    assert kinds(spec_of(op("Divide", "x", 255.0))) == []


def test_an_even_power_is_never_negative_and_its_root_has_no_slope_at_zero():
    spec = spec_of(op("Power", "x", 2), op("Sqrt", "power"))
    assert kinds(spec) == [("sqrt", "root")]


def test_an_epsilon_below_half_precision_is_lost_at_the_division_behind_it():
    def spec(dtype: str) -> ModelSpec:
        return spec_of(
            op("Square", tensor("x", dtype)),
            op("Add", tensor("square", dtype), 1e-12),
            op("Sqrt", tensor("add", dtype)),
            op("Divide", tensor("x", dtype), tensor("sqrt", dtype)),
        )

    assert kinds(spec("float16")) == [("divide", "lost_constant")]
    assert kinds(spec("float32")) == []
    assert kinds(spec("bfloat16")) == []


@pytest.mark.parametrize(("mask", "told"), [(-1e9, [("softmax", "overflowing_constant")]), (-3e4, [])])
def test_a_mask_beyond_half_precision_is_infinite_in_the_softmax(mask, told):
    spec = spec_of(
        op("Multiply", "x", mask),
        op("Add", tensor("x", "float16"), "multiply", dtype="mixed_float16"),
        op("Softmax", tensor("add", "float16"), dtype="mixed_float16"),
    )
    assert kinds(spec) == told


def test_keras_2_stores_operations_by_their_symbol():
    layers = [
        {"class_name": "InputLayer", "name": "x", "config": {"name": "x"}, "inbound_nodes": []},
        {
            "class_name": "Dense",
            "name": "raw",
            "config": {"name": "raw", "activation": "relu"},
            "inbound_nodes": [[["x", 0, 0, {}]]],
        },
        {
            "class_name": "TFOpLambda",
            "name": "tf.math.reduce_sum",
            "config": {"name": "tf.math.reduce_sum", "function": "math.reduce_sum"},
            "inbound_nodes": [["raw", 0, 0, {"axis": -1}]],
        },
        {
            "class_name": "TFOpLambda",
            "name": "tf.math.truediv",
            "config": {"name": "tf.math.truediv", "function": "math.truediv"},
            "inbound_nodes": [["raw", 0, 0, {"y": ["tf.math.reduce_sum", 0, 0], "name": None}]],
        },
        {
            "class_name": "TFOpLambda",
            "name": "tf.math.subtract",
            "config": {"name": "tf.math.subtract", "function": "math.subtract"},
            "inbound_nodes": [["_CONSTANT_VALUE", -1, 1.0, {"y": ["tf.math.truediv", 0, 0]}]],
        },
    ]
    spec = read(
        {
            "name": "m",
            "layers": layers,
            "input_layers": [["x", 0, 0]],
            "output_layers": [["tf.math.subtract", 0, 0]],
        }
    )
    divide, subtract = spec.layer("tf.math.truediv"), spec.layer("tf.math.subtract")
    assert divide is not None
    assert subtract is not None
    assert divide.operands == (Operand("raw"), Operand("tf.math.reduce_sum"))
    assert subtract.operands == (Operand(number=1.0), Operand("tf.math.truediv"))
    assert kinds(spec) == [("tf.math.truediv", "division")]


def test_a_configuration_without_a_graph_tells_nothing():
    spec = spec_of(op("Log", "x"))
    from dataclasses import replace

    assert hazards(replace(spec, graph_known=False)) == ()
