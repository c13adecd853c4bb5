"""Configurations as Keras 2 and 3 write them become one flat graph of layers."""

from __future__ import annotations

from typing import Any

import pytest
from handmade import info

from ckptdoctor.evidence.config import input_shape, policy_name, read_spec
from ckptdoctor.evidence.graph import downstream, reads_input, upstream
from ckptdoctor.evidence.names import activation_name
from ckptdoctor.model import LayerSpec, Missing, ModelSpec


def serialized(class_name: str, name: str, module: str | None = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": class_name, "registered_name": None, "config": {"name": name, **config}}


def dense(name: str, units: int = 4, **config: Any) -> dict[str, Any]:
    return serialized("Dense", name, units=units, **{"activation": "relu", **config})


def tensor(name: str, node: int = 0, index: int = 0) -> dict[str, Any]:
    return {"class_name": "__keras_tensor__", "config": {"shape": [None, 4], "keras_history": [name, node, index]}}


def called(layer: dict[str, Any], *sources: str, **kwargs: Any) -> dict[str, Any]:
    """A layer of a functional model in the form of Keras 3, called once with one or several tensors."""
    tensors = [tensor(s) for s in sources]
    args = [tensors[0] if len(tensors) == 1 else tensors]
    return {**layer, "name": layer["config"]["name"], "inbound_nodes": [{"args": args, "kwargs": kwargs}]}


def given(name: str) -> dict[str, Any]:
    return {**serialized("InputLayer", name, batch_shape=[None, 6]), "name": name, "inbound_nodes": []}


def sequential(*layers: dict[str, Any], name: str = "model", **config: Any) -> dict[str, Any]:
    return serialized("Sequential", name, "keras", layers=list(layers), **config)


def functional(
    *layers: dict[str, Any], inputs: Any, outputs: Any, name: str = "model", **config: Any
) -> dict[str, Any]:
    config.update({"layers": list(layers), "input_layers": inputs, "output_layers": outputs})
    return serialized("Functional", name, "keras", **config)


def spec_of(model: dict[str, Any], compile_config: dict[str, Any] | None = None) -> ModelSpec:
    found = read_spec(info(model, compile_config))
    assert isinstance(found, ModelSpec)
    return found


def graph(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    return {layer.name: layer.inbound for layer in spec.layers}


def one(layer: dict[str, Any]) -> LayerSpec:
    return spec_of(sequential(layer)).layers[0]


# --- graphs -----------------------------------------------------------------------------------------


def test_a_sequential_model_is_a_chain() -> None:
    spec = spec_of(sequential(given("in"), dense("a"), dense("b")))
    assert graph(spec) == {"in": (), "a": ("in",), "b": ("a",)}
    assert [layer.depth for layer in spec.layers] == [0, 1, 2]
    assert (spec.inputs, spec.outputs, spec.graph_known, spec.class_name) == (("in",), ("b",), True, "Sequential")


def test_a_sequential_model_of_keras_1_is_a_bare_list() -> None:
    spec = spec_of({"class_name": "Sequential", "config": [dense("a"), dense("b")]})
    assert graph(spec) == {"a": (), "b": ("a",)}


def test_a_functional_model_of_keras_3_has_branches() -> None:
    model = functional(
        given("in"),
        called(dense("left"), "in"),
        called(dense("right"), "in"),
        called(serialized("Add", "sum"), "left", "right"),
        called(dense("out"), "sum"),
        inputs=["in", 0, 0],
        outputs=["out", 0, 0],
    )
    spec = spec_of(model)
    assert graph(spec)["sum"] == ("left", "right")
    assert [spec.layer(n).depth for n in ("in", "left", "sum", "out")] == [0, 1, 2, 3]  # type: ignore[union-attr]
    assert upstream(spec, "sum") == {"left", "right", "in"}
    assert downstream(spec, "left") == {"sum", "out"}


def test_layers_stand_in_topological_order_whatever_the_file_says() -> None:
    model = functional(
        called(dense("late"), "early"),
        called(dense("early"), "in"),
        given("in"),
        inputs=["in", 0, 0],
        outputs=["late", 0, 0],
    )
    assert [layer.name for layer in spec_of(model).layers] == ["in", "early", "late"]


@pytest.mark.parametrize(
    "nodes",
    [
        [[["a", 0, 0, {}], ["b", 0, 0, {}]]],
        [[["a", 0, 0], ["b", 0, 0]]],
        [["a", 0, 0, {"mask": ["b", 0, 0]}]],
        [{"x": ["a", 0, 0, {}], "y": ["b", 0, 0, {}]}],
        [[["a", 0, 0, {}]], [["b", 0, 0, {}]]],
    ],
    ids=["list", "without arguments", "tensor in an argument", "dictionary", "called twice"],
)
def test_inbound_nodes_of_keras_2(nodes: list[Any]) -> None:
    layers = [{**dense(n), "name": n, "inbound_nodes": [[["in", 0, 0, {}]]]} for n in ("a", "b")]
    merged = {**serialized("Add", "sum"), "name": "sum", "inbound_nodes": nodes}
    spec = spec_of(functional(given("in"), *layers, merged, inputs=[["in", 0, 0]], outputs=[["sum", 0, 0]]))
    assert graph(spec)["sum"] == ("a", "b")


def test_nested_models_are_flattened_and_what_feeds_them_feeds_their_layers() -> None:
    inner = functional(
        given("x"),
        given("y"),
        called(dense("p"), "x"),
        called(dense("q"), "y"),
        inputs=[["x", 0, 0], ["y", 0, 0]],
        outputs=[["p", 0, 0], ["q", 0, 0]],
        name="inner",
    )
    chain = sequential(given("skip"), dense("d"), name="chain")
    model = functional(
        given("in1"),
        given("in2"),
        called(inner, "in1", "in2"),
        {**called(chain, "inner"), "inbound_nodes": [{"args": [tensor("inner", 0, 1)], "kwargs": {}}]},
        called(dense("out"), "chain"),
        inputs=[["in1", 0, 0], ["in2", 0, 0]],
        outputs=["out", 0, 0],
    )
    spec = spec_of(model)
    assert graph(spec) == {
        "in1": (),
        "in2": (),
        "inner/p": ("in1",),
        "inner/q": ("in2",),
        "chain/d": ("inner/q",),
        "out": ("chain/d",),
    }
    assert spec.outputs == ("out",)


def test_a_shared_layer_has_all_its_sources_even_itself() -> None:
    shared = called(dense("shared"), "in")
    shared["inbound_nodes"].append({"args": [tensor("shared")], "kwargs": {}})
    spec = spec_of(functional(given("in"), shared, inputs=["in", 0, 0], outputs=["shared", 1, 0]))
    assert graph(spec) == {"in": (), "shared": ("in", "shared")}
    assert [layer.depth for layer in spec.layers] == [0, 1]


def test_freezing_a_model_freezes_its_layers() -> None:
    backbone = sequential(dense("a"), name="backbone", trainable=False)
    spec = spec_of(sequential(backbone, dense("b", trainable=False), dense("c")))
    assert {layer.name: layer.trainable for layer in spec.layers} == {"backbone/a": False, "b": False, "c": True}


def test_a_subclassed_model_gives_the_layers_of_its_own_configuration() -> None:
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}}
    config = {"dtype": policy, "encoder": dense("enc", trainable=True), "heads": [dense("h", trainable=True)]}
    spec = spec_of({"module": None, "class_name": "Net", "registered_name": "my>Net", "config": config})
    assert [layer.name for layer in spec.layers] == ["enc", "h"]
    assert (spec.graph_known, spec.custom_objects, spec.inputs) == (False, ("my>Net",), ())


def test_without_a_configuration_the_reason_is_passed_on() -> None:
    found = read_spec(info())
    assert isinstance(found, Missing)
    assert found.reason == "not in this test"


# --- layers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("relu", "relu"),
        ("swish", "silu"),
        (None, None),
        ({"module": "builtins", "class_name": "function", "config": "my_act", "registered_name": "function"}, "my_act"),
        ({"module": "keras.layers", "class_name": "LeakyReLU", "config": {"negative_slope": 0.1}}, "leaky_relu"),
        ({"class_name": "Activation", "config": {"activation": "tanh"}}, "tanh"),
        ({"class_name": "__lambda__", "config": {"code": "4wEA"}}, "lambda"),
        ("pkg>Fancy", "Fancy"),
        ({}, None),
        (7, None),
    ],
)
def test_activations_in_every_spelling(written: Any, name: str | None) -> None:
    assert activation_name(written) == name


@pytest.mark.parametrize(
    ("layer", "activation", "units"),
    [
        (dense("d", 7), "relu", 7),
        (dense("d", 7, activation=None), "linear", 7),
        (serialized("Conv2D", "c", filters=16, activation="linear"), "linear", 16),
        (serialized("Embedding", "e", input_dim=100, output_dim=8), None, 8),
        (serialized("ELU", "e"), "elu", None),
        (serialized("Softmax", "s"), "softmax", None),
        (serialized("PReLU", "p"), "prelu", None),
        (serialized("Activation", "a", activation="exponential"), "exponential", None),
        (serialized("Dropout", "d", rate=0.5), None, None),
        (serialized("EinsumDense", "e", output_shape=[None, 12], activation=None), "linear", 12),
        (serialized("TimeDistributed", "t", layer=dense("d", 5)), "relu", 5),
        (serialized("Bidirectional", "b", layer=serialized("LSTM", "l", units=6, activation="tanh")), "tanh", 12),
        (
            serialized(
                "Bidirectional", "b", merge_mode="sum", layer=serialized("LSTM", "l", units=6, activation="tanh")
            ),
            "tanh",
            6,
        ),
        (serialized("RNN", "r", cell=serialized("GRUCell", "c", units=3, activation="tanh")), "tanh", 3),
        (
            serialized("RNN", "r", cell=[serialized("GRUCell", "c", units=u, activation="tanh") for u in (3, 5)]),
            "tanh",
            5,
        ),
    ],
    ids=lambda v: v["class_name"] if isinstance(v, dict) else str(v),
)
def test_activation_and_units(layer: dict[str, Any], activation: str | None, units: int | None) -> None:
    found = one(layer)
    assert (found.activation, found.units, found.class_name) == (activation, units, layer["class_name"])


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (None, "float32"),
        ("float16", "float16"),
        ({"class_name": "Policy", "config": {"name": "mixed_float16"}}, "mixed_float16"),
        (
            {"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "float32"}},
            "int8_from_float32",
        ),
        ({"class_name": "DTypePolicyMap", "config": {"default_policy": "bfloat16", "policy_map": {}}}, "bfloat16"),
        ([1], "float32"),
    ],
)
def test_dtype_policies_in_every_spelling(written: Any, name: str) -> None:
    assert policy_name(written) == name


def test_the_global_policy_is_that_of_most_layers() -> None:
    mixed = {"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}
    spec = spec_of(
        sequential(given("in"), dense("a", dtype=mixed), dense("b", dtype=mixed), dense("c", dtype="float32"))
    )
    assert spec.global_policy == "mixed_float16"


def test_custom_code_is_told_from_keras_own() -> None:
    model = sequential(
        dense("a"),
        {"module": None, "class_name": "Mine", "registered_name": "Mine", "config": {"name": "m"}},
        {"module": "my.code", "class_name": "Theirs", "registered_name": "pkg>Theirs", "config": {"name": "t"}},
        serialized("Lambda", "l", function={"class_name": "__lambda__", "config": {"code": "4wEA"}}),
        dense("b", activation={"module": "builtins", "class_name": "function", "config": "my_act"}),
    )
    loss = {"module": "builtins", "class_name": "function", "config": "my_loss", "registered_name": "function"}
    spec = spec_of(model, {"loss": loss, "optimizer": "adam", "metrics": ["accuracy"]})
    assert spec.custom_objects == ("Mine", "pkg>Theirs", "<lambda>", "my_act", "my_loss")
    assert [layer.registered for layer in spec.layers] == [None, "Mine", "pkg>Theirs", None, None]


def test_keras_2_has_no_modules_and_known_classes_are_still_not_custom() -> None:
    layers = [{"class_name": c, "config": {"name": c, "trainable": True}} for c in ("Dense", "My>Layer", "Other")]
    spec = spec_of({"class_name": "Sequential", "config": {"layers": layers}})
    assert spec.custom_objects == ("My>Layer", "Other")


def test_without_modules_a_namesake_of_a_keras_layer_is_told_by_its_settings() -> None:
    def saved(**settings):
        layers = [{"class_name": "Attention", "config": {"name": "a", "trainable": True, **settings}}]
        return spec_of({"class_name": "Sequential", "config": {"layers": layers}})

    assert (saved().custom_objects, saved().layers[0].registered) == (("Attention",), "Attention")
    theirs = saved(use_scale=False, dropout=0.0)
    assert (theirs.custom_objects, theirs.layers[0].registered) == ((), None)


def test_the_input_shape_is_read_from_both_generations() -> None:
    assert input_shape(one(serialized("InputLayer", "i", batch_shape=[None, 3, 4]))) == (None, 3, 4)
    assert input_shape(one(dense("d", batch_input_shape=[8, 3]))) == (8, 3)
    assert input_shape(one(dense("d"))) is None


# --- what a kernel's rows belong to --------------------------------------------------------------------


def test_rows_belong_to_input_features_until_features_are_mixed() -> None:
    spec = spec_of(
        sequential(
            given("in"), serialized("Dropout", "drop"), serialized("BatchNormalization", "bn"), dense("a"), dense("b")
        )
    )
    assert reads_input(spec, "a")
    assert not reads_input(spec, "b")
    assert not reads_input(spec, "absent")
    mixed = spec_of(sequential(given("in"), serialized("LayerNormalization", "ln"), dense("a")))
    assert not reads_input(mixed, "a")


def test_an_operation_in_a_legacy_file_is_keras_own():
    # `state[:, 0]` in a functional model: h5 files name no modules, and an operation has nothing but a name
    layers = [
        {
            "class_name": "InputLayer",
            "config": {"name": "x", "batch_input_shape": [None, 4]},
            "name": "x",
            "inbound_nodes": [],
        },
        {"class_name": "GetItem", "config": {"name": "get_item"}, "name": "get_item", "inbound_nodes": []},
        {"class_name": "Mine", "config": {"name": "mine", "trainable": True}, "name": "mine", "inbound_nodes": []},
    ]
    spec = spec_of({"class_name": "Functional", "config": {"name": "net", "layers": layers}})
    assert [None, None, "Mine"] == [layer.registered for layer in spec.layers]
