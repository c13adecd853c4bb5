"""The JSON document as text: strict, ASCII, one record a line where that is readable."""

from __future__ import annotations

import json
from typing import Any

from ckptdoctor.model import Report
from ckptdoctor.report.document import document


def render_json(report: Report) -> str:
    """The document as strict JSON. Pure ASCII: no byte of it means anything to a terminal."""
    return dumps(document(report)) + "\n"


def dumps(value: Any) -> str:
    """JSON with objects of scalars on one line each, everything larger indented by one space a level."""
    encoder = json.JSONEncoder(allow_nan=False)
    return "".join(_lines(value, "\n", encoder))


def _lines(value: Any, newline: str, encoder: json.JSONEncoder) -> list[str]:
    if not isinstance(value, (dict, list)) or not value or _is_flat(value):
        return [encoder.encode(value)]
    inner = newline + " "
    out: list[str] = []
    if isinstance(value, dict):
        for key, item in value.items():
            out += [",", inner] if out else ["{", inner]
            out += [encoder.encode(key), ": ", *_lines(item, inner, encoder)]
        return [*out, newline, "}"]
    for item in value:
        out += [",", inner] if out else ["[", inner]
        out += _lines(item, inner, encoder)
    return [*out, newline, "]"]


def _is_flat(value: dict[str, Any] | list[Any]) -> bool:
    """Scalars only, or short lists of scalars such as shapes."""
    items = value.values() if isinstance(value, dict) else value
    return not any(
        isinstance(i, dict) or (isinstance(i, list) and any(isinstance(j, (dict, list)) for j in i)) for i in items
    )
