"""JSON documents with a training history, read as a stream of tokens: any size, cut off anywhere.

Shapes that are understood: `History.history` (`{"loss": […], …}`), the same under a key `history` with the `epoch` list
beside it, pandas' `to_json` (columns, records, index, split), and a list of records under `log_history`.
"""

from __future__ import annotations

import functools
import math
import re
from array import array
from collections.abc import Iterator

from ckptdoctor.logs.axes import BATCH_NAMES, EPOCH_NAMES, STEP_NAMES, is_clock, normal
from ckptdoctor.logs.records import RecordSink
from ckptdoctor.logs.series import LogBuilder, LogError
from ckptdoctor.logs.spelling import to_number
from ckptdoctor.logs.text import blocks
from ckptdoctor.model import TrainingLog

MAX_DEPTH = 32
MAX_STRING = 1 << 16
MAX_LEAVES = 1_500_000
"""Values of a document that are read: some 15 seconds. Event files and CSV have no such bound."""
MAX_AXIS = 4_000_000
"""Longest list of steps that is kept to place the other lists (8 bytes each); beyond, positions are counted."""

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+|"', re.DOTALL)
_WRAPPERS = ("history", "log_history", "logs", "metrics", "history_dict")

Path = tuple[str | int, ...]


def read_history(path: str) -> TrainingLog:
    """Read a JSON document that holds a training history. A document that is cut off is read up to there.

    Raises:
        LogError: the file cannot be read, or holds no list of numbers.
    """
    reader = _History(path)
    if _names_an_axis(path):  # else one pass is enough, which takes half the time
        reader.read_axes()
    return reader.read()


def leaves(path: str, cut: list[str]) -> Iterator[tuple[Path, str | None]]:
    """Every leaf of a JSON document with its path; the text of the value, None for null. Strings keep their quotes.

    Args:
        path: the file.
        cut: receives a sentence if the document ends early or is not JSON from some point on.
    """
    stack: list[list[str | int]] = []  # [key or index] of each open container
    is_object: list[bool] = []
    key: str | None = None
    count = 0
    for token in _tokens(path, cut):
        first = token[:1]
        if first in b"{[":
            if len(stack) >= MAX_DEPTH:
                cut.append(f"nested deeper than {MAX_DEPTH} levels: the rest was not read")
                return
            if is_object and is_object[-1]:
                stack[-1][0] = key or ""
            stack.append([0])
            is_object.append(first == b"{")
            key = None
        elif first in b"}]":
            if not stack:
                cut.append("the document is not JSON from some point on: the rest was not read")
                return
            stack.pop()
            is_object.pop()
            key = None
            if not stack:
                return
        elif first == b",":
            if is_object and not is_object[-1]:
                index = stack[-1][0]
                stack[-1][0] = index + 1 if isinstance(index, int) else 0
            key = None
        elif first == b":":
            continue
        elif is_object and is_object[-1] and key is None:
            key = token.strip(b'"').decode("utf-8", "replace")
        elif stack:
            if is_object[-1]:
                stack[-1][0] = key or ""
            count += 1
            if count > MAX_LEAVES:
                cut.append(f"more than {MAX_LEAVES:,} values: the rest was not read")
                return
            yield tuple(part[0] for part in stack), None if token == b"null" else token.decode("utf-8", "replace")
    cut.append("the document is cut off: it was read up to there")


def _tokens(path: str, cut: list[str]) -> Iterator[bytes]:
    carry = b""
    for block in blocks(path):
        data = carry + block
        carry = b""
        for found in _TOKEN.finditer(data):
            token = found[0]
            if token == b'"' or (found.end() == len(data) and token[:1] not in b'{}[],:"'):
                carry = data[found.start() :]
                break
            yield token
        if len(carry) > MAX_STRING:
            cut.append("a string or number of more than 64 KB: the rest was not read")
            return
    if carry and carry[:1] != b'"':
        yield carry


def _names_an_axis(path: str) -> bool:
    """Whether a name that counts steps, epochs or batches stands anywhere in the document; looks at bytes only."""
    names = sorted({*STEP_NAMES, *EPOCH_NAMES, *BATCH_NAMES})
    wanted = re.compile(rb'"\s*(?:' + b"|".join(re.escape(n.encode()) for n in names) + rb')\s*"', re.IGNORECASE)
    tail = b""
    for block in blocks(path):
        if wanted.search(tail + block):
            return True
        tail = block[-256:]
    return False


class _History:
    """The two passes over the document: first the list that counts time, then the others."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.log = LogBuilder(path, "history-json")
        self.sink = RecordSink(self.log, "epoch")
        self.axis: array[float] | None = None
        self.axis_kind = "epoch"
        self.columns: dict[int, str] = {}
        self.record: dict[str, object] = {}
        self.record_at: str | int | None = None
        self.position = -1

    def read_axes(self) -> None:
        """Find the list that counts steps or epochs: it may stand after the metrics."""
        found: dict[str, array[float]] = {}
        for where, text in leaves(self.path, []):
            place = list_place(where)
            if place is None or text is None or not isinstance(place[1], int):
                continue
            kind = _axis_kind(place[0])
            if kind:
                values = found.setdefault(kind, array("d"))
                number = to_number(text)
                if number is not None and len(values) < MAX_AXIS:
                    values.append(number if math.isfinite(number) else float(len(values)))
        for kind in ("step", "epoch", "batch"):
            if kind in found and not (kind == "epoch" and "batch" in found):
                self.axis, self.axis_kind = found[kind], kind
                return
        if found:
            self.axis_kind = "step"

    def read(self) -> TrainingLog:
        cut: list[str] = []
        for where, text in leaves(self.path, cut):
            self._leaf(where, text)
        self._end_record()
        for sentence in cut:
            self.log.note(sentence)
        log = self.log.build()
        if not log.series:
            raise LogError(f"expected a JSON document with lists of numbers by metric, found none in {self.path}")
        self._restarts()
        return self.log.build()

    def _restarts(self) -> None:
        last = float("-inf")
        for value in self.axis or ():
            if value < last:
                self.log.restart(value)
            last = value

    def _leaf(self, where: Path, text: str | None) -> None:
        where = _unwrap(where)
        if len(where) == 2 and where[0] == "columns" and isinstance(where[1], int) and text is not None:
            if len(self.columns) < 10_000:
                self.columns[where[1]] = text.strip('"')
            return
        if len(where) == 3 and where[0] == "data" and isinstance(where[2], int) and where[2] in self.columns:
            where = (where[1], self.columns[where[2]])
        place = list_place(where)
        if place is not None:
            self._point(place[0], place[1], text)
        elif where and isinstance(where[0], int) and all(isinstance(p, str) for p in where[1:]):
            self._entry(where[0], "/".join(map(str, where[1:])), text)

    def _point(self, name: str, index: int | str, text: str | None) -> None:
        if _is_left_out(name, self.axis_kind, columns=bool(self.columns)):
            return
        number = None if text is None else to_number(text)
        if number is None:
            if text is None:
                self.log.note(
                    f"{name!r} is null in places: pandas and others put null for NaN, it cannot be told from a missing value"
                )
            return
        position = int(index)
        in_axis = self.axis is not None and position < len(self.axis)
        step = self.axis[position] if self.axis is not None and in_axis else float(position)
        builder = self.log.series(name, self.axis_kind)
        if builder is not None:
            builder.add(step, number)

    def _entry(self, at: str | int, name: str, text: str | None) -> None:
        if at != self.record_at:
            self._end_record()
            self.record_at = at
            self.position += 1
        if len(self.record) < 10_000:
            self.record[name] = None if text is None else to_number(text)
            if text is not None and self.record[name] is None:
                del self.record[name]

    def _end_record(self) -> None:
        if self.record:
            self.sink.take(self.record, self.position)
        self.record = {}


def _unwrap(where: Path) -> Path:
    return where[1:] if len(where) > 1 and where[0] in _WRAPPERS else where


def list_place(where: Path) -> tuple[str, int | str] | None:
    """(name, position) of a leaf that is an entry of a list by metric."""
    where = _unwrap(where)
    if len(where) < 2 or not all(isinstance(part, str) for part in where[:-1]):
        return None
    last = where[-1]
    if isinstance(last, str) and not (last.isascii() and last.isdigit() and len(last) < 16):
        return None
    return "/".join(map(str, where[:-1])), last


@functools.lru_cache(maxsize=256)
def _is_left_out(name: str, kind: str, *, columns: bool) -> bool:
    """Whether a list is no metric: it counts steps of this kind, tells the time, or is pandas' index."""
    return _axis_kind(name) == kind or is_clock(name) or (name == "index" and columns)


@functools.lru_cache(maxsize=256)
def _axis_kind(name: str) -> str:
    plain = normal(name)
    return (
        "step" if plain in STEP_NAMES else "epoch" if plain in EPOCH_NAMES else "batch" if plain in BATCH_NAMES else ""
    )
