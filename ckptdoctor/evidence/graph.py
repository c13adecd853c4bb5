"""The layers of a serialised model as one flat graph, and questions about it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ckptdoctor.evidence.names import words
from ckptdoctor.evidence.operands import read_operands
from ckptdoctor.evidence.serialized import MAX_DEPTH, bare_class, config_of, items, mapping, text
from ckptdoctor.model import Census, JsonObject, LayerSpec, ModelSpec, Operand

MAX_LAYERS = 50_000
"""Layers that are read; the largest published Keras models have some 2,000."""

Names = tuple[str, ...]


@dataclass(slots=True)
class Node:
    """A layer of the flattened graph. `inbound` holds flattened names, `operands` the arguments of the first call."""

    name: str
    serialized: JsonObject
    trainable: bool
    inbound: list[str] = field(default_factory=list)
    operands: tuple[Operand, ...] = ()


@dataclass(slots=True)
class FlatGraph:
    """Layers in topological order, with each one's depth; `known` is False where the configuration has no graph."""

    nodes: list[Node]
    depths: dict[str, int]
    inputs: Names
    outputs: Names
    known: bool


def flatten(model: JsonObject) -> FlatGraph:
    """The layers of a serialised `Sequential`, functional or subclassed model; nested models become `outer/inner`.

    A nested model's own input layers are left out: what feeds the model feeds the layers behind them. Never raises;
    what does not look like Keras' own form is skipped.
    """
    flattener = _Flattener()
    if not is_model(model):
        for inner in _attribute_layers(model):
            flattener.add(_name(inner) or "", inner, (), trainable=True)
        nodes = list(flattener.nodes.values())
        return FlatGraph(nodes, {n.name: 0 for n in nodes}, (), (), known=False)
    outputs = flattener.model(model, "", [], trainable=True, level=0)
    nodes, depths = _in_order(flattener.nodes)
    inputs = tuple(node.name for node in nodes if not node.inbound)
    return FlatGraph(nodes, depths, inputs, _union(outputs), known=not flattener.truncated)


def is_model(value: Any) -> bool:
    """Whether a serialised object holds layers of its own in Keras' form."""
    found = mapping(value)
    config = found.get("config")
    layers = config if isinstance(config, list) else mapping(config).get("layers")
    return isinstance(layers, list) and all("class_name" in mapping(layer) for layer in layers[:4]) and bool(layers)


def _attribute_layers(model: JsonObject) -> Iterator[JsonObject]:
    """Serialised layers among the arguments of a subclassed model that has `get_config`."""
    stack: list[tuple[Any, int]] = [(config_of(model), 0)]
    while stack:
        value, level = stack.pop()
        if isinstance(value, Mapping):
            if level and "class_name" in value and text(config_of(value).get("name")):
                if "trainable" in config_of(value):  # a layer; dtype policies and initializers have a name at most
                    yield value
                continue
            children: Sequence[Any] = list(value.values())
        else:
            children = items(value)
        if level < 4:
            stack.extend((child, level + 1) for child in reversed(children))


def _name(layer: Any) -> str | None:
    found = mapping(layer)
    return text(found.get("name")) or text(config_of(found).get("name"))


def _union(groups: Iterable[Names]) -> Names:
    return tuple(dict.fromkeys(name for group in groups for name in group))


class _Flattener:
    """Collects nodes while it walks down into nested models."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.truncated = False

    def add(self, name: str, serialized: JsonObject, inbound: Names, *, trainable: bool) -> None:
        if len(self.nodes) >= MAX_LAYERS:
            self.truncated = True
            return
        trainable = trainable and config_of(serialized).get("trainable") is not False
        node = self.nodes.setdefault(name, Node(name, serialized, trainable))
        if any(inbound):
            node.inbound = list(dict.fromkeys([*node.inbound, *inbound]))

    def model(self, model: JsonObject, prefix: str, feeds: list[Names], *, trainable: bool, level: int) -> list[Names]:
        """Add a model's layers.

        Args:
            model: serialised.
            prefix: `outer/` for nested ones.
            feeds: for each input of the model the flattened names that feed it.
            trainable: False inside a frozen model.
            level: of nesting.

        Returns:
            For each output of the model the flattened names that give it.
        """
        if level > MAX_DEPTH // 2:
            self.truncated = True
            return feeds
        raw = model.get("config")
        config = mapping(raw)
        trainable = trainable and config.get("trainable") is not False
        layers = [mapping(layer) for layer in items(raw if isinstance(raw, list) else config.get("layers"))]
        if "input_layers" in config or "output_layers" in config:
            return self._functional(layers, config, prefix, feeds, trainable=trainable, level=level)
        return self._sequential(layers, prefix, feeds, trainable=trainable, level=level)

    def _sequential(
        self, layers: list[JsonObject], prefix: str, feeds: list[Names], *, trainable: bool, level: int
    ) -> list[Names]:
        current = _union(feeds)
        for position, layer in enumerate(layers):
            name = prefix + (_name(layer) or f"layer_{position}")
            if is_model(layer):
                outputs = self.model(layer, name + "/", [current], trainable=trainable, level=level + 1)
                current = _union(outputs)
            elif bare_class(layer) != "InputLayer" or not prefix:
                self.add(name, layer, current, trainable=trainable)
                current = (name,)
        return [current]

    def _functional(
        self,
        layers: list[JsonObject],
        config: JsonObject,
        prefix: str,
        feeds: list[Names],
        *,
        trainable: bool,
        level: int,
    ) -> list[Names]:
        by_name: dict[str, JsonObject] = {}
        for position, layer in enumerate(layers[:MAX_LAYERS]):
            by_name.setdefault(_name(layer) or f"layer_{position}", layer)
        self.truncated = self.truncated or len(layers) > MAX_LAYERS
        calls = {name: _calls(layer.get("inbound_nodes"), by_name) for name, layer in by_name.items()}
        inputs = [name for name, _ in _tensors(config.get("input_layers"), by_name)]
        given: dict[str, list[Names]] = {}

        def resolve(tensor: tuple[str, int]) -> Names:
            outputs = given.get(tensor[0], [])
            return outputs[tensor[1]] if tensor[1] < len(outputs) else _union(outputs)

        sources = {name: [t[0] for call in found for t in call] for name, found in calls.items()}
        for name in _ordered(sources):
            layer = by_name[name]
            if bare_class(layer) == "InputLayer" and prefix:
                place = inputs.index(name) if name in inputs else 0
                given[name] = [feeds[place] if place < len(feeds) else _union(feeds)]
                continue
            inner_feeds = _by_position([[resolve(t) for t in call] for call in calls[name]])
            if is_model(layer):
                given[name] = self.model(layer, f"{prefix}{name}/", inner_feeds, trainable=trainable, level=level + 1)
            else:
                given[name] = [(prefix + name,)]
                self.add(prefix + name, layer, _union(inner_feeds), trainable=trainable)
                if prefix + name in self.nodes:
                    self.nodes[prefix + name].operands = read_operands(layer, by_name, resolve)
        # A layer that is called on its own output (shared layers) was added before that output was known.
        for name, found in calls.items():
            if prefix + name in self.nodes:
                late = _union(resolve(t) for call in found for t in call)
                self.add(prefix + name, by_name[name], late, trainable=trainable)
        outputs = _tensors(config.get("output_layers"), by_name)
        return [resolve(tensor) for tensor in outputs]


def _by_position(calls: list[list[Names]]) -> list[Names]:
    """What feeds each input, over all calls of a shared model."""
    width = max((len(call) for call in calls), default=0)
    return [_union(call[i] for call in calls if i < len(call)) for i in range(width)]


def _calls(inbound_nodes: Any, names: Mapping[str, Any]) -> list[list[tuple[str, int]]]:
    """The tensors (layer, output index) of every call of a layer, in the forms of Keras 2 and 3."""
    nodes = items(inbound_nodes)
    if nodes and isinstance(nodes[0], str):  # a single tensor without its lists
        nodes = [nodes]
    return [_tensors(node, names) for node in nodes]


def _tensors(value: Any, names: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Every reference to another layer's output: `["dense", 0, 0, …]` or `__keras_tensor__`, in order."""
    found: list[tuple[str, int]] = []
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack and len(found) < MAX_LAYERS:
        current, level = stack.pop()
        if isinstance(current, Mapping):
            if current.get("class_name") == "__keras_tensor__":
                current = items(config_of(current).get("keras_history"))
            children = list(current.values()) if isinstance(current, Mapping) else []
        else:
            children = list(items(current))
        if not isinstance(current, Mapping):
            reference = items(current)
            if len(reference) >= 3 and isinstance(reference[0], str) and reference[0] in names:
                index = reference[2]
                if isinstance(index, int) and not isinstance(index, bool):
                    found.append((reference[0], max(index, 0)))
                    children = list(reference[3:])
        if level < MAX_DEPTH:
            stack.extend((child, level + 1) for child in reversed(children))
    return found


def _ordered(sources: Mapping[str, Sequence[str]]) -> list[str]:
    """Names so that sources come first where that is possible; ties and cycles in the given order."""
    rank = {name: i for i, name in enumerate(sources)}
    waiting = {name: len({s for s in found if s in rank and s != name}) for name, found in sources.items()}
    after: dict[str, set[str]] = {name: set() for name in sources}
    for name, found in sources.items():
        for source in found:
            if source in rank and source != name:
                after[source].add(name)
    ready = [rank[name] for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    names = list(sources)
    order: list[str] = []
    done: set[str] = set()
    unvisited = iter(names)
    while len(order) < len(names):
        # In a cycle nothing is ready: go on with the first layer of the configuration.
        name = names[heapq.heappop(ready)] if ready else next(n for n in unvisited if n not in done)
        if name in done:
            continue
        done.add(name)
        order.append(name)
        for follower in after[name]:
            waiting[follower] -= 1
            if not waiting[follower] and follower not in done:
                heapq.heappush(ready, rank[follower])
    return order


def _in_order(nodes: Mapping[str, Node]) -> tuple[list[Node], dict[str, int]]:
    order = _ordered({name: node.inbound for name, node in nodes.items()})
    depths: dict[str, int] = {}
    for name in order:
        behind = [depths[source] for source in nodes[name].inbound if source in depths and source != name]
        depths[name] = 1 + max(behind) if behind else 0
    return [nodes[name] for name in order], depths


# --- questions about a flattened model -----------------------------------------------------------


def upstream(spec: ModelSpec, *names: str) -> frozenset[str]:
    """All layers that the input of one of these depends on; these themselves only where one depends on another."""
    return _reach(names, {layer.name: layer.inbound for layer in spec.layers})


def downstream(spec: ModelSpec, *names: str) -> frozenset[str]:
    """All layers that depend on the output of one of these."""
    outbound: dict[str, list[str]] = {layer.name: [] for layer in spec.layers}
    for layer in spec.layers:
        for source in layer.inbound:
            outbound.setdefault(source, []).append(layer.name)
    return _reach(names, outbound)


def _reach(names: Sequence[str], edges: Mapping[str, Sequence[str]]) -> frozenset[str]:
    seen: set[str] = set()
    stack = [target for name in names for target in edges.get(name, ())]
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            stack.extend(edges.get(current, ()))
    return frozenset(seen)


_ELEMENTWISE = words(
    """Activation ActivityRegularization AlphaDropout BatchNormalization Concatenate Dropout ELU Flatten GaussianDropout
    GaussianNoise Identity LeakyReLU Masking Normalization PReLU ReLU Rescaling Reshape SpatialDropout1D SpatialDropout2D
    SpatialDropout3D ThresholdedReLU"""
)
"""Layers that keep features apart, so that a row of the next kernel still belongs to one input feature."""


def reads_input(spec: ModelSpec, name: str) -> bool:
    """Whether the rows of a layer's kernel belong to features of the model's input, one each."""
    layers = {layer.name: layer for layer in spec.layers}
    stack, seen = [name], set[str]()
    while stack:
        layer = layers.get(stack.pop())
        if layer is None:
            return False
        for source in layer.inbound:
            before = layers.get(source)
            if before is None:
                return False
            if before.class_name == "InputLayer":
                continue
            if before.class_name not in _ELEMENTWISE:
                return False
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return True


class Order:
    """The order of a checkpoint's layers, from the input on; `known` is False where only the container's is."""

    def __init__(self, census: Census, spec: ModelSpec | None) -> None:
        self.known = spec is not None and spec.graph_known
        self._layers = {layer.name: (i, layer) for i, layer in enumerate(spec.layers)} if spec is not None else {}
        self._stored: dict[str | None, int] = {}
        for t in census.tensors:
            self._stored.setdefault(t.info.layer, len(self._stored))

    def layer(self, stored: str | None) -> LayerSpec | None:
        """The layer of the configuration that a stored tensor's layer name belongs to.

        Containers name the layers inside a wrapper or a cell `bidirectional/forward_layer`: the longest leading part
        that the configuration knows wins.
        """
        while stored:
            if stored in self._layers:
                return self._layers[stored][1]
            stored = stored.rpartition("/")[0]
        return None

    def rank(self, stored: str | None) -> tuple[int, int]:
        """Sorts layers from the input on; those the configuration does not know come last, in the container's order."""
        layer = self.layer(stored)
        place = self._layers[layer.name][0] if layer is not None else len(self._layers)
        return place, self._stored.get(stored, len(self._stored))
