"""Checkpoints that are HDF5 files: weights only, whole models of the legacy format, weights in shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ckptdoctor.checkpoints.assembly import checkpoint, safe_name, text
from ckptdoctor.checkpoints.contract import ByteSource, Checkpoint, CheckpointError, NotACheckpointError
from ckptdoctor.checkpoints.documents import parse_object
from ckptdoctor.checkpoints.h5files import H5Content, open_hdf5
from ckptdoctor.checkpoints.keras3 import RawTensor, describe
from ckptdoctor.checkpoints.layers import config_tree
from ckptdoctor.checkpoints.legacy import describe_legacy, is_legacy
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import Opener, Window, join
from ckptdoctor.model import CheckpointInfo, Format, JsonObject, Missing, Problem, ProblemKind

_SHARD_ORDER = 1 << 48  # orders of saving in one shard stay below this


def weights_info(path: str, form: Format, size: int, problems: Sequence[Problem], coverage: float) -> CheckpointInfo:
    """What a file of weights alone can say of itself: little."""
    return CheckpointInfo(
        path=path,
        format=form,
        size_bytes=size,
        keras_version=Missing("a weights file does not record its Keras version"),
        saved_at=Missing("a weights file does not record when it was saved"),
        backend=Missing("a weights file does not record its backend"),
        model_config=Missing("a weights file holds no model configuration"),
        compile_config=Missing("a weights file holds no compile configuration"),
        problems=tuple(problems),
        coverage=coverage,
    )


def is_keras3(groups: Mapping[str, Any]) -> bool:
    """Whether an HDF5 tree has the layout of Keras 3 weights."""
    return any(p == "vars" or p.endswith("/vars") for p in groups)


def open_h5_file(path: str, source: ByteSource, window: Window, limits: ReadLimits) -> Checkpoint:
    """A `.weights.h5` or a legacy `.h5`, told apart by content.

    Raises:
        CheckpointError: damaged beyond use, or HDF5 without Keras weights.
    """
    content = open_hdf5(window, path, limits)
    groups = content.tree.groups
    if is_legacy(groups):
        return _legacy(path, source, content, limits)
    if not is_keras3(groups):
        content.close()
        raise _no_weights(path, content)
    damaged = content.coverage < 1.0
    compiled = Missing("weights only")
    tensors = describe(content.tensors, content.names, None, compiled, content.order, partial=damaged)
    info = weights_info(path, Format.WEIGHTS_H5, source.size, content.problems, content.coverage)
    return checkpoint(info, tensors, (source, *content.sources))


def _no_weights(path: str, content: H5Content) -> CheckpointError:
    if content.problems:
        return CheckpointError(f"{path}: no weights could be located: {content.problems[0].message}")
    return NotACheckpointError(
        f"{path} is an HDF5 file but holds no Keras weights (expected a group named vars or model_weights)"
    )


def _legacy(path: str, source: ByteSource, content: H5Content, limits: ReadLimits) -> Checkpoint:
    groups = content.tree.groups
    root = groups[""].attributes if "" in groups else {}
    weights = groups.get("model_weights")
    attributes = {**(weights.attributes if weights is not None else {}), **root}
    problems = list(content.problems)
    whole = "model_config" in attributes
    model = _document(attributes, "model_config", "a weights-only file holds no model configuration", limits, problems)
    absent = (
        "the model was saved without being compiled" if whole else "a weights-only file holds no compile configuration"
    )
    compiled = _document(attributes, "training_config", absent, limits, problems)
    tensors, more = describe_legacy(content.tensors, groups, config_tree(model))
    info = CheckpointInfo(
        path=path,
        format=Format.LEGACY_H5,
        size_bytes=source.size,
        keras_version=text(attributes, "keras_version", Missing("not recorded in this file")),
        saved_at=Missing("a legacy HDF5 file does not record when it was saved"),
        backend=text(attributes, "backend", Missing("not recorded in this file")),
        model_config=model,
        compile_config=compiled,
        problems=(*problems, *more),
        coverage=content.coverage,
    )
    return checkpoint(info, tensors, (source, *content.sources))


def _document(
    attributes: Mapping[str, Any], name: str, absent: str, limits: ReadLimits, problems: list[Problem]
) -> JsonObject | Missing:
    raw = attributes.get(name)
    if not isinstance(raw, str):
        return Missing(absent)
    try:
        return parse_object(raw.encode("utf-8", "replace"), name, limits)
    except CheckpointError as error:
        problems.append(Problem(ProblemKind.DAMAGED, str(error), name))
        return Missing(str(error))


# --- shards ----------------------------------------------------------------------------------------


def open_sharded(path: str, map_path: str, opener: Opener, limits: ReadLimits) -> Checkpoint:
    """`X.weights.json` and the shards that it names.

    Args:
        path: as the user gave it. map_path: of the JSON file.

    Raises:
        CheckpointError: not such a file, or none of its shards can be read.
    """
    directory = map_path.rpartition("/")[0]
    source = opener.open(map_path)
    try:
        raw = source.read(0, min(source.size, limits.json_bytes + 1))
    finally:
        source.close()
    document = parse_object(raw, path, limits)
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, Mapping):
        raise CheckpointError(f"{path} is JSON but names no shards (expected weight_map in it)")
    problems: list[Problem] = []
    shards = _shard_names(path, weight_map, limits, problems)
    raws: list[RawTensor] = []
    names: dict[str, str] = {}
    order: dict[str, int] = {}
    sources: list[ByteSource] = []
    size = len(raw)
    try:
        for index, shard in enumerate(shards):
            content = _open_shard(directory, shard, opener, limits, problems, sources)
            if content is None:
                continue
            size += content.tree.actual_bytes
            _merge(content, index, raws, names, order, problems)
        _require_one(path, shards, sources, problems)
        tensors = describe(raws, names, None, Missing("weights only"), order)
        located = sum(t.nbytes for t in raws if t.problem is None)
        metadata = document.get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
        expected = total if isinstance(total, (int, float)) and total > 0 else sum(t.nbytes for t in raws)
        coverage = min(1.0, located / expected) if expected else 1.0
        info = weights_info(path, Format.SHARDED_H5, size, problems, coverage if problems else 1.0)
        return checkpoint(info, tensors, sources)
    except BaseException:
        for source in sources:
            source.close()
        raise


def _require_one(path: str, shards: list[str], sources: list[ByteSource], problems: list[Problem]) -> None:
    if not sources:
        reason = problems[0].message if problems else "it names none"
        raise CheckpointError(f"{path} names {len(shards)} shards and none of them can be read: {reason}")


def _shard_names(path: str, weight_map: Mapping[str, Any], limits: ReadLimits, problems: list[Problem]) -> list[str]:
    found: dict[str, None] = {}
    for value in weight_map.values():
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str) or not safe_name(name):
                problems.append(
                    Problem(ProblemKind.HOSTILE, f"{str(name)[:200]!r} is not the name of a shard beside {path}")
                )
                continue
            found[name] = None
            if len(found) > limits.shards:
                raise CheckpointError(f"{path} names more than {limits.shards:,} shards; see --limit shards")
    return sorted(found)


def _open_shard(
    directory: str, name: str, opener: Opener, limits: ReadLimits, problems: list[Problem], sources: list[ByteSource]
) -> H5Content | None:
    try:
        source = opener.open(join(directory, name) if directory else name, inside=directory or ".")
    except CheckpointError as error:
        problems.append(Problem(ProblemKind.INCOMPLETE, f"the shard {name} is missing: {error}", name))
        return None
    try:
        content = open_hdf5(Window(source, 0, source.size, block=opener.read_ahead), name, limits)
    except CheckpointError as error:
        source.close()
        problems.append(Problem(ProblemKind.DAMAGED, str(error), name))
        return None
    sources.extend((source, *content.sources))
    return content


def _merge(
    content: H5Content,
    index: int,
    raws: list[RawTensor],
    names: dict[str, str],
    order: dict[str, int],
    problems: list[Problem],
) -> None:
    known = {raw.path for raw in raws}
    for raw in content.tensors:
        if raw.path in known:
            problems.append(
                Problem(ProblemKind.DAMAGED, f"{raw.path} stands in two shards; the first one is shown", raw.path)
            )
            continue
        raws.append(replace(raw, order=index * _SHARD_ORDER + raw.order))
    names.update(content.names)
    for group, address in content.order.items():
        order.setdefault(group, index * _SHARD_ORDER + address)
    problems.extend(content.problems)
