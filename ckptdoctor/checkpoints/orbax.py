"""Orbax directories, as Keras' `OrbaxCheckpoint` callback writes them: `<dir>/<step>/pytree` with a `_METADATA` document.

The metadata gives every variable's name. Shapes and values stand in a key-value store that only tensorstore reads; where it
is installed (extra `orbax`) it does so in a contained child, otherwise shapes come from the model's configuration.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from ckptdoctor.checkpoints.assembly import checkpoint, compile_config, read_document
from ckptdoctor.checkpoints.contained import Contained, blocks
from ckptdoctor.checkpoints.contract import ByteSource, Checkpoint, CheckpointError, StoredTensor, TensorReadError
from ckptdoctor.checkpoints.documents import parse_object
from ckptdoctor.checkpoints.dtypes import is_known, itemsize, plausible
from ckptdoctor.checkpoints.keras3 import Chunks, RawTensor, known_dtype_problem, tensor, unreadable
from ckptdoctor.checkpoints.layers import ConfigLayer, config_tree
from ckptdoctor.checkpoints.legacy import NamedWeight, slot_from_name, spellings_of, weight_info
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.salvage import expected_variables
from ckptdoctor.checkpoints.sources import LocalOpener, Opener, join
from ckptdoctor.model import CheckpointInfo, Format, JsonObject, Missing, Problem, ProblemKind, Role, TensorInfo

CHECKPOINT_METADATA, TREE_METADATA = "_CHECKPOINT_METADATA", "_METADATA"
_BLOCK = 4 << 20  # bytes asked of the child at a time
MAX_KEY = 1024  # characters of one key of the tree; Keras' own have some dozens
MAX_WORDS = 500  # characters of the store's own words that are repeated
_SIZE_FILES = 10_000  # files whose sizes are added up
_NO_READER = "its values need tensorstore: install ckptdoctor[orbax]"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One variable: where it stands in the tree, and what the store knows of it."""

    keys: tuple[str, ...]
    shape: tuple[int, ...] | None
    dtype: str | None
    chunks: tuple[int, ...] | None
    problem: str | None


def step_directories(names: Sequence[str]) -> list[str]:
    """Names that are training steps, in ascending order."""
    return sorted((n for n in names if n.isdigit() and len(n) < 19), key=int)


def find_step(path: str, names: set[str], opener: Opener) -> str | None:
    """The directory of the latest step at a path: the path itself, or its highest number; None without one."""
    if CHECKPOINT_METADATA in names or (TREE_METADATA in names and "manifest.ocdbt" in names):
        return path
    for name in reversed(step_directories(sorted(names))):
        step = join(path, name)
        try:
            inside = set(opener.list(step)) if opener.stat(step).is_dir else set()
        except CheckpointError:
            continue
        if CHECKPOINT_METADATA in inside:
            return step
    return None


def open_orbax(path: str, step: str, opener: Opener, limits: ReadLimits) -> Checkpoint:
    """An Orbax checkpoint.

    Args:
        path: as the user gave it. step: the step's directory.

    Raises:
        CheckpointError: its metadata cannot be read.
    """
    names = set(opener.list(step))
    tree = join(step, "pytree") if "pytree" in names else step
    problems: list[Problem] = []
    document, _ = read_document(opener, tree, TREE_METADATA, limits, problems)
    if document is None or not isinstance(document.get("tree_metadata"), Mapping):
        reason = problems[0].message if problems else "it names no variables"
        raise CheckpointError(f"{path} is an Orbax directory without a readable {TREE_METADATA}: {reason}")
    model = _model_config(step, names, opener, limits, problems)
    keys = _tree_keys(document["tree_metadata"], limits)
    child: Contained | None = None
    outward = _outward_link(tree, limits) if isinstance(opener, LocalOpener) else None
    if outward is not None:
        problems.append(Problem(ProblemKind.HOSTILE, outward))
    elif isinstance(opener, LocalOpener) and importlib.util.find_spec("tensorstore") is not None:
        setup = {
            "directory": os.path.realpath(tree),
            "ocdbt": bool(document.get("use_ocdbt", True)),
            "zarr3": bool(document.get("use_zarr3", False)),
        }
        child = Contained("orbax_child.py", "tensorstore", path, limits, setup=setup)
    try:
        entries, child = _entries(keys, child, outward or _NO_READER, problems, limits)
        tensors = _describe(entries, config_tree(model), child)
        if child is None and outward is None:
            problems.append(Problem(ProblemKind.UNSUPPORTED, f"names are read from the metadata only: {_NO_READER}"))
        info = CheckpointInfo(
            path=path,
            format=Format.ORBAX,
            size_bytes=_size(step, opener),
            keras_version=Missing("an Orbax directory does not record a Keras version"),
            saved_at=_saved_at(step, names, opener, limits),
            backend=Missing("an Orbax directory does not record a backend"),
            model_config=model,
            compile_config=compile_config(None if isinstance(model, Missing) else model),
            problems=tuple(problems),
        )
        sources: tuple[ByteSource, ...] = () if child is None else (child,)
        return checkpoint(info, tensors, sources)
    except BaseException:
        if child is not None:
            child.close()
        raise


def _outward_link(tree: str, limits: ReadLimits) -> str | None:
    """A sentence about a link that leads tensorstore, which follows any, out of the store; None without one."""
    if limits.follow_links:
        return None
    root = os.path.realpath(tree)
    stack, seen = [root], 0
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    seen += 1
                    if seen > limits.directory_entries:
                        return f"the store holds more than {limits.directory_entries:,} files: see --limit directory_entries"
                    if entry.is_symlink() and os.path.commonpath((os.path.realpath(entry.path), root)) != root:
                        return f"{entry.name[:200]} is a link that leaves the checkpoint directory: no value was read"
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(entry.path)
        except OSError:
            continue
    return None


def _tree_keys(tree: Mapping[str, Any], limits: ReadLimits) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for item in tree.values():
        raw = item.get("key_metadata") if isinstance(item, Mapping) else None
        if not isinstance(raw, list) or len(found) >= limits.table_entries:
            continue
        keys = tuple(k.get("key") for k in raw if isinstance(k, Mapping))
        if keys and all(isinstance(k, str | int) and len(str(k)) <= MAX_KEY for k in keys):
            found.append(tuple(str(k) for k in keys))
    return found


def _entries(
    keys: Sequence[tuple[str, ...]], child: Contained | None, absent: str, problems: list[Problem], limits: ReadLimits
) -> tuple[list[_Entry], Contained | None]:
    rows: Mapping[str, Any] = {}
    if child is not None:
        try:
            rows = json.loads(child.ask({"ask": "list", "keys": [".".join(k) for k in keys]}))["rows"]
        except (CheckpointError, KeyError, ValueError) as error:
            problems.append(Problem(ProblemKind.UNSUPPORTED, str(error)))
            child.close()
            child = None
    found: list[_Entry] = []
    for parts in keys:
        row = rows.get(".".join(parts))
        if not isinstance(row, Mapping):
            found.append(_Entry(parts, None, None, None, absent))
        elif "error" in row:
            sentence = f"{'/'.join(parts)} cannot be read: {str(row['error'])[:200]}"
            problems.append(Problem(ProblemKind.DAMAGED, sentence, "/".join(parts)))
            found.append(_Entry(parts, None, None, None, sentence))
        else:
            found.append(_entry(parts, row, limits))
    return found, child


def _entry(parts: tuple[str, ...], row: Mapping[str, Any], limits: ReadLimits) -> _Entry:
    try:
        shape = tuple(int(e) for e in row["shape"])
        chunks = tuple(int(c) for c in row["chunks"]) if row["chunks"] else None
        dtype = str(row["dtype"])[:80]
    except (KeyError, TypeError, ValueError):
        return _Entry(parts, None, None, None, f"{'/'.join(parts)} is described in a way that makes no sense")
    if len(shape) > limits.rank or not plausible(shape, 16):
        return _Entry(parts, None, None, None, f"{'/'.join(parts)} has an impossible shape")
    return _Entry(parts, shape, dtype, chunks, known_dtype_problem("/".join(parts), dtype))


def _describe(entries: Sequence[_Entry], root: ConfigLayer | None, child: Contained | None) -> list[StoredTensor]:
    shapes: dict[str, tuple[int, ...]] = {}
    if root is not None:
        for leaf in root.leaves():
            shapes.update({f"{leaf.name}/{name}": shape for name, shape in expected_variables(leaf)})
    weights: list[NamedWeight] = []
    found: list[StoredTensor] = []
    for order, entry in enumerate(entries):
        kind, names = entry.keys[0], entry.keys[1:]
        if kind == "optimizer_variables" or not names:
            continue
        full = "/".join(names)
        raw = _raw(entry, order, shapes.get(full), child)
        if kind == "metrics_variables":
            info = TensorInfo(
                raw.path, None, None, full, Role.METRIC, raw.shape, raw.dtype, raw.nbytes, trainable=False
            )
        else:
            info = _weight(raw, full, root, trainable=kind == "trainable_variables")
            weights.append(NamedWeight(info, full))
        found.append(tensor(raw, info))
    spellings = spellings_of(weights)
    by_name = {name: weight.info.shape for name, weight in spellings.items() if weight is not None}
    scaled = any("loss_scale" in "/".join(e.keys) for e in entries)
    for order, entry in enumerate(entries):
        if entry.keys[0] != "optimizer_variables":
            continue
        full = "/".join(entry.keys[1:])
        guess = next((by_name[n] for n in _stems(entry.keys[-1]) if n in by_name), None)
        raw = _raw(entry, len(entries) + order, guess, child)
        found.append(tensor(raw, slot_from_name(raw, full, spellings, scaled=scaled)))
    return sorted(found, key=lambda t: (t.info.role in (Role.SLOT, Role.OPTIMIZER), t.info.role is Role.METRIC))


def _stems(name: str) -> Iterator[str]:
    """`dense_kernel` from `dense_kernel_momentum`."""
    parts = name.split("_")
    for end in range(len(parts) - 1, 0, -1):
        yield "_".join(parts[:end])


def _weight(raw: RawTensor, full: str, root: ConfigLayer | None, *, trainable: bool) -> TensorInfo:
    from dataclasses import replace

    own = full.split("/", 1)[0]
    config = None if root is None else next((layer for layer in root.layers if layer.own == own), None)
    info = weight_info(raw, own, raw.path.rpartition("/")[0], full, config, model=root)
    if info.role is Role.WEIGHT:
        return replace(info, trainable=trainable)
    return info


def _raw(entry: _Entry, order: int, guess: tuple[int, ...] | None, child: Contained | None) -> RawTensor:
    path = "/".join(entry.keys)
    shape = entry.shape if entry.shape is not None else (guess or ())
    dtype = entry.dtype if entry.dtype is not None else "float32"
    nbytes = math.prod(shape) * (itemsize(dtype) if is_known(dtype) else 0)
    chunks: Chunks = unreadable(f"{path}: {entry.problem}")
    if entry.problem is None and child is not None:
        chunks = _from_child(child, entry, path, nbytes)
    return RawTensor(path, order, shape, dtype, nbytes, None, chunks, entry.problem)


def _cut(text: str) -> str:
    """The library's own words repeat the key and every place it looked at."""
    return text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 2] + " …"


def _from_child(child: Contained, entry: _Entry, path: str, nbytes: int) -> Chunks:
    def chunks() -> Iterator[bytes | memoryview]:
        assert entry.shape is not None
        width = nbytes // max(1, math.prod(entry.shape))
        done = 0
        if nbytes == 0:
            return
        for start, count in blocks(entry.shape, entry.chunks, width, _BLOCK):
            try:
                data = child.ask({"ask": "read", "key": ".".join(entry.keys), "start": start, "count": count})
            except CheckpointError as error:
                raise TensorReadError(_cut(str(error))) from None
            done += len(data)
            yield data
        if done != nbytes:
            raise TensorReadError(f"{path} gave {done:,} of its {nbytes:,} bytes")

    return chunks


# --- documents beside the tree -----------------------------------------------------------------------


def _model_config(
    step: str, names: set[str], opener: Opener, limits: ReadLimits, problems: list[Problem]
) -> JsonObject | Missing:
    absent = Missing("this checkpoint was saved without the model's configuration")
    if "model_config" not in names:
        return absent
    document, _ = read_document(opener, join(step, "model_config"), "_strings.json", limits, problems)
    raw = None if document is None else document.get("config")
    if not isinstance(raw, str):
        return absent
    try:
        return parse_object(raw.encode("utf-8", "replace"), "model_config", limits)
    except CheckpointError as error:
        problems.append(Problem(ProblemKind.DAMAGED, str(error), "model_config"))
        return Missing(str(error))


def _saved_at(step: str, names: set[str], opener: Opener, limits: ReadLimits) -> str | Missing:
    absent = Missing("not recorded in this directory")
    if CHECKPOINT_METADATA not in names:
        return absent
    document, _ = read_document(opener, step, CHECKPOINT_METADATA, limits, [])
    stamp = None if document is None else document.get("commit_timestamp_nsecs")
    if not isinstance(stamp, int) or not 0 < stamp < 1 << 62:
        return absent
    from datetime import datetime

    return datetime.fromtimestamp(stamp / 1e9, tz=UTC).strftime("%Y-%m-%d@%H:%M:%S")


def _size(step: str, opener: Opener) -> int:
    """Bytes of all files of a step, at most three levels deep."""
    total = seen = 0
    stack = [(step, 0)]
    while stack and seen < _SIZE_FILES:
        directory, depth = stack.pop()
        try:
            names = opener.list(directory)
        except CheckpointError:
            continue
        for name in names:
            seen += 1
            try:
                found = opener.stat(join(directory, name))
            except CheckpointError:
                continue
            if not found.is_dir:
                total += found.size
            elif depth < 3:
                stack.append((join(directory, name), depth + 1))
    return total
