"""The few kinds of values that the JSON document is made of. Each can encode a value and describe itself as JSON schema.

The document is declared once, as `Record`s of `Field`s; building it and generating its schema both walk that
declaration, so that they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from ckptdoctor.model import Missing
from ckptdoctor.report.escape import well_formed

Json = Any
Definitions = dict[str, Json]


@dataclass(slots=True)
class Gaps:
    """Collects what was Missing, with its place in the document and its reason."""

    found: list[tuple[str, str]] = field(default_factory=list)


class Kind(Protocol):
    """A kind of value."""

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        """The value as strict JSON. `at` is its place, for messages and gaps."""
        ...

    def schema(self, definitions: Definitions) -> Json:
        """Its JSON schema; records add themselves to `definitions`."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """A string that UTF-8 can encode."""

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        if not isinstance(value, str):
            raise TypeError(f"{at}: expected text, found {value!r}")
        return value if value.isascii() else well_formed(value)

    def schema(self, definitions: Definitions) -> Json:
        return {"type": "string"}


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of an enumeration, or one of some strings."""

    values: tuple[str, ...]

    @classmethod
    def of(cls, enum: type[Enum]) -> Choice:
        """The values of a string enumeration, or the lower-case names of a numeric one."""
        return cls(tuple(m.value if isinstance(m.value, str) else m.name.lower() for m in enum))

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        text = value
        if isinstance(value, Enum):
            text = value.value if isinstance(value.value, str) else value.name.lower()
        if text not in self.values:
            raise TypeError(f"{at}: expected one of {self.values}, found {value!r}")
        return text

    def schema(self, definitions: Definitions) -> Json:
        return {"enum": list(self.values)}


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        return bool(value)

    def schema(self, definitions: Definitions) -> Json:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number."""

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        return int(value)

    def schema(self, definitions: Definitions) -> Json:
        return {"type": "integer"}


_NONFINITE = {"enum": ["NaN", "Infinity", "-Infinity"]}


@dataclass(frozen=True, slots=True)
class Real:
    """A number; the non-finite ones, which JSON lacks, as the strings "NaN", "Infinity", "-Infinity"."""

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        if isinstance(value, int):
            return int(value)
        value = float(value)
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    def schema(self, definitions: Definitions) -> Json:
        definitions["real"] = {
            "description": "A number, or the name of a non-finite one.",
            "anyOf": [{"type": "number"}, _NONFINITE],
        }
        return {"$ref": "#/$defs/real"}


@dataclass(frozen=True, slots=True)
class RealOrText:
    """A number as `Real`, or a short text in its place."""

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        return Text().encode(value, at, gaps) if isinstance(value, str) else Real().encode(value, at, gaps)

    def schema(self, definitions: Definitions) -> Json:
        return {"type": ["number", "string"]}


@dataclass(frozen=True, slots=True)
class Anything:
    """A stranger's JSON, made strict: non-finite numbers as in `Real`, keys as text."""

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)):
            return Real().encode(value, at, gaps)
        if isinstance(value, Mapping):
            return {well_formed(k): self.encode(v, at, gaps) for k, v in value.items()}
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
            return [self.encode(v, at, gaps) for v in value]
        return well_formed(value)

    def schema(self, definitions: Definitions) -> Json:
        return {}


@dataclass(frozen=True, slots=True)
class Optional:
    """A value, or null. Where it is null because it is Missing, the reason goes to `not_checked`."""

    kind: Kind

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        if isinstance(value, Missing):
            if "[" not in at:  # inside a list the item says itself what it lacks; a reason an item would flood the list
                gaps.found.append((at, value.reason))
            return None
        return None if value is None else self.kind.encode(value, at, gaps)

    def schema(self, definitions: Definitions) -> Json:
        return {"anyOf": [self.kind.schema(definitions), {"type": "null"}]}


@dataclass(frozen=True, slots=True)
class List:
    """A list of values of one kind."""

    kind: Kind

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        return [self.kind.encode(item, f"{at}[]", gaps) for item in value]

    def schema(self, definitions: Definitions) -> Json:
        return {"type": "array", "items": self.kind.schema(definitions)}


@dataclass(frozen=True, slots=True)
class Table:
    """Values of one kind by a stranger's name."""

    kind: Kind

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        return {well_formed(key): self.kind.encode(item, f"{at}[]", gaps) for key, item in value.items()}

    def schema(self, definitions: Definitions) -> Json:
        return {"type": "object", "additionalProperties": self.kind.schema(definitions)}


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a record: its name, its kind, what it means, and how to take it from the record's source."""

    name: str
    kind: Kind
    doc: str
    get: Callable[[Any], Any]


def plain(name: str, kind: Kind, doc: str) -> Field:
    """A member that is the attribute of the same name."""
    return Field(name, kind, doc, lambda source: getattr(source, name))


@dataclass(frozen=True, slots=True)
class Record:
    """An object with fixed members."""

    title: str
    doc: str
    fields: tuple[Field, ...]

    def encode(self, value: Any, at: str, gaps: Gaps) -> Json:
        below = f"{at}." if at else ""
        return {f.name: f.kind.encode(f.get(value), below + f.name, gaps) for f in self.fields}

    def schema(self, definitions: Definitions) -> Json:
        if self.title not in definitions:
            definitions[self.title] = {}  # claims the place among the definitions, in reading order
            definitions[self.title].update(self.body(definitions))
        return {"$ref": f"#/$defs/{self.title}"}

    def body(self, definitions: Definitions) -> dict[str, Json]:
        """The schema of the object itself."""
        properties = {f.name: {"description": f.doc, **f.kind.schema(definitions)} for f in self.fields}
        return {
            "description": self.doc,
            "type": "object",
            "properties": properties,
            "required": [f.name for f in self.fields],
        }


TEXT, FLAG, INTEGER, REAL = Text(), Flag(), Integer(), Real()
