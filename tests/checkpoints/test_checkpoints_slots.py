"""Slots go to weights only where the order and every shape leave one answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptdoctor.checkpoints.alignment import Block, TrainVar, align
from ckptdoctor.checkpoints.layers import class_of, quantization_mode, snake_case, variable_names
from ckptdoctor.checkpoints.slots import OptimizerHint, assign, optimizer_hint
from ckptdoctor.model import Missing


def var(name: str, *shape: int) -> TrainVar:
    return TrainVar(f"{name}/0", name, name, "kernel", shape)


def block(rank: int, *variables: TrainVar, counts: tuple[int, ...] | None = None) -> Block:
    return Block(variables, counts or (len(variables),), rank)


A, B, C, TWIN = var("a", 2, 3), var("b", 3), var("c", 3, 4), var("twin", 3)


def test_layers_in_known_order_take_their_slots():
    assert align([(2, 3), (3,), (3, 4)], [block(1, A), block(2, B), block(3, C)]) == [A, B, C]


def test_layers_of_unknown_order_are_told_apart_by_shape():
    assert align([(3, 4), (2, 3)], [block(1, A), block(1, C)]) == [C, A]


def test_layers_that_look_alike_get_nothing():
    assert align([(3,), (2, 3), (3,)], [block(1, B), block(1, TWIN), block(1, A)]) == [None, A, None]


def test_a_shape_that_contradicts_ends_it():
    assert align([(2, 3), (4,)], [block(1, A), block(2, B)]) is None
    assert align([(2, 3)], [block(1, A), block(2, B)]) is None


def test_variables_that_may_not_be_trainable():
    maybe = block(1, A, B, counts=(0, 1, 2))
    assert align([(2, 3), (3, 4)], [maybe, block(2, C)]) == [A, C]
    assert align([(3, 4)], [maybe, block(2, C)]) == [C]


def test_a_thousand_equal_layers_of_unknown_order_take_no_time():
    many = [block(1, var(str(i), 4, 4)) for i in range(1000)]
    assert align([(4, 4)] * 1000, many) == [None] * 1000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=8), st.randoms())
def test_a_claimed_weight_always_has_the_shape(shapes, random):
    blocks = [block(random.choice([1, 1, 2]), var(str(i), *s)) for i, s in enumerate(shapes)]
    blocks.sort(key=lambda b: b.rank)
    references = [b.variables[0].shape for b in blocks]
    found = align(references, blocks)
    assert found is not None
    assert all(v is None or v.shape == r for v, r in zip(found, references, strict=True))
    claimed = [v for v in found if v is not None]
    assert len(claimed) == len(set(claimed))


ADAM = OptimizerHint("Adam", {"learning_rate": 0.1}, scheduled=False, loss_scaled=False)
WEIGHTS = [block(1, A), block(2, B)]


def read(shapes, hint, integral=None):
    integral = integral or [i == 0 for i in range(len(shapes))]
    return [
        m.scalar or (m.slot, None if m.weight is None else m.weight.layer)
        for m in assign(shapes, integral, hint, WEIGHTS)
    ]


def test_interleaved_and_grouped_rounds():
    interleaved = [(), (), (2, 3), (2, 3), (3,), (3,)]
    assert read(interleaved, ADAM) == [
        "iterations", "learning_rate", ("momentum", "a"), ("velocity", "a"), ("momentum", "b"), ("velocity", "b"),
    ]  # fmt: skip
    grouped = [(), (), (2, 3), (3,), (2, 3), (3,)]
    assert read(grouped, ADAM)[2:] == [("momentum", "a"), ("momentum", "b"), ("velocity", "a"), ("velocity", "b")]


def test_a_schedule_leaves_no_learning_rate():
    hint = OptimizerHint("SGD", {"learning_rate": {}, "momentum": 0.9}, scheduled=True, loss_scaled=False)
    assert read([(), (2, 3), (3,)], hint) == ["iterations", ("momentum", "a"), ("momentum", "b")]


def test_moving_averages_stand_before_the_slots():
    hint = OptimizerHint("Adam", {"use_ema": True}, scheduled=None, loss_scaled=False)
    shapes = [(), (), (2, 3), (3,), (2, 3), (2, 3), (3,), (3,)]
    assert read(shapes, hint)[2:4] == [("average", "a"), ("average", "b")]


def test_an_unknown_optimizer_names_no_slot():
    hint = OptimizerHint("Homemade", None, None, loss_scaled=False)
    assert read([(), (), (2, 3), (3,)], hint)[2:] == [(None, None), (None, None)]


def test_no_iteration_count_means_no_reading():
    assert read([(2, 3), (3,)], ADAM, [False, False]) == [(None, None), (None, None)]


@pytest.mark.parametrize(
    ("name", "found"),
    [("adam_3", "Adam"), ("rm_sprop", "RMSprop"), ("sgd", "SGD"), ("adam_w_1", "AdamW"), ("mine", None)],
)
def test_an_optimizer_is_known_by_its_automatic_name(name, found):
    assert optimizer_hint(Missing(""), name, inner_group=False).class_name == found


def test_a_wrapped_optimizer_is_unwrapped():
    inner = {"class_name": "SGD", "config": {"momentum": 0.5}}
    compiled = {"optimizer": {"class_name": "LossScaleOptimizer", "config": {"inner_optimizer": inner}}}
    hint = optimizer_hint(compiled, None, inner_group=False)
    assert (hint.class_name, hint.loss_scaled) == ("SGD", True)


# --- names of variables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_name", "config", "dtypes", "names"),
    [
        ("Dense", None, ["f"] * 2, ["kernel", "bias"]),
        ("Dense", {"use_bias": False}, ["f"], ["kernel"]),
        ("Dense", None, ["int8", "f", "f"], ["kernel", "bias", "kernel_scale"]),
        ("BatchNormalization", {"scale": False}, ["f"] * 3, ["beta", "moving_mean", "moving_variance"]),
        ("BatchNormalization", None, ["f"] * 3, ["vars/0", "moving_mean", "moving_variance"]),
        ("LSTM", None, ["f"] * 3, ["kernel", "recurrent_kernel", "bias"]),
        ("SeparableConv2D", None, ["f"] * 3, ["depthwise_kernel", "pointwise_kernel", "bias"]),
        ("Homemade", {}, ["f"] * 2, ["vars/0", "vars/1"]),
        ("Dense", None, ["f"] * 9, [f"vars/{i}" for i in range(9)]),
        (None, None, ["f"], ["vars/0"]),
    ],
)
def test_variables_are_named_by_class(class_name, config, dtypes, names):
    assert variable_names(class_name, config, [(1,)] * len(dtypes), dtypes) == names


def test_paths_spell_classes_as_keras_does():
    assert [snake_case(n) for n in ("Conv2DTranspose", "LSTM", "PReLU", "MultiHeadAttention")] == [
        "conv2d_transpose", "lstm", "p_re_lu", "multi_head_attention",
    ]  # fmt: skip
    assert class_of("dense_12") == "Dense"
    assert class_of("my_dense") is None


@pytest.mark.parametrize(
    ("policy", "mode"),
    [
        ("float32", None),
        ("int8_from_float32", "int8"),
        ({"config": {"mode": "int4/128", "source_name": "float32"}}, "int4"),
        ({"config": {"name": "mixed_float16"}}, None),
        ({"config": 3}, None),
    ],
)
def test_quantisation_is_read_from_the_policy(policy, mode):
    assert quantization_mode({"dtype": policy}) == mode
