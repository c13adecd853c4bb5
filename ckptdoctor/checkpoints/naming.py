"""From paths inside a Keras 3 weights file to the user's layers and the field's variable names.

A path is `layers/<class>[_n]/vars/<i>`, nested models as `layers/functional/layers/dense/vars/0`, subclassed models by
attribute: `encoder/attention/query_dense/vars/0`. The user's name stands on the `vars` group since Keras 3.6; before, it
follows from the order of the layers of one class in the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ckptdoctor.checkpoints.hdf5.recover import PREFIX
from ckptdoctor.checkpoints.layers import ConfigLayer, class_of, snake_case
from ckptdoctor.model import JsonObject

CONTAINERS = frozenset({"layers", "_layer_checkpoint_dependencies"})
# Attributes of Keras' own layers that hold other layers: what their variables are called after. "" drops the part.
INTERNALS = {
    "query_dense": "query",
    "key_dense": "key",
    "value_dense": "value",
    "output_dense": "attention_output",
    "_query_dense": "query",
    "_key_dense": "key",
    "_value_dense": "value",
    "_output_dense": "attention_output",
    "forward_layer": "forward",
    "backward_layer": "backward",
    "cell": "",
    "cells": "cells",
    "layer": "",
    "seed_generator": "",
    "random_generator": "",
}
_INTERNAL_CLASS = dict.fromkeys([k for k in INTERNALS if k.endswith("_dense")], "EinsumDense")
# In the order in which Keras creates them, which is the order of the optimizer's variables.
INTERNAL_ORDER = {name: i for i, name in enumerate(INTERNALS)}
# What an attribute of a user's own model is called when it accumulates a metric.
_METRIC_NAMES = re.compile(r"(^|_)(tracker|metric|metrics|loss_tracker)$")
_METRIC_CLASSES = ("mean", "sum", "mean_metric_wrapper", "mean_tensor", "auc")


@dataclass(frozen=True, slots=True)
class Place:
    """What a path stands for.

    Attributes:
        layer: the user's name, `outer/inner`; None at the root.
        layer_path: the path of that layer.
        class_name: of the object that owns the variables, None where unknown.
        config: configuration of that object, None without one.
        within: variable prefix inside the layer (`query`, `forward`), "" for its own variables.
        frozen: True where the configuration says so; None without configuration.
        owner: the user-visible layer in the configuration, None where it is not listed there.
        anchor: that layer, or the nearest one around it that the configuration lists.
        metric: accumulates a metric.
        internal: a part of one of Keras' own layers.
    """

    layer: str | None
    layer_path: str
    class_name: str | None
    config: JsonObject | None
    within: str = ""
    frozen: bool | None = None
    owner: ConfigLayer | None = None
    anchor: ConfigLayer | None = None
    metric: bool = False
    internal: bool = False

    @property
    def lora_rank(self) -> int | None:
        """Rank of the LoRA pair that trains instead of the kernel."""
        rank = None if self.config is None else self.config.get("lora_rank")
        return rank if isinstance(rank, int) and rank > 0 else None


class Naming:
    """Resolves the groups of one weights file.

    Args:
        groups: paths of all objects that may hold variables (what stands before `/vars`), in the order of saving.
        names: user's names by such path, where the file has them.
        root: the configuration, or None.
    """

    def __init__(self, groups: Iterable[str], names: Mapping[str, str], root: ConfigLayer | None) -> None:
        self._names = names
        self._root = root
        self._children: dict[str, list[str]] = {}
        groups = list(groups)
        self._owners = frozenset(groups)
        seen: set[str] = set()
        for group in groups:
            at = 0
            while True:
                cut = group.find("/", at)
                path = group if cut < 0 else group[:cut]
                if path not in seen:
                    seen.add(path)
                    parent, _, name = path.rpartition("/")
                    self._children.setdefault(parent, []).append(name)
                if cut < 0:
                    break
                at = cut + 1
        top = Place(None, "", None, None) if root is None else Place(None, "", root.class_name, root.config, owner=root)
        self._places: dict[str, Place] = {"": top}
        self._matched: dict[str, dict[str, ConfigLayer]] = {}

    def place(self, group: str) -> Place:
        """What the object at a path is. Never fails: an unknown path names itself."""
        found = self._places.get(group)
        if found is not None:
            return found
        parts = group.split("/")
        path = ""
        found = self._places[""]
        for part in parts:
            path = f"{path}/{part}" if path else part
            known = self._places.get(path)
            if known is None:
                known = self._places[path] = self._step(found, path, part)
            found = known
        return found

    def _step(self, parent: Place, path: str, part: str) -> Place:
        """The place of a child, from its parent's."""
        if part in CONTAINERS and not parent.internal:
            return parent if parent.layer_path == "" or parent.owner is not None else self._container(parent)
        owner = parent.owner
        above = path[: -len(part) - 1]
        if owner is not None and owner.layers and above.rpartition("/")[2] in CONTAINERS:
            layer = self._match(above, owner).get(part)
            if layer is not None:
                return Place(
                    layer.name, path, layer.class_name, layer.config, frozen=layer.frozen, owner=layer, anchor=layer
                )
        if parent.layer is not None and (parent.internal or part in INTERNALS):
            return self._internal(parent, path, part)
        return self._unlisted(parent, path, part)

    def _container(self, parent: Place) -> Place:
        return replace(parent, class_name=None, config=None, owner=None)

    def _internal(self, parent: Place, path: str, part: str) -> Place:
        """A layer inside one of Keras' own layers: its variables belong to that layer."""
        step = INTERNALS.get(part, part)
        within = "/".join(p for p in (parent.within, step) if p)
        class_name, config = _INTERNAL_CLASS.get(part), None
        if part == "cell":
            class_name, config = parent.class_name, parent.config
            inner = _inner(parent.config, "cell")
            if inner is not None:
                class_name, config = inner
            elif class_name not in ("LSTM", "GRU", "SimpleRNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"):
                class_name = self._class_from_name(path)
        elif part in ("forward_layer", "backward_layer", "layer"):
            inner = (_inner(parent.config, "backward_layer") if part == "backward_layer" else None) or _inner(
                parent.config, "layer"
            )
            class_name, config = inner if inner is not None else (self._class_from_name(path), None)
        elif part in ("seed_generator", "random_generator"):
            class_name = "SeedGenerator"
        elif class_name is None:
            class_name = self._class_from_name(path) or class_of(part)
        return Place(
            parent.layer,
            parent.layer_path,
            class_name,
            config,
            within,
            parent.frozen,
            parent.owner,
            parent.anchor,
            parent.metric,
            internal=True,
        )

    def _unlisted(self, parent: Place, path: str, part: str) -> Place:
        """A layer that the configuration does not list: named by the file, else by its path."""
        name = self._names.get(path)
        if part.startswith(PREFIX) and name is not None and self._root is not None:
            alike = [layer for layer in self._root.leaves() if layer.own == name]
            if len(alike) == 1:
                layer = alike[0]
                return Place(
                    layer.name, path, layer.class_name, layer.config, frozen=layer.frozen, owner=layer, anchor=layer
                )
        class_name = self._class_from_name(path) or class_of(part)
        metric = parent.metric or bool(_METRIC_NAMES.search(part)) or (class_name is None and part in _METRIC_CLASSES)
        if name is None and self._names and path not in self._owners:
            # Since Keras 3.6 every layer has a name, so this is a list or dict of layers.
            return replace(parent, class_name=None, config=None, owner=None, metric=metric)
        own = name if name is not None else part
        full = own if parent.layer is None else f"{parent.layer}/{own}"
        return Place(full, path, class_name, None, frozen=parent.frozen, anchor=parent.anchor, metric=metric)

    def _class_from_name(self, path: str) -> str | None:
        name = self._names.get(path)
        if name is None:
            return None
        for prefix in ("forward_", "backward_"):
            name = name.removeprefix(prefix)
        return class_of(name)

    def _match(self, container: str, model: ConfigLayer) -> dict[str, ConfigLayer]:
        """Which layer of the configuration each child of a container is."""
        found = self._matched.get(container)
        if found is None:
            children = self._children.get(container, [])
            found = self._matched[container] = self._by_name(container, children, model) or _by_number(children, model)
        return found

    def _by_name(self, container: str, children: list[str], model: ConfigLayer) -> dict[str, ConfigLayer]:
        by_own = {layer.own: layer for layer in model.layers}
        found: dict[str, ConfigLayer] = {}
        for child in children:
            layer = by_own.get(self._names.get(f"{container}/{child}", ""))
            if layer is not None:
                found[child] = layer
        return found


def _by_number(children: list[str], model: ConfigLayer) -> dict[str, ConfigLayer]:
    """Match by order within a class: `dense`, `dense_1`, … (Keras 2.12 and 2.13 counted `dense`, `dense_2`, …)."""
    present = set(children)
    by_class: dict[str, list[ConfigLayer]] = {}
    for layer in model.layers:
        by_class.setdefault(snake_case(layer.class_name), []).append(layer)
    several = [name for name, layers in by_class.items() if len(layers) > 1]
    skips_one = not any(f"{name}_1" in present for name in several) and any(f"{name}_2" in present for name in several)
    found: dict[str, ConfigLayer] = {}
    for name, layers in by_class.items():
        for i, layer in enumerate(layers):
            child = name if i == 0 else f"{name}_{i + 1 if skips_one else i}"
            if child in present:
                found[child] = layer
    return found


def _inner(config: JsonObject | None, key: str) -> tuple[str | None, JsonObject | None] | None:
    """Class and configuration of a layer kept in another's configuration."""
    raw = config.get(key) if config is not None else None
    if not isinstance(raw, Mapping):
        return None
    class_name, inner = raw.get("class_name"), raw.get("config")
    return (class_name if isinstance(class_name, str) else None), (inner if isinstance(inner, Mapping) else None)
