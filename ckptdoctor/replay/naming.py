"""Names of layers and variables as the rest of the project spells them: `outer/inner`, `kernel`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ckptdoctor.replay.dialect import raw


@dataclass(frozen=True, slots=True)
class NamedLayer:
    """A leaf layer (wrappers count as one) with its flattened name."""

    name: str
    layer: Any

    @property
    def class_name(self) -> str:
        """The layer's class."""
        return type(self.layer).__name__


def named_layers(model: Any, prefix: str = "") -> Iterator[NamedLayer]:
    """The leaf layers of a model in its order; layers of nested models as `outer/inner`, inputs left out."""
    for layer in model.layers:
        name = prefix + str(layer.name)
        if hasattr(layer, "layers") and hasattr(layer, "inputs") and _is_model(layer):
            yield from named_layers(layer, name + "/")
        elif type(layer).__name__ != "InputLayer":
            yield NamedLayer(name, layer)


def operations(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Bare operations (`keras.ops` calls in a functional model) by flattened name; nested models included."""
    for operation in getattr(model, "operations", None) or ():
        name = prefix + str(operation.name)
        if hasattr(operation, "layers") and _is_model(operation):
            yield from operations(operation, name + "/")
        elif not hasattr(operation, "trainable_variables"):
            yield name, operation


def operation_names(model: Any) -> dict[int, str]:
    """Their names by identity."""
    return {id(operation): name for name, operation in operations(model)}


def _is_model(layer: Any) -> bool:
    return any(c.__name__ == "Model" for c in type(layer).__mro__)


@dataclass(frozen=True, slots=True)
class Ownership:
    """Which layer every variable belongs to.

    Attributes:
        layers: all leaf layers. trained: names of those with trainable variables, in order.
        owners: per trainable variable of the model the index into `trained`.
    """

    layers: tuple[NamedLayer, ...]
    trained: tuple[str, ...]
    owners: tuple[int, ...]
    _names: dict[int, tuple[str, str]]

    def of(self, variable: Any) -> tuple[str | None, str]:
        """Layer and short name of a variable; (None, its own name) for one that no leaf layer owns."""
        return self._names.get(id(raw(variable)), (None, short_name(variable)))


def short_name(variable: Any) -> str:
    """`kernel` of `sequential/dense/kernel` or `dense/kernel:0`."""
    path = str(getattr(variable, "path", None) or variable.name)
    return path.rpartition("/")[2].partition(":")[0]


def ownership(model: Any) -> Ownership:
    """Work out the owners of all variables; a model without leaf layers owns its variables itself."""
    layers = tuple(named_layers(model))
    names: dict[int, tuple[str, str]] = {}
    for named in layers:
        for variable in named.layer.variables if hasattr(named.layer, "variables") else named.layer.weights:
            names.setdefault(id(raw(variable)), (named.name, _inner_name(variable, named)))
    trained: list[str] = []
    owners: list[int] = []
    for variable in model.trainable_variables:
        owner = names.get(id(raw(variable)), (str(model.name), ""))[0]
        if owner not in trained:
            trained.append(owner)
        owners.append(trained.index(owner))
    return Ownership(layers, tuple(trained), tuple(owners), names)


def _inner_name(variable: Any, named: NamedLayer) -> str:
    """For wrappers and cells the path inside them: `forward_lstm/lstm_cell/kernel`."""
    path = str(getattr(variable, "path", None) or variable.name).partition(":")[0]
    _, found, inner = path.partition(f"{named.layer.name}/")
    return inner if found else short_name(variable)
