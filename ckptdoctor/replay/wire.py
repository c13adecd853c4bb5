"""Dataclasses to JSON and back: how request and findings cross between parent and child."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from enum import Enum
from typing import Any, TypeVar

from ckptdoctor.model import JsonObject

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Lists, dicts, strings and numbers in place of dataclasses, tuples and enums. Numbers may be non-finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "item"):  # numpy scalars
        return value.item()
    raise TypeError(f"{type(value).__name__} does not cross between processes")


def dump_line(value: Any) -> str:
    """One JSON line, Python's dialect: NaN and Infinity are bare words."""
    return json.dumps(to_plain(value), separators=(",", ":")) + "\n"


def from_plain(kind: Any, value: Any) -> Any:
    """The value of type `kind` that `to_plain` was made from.

    Raises:
        TypeError, ValueError: the value does not have that type's shape.
    """
    origin = typing.get_origin(kind)
    if kind is Any or kind is JsonObject:
        return value
    if origin in (typing.Union, types.UnionType):
        return _from_union(typing.get_args(kind), value)
    if origin is tuple:
        return _from_tuple(typing.get_args(kind), value)
    if origin is dict or kind is dict:
        return dict(value)
    if origin is not None:  # Mapping and the like
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return decode(kind, value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, found {type(value).__name__}")
    return value


def _from_union(kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in kinds:
        return None
    problem: Exception | None = None
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return from_plain(kind, value)
        except (TypeError, ValueError) as error:
            problem = error
    raise ValueError(str(problem or f"{type(value).__name__} fits none of {kinds}"))


def _from_tuple(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {type(value).__name__}")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(from_plain(kinds[0], v) for v in value)
    if len(kinds) != len(value):
        raise ValueError(f"expected {len(kinds)} entries, found {len(value)}")
    return tuple(from_plain(k, v) for k, v in zip(kinds, value, strict=True))


def decode(kind: type[T], value: Any) -> T:
    """A dataclass from its plain form; unknown keys are refused.

    Raises:
        TypeError, ValueError: a key is unknown or a value has the wrong type.
    """
    if not isinstance(value, dict):
        raise TypeError(f"expected an object for {kind.__name__}, found {type(value).__name__}")
    hints = typing.get_type_hints(kind)
    if unknown := set(value) - set(hints):
        raise ValueError(f"{kind.__name__} has no {sorted(unknown)}")
    return kind(**{name: from_plain(hints[name], v) for name, v in value.items()})
