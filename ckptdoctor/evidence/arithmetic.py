"""Arithmetic in a model's graph that can leave the numbers: a division by what may be zero, a constant its dtype cannot hold.

Operations used on symbolic tensors are stored in the configuration with their constants, so the graph can be read like a
formula. For each tensor a lower bound is followed from its layer on (relu is never negative, a sum of squares neither,
adding a positive epsilon makes it positive); an operation whose operand is not bounded away from its pole is a hazard.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckptdoctor.model import LayerSpec, ModelSpec, Operand

RANGE: Mapping[str, tuple[float, float]] = {
    # dtype: (half of the smallest number above 0, which rounds to 0; largest number), IEEE 754
    "float16": (2.0**-25, 65504.0),
    "bfloat16": (2.0**-134, 3.3895313892515355e38),
    "float32": (2.0**-150, 3.4028234663852886e38),
}


class Bound(enum.IntEnum):
    """What is known of a tensor's smallest value."""

    ANY = 0
    NONNEGATIVE = 1
    UNDERFLOWS = 2  # positive on paper; for large negative inputs it rounds to 0
    POSITIVE = 3


@dataclass(frozen=True, slots=True)
class Hazard:
    """One operation that can leave the numbers.

    Attributes:
        layer: flattened name of the layer where the first non-finite value would appear.
        kind: `division`, `logarithm`, `root`, `lost_constant` (an epsilon that rounds to 0) or `overflowing_constant`.
        why: one clause.
        bound: of the operand in question.
        dtype: whose range is exceeded, for the two kinds about constants.
        constant: the constant, for those.
    """

    layer: str
    kind: str
    why: str
    bound: Bound
    dtype: str | None = None
    constant: float | None = None


_ACTIVATIONS = {
    "relu": Bound.NONNEGATIVE,
    "relu6": Bound.NONNEGATIVE,
    "hard_sigmoid": Bound.NONNEGATIVE,
    "softplus": Bound.UNDERFLOWS,
    "sigmoid": Bound.UNDERFLOWS,
    "softmax": Bound.UNDERFLOWS,
    "exponential": Bound.UNDERFLOWS,
    "exp": Bound.UNDERFLOWS,
}
_NEVER_NEGATIVE = frozenset({"abs", "absolute", "square", "norm", "relu", "relu6", "var", "std", "softsquare"})
_KEEPS = frozenset(
    {
        "sum",
        "mean",
        "max",
        "min",
        "amax",
        "amin",
        "sqrt",
        "cast",
        "reshape",
        "expanddims",
        "squeeze",
        "getitem",
        "transpose",
        "broadcastto",
        "repeat",
        "concatenate",
        "reducesum",
        "reducemean",
        "reducemax",
        "reducemin",
        "average",
        "maximum",
        "minimum",
        "dropout",
        "flatten",
        "permute",
        "globalaveragepooling1d",
        "globalaveragepooling2d",
        "globalmaxpooling1d",
        "globalmaxpooling2d",
        "maxpooling1d",
        "maxpooling2d",
        "averagepooling1d",
        "averagepooling2d",
        "identity",
        "stopgradient",
        "repeatvector",
    }
)
_DIVIDES = frozenset({"divide", "truediv", "truedivide", "realdiv", "div"})
_LOGARITHMS = frozenset({"log", "log2", "log10"})
_POLE_AT_ZERO = frozenset({"reciprocal", "rsqrt"})
_ROOTS = frozenset({"sqrt", "std"})
_SUMS = frozenset({"add", "addv2"})
_PRODUCTS = frozenset({"multiply", "mul"})


def hazards(spec: ModelSpec) -> tuple[Hazard, ...]:
    """Every hazardous operation, in the graph's order; empty where the configuration has no graph."""
    if not spec.graph_known:
        return ()
    reader = _Reader(spec)
    return tuple(reader.all())


def operation(layer: LayerSpec) -> str:
    """What the layer computes, in lower case without separators: `truediv` for Keras 2's `TFOpLambda` of `math.truediv`."""
    name = layer.class_name
    if name in ("TFOpLambda", "TensorFlowOpLayer"):
        function = layer.config.get("function")
        name = function.rpartition(".")[2] if isinstance(function, str) else name
    return name.replace("_", "").lower()


class _Reader:
    def __init__(self, spec: ModelSpec) -> None:
        self.layers = {layer.name: layer for layer in spec.layers}
        self.order = spec.layers
        self.bounds: dict[str, Bound] = {}
        self.dtypes: dict[str, str] = {}
        self.lost: dict[str, tuple[float, str]] = {}
        self.huge: dict[str, tuple[float, str]] = {}

    def all(self) -> Iterator[Hazard]:
        for layer in self.order:  # topological, so operands are known
            dtype = self._dtype(layer)
            self.dtypes[layer.name] = dtype
            self._inherit(layer, dtype)
            yield from self._poles(layer)
            yield from self._overflows(layer, dtype)
            self.bounds[layer.name] = self._bound(layer, dtype)

    def _dtype(self, layer: LayerSpec) -> str:
        """In which the layer computes: its policy's, or for an operation that of its tensors."""
        if layer.config.get("dtype") is not None:
            return layer.dtype_policy.removeprefix("mixed_")
        known = [o.dtype or self.dtypes.get(o.layer, "float32") for o in layer.operands if o.layer is not None]
        for wide in ("float64", "float32"):
            if wide in known:
                return wide
        return next((k for k in known if k in RANGE), "float32")

    def _inherit(self, layer: LayerSpec, dtype: str) -> None:
        """A lost epsilon stays lost, and a huge constant huge, along operations that keep values as they are."""
        small = RANGE.get(dtype, (0.0, math.inf))[0]
        numbers = [o.number for o in layer.operands if o.number is not None and math.isfinite(o.number)]
        name = operation(layer)
        if name in _SUMS:
            for number in numbers:
                if 0 < abs(number) <= small:
                    self.lost[layer.name] = (number, dtype)
        if name in _SUMS | _PRODUCTS | {"where", "subtract", "fulllike"}:
            for number in numbers:
                if abs(number) > RANGE["float16"][1]:
                    self.huge[layer.name] = (number, dtype)
        for operand in layer.operands:
            if operand.layer in self.lost and name in _KEEPS:
                self.lost.setdefault(layer.name, self.lost[operand.layer])
            if operand.layer in self.huge and (name in _KEEPS | _SUMS | _PRODUCTS or name == "where"):
                self.huge.setdefault(layer.name, self.huge[operand.layer])

    def _poles(self, layer: LayerSpec) -> Iterator[Hazard]:
        name = operation(layer)
        operands = layer.operands
        if name in _DIVIDES and len(operands) == 2:
            yield from self._pole(layer, "division", operands[1], Bound.UNDERFLOWS, "divides by")
        elif name in _POLE_AT_ZERO and operands:
            yield from self._pole(layer, "division", operands[0], Bound.UNDERFLOWS, "divides by")
        elif name in _LOGARITHMS and operands:
            yield from self._pole(layer, "logarithm", operands[0], Bound.POSITIVE, "takes the logarithm of")
        elif operands and (name in _ROOTS or (name in ("power", "pow") and _fraction(operands))):
            lost = self.lost.get(operands[0].layer or "")
            if lost is None:  # a lost epsilon under a root is told at the division behind it
                yield from self._pole(layer, "root", operands[0], Bound.UNDERFLOWS, "takes the root of")

    def _pole(self, layer: LayerSpec, kind: str, operand: Operand, enough: Bound, does: str) -> Iterator[Hazard]:
        if operand.layer is None:
            return
        bound = self.bounds.get(operand.layer, Bound.ANY)
        lost = self.lost.get(operand.layer)
        if lost is not None and bound < enough:
            why = f"{does} {operand.layer}, whose epsilon {lost[0]:g} is 0 in {lost[1]}"
            yield Hazard(layer.name, "lost_constant", why, bound, lost[1], lost[0])
        elif bound < enough:
            what = {
                Bound.ANY: "can have either sign",
                Bound.NONNEGATIVE: "can be exactly 0",
                Bound.UNDERFLOWS: "rounds to 0 where its input is very negative",
            }[bound]
            yield Hazard(layer.name, kind, f"{does} {operand.layer}, which {what}", bound)

    def _overflows(self, layer: LayerSpec, dtype: str) -> Iterator[Hazard]:
        """A constant beyond the dtype is infinite there; softmax over a row of such values is the first NaN."""
        largest = RANGE.get(dtype, (0.0, math.inf))[1]
        for operand in layer.operands:
            found = self.huge.get(operand.layer or "")
            if found is None or abs(found[0]) <= largest:
                continue
            if operation(layer) == "softmax" or layer.activation == "softmax":
                why = f"is a softmax over {operand.layer}, where {found[0]:g} is infinite in {dtype}: a row of them has no softmax"
                yield Hazard(layer.name, "overflowing_constant", why, Bound.ANY, dtype, found[0])
                return

    def _bound(self, layer: LayerSpec, dtype: str) -> Bound:
        if layer.activation in _ACTIVATIONS:
            return _ACTIVATIONS[layer.activation]
        name = operation(layer)
        bounds = [self._of(o, dtype) for o in layer.operands]
        if not bounds:
            return Bound.ANY
        if name in _NEVER_NEGATIVE:
            return Bound.NONNEGATIVE
        if name in _SUMS:
            low = min(bounds)
            return max(bounds) if low > Bound.ANY else Bound.ANY
        if name in _PRODUCTS:
            same = len(layer.operands) == 2 and layer.operands[0] == layer.operands[1]
            return Bound.NONNEGATIVE if same else min(bounds)
        if name == "maximum":
            return max(bounds)
        if name == "clip":
            low_end = layer.config.get("x_min", layer.config.get("clip_value_min"))
            if isinstance(low_end, int | float) and not isinstance(low_end, bool):
                return self._of(Operand(number=float(low_end)), dtype)
            return Bound.ANY
        if name in ("power", "pow") and layer.operands[-1].number is not None and layer.operands[-1].number % 2 == 0:
            return Bound.NONNEGATIVE
        if name == "exp":
            return Bound.UNDERFLOWS
        if name in _KEEPS:
            return min(bounds)
        if name in _DIVIDES and len(bounds) == 2:
            return min(bounds)
        return Bound.ANY

    def _of(self, operand: Operand, dtype: str) -> Bound:
        if operand.layer is not None:
            return self.bounds.get(operand.layer, Bound.ANY)
        number = operand.number or 0.0
        if number > RANGE.get(dtype, (0.0, 0.0))[0]:
            return Bound.POSITIVE
        return Bound.NONNEGATIVE if number >= 0 else Bound.ANY


def _fraction(operands: tuple[Operand, ...]) -> bool:
    exponent = operands[-1].number
    return exponent is not None and 0 < exponent < 1
