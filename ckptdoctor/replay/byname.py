"""Filling a model through the project's own reader: for containers and versions that Keras itself cannot load here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.checkpoints.contract import StoredTensor, TensorReadError
from ckptdoctor.model import Role
from ckptdoctor.replay.dialect import Dialect, raw
from ckptdoctor.replay.naming import named_layers

Array = NDArray[Any]
MAX_TENSOR = 1 << 31  # bytes of one tensor; the memory limit of the process bounds the sum


def fill_by_names(model: Any, dialect: Dialect, path: str) -> int:
    """Assign weights by layer name and order, and the optimizer's variables by order.

    Args:
        model: compiled, its optimizer built. path: any checkpoint `open_checkpoint` reads.

    Returns:
        number of the model's own variables that were filled.

    Raises:
        CkptDoctorError: the checkpoint cannot be opened.
    """
    with open_checkpoint(path) as checkpoint:
        by_layer: dict[str, list[StoredTensor]] = {}
        slots: list[StoredTensor] = []
        for tensor in checkpoint.tensors:
            if tensor.info.role in (Role.SLOT, Role.OPTIMIZER):
                slots.append(tensor)
            elif tensor.info.layer is not None and tensor.info.role is not Role.METRIC:
                by_layer.setdefault(tensor.info.layer, []).append(tensor)
        filled = sum(_fill_layer(named.layer, by_layer.get(named.name, [])) for named in named_layers(model))
        _fill_in_order([raw(v) for v in dialect.optimizer_variables(model.optimizer)], slots)
        return filled


def _fill_layer(layer: Any, stored: Sequence[StoredTensor]) -> int:
    """By the variables' own names where they agree, else by order among equal shapes."""
    left = list(stored)
    count = 0
    for variable in layer.weights:
        inner = raw(variable)
        name = str(getattr(variable, "name", "")).rpartition("/")[2].partition(":")[0]
        shape = tuple(inner.shape)
        chosen = next((t for t in left if t.info.variable == name and t.info.shape == shape), None)
        chosen = chosen or next((t for t in left if t.info.shape == shape), None)
        value = _read(chosen) if chosen is not None else None
        if chosen is not None and value is not None:
            left.remove(chosen)
            inner.assign(value.astype(inner.dtype.as_numpy_dtype))
            count += 1
    return count


def _fill_in_order(variables: list[Any], stored: Sequence[StoredTensor]) -> None:
    """The optimizer's variables in saved order; a learning rate that was not stored is left out; else nothing."""
    if len(stored) == len(variables) - 1:
        variables = [v for v in variables if "learning_rate" not in str(v.name)]
    if len(stored) != len(variables) or any(
        t.info.shape != tuple(v.shape) for t, v in zip(stored, variables, strict=True)
    ):
        return
    for variable, tensor in zip(variables, stored, strict=True):
        value = _read(tensor)
        if value is not None:
            variable.assign(value.astype(variable.dtype.as_numpy_dtype))


def _read(tensor: StoredTensor) -> Array | None:
    """The values; 2-byte floats come as raw integers and are read as what they are."""
    try:
        values = tensor.load(MAX_TENSOR)
    except TensorReadError:
        return None
    if tensor.info.dtype == "bfloat16":
        return np.asarray((values.view(np.uint16).astype(np.uint32) << 16).view(np.float32))
    if tensor.info.dtype == "float16" and values.dtype.kind != "f":
        return np.asarray(values.view(np.float16))
    return np.asarray(values) if values.dtype.kind in "fiu" else None
