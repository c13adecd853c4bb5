"""Tensors of the Keras 3 layout: `layers/…/vars/<i>` and `optimizer/vars/<i>`, from whatever container holds them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckptdoctor.checkpoints.contract import Span, StoredTensor
from ckptdoctor.checkpoints.dtypes import is_known
from ckptdoctor.checkpoints.layers import STATES, STATISTICS, ConfigLayer, quantization_mode, variable_names
from ckptdoctor.checkpoints.naming import Naming, Place
from ckptdoctor.checkpoints.slots import SlotMeaning, assign, assign_partial, optimizer_hint
from ckptdoctor.checkpoints.trainables import Built, Owned, Unit, arrange, blocks_of
from ckptdoctor.model import JsonObject, Missing, Role, TensorInfo

Chunks = Callable[[], Iterator[bytes | memoryview]]

_INTEGERS = re.compile(r"^(>?[iu]\d|u?int\d+|bool)$")
_OPTIMIZERS = frozenset({"optimizer", "_optimizer"})
_METRICS = frozenset({"metrics", "_metrics", "compiled_metrics", "_compile_metrics", "_loss_tracker", "loss_tracker"})


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A stored tensor before anything is known of its meaning.

    Attributes:
        path: in the container. order: ascending in the order of saving.
        storage: as in `StoredTensor`; `problem` why its bytes cannot be had.
    """

    path: str
    order: int
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    span: Span | None
    chunks: Chunks
    problem: str | None = None


@dataclass(slots=True)
class _Owner:
    """One object that owns variables: a layer, a part of one, an optimizer."""

    group: str
    tensors: list[RawTensor]
    first: int = 0
    place: Place | None = None


def tensor(raw: RawTensor, info: TensorInfo) -> StoredTensor:
    """A stored tensor with its meaning."""
    return StoredTensor(info, raw.span, raw.chunks, raw.problem)


def describe(
    raws: Sequence[RawTensor],
    names: Mapping[str, str],
    root: ConfigLayer | None,
    compile_config: JsonObject | Missing,
    order: Mapping[str, int],
    *,
    partial: bool = False,
) -> list[StoredTensor]:
    """Name every tensor of the Keras 3 layout.

    Args:
        raws: the tensors.
        names: user's names by group path.
        root: configuration, or None.
        compile_config: as saved.
        order: when each group was saved, by path; groups absent here come last.
        partial: True where the file is damaged, so that variables may be missing.

    Returns:
        Layers in the order of the configuration (else of saving), then metrics, then the optimizer.
    """
    owners = _owners(raws)
    groups = sorted({*owners, *names}, key=lambda g: (order.get(g, 1 << 62), g))
    naming = Naming((g for g in groups if not _is_optimizer(g)), names, root)
    weights: list[tuple[_Owner, list[TensorInfo]]] = []
    optimizers: list[_Owner] = []
    for group in groups:
        owner = owners.get(group)
        if owner is None:
            continue
        owner.first = order.get(group, owner.tensors[0].order)
        if _is_optimizer(group):
            optimizers.append(owner)
        else:
            owner.place = naming.place(group)
            weights.append((owner, _infos(owner, owner.place, partial=partial)))
    units = arrange([Owned(o.group, o.first, o.place, i) for o, i in weights if o.place is not None], root)
    by_path = {raw.path: raw for owner, _ in weights for raw in owner.tensors}
    found = [tensor(by_path[info.path], info) for unit in units for info in unit.infos]
    found.sort(key=lambda t: t.info.role is Role.METRIC)
    for owner in sorted(optimizers, key=lambda o: o.group.count("/")):
        found.extend(_optimizer(owner, optimizers, names, compile_config, units, partial=partial))
    return found


def _is_optimizer(group: str) -> bool:
    return group.split("/", 1)[0] in _OPTIMIZERS


def _inside_optimizer(group: str) -> bool:
    """An optimizer that is not the model's own: of a nested model compiled for itself, or an attribute of a GAN's class."""
    return any(part.endswith("optimizer") for part in group.split("/"))


def _owners(raws: Sequence[RawTensor]) -> dict[str, _Owner]:
    owners: dict[str, _Owner] = {}
    for raw in raws:
        group = raw.path.rpartition("/")[0]
        if group == "vars" or group.endswith("/vars"):
            group = group[:-5] if group != "vars" else ""
        owner = owners.get(group)
        if owner is None:
            owner = owners[group] = _Owner(group, [])
        owner.tensors.append(raw)
    for owner in owners.values():
        owner.tensors.sort(key=lambda r: _natural(r.path.rpartition("/")[2]))
    return owners


def _natural(name: str) -> tuple[int, int, str]:
    """`2` before `10`, numbers before names."""
    return (0, int(name), "") if name.isdigit() and len(name) < 10 else (1, 0, name)


def _infos(owner: _Owner, place: Place, *, partial: bool) -> list[TensorInfo]:
    tensors = owner.tensors
    last = [t.path.rpartition("/")[2] for t in tensors]
    numbered = all(n.isdigit() and len(n) < 6 for n in last)
    numbers = [int(n) for n in last] if numbered and partial else None
    numbered = numbered and (partial or last == [str(i) for i in range(len(last))])
    shapes, dtypes = [t.shape for t in tensors], [t.dtype for t in tensors]
    names = variable_names(place.class_name, place.config, shapes, dtypes, numbers=numbers)
    if place.class_name == "SeedGenerator" and len(tensors) == 1:
        names = ["seed_generator_state"]
    if not numbered:
        names = [f"vars/{n}" if n.isdigit() else n for n in last]
    metric = place.metric or owner.group.split("/", 1)[0] in _METRICS
    packed = quantization_mode(place.config) == "int4"
    foreign = Role.METRIC if metric else Role.STATE if _inside_optimizer(owner.group) else None
    infos: list[TensorInfo] = []
    for raw, name in zip(tensors, names, strict=True):
        role = foreign or _role(name, raw.dtype)
        trainable = False if role is not Role.WEIGHT or place.frozen else (None if place.owner is None else True)
        if role is Role.WEIGHT and name.startswith("vars/"):
            trainable = False if place.frozen else None
        if role is Role.WEIGHT and name == "kernel" and place.lora_rank:
            trainable = False
        dtype = "int4" if packed and raw.dtype == "int8" and role is Role.WEIGHT else raw.dtype
        if role is Role.WEIGHT and _INTEGERS.match(raw.dtype):
            trainable = False  # quantised: no gradient reaches an integer
        variable = f"{place.within}/{name}" if place.within else name
        infos.append(
            TensorInfo(
                raw.path,
                place.layer,
                place.layer_path or None,
                variable,
                role,
                raw.shape,
                dtype,
                raw.nbytes,
                trainable=trainable,
            )
        )
    return infos


def _role(name: str, dtype: str) -> Role:
    if name in STATISTICS:
        return Role.STATISTIC
    if name in STATES or (name.startswith("vars/") and _INTEGERS.match(dtype)):
        return Role.STATE
    return Role.WEIGHT


def _optimizer(
    owner: _Owner,
    optimizers: Sequence[_Owner],
    names: Mapping[str, str],
    compile_config: JsonObject | Missing,
    units: Sequence[Unit],
    *,
    partial: bool,
) -> list[StoredTensor]:
    inner = owner.group.endswith("/inner_optimizer")
    has_inner = any(o.group == f"{owner.group}/inner_optimizer" for o in optimizers)
    saved = names.get(f"{owner.group}/inner_optimizer" if has_inner else owner.group)
    hint = optimizer_hint(compile_config, saved, inner_group=has_inner)
    if inner:
        hint = replace(hint, loss_scaled=False)
    elif has_inner:
        hint = replace(hint, loss_scaled=True)
    shapes = [t.shape for t in owner.tensors]
    integral = [bool(_INTEGERS.match(t.dtype)) for t in owner.tensors]
    last = [t.path.rpartition("/")[2] for t in owner.tensors]
    numbered = last == [str(i) for i in range(len(last))]
    meanings = [SlotMeaning(None, None, None)] * len(shapes)
    if numbered:
        for built in Built:
            meanings = assign(shapes, integral, hint, blocks_of(units, built))
            if any(m.weight is not None for m in meanings):
                break
    if partial and not any(m.weight is not None for m in meanings) and all(n.isdigit() and len(n) < 10 for n in last):
        meanings = assign_partial([int(n) for n in last], shapes, integral, hint, blocks_of(units, Built.AS_CONFIGURED))
    return [
        tensor(raw, slot_info(raw, meaning, inner=inner)) for raw, meaning in zip(owner.tensors, meanings, strict=True)
    ]


def slot_info(raw: RawTensor, meaning: SlotMeaning, *, inner: bool = False) -> TensorInfo:
    """An optimizer variable with its meaning."""
    number = raw.path.rpartition("/")[2]
    weight = meaning.weight
    if meaning.scalar is not None or (raw.shape == () and meaning.slot is None and weight is None):
        name = meaning.scalar or f"vars/{number}"
        if inner:
            name = {"iterations": "inner_iterations"}.get(name, name)
        return TensorInfo(raw.path, None, None, name, Role.OPTIMIZER, raw.shape, raw.dtype, raw.nbytes, trainable=False)
    return TensorInfo(
        raw.path,
        None if weight is None else weight.layer,
        None if weight is None else weight.layer_path,
        f"vars/{number}" if weight is None else weight.variable,
        Role.SLOT,
        raw.shape,
        raw.dtype,
        raw.nbytes,
        slot=meaning.slot,
        slot_of=None if weight is None else weight.path,
        trainable=False,
    )


def unreadable(problem: str) -> Chunks:
    """Chunks of a tensor that cannot be read: raising the sentence when asked."""
    from ckptdoctor.checkpoints.contract import TensorReadError

    def chunks() -> Iterator[bytes | memoryview]:
        if problem:
            raise TensorReadError(problem)
        yield b""  # makes this a generator: the error comes with the first read

    return chunks


CHUNK = 1 << 20  # bytes in one piece: large enough that the call costs nothing, small enough for any memory


def span_chunks(span: Span) -> Chunks:
    """The bytes of a span in pieces of 1 MiB."""

    def chunks() -> Iterator[bytes | memoryview]:
        from ckptdoctor.checkpoints.contract import TensorReadError

        at, end = span.offset, span.offset + span.nbytes
        while at < end:
            data = span.source.read(at, min(CHUNK, end - at))
            if not data:
                raise TensorReadError(f"{span.source.name} ends before byte {end:,}: it was cut off while being read")
            yield data
            at += len(data)

    return chunks


def known_dtype_problem(path: str, dtype: str) -> str | None:
    """A sentence where entries of this dtype cannot be read as numbers."""
    return None if is_known(dtype) else f"{path} holds {dtype[:80]}, which is not a number format that Keras writes"
