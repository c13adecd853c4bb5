"""Watching every eager op: what it took, what it gave, in which layer, and whose gradient it computes.

Own op callback instead of `enable_check_numerics`: that one stops at the first hit (harmless ones included), skips
some ops, and cannot tell the layer of a backward op. Here the run goes on, and afterwards the way of a non-finite
value is followed back from the loss, a gradient or a weight to the op that made it out of finite operands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop
from tensorflow.python.framework import op_callbacks

from ckptdoctor.model import TensorGlimpse
from ckptdoctor.replay.dialect import Dialect

MAX_RECORDS = 200_000  # ops of one step; a long recurrence unrolled eagerly has tens of thousands
CHOOSING = frozenset({"Cast", "Select", "SelectV2", "Fill", "BroadcastTo"})
CARRYING = frozenset({"AddV2", "Mul", "Sub"})
SOURCES = frozenset({"ReadVariableOp", "Identity", "Const", "VarHandleOp"})


@dataclass(frozen=True, slots=True)
class OpRecord:
    """One executed op.

    Attributes:
        index: order of execution. op: its type. layer: innermost named layer it ran in.
        inputs, outputs: ids of the tensors. bad: ids of outputs with a non-finite entry.
        backward: part of the gradient computation. gradient_of: type of the forward op whose gradient it computes.
        forward: index of that forward op's record.
        operands, rows, kind: only where finite inputs gave a non-finite output: the inputs, the rows of the first
            bad output along the batch axis, and `nan` or `inf`.
    """

    index: int
    op: str
    layer: str | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    bad: tuple[int, ...]
    backward: bool
    gradient_of: str | None = None
    forward: int | None = None
    operands: tuple[TensorGlimpse, ...] = ()
    rows: tuple[int, ...] = ()
    kind: str = ""


def floats(value: Any) -> np.ndarray[Any, Any] | None:
    """The tensor as an array of a float type numpy can test, None for other types and for handles."""
    try:
        dtype = value.dtype
        if not (dtype.is_floating or dtype.is_complex):
            return None
        array = np.asarray(value.numpy())
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None
    return array.astype(np.float32) if array.dtype.itemsize < 4 or array.dtype.kind == "V" else array


def glimpse(name: str, value: Any) -> TensorGlimpse:
    """Shape and extremes of a tensor or array."""
    array = value if isinstance(value, np.ndarray) else floats(value)
    shape = tuple(int(e) for e in getattr(value, "shape", ()))
    dtype = str(getattr(value.dtype, "name", value.dtype))
    if array is None or not array.size:
        return TensorGlimpse(name, shape, dtype, 0, None, None)
    if array.dtype.kind == "c":
        array = np.abs(array)
    with np.errstate(all="ignore"):
        wide = array.astype(np.float64)
        finite = wide[np.isfinite(wide)]
        if not finite.size:
            return TensorGlimpse(name, shape, dtype, int(array.size), None, None)
        return TensorGlimpse(
            name,
            shape,
            dtype,
            int(array.size - finite.size),
            float(finite.min()),
            float(finite.max()),
            float(finite.mean()),
            float(finite.std()),
        )


def bad_rows(array: np.ndarray[Any, Any], rows: int, limit: int = 64) -> tuple[int, ...]:
    """Indices along the first axis with a non-finite entry, where that axis is the batch; empty otherwise."""
    if array.ndim == 0 or array.shape[0] != rows:
        return ()
    hit = ~np.isfinite(array.reshape(rows, -1)).all(axis=1)
    return tuple(int(n) for n in np.flatnonzero(hit)[:limit])


class OpWatch:
    """Records of all ops run eagerly inside `watching`."""

    def __init__(self, dialect: Dialect, names: dict[int, str], rows: int) -> None:
        self.records: list[OpRecord] = []
        self.bad: set[int] = set()
        self.masks: set[int] = set()  # tensors whose bad entries are all -inf and were put there to mask
        self.makers: set[int] = set()  # records that made something worse out of a mask
        self.producer: dict[int, int] = {}
        self.layer_outputs: list[tuple[str, str, Any]] = []  # (name, class, tensor), in order of execution
        self.layer_inputs: dict[str, Any] = {}
        self.backward = False
        self._dialect, self._names, self._rows = dialect, names, rows
        self._layers: list[str] = []
        self._gradient_of: tuple[str, int | None] | None = None
        self._pointer = 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[OpWatch]:
        """Install the callbacks for this thread."""
        layer_class = self._dialect.keras.layers.Layer
        plain_call, plain_gradient = layer_class.__call__, backprop._gradient_function  # noqa: SLF001
        watch = self

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            name = watch._names.get(id(layer))
            if name is None:
                return plain_call(layer, *args, **kwargs)
            watch._layers.append(name)
            try:
                outputs = plain_call(layer, *args, **kwargs)
            finally:
                watch._layers.pop()
            watch._keep(name, layer, args, outputs)
            return outputs

        def gradient(op_name: str, attrs: Any, count: int, inputs: Any, outputs: Any, *rest: Any) -> Any:
            watch._enter_gradient(op_name, inputs, outputs)
            try:
                return plain_gradient(op_name, attrs, count, inputs, outputs, *rest)
            finally:
                watch._gradient_of = None

        operation_class = _operation_class(self._dialect)
        plain_operation = operation_class.__call__ if operation_class is not None else None

        def operate(operation: Any, *args: Any, **kwargs: Any) -> Any:
            assert plain_operation is not None
            if isinstance(operation, layer_class) or id(operation) not in watch._names:
                return plain_operation(operation, *args, **kwargs)
            name = watch._names[id(operation)]
            watch._layers.append(name)
            try:
                outputs = plain_operation(operation, *args, **kwargs)
            finally:
                watch._layers.pop()
            watch._keep(name, operation, args, outputs)
            return outputs

        layer_class.__call__ = call
        if operation_class is not None:
            operation_class.__call__ = operate
        pywrap_tfe.TFE_Py_RegisterGradientFunction(gradient)
        op_callbacks.add_op_callback(self._on_op)
        try:
            yield self
        finally:
            op_callbacks.remove_op_callback(self._on_op)
            pywrap_tfe.TFE_Py_RegisterGradientFunction(plain_gradient)
            layer_class.__call__ = plain_call
            if operation_class is not None:
                operation_class.__call__ = plain_operation

    def _keep(self, name: str, layer: Any, args: tuple[Any, ...], outputs: Any) -> None:
        if args and hasattr(args[0], "dtype"):
            self.layer_inputs.setdefault(name, args[0])
        listed = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        self.layer_outputs.extend(
            (name, type(layer).__name__, tensor)
            for tensor in listed
            if hasattr(tensor, "dtype") and getattr(tensor.dtype, "is_floating", False)
        )

    def _enter_gradient(self, op_name: str, inputs: Any, outputs: Any) -> None:
        """Find the forward op whose gradient begins: the nearest one of that type that shares a tensor."""
        name = _text(op_name)
        ids = {i for t in (*(inputs or ()), *(outputs or ())) if (i := _id(t)) is not None}
        start = self._pointer or len(self.records)
        for index in range(start - 1, -1, -1):
            record = self.records[index]
            if record.backward or record.op != name:
                continue
            if not ids or ids & {*record.inputs, *record.outputs}:
                self._gradient_of, self._pointer = (name, index), index
                return
        self._gradient_of = (name, None)

    def _on_op(
        self, op_type: Any, inputs: Any, _attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None
    ) -> None:
        del op_name
        if graph is not None or len(self.records) >= MAX_RECORDS:
            return
        name = _text(op_type)
        into = tuple(i for t in inputs if (i := _id(t)) is not None)
        out = tuple(i for t in outputs if (i := _id(t)) is not None)
        bad, first = self._nonfinite(outputs)
        layer, gradient = (self._layers[-1] if self._layers else None), self._gradient_of
        forward = gradient[1] if gradient is not None else None
        if forward is not None:
            layer = self.records[forward].layer
        record = OpRecord(
            len(self.records), name, layer, into, out, bad, self.backward, gradient and gradient[0], forward
        )
        if bad and first is not None:
            spoilt = self.bad.intersection(into)
            self._note_mask(record, spoilt, inputs, first)
            if not spoilt or self._breaks_a_mask(record, spoilt, first):
                record = self._with_operands(record, inputs, first)
        for tensor in out:
            self.producer[tensor] = record.index
        self.bad.update(bad)
        self.records.append(record)

    def _breaks_a_mask(self, record: OpRecord, spoilt: set[int], first: np.ndarray[Any, Any]) -> bool:
        """Whether an op that was given -inf entries of masks only made a NaN or +inf of them.

        A mask of -inf is harmless in itself: a softmax turns it into 0. Over a row of nothing else it gives NaN.
        """
        if not spoilt <= self.masks or _only_low(first):
            return False
        self.makers.add(record.index)
        return True

    def _note_mask(
        self, record: OpRecord, spoilt: set[int], inputs: Sequence[Any], first: np.ndarray[Any, Any]
    ) -> None:
        """Remember an output that holds -inf as a mask does: by a cast or a choice, or carried on from another mask."""
        if not _only_low(first) or record.backward:
            return
        given = [a for t in inputs if (a := floats(t)) is not None and _only_low(a)]
        chosen = record.op in CHOOSING or (bool(given) and record.op in CARRYING)
        if spoilt <= self.masks if spoilt else chosen:
            self.masks.update(record.bad)

    def _nonfinite(self, outputs: Sequence[Any]) -> tuple[tuple[int, ...], np.ndarray[Any, Any] | None]:
        bad: list[int] = []
        first: np.ndarray[Any, Any] | None = None
        for tensor in outputs:
            array = floats(tensor)
            if array is not None and not np.isfinite(array).all():
                bad.append(int(tensor._id))  # noqa: SLF001
                first = array if first is None else first
        return tuple(bad), first

    def _with_operands(self, record: OpRecord, inputs: Sequence[Any], first: np.ndarray[Any, Any]) -> OpRecord:
        from dataclasses import replace

        operands = tuple(
            glimpse(f"input {n}", t) for n, t in enumerate(inputs) if hasattr(t, "dtype") and t.dtype.is_floating
        )
        kind = "nan" if np.isnan(first).any() else "inf"
        return replace(record, operands=operands, rows=bad_rows(first, self._rows), kind=kind)

    # --- afterwards ---------------------------------------------------------------------------

    def origins(self, targets: Iterable[int], *, backward_only: bool = False) -> tuple[list[OpRecord], set[int]]:
        """Follow non-finite tensors back to where they came from.

        Args:
            targets: ids of non-finite tensors that matter.
            backward_only: do not enter the forward pass: a masked forward value is the business of its gradient.

        Returns:
            ops that made a non-finite value out of finite operands, earliest first, and ids of non-finite tensors
            that no op made (recorded inputs, variables).
        """
        todo, seen = [t for t in targets if t in self.bad or t not in self.producer], set[int]()
        found: dict[int, OpRecord] = {}
        leaves: set[int] = set()
        while todo:
            tensor = todo.pop()
            if tensor in seen:
                continue
            seen.add(tensor)
            index = self.producer.get(tensor)
            if index is None:
                leaves.add(tensor)
                continue
            record = self.records[index]
            causes = [i for i in record.inputs if i in self.bad]
            if backward_only:
                causes = [i for i in causes if i not in self.producer or self.records[self.producer[i]].backward]
            if causes and record.op != "ReadVariableOp" and record.index not in self.makers:
                todo.extend(causes)
            else:
                found[record.index] = record
        return [found[n] for n in sorted(found)], leaves

    def mark_bad(self, tensor: Any) -> None:
        """Tell that a tensor no op made (an input) holds non-finite entries."""
        if (i := _id(tensor)) is not None:
            self.bad.add(i)

    def masked_by_where(self, forward: int | None) -> bool:
        """Whether the output of a forward op ends in a `where` within a few ops."""
        if forward is None:
            return False
        reached = set(self.records[forward].outputs)
        for record in self.records[forward + 1 : forward + 200]:
            if record.backward:
                break
            if reached.intersection(record.inputs):
                if record.op in ("SelectV2", "Select"):
                    return True
                reached.update(record.outputs)
        return False


def _operation_class(dialect: Dialect) -> Any | None:
    """Keras 3's class of bare operations; Keras 2 has none."""
    return None if dialect.legacy else getattr(dialect.keras, "Operation", None)


def _only_low(array: np.ndarray[Any, Any]) -> bool:
    """Whether there are non-finite entries, and all of them are -inf."""
    if array.dtype.kind == "c":
        return False
    bad = array[~np.isfinite(array)]
    return bool(bad.size) and bool((bad == -np.inf).all())


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _id(tensor: Any) -> int | None:
    value = getattr(tensor, "_id", None)
    return value if isinstance(value, int) else None
