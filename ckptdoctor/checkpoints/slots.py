"""Which optimizer variable belongs to which weight.

`optimizer/vars/<i>` has no names: the order is iteration, learning rate (unless a schedule), loss-scale scalars, moving
averages, gradient accumulators, then the optimizer's slots per weight. The weights come in the order of the model's
trainable variables. A layout is only believed where every shape agrees; what remains ambiguous stays None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptdoctor.checkpoints.alignment import Block, Shape, TrainVar, align
from ckptdoctor.checkpoints.layers import snake_case
from ckptdoctor.model import JsonObject, Missing

Groups = tuple[tuple[str, ...], ...]

_ADAM: Groups = (("momentum", "velocity"),)
# Interleaved names stand in one tuple; a further tuple is a further round over all weights.
_GROUPS: dict[str, Groups] = {
    "Adam": _ADAM,
    "AdamW": _ADAM,
    "Nadam": _ADAM,
    "Lamb": _ADAM,
    "Adamax": (("momentum", "norm"),),
    "Adagrad": (("accumulator",),),
    "Adadelta": (("accumulated_grad", "accumulated_delta_var"),),
    "Ftrl": (("accumulator", "linear"),),
    "Lion": (("momentum",),),
    "RMSprop": (("velocity",),),
    "SGD": (),
    "Adafactor": (("row_mean", "column_mean", "velocity"),),
}
# Optimizers whose options add rounds: how the file looks with each, tried where the configuration is silent.
_OPTIONS: dict[str, tuple[tuple[str, str, str], ...]] = {  # option, test, slot
    "Adam": (("amsgrad", "true", "velocity_hat"),),
    "AdamW": (("amsgrad", "true", "velocity_hat"),),
    "RMSprop": (("momentum", "positive", "momentum"), ("centered", "true", "average_gradient")),
    "SGD": (("momentum", "nonzero", "momentum"),),
}
_AUTOMATIC = re.compile(r"_\d+$")
_CLASS_OF_NAME = {snake_case(name): name for name in (*_GROUPS, "Muon", "Adafactor", "LossScaleOptimizer")} | {
    name.lower(): name for name in _GROUPS
}
# Slots that are not shaped like their weight: Adafactor keeps means over the last and the last but one axis.
_FACTORED: dict[str, Callable[[Shape], Shape]] = {
    "row_mean": lambda shape: shape[:-1] if len(shape) > 1 else (),
    "column_mean": lambda shape: (*shape[:-2], shape[-1]) if len(shape) > 1 else (),
}


@dataclass(frozen=True, slots=True)
class SlotMeaning:
    """What one optimizer variable is: `scalar` names one of the optimizer's own, else slot and weight."""

    scalar: str | None
    slot: str | None
    weight: TrainVar | None


@dataclass(frozen=True, slots=True)
class OptimizerHint:
    """What is known of the optimizer before its variables are seen."""

    class_name: str | None
    config: JsonObject | None
    scheduled: bool | None
    loss_scaled: bool


def optimizer_hint(compile_config: JsonObject | Missing, saved_name: str | None, *, inner_group: bool) -> OptimizerHint:
    """Class and options of the optimizer, from `compile_config` where there is one, else from its automatic name."""
    raw: Any = None if isinstance(compile_config, Missing) else compile_config.get("optimizer")
    if isinstance(raw, Mapping) and "class_name" not in raw and isinstance(raw.get("optimizer_config"), Mapping):
        raw = raw["optimizer_config"]
    loss_scaled = inner_group
    class_name: str | None = None
    config: JsonObject | None = None
    if isinstance(raw, Mapping):
        class_name, config = raw.get("class_name"), raw.get("config")
        if class_name == "LossScaleOptimizer":
            loss_scaled = True
            inner = config.get("inner_optimizer") if isinstance(config, Mapping) else None
            class_name = inner.get("class_name") if isinstance(inner, Mapping) else None
            config = inner.get("config") if isinstance(inner, Mapping) else None
    if not isinstance(class_name, str):
        class_name = _CLASS_OF_NAME.get(_AUTOMATIC.sub("", saved_name.lower())) if saved_name else None
        if class_name == "LossScaleOptimizer":
            class_name, loss_scaled = None, True
    config = config if isinstance(config, Mapping) else None
    rate = config.get("learning_rate") if config is not None else None
    scheduled = None if config is None or rate is None else isinstance(rate, (Mapping, str))
    return OptimizerHint(class_name, config, scheduled, loss_scaled)


def assign(
    shapes: Sequence[Shape], integral: Sequence[bool], hint: OptimizerHint, blocks: Sequence[Block]
) -> list[SlotMeaning]:
    """The meaning of each optimizer variable.

    Args:
        shapes: of `optimizer/vars/<i>` by number.
        integral: which of them hold integers.
        hint: what is known of the optimizer.
        blocks: the model's trainable variables by layer, several candidates allowed by optional ones.

    Returns:
        One meaning each. Slots whose weight is not certain have `weight` None; those whose round is not certain have
        `slot` None too.
    """
    for unusual in (False, True):
        heads = _heads(shapes, integral, hint)
        readings = [r for head in heads for r in _read(shapes, head, hint, blocks, unusual=unusual)]
        complete = [r for r in readings if any(m.weight is not None for m in r)] or readings
        if complete:
            return _agreement(complete)
    head = next(_heads(shapes, integral, hint), [])
    return [
        SlotMeaning(head[i], None, None) if i < len(head) else SlotMeaning(None, None, None) for i in range(len(shapes))
    ]


def assign_partial(
    numbers: Sequence[int],
    shapes: Sequence[Shape],
    integral: Sequence[bool],
    hint: OptimizerHint,
    blocks: Sequence[Block],
) -> list[SlotMeaning]:
    """The meaning of the optimizer variables that a damaged file still holds.

    Args:
        numbers: which ones they are. Otherwise as `assign`; the model's own variables must all be known and in order.
    """
    unknown = [SlotMeaning(None, None, None)] * len(shapes)
    if numbers and numbers[0] == 0 and not hint.loss_scaled and shapes[0] == () and integral[0]:
        unknown[0] = SlotMeaning("iterations", None, None)
    weights = [v for b in blocks for v in b.variables]
    ordered = len({b.rank for b in blocks}) == len(blocks) and all(len(b.counts) == 1 for b in blocks)
    if not numbers or numbers[0] != 0 or not weights or not ordered:
        return unknown
    leading = next((i for i, n in enumerate(numbers) if n != i), len(numbers))
    readings: list[list[SlotMeaning]] = []
    for head in _heads(shapes[:leading], integral[:leading], hint):
        for groups, tail in _layouts(hint):
            full: list[tuple[Shape, SlotMeaning]] = [((), SlotMeaning(name, None, None)) for name in head]
            for group in groups:
                for weight in weights:
                    for slot in group:
                        factor = _FACTORED.get(slot)
                        shape = weight.shape if factor is None else factor(weight.shape)
                        full.append((shape, SlotMeaning(None, slot, weight)))
            full.extend(((), SlotMeaning(name, None, None)) for name in tail)
            if all(n < len(full) and full[n][0] == shape for n, shape in zip(numbers, shapes, strict=True)):
                readings.append([full[n][1] for n in numbers])
    return _agreement(readings) if readings else unknown


def _agreement(readings: list[list[SlotMeaning]]) -> list[SlotMeaning]:
    """What all possible readings say alike."""
    first = readings[0]
    result: list[SlotMeaning] = []
    for i, meaning in enumerate(first):
        others = [r[i] for r in readings[1:]]
        scalar = meaning.scalar if all(o.scalar == meaning.scalar for o in others) else None
        slot = meaning.slot if all(o.slot == meaning.slot for o in others) else None
        weight = meaning.weight if all(o.weight == meaning.weight for o in others) else None
        result.append(SlotMeaning(scalar, slot, weight))
    return result


def _heads(shapes: Sequence[Shape], integral: Sequence[bool], hint: OptimizerHint) -> Iterator[list[str]]:
    """Possible lists of leading scalars, likeliest first."""
    if not shapes or shapes[0] != () or not integral[0]:
        return
    scalars = 0
    while scalars < len(shapes) and shapes[scalars] == ():
        scalars += 1
    if hint.loss_scaled:
        outer = ["outer_iterations", "outer_learning_rate", "loss_scale_step_counter", "loss_scale", "inner_iterations"]
        kinds = [True, False, True, False, True]
        if scalars >= 5 and [bool(k) for k in integral[:5]] == kinds:
            yield from _with_rate(outer, scalars, integral, hint)
        return
    yield from _with_rate(["iterations"], scalars, integral, hint)


def _with_rate(head: list[str], scalars: int, integral: Sequence[bool], hint: OptimizerHint) -> Iterator[list[str]]:
    at = len(head)
    has_rate = scalars > at and not integral[at]
    if has_rate and hint.scheduled is not True:
        yield [*head, "learning_rate"]
    if hint.scheduled is not False or not has_rate:
        yield head


def _layouts(hint: OptimizerHint, *, unusual: bool = False) -> Iterator[tuple[Groups, tuple[str, ...]]]:
    """Possible rounds of slots, and scalars behind them.

    Args:
        unusual: without configuration, suppose moving averages or gradient accumulation instead of their absence.
    """
    tail: tuple[str, ...] = ("u_product",) if hint.class_name == "Nadam" else ()
    config = hint.config
    base = _GROUPS.get(hint.class_name) if hint.class_name is not None else None
    prefixes: list[Groups] = [()]
    if config is not None:
        before: Groups = (("average",),) if config.get("use_ema") else ()
        steps = config.get("gradient_accumulation_steps")
        prefixes = [(*before, ("gradient_accumulator",))] if steps else [before]
    elif hint.class_name is not None and unusual:
        prefixes = [(("average",),), (("gradient_accumulator",),), (("average",), ("gradient_accumulator",))]
    if base is None:
        if hint.class_name is None:
            for count in (2, 1, 3, 4):
                yield (tuple(f"slot_{i}" for i in range(count)),), ()
        return
    for prefix in prefixes:
        for suffix in _suffixes(hint):
            yield (*prefix, *base, *suffix), tail


def _suffixes(hint: OptimizerHint) -> Iterator[Groups]:
    options = _OPTIONS.get(hint.class_name or "", ())
    if hint.config is not None:
        yield tuple((slot,) for option, test, slot in options if _is_set(hint.config.get(option), test))
        return
    for mask in range(1 << len(options)):
        yield tuple((slot,) for i, (_, _, slot) in enumerate(options) if mask >> i & 1)


def _is_set(value: Any, test: str) -> bool:
    if test == "true":
        return bool(value)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return value > 0 if test == "positive" else value != 0


def _read(
    shapes: Sequence[Shape], head: list[str], hint: OptimizerHint, blocks: Sequence[Block], *, unusual: bool
) -> Iterator[list[SlotMeaning]]:
    """Readings of the whole list that are consistent in themselves and with the model."""
    if hint.class_name == "Muon":
        yield from _read_muon(shapes, head, hint, blocks)
        return
    for groups, tail in _layouts(hint, unusual=unusual):
        for variant in _variants(groups):
            count = sum(len(g) for g in variant)
            body = len(shapes) - len(head) - len(tail)
            if count == 0:
                if body == 0:
                    yield [SlotMeaning(name, None, None) for name in (*head, *tail)]
                continue
            if body <= 0 or body % count or any(shapes[len(shapes) - 1 - i] != () for i in range(len(tail))):
                continue
            found = _slots_of(shapes, len(head), variant, body // count)
            if found is None:
                continue
            references, names = found
            weights = align(references, blocks)
            if weights is None:
                continue
            yield [
                *(SlotMeaning(name, None, None) for name in head),
                *(SlotMeaning(None, slot, weights[index]) for slot, index in names),
                *(SlotMeaning(name, None, None) for name in tail),
            ]
            break  # an interleaved reading that fits is not doubted by a grouped one


def _read_muon(
    shapes: Sequence[Shape], head: list[str], hint: OptimizerHint, blocks: Sequence[Block]
) -> Iterator[list[SlotMeaning]]:
    """Muon keeps a velocity beside the momentum only for the weights that it leaves to AdamW: vectors always."""
    weights = [v for b in blocks for v in b.variables] if all(len(b.counts) == 1 for b in blocks) else []
    if not weights or len({b.rank for b in blocks}) != len(blocks):
        return
    before = [SlotMeaning(name, None, None) for name in head]
    for slot, on in (("average", "use_ema"), ("gradient_accumulator", "gradient_accumulation_steps")):
        if hint.config is not None and hint.config.get(on):
            before.extend(SlotMeaning(None, slot, weight) for weight in weights)
    # Ways to lay the weights so far, by the position they end at; two are enough to know that it is not certain.
    reached: dict[int, list[tuple[int, ...]]] = {len(before): [()]}
    for weight in weights:
        following: dict[int, list[tuple[int, ...]]] = {}
        for at, ways in reached.items():
            for count in (2,) if not 2 <= len(weight.shape) <= 4 else (1, 2):
                if tuple(shapes[at : at + count]) == (weight.shape,) * count:
                    known = following.setdefault(at + count, [])
                    known.extend((*way, count) for way in ways[: 2 - len(known)])
        reached = following
    ways = reached.get(len(shapes), [])
    if len(ways) == 1:
        slots = ("momentum", "velocity")
        body = [SlotMeaning(None, slots[i], w) for w, n in zip(weights, ways[0], strict=True) for i in range(n)]
        yield before + body


def _variants(groups: Groups) -> Iterator[Groups]:
    """As Keras interleaves them, then each slot in a round of its own."""
    yield groups
    if any(len(g) > 1 and not any(name in _FACTORED for name in g) for g in groups):
        yield tuple((name,) for g in groups for name in g)


def _slots_of(
    shapes: Sequence[Shape], start: int, groups: Groups, weights: int
) -> tuple[list[Shape], list[tuple[str, int]]] | None:
    """Shapes of the weights, and (slot, weight number) for each variable; None where the rounds contradict."""
    references: list[Shape] | None = None
    names: list[tuple[str, int]] = []
    at = start
    for group in groups:
        width = len(group)
        like = next(j for j, slot in enumerate(group) if slot not in _FACTORED)
        own = [shapes[at + i * width + like] for i in range(weights)]
        for i in range(weights):
            for j, slot in enumerate(group):
                factor = _FACTORED.get(slot)
                if shapes[at + i * width + j] != (own[i] if factor is None else factor(own[i])):
                    return None
                names.append((slot, i))
        if references is not None and own != references:
            return None
        references = own
        at += weights * width
    return references or [], names


def slots_per_weight(hint: OptimizerHint) -> int:
    """How many slots the optimizer keeps for each trainable weight; 0 where the optimizer is not known."""
    for groups, _ in _layouts(hint):
        return sum(len(group) for group in groups)
    return 0
