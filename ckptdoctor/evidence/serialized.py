"""Reading Keras' serialised objects without trusting them: any JSON goes in, typed pieces come out, nothing is raised."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptdoctor.model import JsonObject

NOTHING: JsonObject = {}
MAX_NAME = 512
"""Characters of a name that are kept: layer names are a stranger's text."""
MAX_DEPTH = 64
"""Levels of nesting that are followed."""
MAX_NODES = 1_000_000
"""Values visited by one walk; the configuration of a thousand-layer model has some 50,000."""


def mapping(value: Any) -> JsonObject:
    """The object, or an empty one."""
    return value if isinstance(value, Mapping) else NOTHING


def items(value: Any) -> Sequence[Any]:
    """The array, or an empty one."""
    return value if isinstance(value, list | tuple) else ()


def text(value: Any) -> str | None:
    """The string, cut to `MAX_NAME` characters."""
    return value[:MAX_NAME] if isinstance(value, str) and value else None


def number(value: Any) -> float | None:
    """The number; NaN and infinities, as tokens or as strings, are numbers too."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and value in ("NaN", "nan", "Infinity", "inf", "-Infinity", "-inf"):
        return float(value.lower().replace("infinity", "inf"))
    if isinstance(value, Mapping) and value.get("class_name") in ("__numpy__", "__tensor__"):
        return number(mapping(value.get("config")).get("value"))
    return None


def whole(value: Any) -> int | None:
    """The number as a positive integer below 2^62."""
    found = number(value)
    return int(found) if found is not None and 0 < found < 2**62 and found == int(found) else None


def config_of(value: Any) -> JsonObject:
    """The `config` of a serialised object."""
    return mapping(mapping(value).get("config"))


def bare_class(value: Any) -> str | None:
    """Class name of a serialised object without its package: `Custom>Adam` is `Adam`."""
    name = text(mapping(value).get("class_name"))
    return name.rpartition(">")[2] or name if name else None


def snake(name: str) -> str:
    """`MeanSquaredError` is `mean_squared_error`, `LeakyReLU` is `leaky_relu`."""
    for word in ("ReLU", "ELU", "SELU", "GELU", "CELU", "SiLU", "GLU"):
        if name.endswith(word):
            name = name[: -len(word)] + word.capitalize()
            break
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()


def walk(value: Any) -> Iterator[JsonObject]:
    """Every object inside, outermost first, within `MAX_DEPTH` and `MAX_NODES`."""
    stack: list[tuple[Any, int]] = [(value, 0)]
    visited = 0
    while stack and visited < MAX_NODES:
        current, depth = stack.pop()
        visited += 1
        if isinstance(current, Mapping):
            yield current
            inner: Sequence[Any] = list(current.values())
        elif isinstance(current, list | tuple):
            inner = current
        else:
            continue
        if depth < MAX_DEPTH:
            stack.extend((child, depth + 1) for child in reversed(inner))
