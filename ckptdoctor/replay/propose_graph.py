"""Experiments with the model's graph: guarded formulas, finite masks, a normalisation that needs no batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ckptdoctor.model import Cause, Phase
from ckptdoctor.replay import surgery
from ckptdoctor.replay.activity import one_element_norms
from ckptdoctor.replay.code import number
from ckptdoctor.replay.lab import Trial
from ckptdoctor.replay.naming import operations
from ckptdoctor.replay.opwatch import CHOOSING
from ckptdoctor.replay.situation import Situation, named

SMALL, SMALL_HALF = 1e-6, 1e-3  # below 6e-5 float16 loses digits, and 1 / 1e-3 is still far from its largest number
LOWEST, LOWEST_HALF = -1e9, -3e4  # what a mask can add without becoming -inf
HIGHEST, HIGHEST_HALF = 80.0, 10.0  # exp of it is finite

Guard = Callable[[Any, Callable[..., Any], float], Callable[..., Any]]


def _from_below(ops: Any, plain: Callable[..., Any], small: float) -> Callable[..., Any]:
    return lambda x, *rest: plain(ops.maximum(x, small), *rest)


def _divisor(ops: Any, plain: Callable[..., Any], small: float) -> Callable[..., Any]:
    return lambda x, y: plain(x, ops.where(ops.abs(y) < small, small, y))


def _inside_one(ops: Any, plain: Callable[..., Any], small: float) -> Callable[..., Any]:
    return lambda x: plain(ops.clip(x, small - 1.0, 1.0 - small))


def _from_above(ops: Any, plain: Callable[..., Any], small: float) -> Callable[..., Any]:
    highest = HIGHEST_HALF if small == SMALL_HALF else HIGHEST
    return lambda x: plain(ops.minimum(x, highest))


GUARDS: Mapping[str, tuple[Guard, str]] = {
    "Log": (_from_below, "ops.log(ops.maximum(x, {small}))"),
    "Log2": (_from_below, "ops.log2(ops.maximum(x, {small}))"),
    "Log10": (_from_below, "ops.log10(ops.maximum(x, {small}))"),
    "Sqrt": (_from_below, "ops.sqrt(ops.maximum(x, {small}))"),
    "Rsqrt": (_from_below, "ops.rsqrt(ops.maximum(x, {small}))"),
    "Power": (_from_below, "ops.power(ops.maximum(x, {small}), exponent)"),
    "Divide": (_divisor, "x / ops.where(ops.abs(y) < {small}, {small}, y)"),
    "TrueDivide": (_divisor, "x / ops.where(ops.abs(y) < {small}, {small}, y)"),
    "Arccos": (_inside_one, "ops.arccos(ops.clip(x, {small} - 1, 1 - {small}))"),
    "Arcsin": (_inside_one, "ops.arcsin(ops.clip(x, {small} - 1, 1 - {small}))"),
    "Exp": (_from_above, "ops.exp(ops.minimum(x, {highest}))"),
}
"""Operations of `keras.ops` with a weak spot, how to keep their argument away from it, and the line to write."""


def guarded(at: Situation) -> list[Trial]:
    """The failing operation of the model's graph with its argument kept away from where it breaks."""
    point = at.point
    if point is None or at.step.dialect.legacy:
        return []
    operation = next((o for name, o in operations(at.model) if name == point.layer), None)
    if operation is None or type(operation).__name__ not in GUARDS:
        return []
    guard, code = GUARDS[type(operation).__name__]
    small = SMALL_HALF if at.half else SMALL
    highest = HIGHEST_HALF if at.half else HIGHEST
    line = code.format(small=number(small), highest=number(highest))
    return [
        surgery.in_place_trial(
            "guard_operation",
            f"the argument of {point.layer} kept away from where it breaks",
            Cause.MIXED_PRECISION if at.half else Cause.ARCHITECTURE,
            line,
            [(operation, "call", guard(at.step.dialect.keras.ops, operation.call, small))],
            layer=point.layer,
        )
    ]


def finite_mask(at: Situation) -> list[Trial]:
    """A large finite number in place of the -inf of a mask, where a row of nothing else made a NaN."""
    point = at.point
    if point is None or point.phase is not Phase.FORWARD or point.op in CHOOSING or at.step.dialect.legacy:
        return []
    if not any(o.nonfinite for o in point.operands):
        return []
    place = named(at, point.layer)
    thing = place.layer if place is not None else next((o for n, o in operations(at.model) if n == point.layer), None)
    if thing is None:
        return []
    lowest, ops, plain = LOWEST_HALF if at.half else LOWEST, at.step.dialect.keras.ops, thing.call

    def call(x: Any, *rest: Any, **named_ones: Any) -> Any:
        return plain(ops.maximum(x, lowest), *rest, **named_ones)

    return [
        surgery.in_place_trial(
            "finite_mask",
            f"{number(lowest)} instead of -inf in the mask before {point.layer}",
            Cause.MIXED_PRECISION if at.half else Cause.ARCHITECTURE,
            f"ops.where(allowed, scores, {number(lowest)})",
            [(thing, "call", call)],
            layer=point.layer,
        )
    ]


def layer_norm(at: Situation) -> list[Trial]:
    """LayerNormalization where a BatchNormalization sees one element; without another normalisation that does."""
    found = one_element_norms(at.step, at.activity, min(b.rows for b in at.batches))
    if not found or at.step.dialect.legacy:
        return []
    names = {name.rpartition("/")[2] for name in found}
    batch = any(one.class_name == "BatchNormalization" for one in at.step.owners.layers if one.name in found)
    where, name = ", ".join(found[:4]), found[0].rpartition("/")[2]
    return [
        surgery.rebuilt_trial(
            "layer_norm",
            f"LayerNormalization instead of BatchNormalization over one element in {where}"
            if batch
            else f"no normalisation over one element in {where}",
            Cause.ARCHITECTURE,
            f"keras.layers.LayerNormalization(name={name!r})  # or larger batches"
            if batch
            else f"# without layer {name!r}, or with an axis of more than one element",
            lambda config: surgery.with_layer_norms(config, names),
            policy=at.policy,
            layer=found[0],
        )
    ]
