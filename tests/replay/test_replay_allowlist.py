"""What a configuration would run: found at any depth, and nothing found in Keras' own."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptdoctor.replay.allowlist import MAX_PROBLEMS, compile_problems, config_problems


def layer(class_name, module="keras.layers", **config):
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def model(*layers):
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": list(layers)}}


def kinds(config):
    return {p.kind for p in config_problems(config)}


def test_kerass_own_parts_pass():
    dense = layer(
        "Dense", units=3, activation="relu", kernel_initializer=layer("GlorotUniform", "keras.initializers", seed=None)
    )
    wrapped = layer("TimeDistributed", layer=layer("Conv2D", filters=2))
    nested = {"module": "keras.src.models.functional", "class_name": "Functional", "config": model(dense)}
    assert () == config_problems(model(layer("InputLayer", batch_shape=[None, 4]), dense, wrapped, nested))


def test_what_keras_2_wrote_passes():
    legacy = {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "Dense", "config": {"activation": "relu"}}]},
    }
    assert () == config_problems(legacy)
    assert () == compile_problems({"optimizer_config": {"class_name": "Custom>Adam", "config": {}}, "loss": "mse"})


@pytest.mark.parametrize("name", ["Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"])
@pytest.mark.parametrize(
    "place",
    [
        lambda bad: model(bad),
        lambda bad: model(layer("TimeDistributed", layer=bad)),
        lambda bad: model(model(model(bad))),
        lambda bad: {"config": {"inbound_nodes": [{"args": [[bad]], "kwargs": {}}]}},
    ],
    ids=["plain", "in a wrapper", "in nested models", "in call arguments"],
)
def test_layers_that_run_code_are_found_wherever_they_hide(name, place):
    problem = config_problems(place(layer(name)))[0]
    assert ("runs_code", name) == (problem.kind, problem.subject)
    assert problem.advisory.startswith("CVE-")
    assert not problem.custom


def test_a_lambda_in_the_loss_is_found():
    assert {"runs_code"} == {
        p.kind for p in compile_problems({"loss": {"class_name": "__lambda__", "config": {"code": "4w"}}})
    }


@pytest.mark.parametrize(
    "module", ["os", "subprocess", "builtins_", "numpy", "keras_evil", "kerasx.layers", "tensorflow"]
)
def test_a_foreign_module_is_no_class_of_keras(module):
    assert config_problems(model(layer("Dense", module)))


def test_a_function_by_name_from_a_dangerous_module():
    call = {"class_name": "function", "config": "system", "module": "os", "registered_name": "function"}
    assert {"foreign_module"} == kinds(model(layer("Activation", activation=call)))


def test_get_file_is_refused_even_inside_keras():
    call = {"class_name": "function", "config": "get_file", "module": "keras.utils"}
    assert {"foreign_module"} == kinds(model(layer("Activation", activation=call)))


def test_a_custom_layer_is_only_custom():
    custom = {"module": "train", "class_name": "Attention2", "config": {}, "registered_name": "my_package>Attention2"}
    problem = config_problems(model(custom))[0]
    assert problem.custom
    assert "model.config.layers[0]" == problem.address


def test_a_custom_constraint_can_be_left_out():
    pruned = {"module": None, "class_name": "Pruned", "config": {}, "registered_name": "my>Pruned"}
    assert config_problems(model(layer("Dense", kernel_constraint=pruned)))[0].removable


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (layer("StringLookup", vocabulary="/etc/passwd"), "outside_file"),
        (layer("TextVectorization", vocabulary="https://example.org/v"), "outside_file"),
        (layer("Dense", name="../../x"), "traversal"),
        (layer("Dense", units=1 << 40), "bomb"),
        ({"config": {"safe_mode": False}}, "unsafe_switch"),
        ({"config": {"enable_unsafe_deserialization": True}}, "unsafe_switch"),
        ({"class_name": "TFOpLambda", "config": {"function": "io.write_file"}}, "runs_code"),
        ({"class_name": ["Lambda"], "config": {}}, "foreign_module"),
    ],
)
def test_other_ways_in(config, kind):
    assert kind in kinds(config)


def test_tensorflow_math_called_by_name_passes():
    assert set() == kinds({"class_name": "TFOpLambda", "config": {"name": "x", "function": "math.log"}})


def test_depth_and_number_are_bounded():
    deep = {}
    for _ in range(1000):
        deep = {"config": deep}
    assert {"depth"} == kinds(deep)
    assert MAX_PROBLEMS == len(config_problems([layer("Lambda")] * 10_000))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["class_name", "module", "config", "function", "registered_name", "x"]), inner, max_size=5
        )
    ),
    max_leaves=30,
)


@given(json_values)
def test_any_document_is_walked_without_trouble(document):
    for problem in config_problems(document):
        assert problem.reason
        assert len(problem.subject) <= 200


def test_the_module_imports_nothing_but_the_standard_library():
    source = Path(__file__).parents[2] / "ckptdoctor" / "replay"
    for name in ("allowlist.py", "keras_names.py"):
        imported = [line for line in (source / name).read_text().splitlines() if line.startswith(("import ", "from "))]
        assert all(
            line.split()[1].partition(".")[0]
            in ("__future__", "math", "re", "sys", "collections", "dataclasses", "typing", "ckptdoctor")
            for line in imported
        )
    assert json.dumps(sorted(kinds(layer("Lambda")))) == '["runs_code"]'


# --- ways around the list that were open once ------------------------------------------------------


@pytest.mark.parametrize(
    "spare",
    [
        {"module": "mine", "class_name": "Block", "config": {}, "registered_name": "mine>Block"},
        layer("Dense", kernel_constraint={"module": "mine", "class_name": "Pruned", "config": {}}),
        layer("StringLookup", vocabulary="words.txt"),
    ],
    ids=["custom layers", "constraints that replay can do without", "vocabularies"],
)
def test_a_flood_of_one_kind_hides_nothing_of_another(spare):
    assert "runs_code" in kinds(model(*[spare] * 1000, layer("Lambda")))


def typespec(module, name):
    return {"class_name": "__typespec__", "spec_name": name, "module": module, "registered_name": name, "config": []}


def test_the_class_of_a_typespec_is_looked_at():
    assert {"foreign_module"} == kinds(layer("Dense", dtype=typespec("os", "system")))
    assert {"foreign_module"} == kinds(layer("Dense", dtype=typespec("tensorflow.io", "write_file")))
    assert set() == kinds(layer("Dense", dtype=typespec("tensorflow.python.framework.tensor", "TensorSpec")))


@pytest.mark.parametrize("name", ["..\\..\\x", "C:\\x", "\\\\host\\x", "a/../../x"])
def test_names_that_climb_on_any_system(name):
    assert {"traversal"} == kinds(layer("Dense", name=name))


@pytest.mark.parametrize("name", ["conv1:relu", "a..b", "block/conv", "x:0"])
def test_names_that_only_look_so(name):
    assert set() == kinds(layer("Dense", name=name))


@pytest.mark.parametrize(
    "config",
    [
        layer("Dense", units=10**4000),
        layer("Dense", units=-(10**400)),
        layer("Dense", units=1e30),
        layer("Reshape", target_shape=[2, 1 << 40]),
        layer("InputLayer", batch_shape=[None, 1 << 45]),
        layer("Conv2D", filters=1, kernel_size=[1 << 40, 3]),
        {**layer("Dense", units=1 << 30), "build_config": {"input_shape": [None, 1 << 30]}},
    ],
)
def test_shape_bombs(config):
    assert {"bomb"} == kinds(config)


def test_shapes_of_honest_giants_pass():
    embedding = {
        **layer("Embedding", input_dim=20_000_000, output_dim=1024),
        "build_config": {"input_shape": [None, 8192]},
    }
    dense = {**layer("Dense", units=262_144), "build_config": {"input_shape": [None, 65_536]}}
    assert () == config_problems(model(embedding, dense, layer("InputLayer", batch_shape=[None, float("nan")])))


def test_a_name_that_a_loader_prefers_is_told():
    replaced = {**layer("Dense"), "registered_name": "mine>Evil"}
    assert {"custom"} == kinds(replaced)
    assert set() == kinds({**layer("Dense"), "registered_name": "Dense"})


def test_layers_saved_under_another_name_than_the_one_keras_exports_pass():
    assert () == config_problems(model(layer("GroupedQueryAttention"), layer("RandomHeight"), layer("RandomWidth")))
