"""Pickles read as data: a stack machine over plain values. Nothing is imported, called or constructed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ckptdoctor.checkpoints.dtypes import plausible
from ckptdoctor.checkpoints.sources import Window

_TEXT_BYTES = 4096  # the longest text that a table of weights needs
_OPCODES = 1_000_000  # opcodes in one member; a layer takes about 60 a variable
_SEARCHED = 20_000  # parts of one variable that are looked through for its array


class Refused(Exception):  # noqa: N818 - reads as what happened
    """A pickle that does more than hold arrays."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes inside the pickle, by place: never copied."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Global:
    name: str


@dataclass(slots=True)
class Noted:
    """An object that unpickling would have made: what it would have been made of."""

    arguments: Any
    state: Any = None


@dataclass(slots=True)
class Dtype:
    code: str
    order: str = "<"


@dataclass(slots=True)
class Array:
    shape: tuple[int, ...] = ()
    dtype: Dtype | None = None
    fortran: bool = False
    data: Any = None

    def fill(self, state: Any) -> None:
        """Take the state that numpy pickles: (version, shape, dtype, Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("its pickle has an array without a state")
        _, shape, dtype, fortran, data = state
        if (
            not isinstance(shape, tuple)
            or not all(isinstance(e, int) for e in shape)
            or not plausible(shape, 16)
            or len(shape) > 32
        ):
            raise Refused("its pickle has an array with an impossible shape")
        self.shape, self.fortran, self.data = shape, bool(fortran), data
        self.dtype = dtype if isinstance(dtype, Dtype) else None


def array_in(value: Any) -> tuple[Array | None, str | None]:
    """The first array in what a variable is made of, and the layer's name where a variable's path gives it."""
    layer: str | None = None
    if isinstance(value, Noted) and isinstance(value.state, dict):
        path = value.state.get("_path")
        if isinstance(path, str) and path.count("/"):
            layer = path.split("/")[-2]
    stack, seen = [value], set[int]()
    while stack and len(seen) < _SEARCHED:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Array) and isinstance(item.data, Blob):
            return item, layer
        if isinstance(item, tuple) and len(item) == 5 and isinstance(item[2], Dtype) and isinstance(item[4], Blob):
            array = Array()
            array.fill(item)  # the state of an array whose maker is another library
            return array, layer
        if isinstance(item, Noted):
            stack += [item.state, item.arguments]
        elif isinstance(item, (tuple, list)):
            stack.extend(reversed(item))
        elif isinstance(item, dict):
            stack.extend(reversed(item.values()))
    return None, layer


class Pickle:
    """A pickle read as data: a stack machine over plain values."""

    def __init__(self, window: Window, start: int) -> None:
        self.window, self.at = window, start
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value of the pickle.

        Raises:
            Refused: an opcode or a name that holding arrays does not need.
        """
        try:
            for _ in range(_OPCODES):
                code = self._take(1)
                if code == b".":
                    return self.stack.pop()
                step = _STEPS.get(code)
                if step is None:
                    raise Refused(f"its pickle uses opcode {code!r}, which no table of weights needs")
                step(self)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise Refused(f"its pickle is damaged ({type(error).__name__})") from None
        raise Refused("its pickle is longer than any layer needs")

    def _take(self, count: int) -> bytes:
        data = self.window.read(self.at, count)
        if len(data) != count:
            raise Refused("its pickle is cut off")
        self.at += count
        return data

    def number(self, width: int) -> int:
        return int.from_bytes(self._take(width), "little")

    def text(self, width: int) -> None:
        length = self.number(width)
        if length > _TEXT_BYTES:
            raise Refused("its pickle holds an oversized text")
        self.stack.append(self._take(length).decode("utf-8", "replace"))

    def blob(self, width: int) -> None:
        length = self.number(width)
        if self.at + length > self.window.size:
            raise Refused("its pickle is cut off")
        self.stack.append(Blob(self.at, length))
        self.at += length

    def line(self) -> str:
        data = self.window.read(self.at, 256)
        end = data.find(b"\n")
        if end < 0:
            raise Refused("its pickle is damaged (no end of a name)")
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
            raise Refused("its pickle is damaged (memo)")
        self.memo[index] = self.stack[-1]

    def name(self, module: str, name: str) -> None:
        if module.split(".", 1)[0] not in _MODULES:
            raise Refused(f"its pickle names {module[:60]}.{name[:60]}, which no table of weights needs")
        self.stack.append(Global(f"{module}.{name}"))

    def reduce(self) -> None:
        """A call: only numpy's own two are understood, every other is noted."""
        arguments, function = self.stack.pop(), self.stack.pop()
        name = function.name if isinstance(function, Global) else ""
        if name.startswith("numpy.") and name.endswith("multiarray._reconstruct"):
            self.stack.append(Array())
        elif name.startswith("numpy.") and name.endswith("multiarray.scalar") and len(arguments) == 2:
            dtype = arguments[0] if isinstance(arguments[0], Dtype) else None
            self.stack.append(Array((), dtype, data=arguments[1]))
        elif name == "numpy.dtype":
            code = arguments[0]
            self.stack.append(Dtype(code.name.rpartition(".")[2] if isinstance(code, Global) else str(code)))
        else:
            self.stack.append(Noted((function, arguments)))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Dtype):
            if isinstance(state, tuple) and len(state) > 1 and state[1] in (">", "<", "|", "="):
                target.order = state[1]
        elif isinstance(target, Array):
            target.fill(state)
        elif isinstance(target, Noted):
            target.state = state

    def put(self, pairs: list[Any], target: Any) -> None:
        if not isinstance(target, dict):
            raise Refused("its pickle fills something that is not a dictionary")
        for i in range(0, len(pairs) - 1, 2):
            if isinstance(pairs[i], str):
                target[pairs[i]] = pairs[i + 1]


_MODULES = frozenset(
    {"numpy", "ml_dtypes", "keras", "tensorflow", "jax", "jaxlib", "torch", "functools", "collections", "copyreg"}
)


def _append(machine: Pickle, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise Refused("its pickle fills something that is not a list")
    target.extend(items)


def _set_items(machine: Pickle) -> None:
    items = machine.popped_mark()
    machine.put(items, machine.stack[-1])


def _set_item(machine: Pickle) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.put([key, value], machine.stack[-1])


def _stack_global(machine: Pickle) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.name(str(module), str(name))


def _signed(machine: Pickle) -> None:
    value = machine.number(4)
    machine.stack.append(value - (1 << 32) if value >> 31 else value)


def _long(machine: Pickle) -> None:
    length = machine.number(1)
    machine.stack.append(int.from_bytes(machine._take(length), "little", signed=True))  # noqa: SLF001 - its own step


_STEPS: dict[bytes, Callable[[Pickle], None]] = {
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
