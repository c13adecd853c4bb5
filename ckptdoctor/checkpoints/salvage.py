"""What a damaged file would have held: from the configuration that survived, the weights that did not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ckptdoctor.checkpoints.contract import StoredTensor
from ckptdoctor.checkpoints.layers import ConfigLayer, config_tree
from ckptdoctor.checkpoints.slots import optimizer_hint, slots_per_weight
from ckptdoctor.model import JsonObject, Problem, ProblemKind, Role

Shape = tuple[int, ...]
_SHOWN = 12  # lost weights named in the sentence; the count says how many there are
_ENTRY = 4  # bytes an entry of a lost weight is taken to have (float32)
_GATES = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}


def expected_loss(
    tensors: Sequence[StoredTensor], config: JsonObject | None, coverage: float
) -> tuple[list[Problem], float]:
    """Weights that the configuration promises and the file does not hold.

    Args:
        tensors: what was found. config: the saved model, or None.
        coverage: located bytes over the bytes that the file itself declares.

    Returns:
        A problem that names them, and the coverage with their bytes (and their optimizer slots') counted in.
    """
    root = config_tree(config)
    found = [t for t in tensors if t.problem is None]
    located = sum(t.info.nbytes for t in found)
    declared = located / coverage if coverage > 0 else 0.0
    if root is None or not root.layers:
        return [], coverage
    have = {(t.info.layer, t.info.variable) for t in tensors if t.info.role is not Role.SLOT}
    lost: list[tuple[str, str, Shape]] = []
    total = 0
    trainable = 0
    for layer in root.leaves():
        for variable, shape in expected_variables(layer):
            size = math.prod(shape) * _ENTRY
            total += size
            if not layer.frozen and not variable.startswith("moving_"):
                trainable += size
            if (layer.name, variable) not in have:
                lost.append((layer.name, variable, shape))
    compiled: Any = config.get("compile_config") if config is not None else None
    # A model that was never compiled has no optimizer whose state could be lost.
    hint = optimizer_hint(compiled, None, inner_group=False) if isinstance(compiled, Mapping) and compiled else None
    slots = 0 if hint is None else slots_per_weight(hint)
    expected = max(declared, total + trainable * slots)
    problems: list[Problem] = []
    if lost:
        names = ", ".join(f"{layer}/{variable} {shape}" for layer, variable, shape in lost[:_SHOWN])
        more = f" and {len(lost) - _SHOWN:,} more" if len(lost) > _SHOWN else ""
        problems.append(
            Problem(ProblemKind.INCOMPLETE, f"{len(lost):,} weights of the model are not in this file: {names}{more}")
        )
    has_slots = any(t.info.role in (Role.SLOT, Role.OPTIMIZER) for t in tensors)
    if slots and not has_slots:
        problems.append(
            Problem(
                ProblemKind.INCOMPLETE,
                "the optimizer's state is not in this file, though the model was compiled with one",
            )
        )
    return problems, min(coverage, located / expected) if expected else coverage


def expected_variables(layer: ConfigLayer) -> list[tuple[str, Shape]]:
    """Names and shapes of a built layer's variables, as far as its configuration settles them; [] otherwise."""
    shape = layer.input_shape
    if layer.class_name == "Embedding":
        return _sized([("embeddings", (layer.config.get("input_dim"), layer.config.get("output_dim")))])
    if not shape:
        return []
    config, kind, channels = layer.config, layer.class_name, shape[-1]
    if config.get("data_format") == "channels_first" and len(shape) > 2:
        channels = shape[1]
    if kind == "Dense":
        units = config.get("units")
        return _sized([("kernel", (channels, units)), *_bias(config, (units,))])
    if kind in _GATES:
        return _recurrent(config, channels, _GATES[kind], kind)
    if "Conv" in kind and "LSTM" not in kind:
        return _convolution(config, kind, channels)
    if kind.endswith("Normalization") and kind != "Normalization":
        return _normalization(config, kind, shape)
    return []


def _sized(variables: Sequence[tuple[str, Sequence[Any]]]) -> list[tuple[str, Shape]]:
    """The list, or [] where an extent is not a sane number."""
    found: list[tuple[str, Shape]] = []
    for name, shape in variables:
        if not all(isinstance(e, int) and not isinstance(e, bool) and 0 <= e < 1 << 40 for e in shape):
            return []
        found.append((name, tuple(shape)))
    return found


def _bias(config: JsonObject, shape: Sequence[Any]) -> list[tuple[str, Sequence[Any]]]:
    return [("bias", shape)] if config.get("use_bias", True) else []


def _recurrent(config: JsonObject, channels: Any, gates: int, kind: str) -> list[tuple[str, Shape]]:
    units = config.get("units")
    if not isinstance(units, int):
        return []
    wide = gates * units
    bias = (2, wide) if kind == "GRU" and config.get("reset_after", True) else (wide,)
    return _sized([("kernel", (channels, wide)), ("recurrent_kernel", (units, wide)), *_bias(config, bias)])


def _convolution(config: JsonObject, kind: str, channels: Any) -> list[tuple[str, Shape]]:
    size, filters, groups = config.get("kernel_size"), config.get("filters"), config.get("groups", 1)
    if not isinstance(size, list) or not isinstance(channels, int) or not isinstance(groups, int) or groups < 1:
        return []
    multiplier = config.get("depth_multiplier", 1)
    if not isinstance(multiplier, int):
        return []
    if kind.startswith("Separable"):
        narrow = [1] * len(size)
        return _sized(
            [
                ("depthwise_kernel", (*size, channels, multiplier)),
                ("pointwise_kernel", (*narrow, channels * multiplier, filters)),
                *_bias(config, (filters,)),
            ]
        )
    if kind.startswith("Depthwise"):
        return _sized([("kernel", (*size, channels, multiplier)), *_bias(config, (channels * multiplier,))])
    if kind.endswith("Transpose"):
        return _sized([("kernel", (*size, filters, channels)), *_bias(config, (filters,))])
    return _sized([("kernel", (*size, channels // groups, filters)), *_bias(config, (filters,))])


def _normalization(config: JsonObject, kind: str, shape: tuple[int | None, ...]) -> list[tuple[str, Shape]]:
    axis: Any = config.get("axis", -1)
    axes = axis if isinstance(axis, list) else [axis]
    if not all(isinstance(a, int) and -len(shape) <= a < len(shape) for a in axes):
        return []
    extent = tuple(shape[a] for a in axes)
    names = [n for n, on in (("gamma", "scale"), ("beta", "center")) if config.get(on, True) is not False]
    if kind in ("BatchNormalization", "SyncBatchNormalization"):
        names += ["moving_mean", "moving_variance"]
    elif kind == "RMSNormalization":
        names = ["scale"]
    elif kind not in ("LayerNormalization", "GroupNormalization"):
        return []
    return _sized([(name, extent) for name in names])
