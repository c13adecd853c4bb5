"""Tensors of legacy HDF5 files (Keras 1 to 3, `model.save("x.h5")`): every weight has a name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ckptdoctor.checkpoints.contract import StoredTensor
from ckptdoctor.checkpoints.hdf5 import H5Group
from ckptdoctor.checkpoints.hdf5.recover import PREFIX
from ckptdoctor.checkpoints.keras3 import RawTensor, tensor
from ckptdoctor.checkpoints.layers import STATES, STATISTICS, ConfigLayer
from ckptdoctor.model import Problem, ProblemKind, Role, TensorInfo

# What optimizers of Keras 1 and 2 called their slots, in today's words.
_SLOT_NAMES = {
    "m": "momentum",
    "v": "velocity",
    "vhat": "velocity_hat",
    "v_hat": "velocity_hat",
    "momentum": "momentum",
    "momentums": "momentum",
    "velocity": "velocity",
    "velocities": "velocity",
    "velocity_hat": "velocity_hat",
    "rms": "velocity",
    "mg": "average_gradient",
    "average_gradient": "average_gradient",
    "accumulator": "accumulator",
    "acc": "accumulator",
    "accum_grad": "accumulated_grad",
    "accum_var": "accumulated_delta_var",
    "accumulated_grad": "accumulated_grad",
    "accumulated_delta_var": "accumulated_delta_var",
    "linear": "linear",
    "norm": "norm",
    "u": "norm",
    "average": "average",
    "gradient_accumulator": "gradient_accumulator",
}
_SLOT_SUFFIXES = sorted((n for n in _SLOT_NAMES if len(n) > 2), key=len, reverse=True)
_SCALARS = {
    "iter": "iterations",
    "iteration": "iterations",
    "iterations": "iterations",
    "learning_rate": "learning_rate",
    "lr": "learning_rate",
    "current_learning_rate": "learning_rate",
    "dynamic_scale": "loss_scale",
    "current_loss_scale": "loss_scale",
    "loss_scale": "loss_scale",
    "step_counter": "loss_scale_step_counter",
    "good_steps": "loss_scale_step_counter",
    "u_product": "u_product",
}
_INTERNAL = {"query": "query", "key": "key", "value": "value", "attention_output": "attention_output"}
_CELL = re.compile(r"(^|_)(lstm_cell|gru_cell|simple_rnn_cell|conv_lstm\w*_cell|cell)(_\d+)?$")
_COUNTED = re.compile(r":\d+$")
_TOP = "top_level_model_weights"


@dataclass(frozen=True, slots=True)
class NamedWeight:
    """A weight and the names that optimizers may have made of it."""

    info: TensorInfo
    key: str  # as saved, without `:0`


def is_legacy(groups: Mapping[str, H5Group]) -> bool:
    """Whether an HDF5 tree has the legacy layout: a list of layers at the root or in `model_weights`."""
    root = groups.get("")
    if root is not None and ("layer_names" in root.attributes or "model_config" in root.attributes):
        return True
    weights = groups.get("model_weights")
    return weights is not None and (len(weights.attributes) > 0 or root is None or "model_config" in root.attributes)


def _strings(attributes: Mapping[str, Any], name: str) -> list[str] | None:
    """A list of names; long ones are split over `name0`, `name1` and so on."""
    value = attributes.get(name)
    if value is None and f"{name}0" in attributes:
        value, i = [], 0
        while f"{name}{i}" in attributes:
            part = attributes[f"{name}{i}"]
            value.extend(part if isinstance(part, list) else [part])
            i += 1
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [v for v in value if isinstance(v, str)]
    return None


def describe_legacy(
    raws: Sequence[RawTensor], groups: Mapping[str, H5Group], root: ConfigLayer | None
) -> tuple[list[StoredTensor], list[Problem]]:
    """Name every tensor of a legacy file: layers in their order, then the optimizer."""
    problems: list[Problem] = []
    by_path = {raw.path: raw for raw in raws}
    prefix = "model_weights" if "model_weights" in groups else ""
    base = groups.get(prefix)
    attributes = base.attributes if base is not None else {}
    layers = _strings(attributes, "layer_names") or _group_names(groups, prefix)
    config = {layer.own: layer for layer in root.layers} if root is not None else {}
    weights: list[NamedWeight] = []
    found: list[StoredTensor] = []
    used: set[str] = set()
    for layer in [*layers, _TOP]:
        group_path = f"{prefix}/{layer}" if prefix else layer
        group = groups.get(group_path)
        listed = _strings(group.attributes, "weight_names") if group is not None else None
        if listed is None:
            listed = [p[len(group_path) + 1 :] for p in by_path if p.startswith(f"{group_path}/")]
        for name in listed:
            path = f"{group_path}/{name}"
            raw = by_path.get(path)
            if path in used:
                problems.append(_collision(path, layer, name))
                continue
            used.add(path)
            if raw is None:
                problems.append(Problem(ProblemKind.INCOMPLETE, f"{path} is listed but not stored", path))
                continue
            info = weight_info(raw, layer, group_path, name, config.get(layer), model=root)
            weights.append(NamedWeight(info, _COUNTED.sub("", name)))
            found.append(tensor(raw, info))
    optimizer = groups.get("optimizer_weights")
    if optimizer is not None:
        found.extend(_optimizer(by_path, optimizer, weights))
    shown = {stored.info.path for stored in found}
    lost = [r for r in raws if (PREFIX in r.path or r.path.isdigit()) and r.path not in shown]
    found.extend(_recovered(lost, config, root, weights))
    return found, problems


def _recovered(
    raws: Sequence[RawTensor],
    config: Mapping[str, ConfigLayer],
    root: ConfigLayer | None,
    weights: Sequence[NamedWeight],
) -> list[StoredTensor]:
    """Tensors that only a search found: what is left of their path still ends in the layer's and the weight's name."""
    found: list[StoredTensor] = []
    spellings = spellings_of(weights)
    for raw in raws:
        name = raw.path.partition(PREFIX)[2].partition("/")[2] or raw.path.rpartition("/")[2]
        layer = name.rpartition("/")[0].rpartition("/")[2]
        if layer in config:
            info = weight_info(raw, layer, None, name, config[layer], model=root)
        else:
            info = slot_from_name(raw, _COUNTED.sub("", name), spellings, scaled=False)
        found.append(tensor(raw, info))
    return found


def _collision(path: str, layer: str, name: str) -> Problem:
    return Problem(
        ProblemKind.INCOMPLETE,
        f"{layer} has several weights named {name!r} and this format keeps only one of them (a fault of Keras 3.0 "
        "with nested models): the others were lost when saving; use the .keras format",
        path,
    )


def _group_names(groups: Mapping[str, H5Group], prefix: str) -> list[str]:
    depth = prefix.count("/") + 1 if prefix else 0
    names = [p for p in groups if p and p.count("/") == depth and (not prefix or p.startswith(f"{prefix}/"))]
    return [p.rpartition("/")[2] for p in names if p.rpartition("/")[2] not in ("optimizer_weights", _TOP)]


def weight_info(
    raw: RawTensor,
    layer: str,
    group: str | None,
    name: str,
    config: ConfigLayer | None,
    *,
    model: ConfigLayer | None,
    user: str | None = None,
) -> TensorInfo:
    """A weight from the name that Keras gave it.

    Args:
        layer: name of the layer it is stored under. group: path of that layer. name: of the weight, with slashes.
        config: of the layer, None where there is none. model: the whole configuration, None likewise.
        user: full name of the layer where it differs from `layer`.
    """
    parts = _COUNTED.sub("", name).split("/")
    variable = parts[-1]
    inside = parts[:-1]
    shown: str | None = layer if user is None else user
    if layer == _TOP:
        shown, inside = None, []
    elif layer in inside:
        inside = inside[len(inside) - 1 - inside[::-1].index(layer) + 1 :]
    frozen = config.frozen if config is not None else (False if model is not None else None)
    current = config
    within: list[str] = []
    wrapped = _wrapped_name(config)
    stacked = any(part.startswith("stacked_rnn_cells") for part in inside)
    for part in inside:
        nested = None if current is None else next((c for c in current.layers if c.own == part), None)
        if nested is not None and not within:
            shown, current, frozen = f"{shown}/{part}", nested, nested.frozen
            continue
        if current is not None and current.layers and not within:
            continue  # the nested model's own name between: Keras writes it in some versions
        step = "" if part == wrapped else _internal(part)
        if stacked:  # several cells: their names tell them apart
            step = "cells" if part.startswith("stacked_rnn_cells") else part
        if step is not None or (current is not None and not current.layers):
            within.extend([step if step is not None else part] if step != "" else [])
        elif config is None and not within:
            shown = f"{shown}/{part}"
    if variable in STATISTICS:
        role = Role.STATISTIC
    elif variable in STATES or "seed_generator" in variable:
        role = Role.STATE
    else:
        role = Role.WEIGHT
    trainable = False if role is not Role.WEIGHT or frozen else (None if frozen is None else True)
    full = "/".join((*within, variable))
    return TensorInfo(raw.path, shown, group, full, role, raw.shape, raw.dtype, raw.nbytes, trainable=trainable)


def _wrapped_name(config: ConfigLayer | None) -> str | None:
    """Name of the one layer inside a `TimeDistributed` or its like."""
    raw = None if config is None or config.class_name == "Bidirectional" else config.config.get("layer")
    inner = raw.get("config") if isinstance(raw, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else None


def _internal(part: str) -> str | None:
    """A part of a weight's name that belongs to one of Keras' own layers: what to call it, "" to drop it."""
    if _CELL.search(part):
        return ""
    if part.startswith("forward_"):
        return "forward"
    if part.startswith("backward_"):
        return "backward"
    return _INTERNAL.get(part)


# --- optimizer -------------------------------------------------------------------------------------


def _optimizer(by_path: Mapping[str, RawTensor], group: H5Group, weights: Sequence[NamedWeight]) -> list[StoredTensor]:
    listed = _strings(group.attributes, "weight_names")
    if listed is None:
        listed = [p[len("optimizer_weights/") :] for p in by_path if p.startswith("optimizer_weights/")]
    spellings = spellings_of(weights)
    scaled = any("loss_scale" in name for name in listed)
    found: list[StoredTensor] = []
    for name in dict.fromkeys(listed):
        raw = by_path.get(f"optimizer_weights/{name}")
        if raw is not None:
            found.append(tensor(raw, slot_from_name(raw, _COUNTED.sub("", name), spellings, scaled=scaled)))
    return found


def spellings_of(weights: Sequence[NamedWeight]) -> dict[str, NamedWeight | None]:
    """Weights by every spelling an optimizer may have used for them; None where two share one."""
    found: dict[str, NamedWeight | None] = {}
    for weight in weights:
        info = weight.info
        options = {weight.key, weight.key.replace("/", "_")}
        if info.layer is not None:
            for full in (f"{info.layer}/{info.variable}", f"{info.layer.rpartition('/')[2]}/{info.variable}"):
                options |= {full, full.replace("/", "_")}
        for option in options:
            found[option] = None if option in found and found[option] is not weight else weight
    return found


def slot_from_name(
    raw: RawTensor, name: str, spellings: Mapping[str, NamedWeight | None], *, scaled: bool
) -> TensorInfo:
    """One optimizer variable from its name, in any of the four styles Keras has used."""
    parts = name.split("/")
    last = parts[-1]
    scalar = _SCALARS.get(last)
    if scalar is not None and raw.shape == ():
        if scaled and scalar in ("iterations", "learning_rate"):
            outer = parts[0].startswith("loss_scale") and len(parts) == 2
            scalar = f"outer_{scalar}" if outer else {"iterations": "inner_iterations"}.get(scalar, scalar)
        return TensorInfo(
            raw.path, None, None, scalar, Role.OPTIMIZER, raw.shape, raw.dtype, raw.nbytes, trainable=False
        )
    for slot, key in _readings(parts):
        weight = spellings.get(key)
        if weight is not None and weight.info.shape == raw.shape:
            info = weight.info
            return replace(
                info,
                path=raw.path,
                role=Role.SLOT,
                dtype=raw.dtype,
                nbytes=raw.nbytes,
                slot=slot,
                slot_of=info.path,
                trainable=False,
            )
    slot_name = next((slot for slot, _ in _readings(parts)), None)
    role = Role.SLOT if raw.shape != () else Role.OPTIMIZER
    return TensorInfo(
        raw.path, None, None, last, role, raw.shape, raw.dtype, raw.nbytes, slot=slot_name, trainable=False
    )


def _readings(parts: Sequence[str]) -> list[tuple[str, str]]:
    """Possible (slot, spelling of the weight) pairs of a name.

    `Adam/dense/kernel/m` (up to 2.10), `Adam/m/dense/kernel` (2.11 to 2.15), `adam/dense_kernel_momentum` (3).
    """
    found: list[tuple[str, str]] = []
    if len(parts) >= 3 and parts[-1] in _SLOT_NAMES:
        found.append((_SLOT_NAMES[parts[-1]], "/".join(parts[1:-1])))
        found.append((_SLOT_NAMES[parts[-1]], "/".join(parts[:-1])))
    leading = range(min(2, len(parts) - 1))
    found.extend((_SLOT_NAMES[parts[i]], "/".join(parts[i + 1 :])) for i in leading if parts[i] in _SLOT_NAMES)
    last = parts[-1]
    found.extend((_SLOT_NAMES[s], last[: -len(s) - 1]) for s in _SLOT_SUFFIXES if last.endswith(f"_{s}"))
    return found
