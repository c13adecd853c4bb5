"""JSON from strangers: bounded in size and depth, tolerant of the bare NaN that Keras writes."""

from __future__ import annotations

import json
from typing import Any

from ckptdoctor.checkpoints.contract import CheckpointError
from ckptdoctor.checkpoints.limits import ReadLimits


def parse_json(raw: bytes, where: str, limits: ReadLimits) -> Any:
    """The value of one JSON document.

    Args:
        raw: the document in UTF-8. `where` names it in the error.

    Raises:
        CheckpointError: too large, too deep, not JSON.
    """
    if len(raw) > limits.json_bytes:
        raise CheckpointError(
            f"{where} has {len(raw):,} bytes, more than the {limits.json_bytes:,} allowed for JSON; see --limit json_bytes"
        )
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > limits.json_items:
        raise CheckpointError(
            f"{where} holds more than the {limits.json_items:,} values allowed for JSON; see --limit json_items"
        )
    try:
        value = json.loads(raw)
    except RecursionError:
        raise CheckpointError(
            f"{where} is nested deeper than the {limits.json_depth} levels allowed for JSON; see --limit json_depth"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, MemoryError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else "not JSON"
        raise CheckpointError(f"{where} is not valid JSON: {reason}") from None
    except ValueError:  # Python converts no integer of more than 4,300 digits: it would take time quadratic in them
        raise CheckpointError(f"{where} holds an integer with more digits than any number of a model") from None
    if _deeper_than(value, limits.json_depth):
        raise CheckpointError(
            f"{where} is nested deeper than the {limits.json_depth} levels allowed for JSON; see --limit json_depth"
        )
    return value


def parse_object(raw: bytes, where: str, limits: ReadLimits) -> dict[str, Any]:
    """Like `parse_json`, for a document that must be an object."""
    value = parse_json(raw, where, limits)
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} should hold a JSON object, found {type(value).__name__}")
    return value


def _deeper_than(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        deeper: list[Any] = []
        for item in level:
            if type(item) is dict:
                deeper.extend(v for v in item.values() if type(v) is dict or type(v) is list)
            elif type(item) is list:
                deeper.extend(v for v in item if type(v) is dict or type(v) is list)
        if not deeper:
            return False
        level = deeper
    return True
