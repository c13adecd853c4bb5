"""Operations in the graph of a legacy file: `x[:, 0]`, `a * b`, `keras.ops.exp(x)` between layers.

Keras 3 writes them into its HDF5 files as layers without a module, and its own loader for such files knows only layers, some
of which bear the same names (`Multiply`, `Add`). They are told apart by their configuration: a layer says whether it is
trainable.
"""

from __future__ import annotations

import importlib
from typing import Any

from ckptdoctor.replay.keras_names import OPERATIONS

MODULES = ("numpy", "core", "math", "nn", "linalg", "image")
"""Modules of `keras.src.ops` that define operations."""
PREFIX = "operation>"


def name_operations(config: Any) -> dict[str, type]:
    """Give every operation of a legacy configuration a name of its own, in place.

    Returns:
        the classes by these names, as custom objects for the loader. Only operations that ship with Keras are among them.
    """
    found: dict[str, type] = {}
    for layer in _layers(config):
        name = layer.get("class_name")
        if name in OPERATIONS and isinstance(layer.get("config"), dict) and "trainable" not in layer["config"]:
            made = _operation(str(name))
            if made is not None:
                layer["class_name"] = f"{PREFIX}{name}"
                found[layer["class_name"]] = made
    return found


def _layers(config: Any) -> list[dict[str, Any]]:
    """The layers of a model's configuration, nested models included."""
    inner = config.get("config") if isinstance(config, dict) else None
    listed = inner.get("layers") if isinstance(inner, dict) else None
    layers = [layer for layer in listed if isinstance(layer, dict)] if isinstance(listed, list) else []
    return [*layers, *(deeper for layer in layers for deeper in _layers(layer))]


def _operation(name: str) -> type | None:
    from keras import Operation

    for module in MODULES:
        made = getattr(importlib.import_module(f"keras.src.ops.{module}"), name, None)
        if isinstance(made, type) and issubclass(made, Operation):
            return made
    return None
