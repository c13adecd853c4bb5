"""The model's trainable variables in the order in which an optimizer was given them, as far as a file tells it.

Functional and Sequential models give them layer by layer in the order of the configuration, which is also the order of
saving. What lies inside a user's own layer or model was created in an order that no file records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ckptdoctor.checkpoints.alignment import Block, TrainVar
from ckptdoctor.checkpoints.layers import ConfigLayer
from ckptdoctor.checkpoints.naming import CONTAINERS, INTERNAL_ORDER, Place
from ckptdoctor.model import Role, TensorInfo

_INTEGERS = re.compile(r"^(>?[iu]\d|u?int\d+|bool)$")


class Built(Enum):
    """What may have been trainable when the optimizer was built; tried in this order."""

    AS_CONFIGURED = 1
    BEFORE_FREEZING = 2  # frozen or quantised afterwards: the slots stayed
    UNKNOWN_FREEZING = 3  # a file without configuration: any layer may have been frozen


@dataclass(frozen=True, slots=True)
class Owned:
    """The variables of one object. `first` orders objects by saving."""

    group: str
    first: int
    place: Place
    infos: list[TensorInfo]


@dataclass(frozen=True, slots=True)
class Unit:
    """One layer with the layers inside it that are Keras' own: contiguous in the optimizer.

    Units of one `rank` may stand in any order among each other.
    """

    place: Place
    rank: int
    infos: tuple[TensorInfo, ...]


def arrange(owned: Sequence[Owned], root: ConfigLayer | None) -> list[Unit]:
    """Units in the order of the model.

    Args:
        owned: all objects but optimizers, in the order of saving.
        root: the configuration, or None.
    """
    by_layer: dict[str, list[Owned]] = {}
    for item in owned:
        by_layer.setdefault(item.place.layer_path, []).append(item)
    ranks = {} if root is None else {layer.name: i for i, layer in enumerate(root.leaves())}
    listed = root is not None and bool(root.layers)
    plain = all(i.group == "" or i.group.split("/", 1)[0] in CONTAINERS for i in owned if not i.place.metric)
    sorted_layers = sorted(by_layer.values(), key=lambda items: _position(items, ranks))
    units: list[Unit] = []
    rank = 0
    previous: str | None = None
    for items in sorted_layers:
        items.sort(key=lambda i: (_inside(i), i.first))
        place = items[0].place
        key = _shared(place, ordered=listed or (root is None and plain), listed=listed)
        if key is None or key != previous:
            rank += 1
        previous = key
        units.append(Unit(place, rank, tuple(info for i in items for info in i.infos)))
    return units


def _position(items: Sequence[Owned], ranks: Mapping[str, int]) -> tuple[int, int, int, int]:
    """The model's own variables, layers by the configuration (what is inside them after them), then by saving."""
    place = items[0].place
    first = min(i.first for i in items)
    if place.layer is None:
        return (0, 0, 0, first)
    rank = None if place.anchor is None else ranks.get(place.anchor.name)
    if rank is None:
        return (2, 0, 0, first)
    return (1, rank, 0 if place.owner is not None else 1, first)


def _inside(item: Owned) -> tuple[int, ...]:
    """Where a part of one of Keras' own layers stands among its parts."""
    below = item.group[len(item.place.layer_path) :].split("/")
    return tuple(INTERNAL_ORDER.get(part, len(INTERNAL_ORDER)) for part in below if part)


def _shared(place: Place, *, ordered: bool, listed: bool) -> str | None:
    """What units of unknown order have in common; None for a unit whose place is known."""
    if place.layer is None:
        return None
    if not ordered:
        return ""
    if listed:
        if place.owner is not None:
            return None
        return "" if place.anchor is None else f"in {place.anchor.name}"
    parts = place.layer_path.split("/")
    inside = [i for i, part in enumerate(parts) if part in CONTAINERS]
    top = "/".join(parts[: inside[-1] + 2]) if inside else parts[0]
    return None if top == place.layer_path else f"in {top}"


def blocks_of(units: Sequence[Unit], built: Built) -> list[Block]:
    """The units' variables for aligning with an optimizer's."""
    blocks: list[Block] = []
    for unit in units:
        variables, certain = _trainables(unit, built)
        counts = tuple(range(certain, len(variables) + 1))
        if built is Built.UNKNOWN_FREEZING and unit.place.owner is None and counts and counts[0] > 0:
            counts = (0, *counts)
        if variables:
            blocks.append(Block(tuple(variables), counts, unit.rank))
    return blocks


def _trainables(unit: Unit, built: Built) -> tuple[list[TrainVar], int]:
    """Variables that may be trainable, and how many of them, from the front, are so for certain."""
    place = unit.place
    if place.frozen and built is not Built.BEFORE_FREEZING:
        return [], 0
    rank = place.lora_rank
    variables: list[TrainVar] = []
    certain = 0
    sure = True
    for info in unit.infos:
        if info.role is not Role.WEIGHT:
            continue
        bare = info.variable.rpartition("/")[2]
        if rank and bare in ("kernel", "embeddings"):
            continue
        if built is not Built.BEFORE_FREEZING and _INTEGERS.match(info.dtype):
            continue
        variables.append(TrainVar(info.path, info.layer, info.layer_path, info.variable, info.shape))
        sure = sure and not bare.isdigit()
        certain += sure
    if rank:
        pair = _lora_pair(unit.infos, rank)
        variables.extend(pair)
        certain += len(pair) if sure else 0
    return variables, certain


def _lora_pair(infos: Sequence[TensorInfo], rank: int) -> list[TrainVar]:
    """The two factors that train in place of a kernel; a file holds them merged, only their slots remain."""
    for info in infos:
        bare = info.variable.rpartition("/")[2]
        if bare in ("kernel", "embeddings") and len(info.shape) >= 2:
            first, second = (*info.shape[:-1], rank), (rank, info.shape[-1])
            return [
                TrainVar(None, info.layer, info.layer_path, f"lora_{bare}_a", first),
                TrainVar(None, info.layer, info.layer_path, f"lora_{bare}_b", second),
            ]
    return []
