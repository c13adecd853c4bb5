"""No JSON makes the configuration reader raise, hang or grow."""

from __future__ import annotations

import time
from typing import Any

from handmade import info
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptdoctor.evidence import graph
from ckptdoctor.evidence.config import read_spec
from ckptdoctor.evidence.names import words
from ckptdoctor.evidence.serialized import MAX_NAME
from ckptdoctor.model import Missing, ModelSpec

WORDS = words(
    "class_name config layers name inbound_nodes input_layers output_layers module registered_name Sequential Functional "
    "Dense InputLayer Bidirectional RNN layer cell cells args kwargs __keras_tensor__ keras_history a b activation units "
    "dtype default_policy optimizer loss metrics learning_rate inner_optimizer LossScaleOptimizer fn function __lambda__ "
    "LossFunctionWrapper StackedRNNCells trainable batch_shape output_shape EinsumDense"
)
keys = st.one_of(st.sampled_from(sorted(WORDS)), st.text(max_size=4))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), keys)
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=5)),
    max_leaves=40,
)


@settings(max_examples=250, deadline=None)
@given(model=st.dictionaries(keys, junk, max_size=5), compiled=st.dictionaries(keys, junk, max_size=5))
def test_random_json_gives_a_model_or_a_reason(model: dict[str, Any], compiled: dict[str, Any]) -> None:
    assert isinstance(read_spec(info(model, compiled)), ModelSpec | Missing)


@settings(max_examples=300, deadline=None)
@given(layers=st.lists(junk, max_size=5), inputs=junk, outputs=junk, nested=junk)
def test_random_layers_in_a_well_formed_model_give_a_model(
    layers: list[Any], inputs: Any, outputs: Any, nested: Any
) -> None:
    first = {"class_name": "Dense", "config": {"name": "a"}, "inbound_nodes": nested}
    config = {"layers": [first, *layers], "input_layers": inputs, "output_layers": outputs}
    assert isinstance(read_spec(info({"class_name": "Functional", "config": config}, {"loss": nested})), ModelSpec)


def test_models_nested_without_end_are_cut_off() -> None:
    model: dict[str, Any] = {"class_name": "Dense", "config": {"name": "core"}}
    for _ in range(5000):
        model = {"class_name": "Sequential", "config": {"name": "m", "layers": [model]}}
    found = read_spec(info(model))
    assert isinstance(found, ModelSpec)
    assert not found.graph_known


def test_a_very_long_chain_is_read_in_time() -> None:
    layers = [{"class_name": "Dense", "config": {"name": f"d{i}", "units": 1}} for i in range(graph.MAX_LAYERS + 10)]
    started = time.perf_counter()
    found = read_spec(info({"class_name": "Sequential", "config": {"layers": layers}}))
    assert isinstance(found, ModelSpec)
    assert (len(found.layers), found.graph_known) == (graph.MAX_LAYERS, False)
    assert time.perf_counter() - started < 20


def test_a_layer_with_very_many_sources_is_read_in_time() -> None:
    count = 20_000
    layers = [{"class_name": "InputLayer", "config": {"name": f"i{i}"}, "inbound_nodes": []} for i in range(count)]
    merged = {
        "class_name": "Add",
        "config": {"name": "sum"},
        "inbound_nodes": [[[f"i{i}", 0, 0] for i in range(count)]],
    }
    config = {"layers": [*layers, merged], "input_layers": [], "output_layers": ["sum", 0, 0]}
    started = time.perf_counter()
    found = read_spec(info({"class_name": "Functional", "config": config}))
    assert isinstance(found, ModelSpec)
    assert len(found.layers[-1].inbound) == count
    assert time.perf_counter() - started < 20


def test_layers_of_one_name_and_cycles_are_survived() -> None:
    twins = [{"class_name": "Dense", "config": {"name": "a"}, "inbound_nodes": [[["b", 0, 0]]]} for _ in range(3)]
    other = {"class_name": "Dense", "config": {"name": "b"}, "inbound_nodes": [[["a", 0, 0]]]}
    config = {"layers": [*twins, other], "input_layers": [], "output_layers": [["a", 0, 0]]}
    found = read_spec(info({"class_name": "Functional", "config": config}))
    assert isinstance(found, ModelSpec)
    assert sorted(layer.name for layer in found.layers) == ["a", "b"]


def test_long_names_are_cut() -> None:
    found = read_spec(
        info({"class_name": "Sequential", "config": {"layers": [{"class_name": "D" * 99_999, "config": {}}]}})
    )
    assert isinstance(found, ModelSpec)
    assert len(found.layers[0].class_name) == MAX_NAME


def test_numbers_beyond_float_are_survived() -> None:
    huge = int("9" * 400)
    layer = {"class_name": "Dense", "config": {"name": "a", "units": huge, "batch_shape": [huge, huge]}}
    compiled = {"optimizer": {"class_name": "Adam", "config": {"learning_rate": huge, "epsilon": -huge}}}
    found = read_spec(info({"class_name": "Sequential", "config": {"layers": [layer]}}, compiled))
    assert isinstance(found, ModelSpec)
    assert found.layers[0].units is None
