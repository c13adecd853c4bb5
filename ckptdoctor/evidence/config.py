"""The model and its training set-up from the configuration that Keras saved (Keras 2 and 3)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ckptdoctor.evidence.compilation import read_compile
from ckptdoctor.evidence.graph import Node, flatten
from ckptdoctor.evidence.names import (
    ACTIVATION_LAYERS,
    LAYERS,
    OPTIMIZERS,
    SETTINGS,
    activation_name,
    is_known_function,
)
from ckptdoctor.evidence.serialized import bare_class, config_of, items, mapping, number, text, walk, whole
from ckptdoctor.model import CheckpointInfo, JsonObject, LayerSpec, Missing, ModelSpec

_KERAS_MODULES = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")
_WRAPPED = {"TimeDistributed": "layer", "Bidirectional": "layer", "SpectralNormalization": "layer", "RNN": "cell"}
_MAX_CUSTOM = 256


def read_spec(info: CheckpointInfo) -> ModelSpec | Missing:
    """The model as its configuration describes it.

    Never raises: what is not in a form that Keras writes is left out. A subclassed model gives whatever layers its own
    `get_config` holds, with `graph_known=False`. Missing only where the container holds no configuration.
    """
    if isinstance(info.model_config, Missing):
        return info.model_config
    model = mapping(info.model_config)
    class_name = text(model.get("class_name"))
    if class_name is None and "config" not in model:
        return Missing("the stored configuration does not describe a Keras model")
    graph = flatten(model)
    layers = tuple(_layer(node, graph.depths[node.name]) for node in graph.nodes)
    compile_config = info.compile_config
    if not isinstance(compile_config, Missing):
        compile_config = mapping(compile_config)
    return ModelSpec(
        name=text(config_of(model).get("name")) or text(model.get("name")) or class_name or "model",
        class_name=bare_class(model) or "Model",
        layers=layers,
        inputs=graph.inputs,
        outputs=graph.outputs,
        graph_known=graph.known,
        custom_objects=_custom_objects(model, compile_config),
        global_policy=_global_policy(layers),
        compile=read_compile(compile_config, graph.outputs),
    )


def _layer(node: Node, depth: int) -> LayerSpec:
    config = config_of(node.serialized)
    class_name = bare_class(node.serialized) or "Layer"
    registered = text(node.serialized.get("registered_name")) or text(node.serialized.get("class_name"))
    return LayerSpec(
        name=node.name,
        class_name=class_name,
        registered=registered if is_custom_layer(node.serialized) else None,
        inbound=tuple(node.inbound),
        activation=_activation(class_name, config),
        units=_units(class_name, config),
        dtype_policy=policy_name(config.get("dtype")),
        trainable=node.trainable,
        depth=depth,
        config=config,
        operands=node.operands,
    )


def is_custom_layer(serialized: JsonObject) -> bool:
    """Whether a serialised layer is not one of Keras' own."""
    module = text(serialized.get("module"))
    if module is not None:
        return not module.startswith(_KERAS_MODULES)
    class_name = text(serialized.get("class_name")) or ""
    # Operations in the graph (`GetItem`, `Multiply`) have a name and nothing else; every layer says whether it is trainable.
    is_operation = "module" not in serialized and "trainable" not in mapping(serialized.get("config"))
    return ">" in class_name or (class_name not in LAYERS and not is_operation) or is_namesake(serialized)


def is_namesake(serialized: JsonObject) -> bool:
    """Whether a layer, saved without a module, has the name of one of Keras' own and none of the settings that one saves."""
    settings = SETTINGS.get(text(serialized.get("class_name")) or "")
    config = mapping(serialized.get("config"))
    return (
        settings is not None and "module" not in serialized and "trainable" in config and not settings & config.keys()
    )


def wrapped(class_name: str, config: JsonObject) -> JsonObject | None:
    """The serialised layer inside a wrapper (`Bidirectional`, `TimeDistributed`, …) or `RNN`, None for other classes."""
    key = _WRAPPED.get(class_name)
    if key is None:
        return None
    inner = config.get(key)
    if isinstance(inner, list):  # RNN over several cells: the last one gives the output
        inner = inner[-1] if inner else None
    if bare_class(inner) == "StackedRNNCells":
        cells = items(config_of(inner).get("cells"))
        inner = cells[-1] if cells else None
    return mapping(inner)


def _activation(class_name: str, config: JsonObject, level: int = 0) -> str | None:
    if class_name in ACTIVATION_LAYERS:
        return ACTIVATION_LAYERS[class_name]
    inner = wrapped(class_name, config)
    if inner is not None and level < 4:
        return _activation(bare_class(inner) or "Layer", config_of(inner), level + 1)
    if "activation" not in config:
        return None
    return activation_name(config["activation"]) or "linear"


def _units(class_name: str, config: JsonObject, level: int = 0) -> int | None:
    inner = wrapped(class_name, config)
    if inner is not None and level < 4:
        units = _units(bare_class(inner) or "Layer", config_of(inner), level + 1)
        doubled = class_name == "Bidirectional" and config.get("merge_mode", "concat") == "concat"
        return units * 2 if units is not None and doubled else units
    if class_name == "EinsumDense":
        shape = config.get("output_shape")
        last = items(shape)[-1] if items(shape) else shape
        return whole(last)
    for key in ("units", "filters", "output_dim"):
        found = whole(config.get(key))
        if found is not None:
            return found
    return None


def policy_name(value: Any) -> str:
    """Name of a dtype policy: `float32`, `mixed_float16`, `int8_from_float32`, …; `float32` where none is given."""
    if isinstance(value, str):
        return text(value) or "float32"
    for _ in range(4):
        config = config_of(value)
        name, mode, source = text(config.get("name")), text(config.get("mode")), text(config.get("source_name"))
        if mode and source:
            return f"{mode}_from_{source}"
        if name:
            return name
        value = config.get("default_policy")  # DTypePolicyMap
        if isinstance(value, str):
            return text(value) or "float32"
    return "float32"


def _global_policy(layers: tuple[LayerSpec, ...]) -> str:
    policies = Counter(layer.dtype_policy for layer in layers if layer.class_name != "InputLayer")
    return policies.most_common(1)[0][0] if policies else "float32"


def _custom_objects(model: JsonObject, compile_config: JsonObject | Missing) -> tuple[str, ...]:
    """Registered names (else class or function names) that Keras does not define, in order of appearance."""
    found: dict[str, None] = {}
    for part in (model, {} if isinstance(compile_config, Missing) else compile_config):
        for obj in walk(part):
            name = _custom_name(obj)
            if name is not None and len(found) < _MAX_CUSTOM:
                found[name] = None
    if not isinstance(compile_config, Missing):
        loss = compile_config.get("loss")
        for name in (loss, *items(loss)):
            if isinstance(name, str) and name and not is_known_function(name):
                found[text(name) or name] = None
    return tuple(found)


def _custom_name(obj: JsonObject) -> str | None:
    """The name under which a custom object must be given to Keras, None for Keras' own and for what is no object."""
    class_name = text(obj.get("class_name"))
    if class_name is None or "config" not in obj:
        return None
    if class_name == "__lambda__":
        return "<lambda>"
    if class_name.startswith("__"):
        return None
    if class_name == "function":
        function = text(obj.get("config"))
        return function if function and not is_known_function(function) else None
    module = text(obj.get("module"))
    registered = text(obj.get("registered_name")) or class_name
    bare = class_name.rpartition(">")[2]
    if module is not None:
        return None if module.startswith((*_KERAS_MODULES, "builtins", "numpy")) else registered
    known = bare in LAYERS or bare in OPTIMIZERS or is_known_function(bare)
    if "module" in obj:  # Keras 3 writes null for classes outside of Keras
        return None if known and ">" not in registered else registered
    if ">" in class_name:
        return None if class_name.startswith("Custom>") and known else class_name
    # Keras 2 HDF5: no modules at all. Only layers and optimizers can be told from Keras' own by name.
    is_layer = "name" in mapping(obj.get("config")) and "trainable" in mapping(obj.get("config"))
    return class_name if is_layer and (not known or is_namesake(obj)) else None


def input_shape(layer: LayerSpec) -> tuple[int | None, ...] | None:
    """The configured input shape of a layer, batch axis first, where its configuration says so."""
    for key in ("batch_shape", "batch_input_shape"):
        shape = layer.config.get(key)
        if isinstance(shape, list | tuple):
            return tuple(
                int(n) if (n := number(extent)) is not None and n == n and abs(n) < 2**62 else None for extent in shape
            )
    return None
