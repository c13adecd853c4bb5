"""Recorded batches as files: flat named arrays, stacked where their shapes agree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Argument:
    """How one argument of the step (x, y or sample_weight) is made of stored arrays.

    Attributes:
        form: `single`, `list` or `dict`.
        names: dict keys or input names, "" for a single array; nested keys are joined with `/`.
        keys: names of the stored arrays, in the same order.
    """

    form: str
    names: tuple[str, ...]
    keys: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As recorder.json holds it."""
        return {"form": self.form, "names": list(self.names), "keys": list(self.keys)}


@dataclass(slots=True)
class Batch:
    """One batch as the step saw it.

    Attributes:
        step: which training step saw it.
        arguments: x, y and sample_weight: nested tuples, lists and dicts of tensors or arrays, or None.
        rows: rows of each replica.
        seeds: (generators, 2) states before the step; None where unknown.
    """

    step: int
    arguments: tuple[Any, Any, Any]
    rows: tuple[int, ...]
    seeds: NDArray[np.int64] | None = None


@dataclass(slots=True)
class Layout:
    """What was learnt while batches were turned into arrays; goes into recorder.json."""

    arguments: dict[str, Argument | None] = field(default_factory=dict)
    densified: set[str] = field(default_factory=set)
    stored_as: dict[str, str] = field(default_factory=dict)


def name_leaves(
    arguments: tuple[Any, Any, Any], input_names: Sequence[str] = ()
) -> tuple[dict[str, Argument | None], list[tuple[str, Any]]]:
    """How the arguments of a step are made of named leaves, and the leaves in order.

    Args:
        arguments: x, y and sample_weight.
        input_names: names for several inputs given as a list, in order; numbers are used where they do not fit.
    """
    described: dict[str, Argument | None] = {}
    named: list[tuple[str, Any]] = []
    for prefix, value in zip(("x", "y", "sample_weight"), arguments, strict=True):
        leaves = [(name, leaf) for name, leaf in _leaves(value) if leaf is not None]
        if not leaves:
            described[prefix] = None
            continue
        form = "dict" if isinstance(value, Mapping) else "list" if isinstance(value, (list, tuple)) else "single"
        names = [name for name, _ in leaves]
        if prefix == "x" and form == "list" and len(input_names) == len(names) == len(set(input_names)):
            names = list(input_names)
        keys = _unique([prefix if form == "single" else f"{prefix}_{_word(name)}" for name in names])
        described[prefix] = Argument(form, tuple(names), tuple(keys))
        named += zip(keys, (leaf for _, leaf in leaves), strict=True)
    return described, named


def flatten(batch: Batch, input_names: Sequence[str] = ()) -> tuple[Arrays, Layout]:
    """The arrays of one batch by name."""
    described, named = name_leaves(batch.arguments, input_names)
    layout = Layout(described)
    return {key: _as_array(leaf, key, layout) for key, leaf in named}, layout


def write_batches(directory: Path, batches: Sequence[Arrays], steps: Sequence[int]) -> None:
    """Write `directory` with one npz per run of batches of equal shapes, in order."""
    directory.mkdir()
    start = 0
    for end in range(1, len(batches) + 1):
        if end == len(batches) or _signature(batches[end]) != _signature(batches[start]):
            write_stack(directory / f"batches_{start:04d}.npz", batches[start:end], steps[start:end])
            start = end


def uniform(batches: Sequence[Arrays]) -> bool:
    """Whether all batches have the same arrays, shapes and dtypes and so fit one file."""
    return len({_signature(b) for b in batches}) <= 1


def write_stack(path: Path, batches: Sequence[Arrays], steps: Sequence[int]) -> None:
    """One npz with every array stacked to (K, …) and `step` (K,)."""
    stacks = {key: np.stack([b[key] for b in batches]) for key in batches[0]}
    with path.open("wb") as handle:
        np.savez(handle, allow_pickle=False, step=np.asarray(steps, np.int64), **stacks)


def _signature(arrays: Arrays) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    return tuple((key, a.shape, a.dtype.str) for key, a in arrays.items())


def _leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        pairs = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, (list, tuple)):
        pairs = [(str(i), v) for i, v in enumerate(value)]
    else:
        return [("/".join(path), value)]
    return [leaf for key, child in pairs for leaf in _leaves(child, (*path, key))]


def _word(name: str) -> str:
    return re.sub(r"[^0-9A-Za-z_.\-]", "_", name) or "0"


def _unique(keys: list[str]) -> list[str]:
    seen: set[str] = set()
    result = []
    for key in keys:
        candidate, n = key, 2
        while candidate in seen:
            candidate, n = f"{key}_{n}", n + 1
        seen.add(candidate)
        result.append(candidate)
    return result


def _as_array(leaf: Any, key: str, layout: Layout) -> NDArray[Any]:
    """One tensor as an array that npz can hold without pickling."""
    if hasattr(leaf, "to_tensor"):  # tf.RaggedTensor
        layout.densified.add(key)
        leaf = leaf.to_tensor()
    elif hasattr(leaf, "dense_shape"):  # tf.SparseTensor
        import tensorflow as tf

        layout.densified.add(key)
        leaf = tf.sparse.to_dense(tf.sparse.reorder(leaf))
    array: NDArray[Any] = np.asarray(leaf.numpy() if hasattr(leaf, "numpy") else leaf)
    if array.dtype.kind == "O":  # strings
        return np.asarray([_as_bytes(v) for v in array.ravel()], dtype=np.bytes_).reshape(array.shape)
    if array.dtype.kind == "V":  # bfloat16 and float8, which numpy alone cannot read back
        layout.stored_as[key] = str(array.dtype)
        return array.astype(np.float32)
    return array


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
