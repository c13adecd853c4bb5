"""Weights in `model.weights.npz`: one pickled dictionary of arrays per layer, read without unpickling.

Keras stores a Python dictionary per layer, which numpy can only write as a pickle, with whole `Variable` objects in it. The
opcodes are interpreted here over plain values: what the pickle would call or construct is only noted, never imported or
called, and the arrays are found in the notes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ckptdoctor.checkpoints.contract import CheckpointError, Span
from ckptdoctor.checkpoints.dtypes import canonical_name, is_known, itemsize
from ckptdoctor.checkpoints.keras3 import Chunks, RawTensor, known_dtype_problem, span_chunks, unreadable
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import SliceOf, Window
from ckptdoctor.checkpoints.zips import member_window, read_archive
from ckptdoctor.model import Problem, ProblemKind

_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"^\{'descr': '(?P<descr>[^']{1,40})', 'fortran_order': (?P<fortran>True|False), 'shape': \((?P<shape>[0-9, ]*)\), ?\}\s*$"
)
_HEADER_BYTES = 4096
_OPCODES = 1_000_000  # opcodes in one member; a layer takes about 60 a variable
_EXTENT = 1 << 48  # entries along one axis: more than any file holds
_SEARCHED = 20_000  # parts of one variable that are looked through for its array
_ROOT = "__root__"


class _Refused(Exception):  # noqa: N818 - reads as what happened
    """A pickle that does more than hold arrays."""


@dataclass(frozen=True, slots=True)
class _Blob:
    """Bytes inside the pickle, by place: never copied."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(slots=True)
class _Noted:
    """An object that unpickling would have made: what it would have been made of."""

    arguments: Any
    state: Any = None


@dataclass(slots=True)
class _Dtype:
    code: str
    order: str = "<"


@dataclass(slots=True)
class _Array:
    shape: tuple[int, ...] = ()
    dtype: _Dtype | None = None
    fortran: bool = False
    data: Any = None

    def fill(self, state: Any) -> None:
        """Take the state that numpy pickles: (version, shape, dtype, Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("its pickle has an array without a state")
        _, shape, dtype, fortran, data = state
        if (
            not isinstance(shape, tuple)
            or not all(isinstance(e, int) and 0 <= e < _EXTENT for e in shape)
            or len(shape) > 32
        ):
            raise _Refused("its pickle has an array with an impossible shape")
        self.shape, self.fortran, self.data = shape, bool(fortran), data
        self.dtype = dtype if isinstance(dtype, _Dtype) else None


def read_npz_weights(window: Window, limits: ReadLimits) -> tuple[list[RawTensor], dict[str, str], list[Problem]]:
    """The tensors of a `model.weights.npz`, the user's layer names by group, and what could not be read.

    Raises:
        CheckpointError: not an npz archive.
    """
    archive = read_archive(SliceOf(window), limits)
    problems = list(archive.problems)
    raws: list[RawTensor] = []
    names: dict[str, str] = {}
    for order, name in enumerate(archive.members):
        group = name.removesuffix(".npy")
        group = "" if group == _ROOT else group
        try:
            member = member_window(archive, name, limits)
            for key, value in _member_values(member).items():
                path = f"{group}/vars/{key}" if group else f"vars/{key}"
                array, layer = _array_in(value)
                if array is None:
                    problems.append(Problem(ProblemKind.UNSUPPORTED, f"{path} in the npz holds no numpy array", path))
                    continue
                raws.append(_raw(path, order, array, member))
                if layer and group:
                    names.setdefault(group, layer)
        except _Refused as error:
            problems.append(Problem(ProblemKind.HOSTILE, f"{name} in the npz was not read: {error}", name))
        except CheckpointError as error:
            problems.append(Problem(ProblemKind.DAMAGED, str(error), name))
    return raws, names, problems


def _member_values(window: Window) -> dict[str, Any]:
    """The variables of one `.npy` member by number."""
    head = window.read(0, 12)
    if head[:6] != _MAGIC or len(head) < 12:
        raise CheckpointError("a part of the npz is not a numpy array")
    wide = head[6] >= 2
    start = 12 if wide else 10
    length = int.from_bytes(head[8:12] if wide else head[8:10], "little")
    if length > _HEADER_BYTES:
        raise CheckpointError("a part of the npz has an oversized header")
    found = _HEADER.match(window.read(start, length).decode("latin-1"))
    if found is None:
        raise CheckpointError("a part of the npz has a header that numpy does not write")
    if found["descr"] != "|O":
        raise _Refused("it holds a plain array where a dictionary of variables belongs")
    value = _Pickle(window, start + length).run()
    if isinstance(value, _Array) and isinstance(value.data, list) and len(value.data) == 1:
        value = value.data[0]
    if not isinstance(value, dict):
        raise _Refused("it does not hold a dictionary of variables")
    return value


def _array_in(value: Any) -> tuple[_Array | None, str | None]:
    """The first array in what a variable is made of, and the layer's name where a variable's path gives it."""
    layer: str | None = None
    if isinstance(value, _Noted) and isinstance(value.state, dict):
        path = value.state.get("_path")
        if isinstance(path, str) and path.count("/"):
            layer = path.split("/")[-2]
    stack, seen = [value], set[int]()
    while stack and len(seen) < _SEARCHED:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, _Array) and isinstance(item.data, _Blob):
            return item, layer
        if isinstance(item, tuple) and len(item) == 5 and isinstance(item[2], _Dtype) and isinstance(item[4], _Blob):
            array = _Array()
            array.fill(item)  # the state of an array whose maker is another library
            return array, layer
        if isinstance(item, _Noted):
            stack += [item.state, item.arguments]
        elif isinstance(item, (tuple, list)):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend(reversed(item.values()))
    return None, layer


def _raw(path: str, order: int, array: _Array, window: Window) -> RawTensor:
    dtype, problem = _dtype_name(array.dtype, path)
    width = itemsize(dtype) if is_known(dtype) else 0
    nbytes = math.prod(array.shape) * width
    span: Span | None = None
    chunks: Chunks
    blob = array.data
    if problem is None and (not isinstance(blob, _Blob) or blob.length != nbytes):
        problem = f"{path} declares {nbytes:,} bytes but stores {blob.length if isinstance(blob, _Blob) else 0:,}"
    if problem is None and isinstance(blob, _Blob):
        span = Span(window.source, window.offset + blob.offset, nbytes)
        chunks = span_chunks(span)
        if array.fortran and len(array.shape) > 1:
            chunks, span = _transposed(span, array.shape, width), None
    else:
        chunks = unreadable(problem or path)
    return RawTensor(path, order, array.shape, dtype, nbytes, span, chunks, problem)


def _transposed(span: Span, shape: tuple[int, ...], width: int) -> Chunks:
    """Chunks in C order of an array that is stored in Fortran order; holds it in memory once while read."""

    def chunks() -> Iterator[bytes | memoryview]:
        import numpy as np

        raw = span.source.read(span.offset, span.nbytes)
        array = np.frombuffer(raw, dtype=f"V{width}").reshape(shape, order="F")
        yield np.ascontiguousarray(array).tobytes()

    return chunks


def _dtype_name(dtype: _Dtype | None, path: str) -> tuple[str, str | None]:
    if dtype is None:
        return "unknown", f"{path} has no dtype"
    if is_known(dtype.code):
        return dtype.code, None
    code = {"b1": "?"}.get(dtype.code, dtype.code)
    if re.fullmatch(r"[?biufc]\d{0,2}", code):
        import numpy as np

        try:
            name = canonical_name(np.dtype(code).newbyteorder(">" if dtype.order == ">" else "<"))
        except TypeError:
            name = None
        if name is not None:
            return name, None
    return dtype.code[:40], known_dtype_problem(path, dtype.code[:40])


class _Pickle:
    """A pickle read as data: a stack machine over plain values."""

    def __init__(self, window: Window, start: int) -> None:
        self.window, self.at = window, start
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value of the pickle.

        Raises:
            _Refused: an opcode or a name that holding arrays does not need.
        """
        try:
            for _ in range(_OPCODES):
                code = self._take(1)
                if code == b".":
                    return self.stack.pop()
                step = _STEPS.get(code)
                if step is None:
                    raise _Refused(f"its pickle uses opcode {code!r}, which no table of weights needs")
                step(self)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise _Refused(f"its pickle is damaged ({type(error).__name__})") from None
        raise _Refused("its pickle is longer than any layer needs")

    def _take(self, count: int) -> bytes:
        data = self.window.read(self.at, count)
        if len(data) != count:
            raise _Refused("its pickle is cut off")
        self.at += count
        return data

    def number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def text(self, width: int) -> None:
        length = self.number(width)
        if length > _HEADER_BYTES:
            raise _Refused("its pickle holds an oversized text")
        self.stack.append(self._take(length).decode("utf-8", "replace"))

    def blob(self, width: int) -> None:
        length = self.number(width)
        if self.at + length > self.window.size:
            raise _Refused("its pickle is cut off")
        self.stack.append(_Blob(self.at, length))
        self.at += length

    def line(self) -> str:
        data = self.window.read(self.at, 256)
        end = data.find(b"\n")
        if end < 0:
            raise _Refused("its pickle is damaged (no end of a name)")
        self.at += end + 1
        return data[:end].decode("utf-8", "replace")

    def skip(self, count: int) -> None:
        self._take(count)

    def popped(self) -> None:
        self.stack.pop()

    def blob_of(self, length: int) -> None:
        self._take(length)
        self.stack.append(None)  # a float: no table of weights depends on one

    def popped_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack[len(self.stack) - count :])
        if len(items) != count:
            raise IndexError
        del self.stack[len(self.stack) - count :]
        self.stack.append(items)

    def remember(self, index: int) -> None:
        if index > _OPCODES:
            raise _Refused("its pickle is damaged (memo)")
        self.memo[index] = self.stack[-1]

    def name(self, module: str, name: str) -> None:
        if module.split(".", 1)[0] not in _MODULES:
            raise _Refused(f"its pickle names {module[:60]}.{name[:60]}, which no table of weights needs")
        self.stack.append(_Global(f"{module}.{name}"))

    def reduce(self) -> None:
        """A call: only numpy's own two are understood, every other is noted."""
        arguments, function = self.stack.pop(), self.stack.pop()
        name = function.name if isinstance(function, _Global) else ""
        if name.startswith("numpy.") and name.endswith("multiarray._reconstruct"):
            self.stack.append(_Array())
        elif name.startswith("numpy.") and name.endswith("multiarray.scalar") and len(arguments) == 2:
            dtype = arguments[0] if isinstance(arguments[0], _Dtype) else None
            self.stack.append(_Array((), dtype, data=arguments[1]))
        elif name == "numpy.dtype":
            code = arguments[0]
            self.stack.append(_Dtype(code.name.rpartition(".")[2] if isinstance(code, _Global) else str(code)))
        else:
            self.stack.append(_Noted((function, arguments)))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, _Dtype):
            if isinstance(state, tuple) and len(state) > 1 and state[1] in (">", "<", "|", "="):
                target.order = state[1]
        elif isinstance(target, _Array):
            target.fill(state)
        elif isinstance(target, _Noted):
            target.state = state

    def put(self, pairs: list[Any], target: Any) -> None:
        if not isinstance(target, dict):
            raise _Refused("its pickle fills something that is not a dictionary")
        for i in range(0, len(pairs) - 1, 2):
            if isinstance(pairs[i], str):
                target[pairs[i]] = pairs[i + 1]


_MODULES = frozenset(
    {"numpy", "ml_dtypes", "keras", "tensorflow", "jax", "jaxlib", "torch", "functools", "collections", "copyreg"}
)


def _append(machine: _Pickle, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise _Refused("its pickle fills something that is not a list")
    target.extend(items)


def _set_items(machine: _Pickle) -> None:
    items = machine.popped_mark()
    machine.put(items, machine.stack[-1])


def _set_item(machine: _Pickle) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.put([key, value], machine.stack[-1])


def _stack_global(machine: _Pickle) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.name(str(module), str(name))


def _signed(machine: _Pickle) -> None:
    value = machine.number(4)
    machine.stack.append(value - (1 << 32) if value >> 31 else value)


def _long(machine: _Pickle) -> None:
    length = machine.number(1)
    machine.stack.append(int.from_bytes(machine._take(length), "little", signed=True))  # noqa: SLF001 - its own step


_STEPS: dict[bytes, Callable[[_Pickle], None]] = {
    b"\x80": lambda m: m.skip(1),  # PROTO
    b"\x95": lambda m: m.skip(8),  # FRAME
    b"\x8c": lambda m: m.text(1),  # SHORT_BINUNICODE
    b"X": lambda m: m.text(4),  # BINUNICODE
    b"C": lambda m: m.blob(1),  # SHORT_BINBYTES
    b"B": lambda m: m.blob(4),  # BINBYTES
    b"\x8e": lambda m: m.blob(8),  # BINBYTES8
    b"\x94": lambda m: m.remember(len(m.memo)),  # MEMOIZE
    b"q": lambda m: m.remember(m.number(1)),  # BINPUT
    b"r": lambda m: m.remember(m.number(4)),  # LONG_BINPUT
    b"h": lambda m: m.stack.append(m.memo[m.number(1)]),  # BINGET
    b"j": lambda m: m.stack.append(m.memo[m.number(4)]),  # LONG_BINGET
    b"K": lambda m: m.stack.append(m.number(1)),  # BININT1
    b"M": lambda m: m.stack.append(m.number(2)),  # BININT2
    b"J": _signed,  # BININT
    b"\x8a": _long,  # LONG1
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b")": lambda m: m.stack.append(()),
    b"]": lambda m: m.stack.append([]),
    b"}": lambda m: m.stack.append({}),
    b"(": lambda m: m.marks.append(len(m.stack)),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"t": lambda m: m.stack.append(tuple(m.popped_mark())),
    b"a": lambda m: _append(m, [m.stack.pop()]),
    b"e": lambda m: _append(m, m.popped_mark()),
    b"s": _set_item,
    b"u": _set_items,
    b"c": lambda m: m.name(m.line(), m.line()),  # GLOBAL
    b"\x93": _stack_global,
    b"R": lambda m: m.reduce(),
    b"\x81": lambda m: m.reduce(),  # NEWOBJ
    b"\x8f": lambda m: m.stack.append([]),  # EMPTY_SET
    b"\x90": lambda m: _append(m, m.popped_mark()),  # ADDITEMS
    b"0": lambda m: m.popped(),
    b"G": lambda m: m.blob_of(8),  # BINFLOAT
    b"b": lambda m: m.build(),
}
