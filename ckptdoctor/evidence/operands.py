"""What an operation in a model's graph was given: other layers' outputs and plain numbers, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ckptdoctor.evidence.serialized import config_of, items, mapping, number, text
from ckptdoctor.model import JsonObject, Operand

MAX_OPERANDS = 64
"""Arguments of one call that are kept; a concatenation of more says nothing about arithmetic."""
_CONSTANT = "_CONSTANT_VALUE"
_NAMED = ("x", "x1", "a", "y", "x2", "b")
"""Keyword arguments of Keras 2 and 3 that are operands; others (`axis`, `keepdims`) are settings."""

Resolve = Callable[[tuple[str, int]], tuple[str, ...]]


def read_operands(layer: JsonObject, names: Mapping[str, Any], resolve: Resolve) -> tuple[Operand, ...]:
    """The operands of a layer's first call, in the forms of Keras 2 and 3.

    Args:
        layer: serialised. names: the layers of the model around it.
        resolve: (layer, output index) to the flattened names that give that tensor.
    """
    calls = items(layer.get("inbound_nodes"))
    if not calls:
        return ()
    reader = _Reader(names, resolve)
    first = calls[0]
    if isinstance(first, Mapping):
        for argument in items(first.get("args")):
            reader.keras3(argument)
        reader.keywords(mapping(first.get("kwargs")))
    elif isinstance(first, str):  # a single tensor without its lists
        reader.keras2(calls)
    else:
        # One call is a list of references; Keras 2 writes an operation's single reference without that list.
        references = [first] if items(first) and isinstance(items(first)[0], str) else items(first)
        for reference in references:
            reader.keras2(items(reference))
    return tuple(reader.found[:MAX_OPERANDS])


class _Reader:
    def __init__(self, names: Mapping[str, Any], resolve: Resolve) -> None:
        self.names = names
        self.resolve = resolve
        self.found: list[Operand] = []

    def keras3(self, argument: Any, level: int = 0) -> None:
        if isinstance(argument, Mapping) and argument.get("class_name") == "__keras_tensor__":
            config = config_of(argument)
            self.tensor(items(config.get("keras_history")), text(config.get("dtype")))
        elif (value := number(argument)) is not None:
            self.found.append(Operand(number=value))
        elif level < 2:
            for inner in items(argument)[:MAX_OPERANDS]:
                self.keras3(inner, level + 1)

    def keras2(self, reference: Any) -> None:
        parts = items(reference)
        if len(parts) < 3:
            return
        if parts[0] == _CONSTANT:
            value = number(parts[2])
            if value is not None:
                self.found.append(Operand(number=value))
        else:
            self.tensor(parts, None)
        if len(parts) > 3:
            self.keywords(mapping(parts[3]))

    def keywords(self, given: JsonObject) -> None:
        for key in _NAMED:
            value = given.get(key)
            if isinstance(value, list) and value and isinstance(value[0], str):
                self.keras2(value[:3])
            else:
                self.keras3(value)

    def tensor(self, history: Any, dtype: str | None) -> None:
        if len(history) < 3 or not isinstance(history[0], str) or history[0] not in self.names:
            return
        index = history[2]
        place = max(index, 0) if isinstance(index, int) and not isinstance(index, bool) else 0
        sources = self.resolve((history[0], place))
        if len(sources) == 1:
            self.found.append(Operand(layer=sources[0], dtype=dtype))
