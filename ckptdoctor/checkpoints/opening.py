"""From a path to an open checkpoint: which container it is, and what each container is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ckptdoctor.checkpoints.contract import ByteSource, Checkpoint, CheckpointError, StoredTensor
from ckptdoctor.checkpoints.documents import parse_object
from ckptdoctor.checkpoints.h5files import H5Content, open_hdf5
from ckptdoctor.checkpoints.hdf5 import find_signature
from ckptdoctor.checkpoints.keras3 import describe
from ckptdoctor.checkpoints.layers import ConfigLayer, config_tree
from ckptdoctor.checkpoints.legacy import describe_legacy, is_legacy
from ckptdoctor.checkpoints.limits import DEFAULT_LIMITS, ReadLimits
from ckptdoctor.checkpoints.sources import LocalOpener, Opener, Window, join
from ckptdoctor.checkpoints.zips import LOCAL_SIGNATURE, Archive, member_window, read_archive, read_member
from ckptdoctor.model import CheckpointInfo, Format, JsonObject, Missing, Problem, ProblemKind, Role

WEIGHTS_H5, WEIGHTS_NPZ = "model.weights.h5", "model.weights.npz"
_SCALAR_BYTES = 16  # widest scalar that is read while opening


def open_checkpoint(
    path: str | os.PathLike[str], *, limits: ReadLimits = DEFAULT_LIMITS, opener: Opener | None = None
) -> Checkpoint:
    """Open any checkpoint that Keras 2.12 to 3.15 writes, found by its content.

    Args:
        path: a file or a directory; with `opener`, in that store's spelling.
        limits: bounds on what the file may ask for.
        opener: where files come from; this machine without one.

    Raises:
        CheckpointError: it does not exist, is not a checkpoint, or is damaged beyond use.
    """
    name = os.fspath(path)
    opener = opener if opener is not None else LocalOpener(limits)
    if not name:
        raise CheckpointError("an empty path names no checkpoint")
    found = opener.stat(name)
    if found.is_dir:
        return _open_directory(name, opener, limits)
    if found.size == 0 and isinstance(opener, LocalOpener):
        opener.open(name).close()
        raise CheckpointError(f"{name} is empty (0 bytes): saving it never got as far as writing anything")
    source = opener.open(name)
    try:
        return _open_file(name, source, opener, limits)
    except BaseException:
        source.close()
        raise


def _open_file(path: str, source: ByteSource, opener: Opener, limits: ReadLimits) -> Checkpoint:
    head = source.read(0, 8)
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes): saving it never got as far as writing anything")
    if head[:4] == LOCAL_SIGNATURE:
        return _open_keras_zip(path, source, opener, limits)
    window = Window(source, 0, source.size, block=opener.read_ahead)
    if find_signature(window) is not None:
        return _open_h5_file(path, source, window, limits)
    raise CheckpointError(
        f"{path} is not a checkpoint that Keras writes: expected a .keras archive, HDF5, a TensorFlow checkpoint or a "
        f"directory of one, found a file that starts with {head[:8]!r}"
    )


def _open_directory(path: str, opener: Opener, limits: ReadLimits) -> Checkpoint:
    names = set(opener.list(path))
    if "config.json" in names and (WEIGHTS_H5 in names or WEIGHTS_NPZ in names):
        return _open_keras_dir(path, names, opener, limits)
    raise CheckpointError(f"{path} is a directory without a checkpoint that can be opened as one; name a file in it")


# --- .keras ----------------------------------------------------------------------------------------


def _open_keras_zip(path: str, source: ByteSource, opener: Opener, limits: ReadLimits) -> Checkpoint:
    archive = read_archive(source, limits, block=opener.read_ahead)
    if "config.json" not in archive.members and not any(n.startswith("model.weights") for n in archive.members):
        names = ", ".join(sorted(archive.members)[:3]) or "nothing that can be read"
        reason = archive.problems[0].message if archive.problems else f"it holds {names}"
        raise CheckpointError(f"{path} is a zip archive but not a .keras file (expected config.json in it): {reason}")
    problems: list[Problem] = []
    if archive.cut:
        problems.append(
            Problem(ProblemKind.DAMAGED, "the archive has no table of contents: saving was cut off before its end")
        )
    config = _member_object(archive, "config.json", path, limits, problems)
    metadata = _member_object(archive, "metadata.json", path, limits, problems)
    tensors: list[StoredTensor] = []
    coverage = 1.0
    if WEIGHTS_H5 in archive.members:
        window = member_window(archive, WEIGHTS_H5, limits, block=opener.read_ahead)
        tensors, coverage, weight_problems = _keras3_weights(window, path, config, limits)
        problems.extend(weight_problems)
    else:
        problems.append(Problem(ProblemKind.INCOMPLETE, f"the archive holds no {WEIGHTS_H5}"))
        coverage = 0.0
    problems.extend(archive.problems)
    info = _keras_info(path, Format.KERAS_ZIP, source.size, config, metadata, problems, coverage)
    return _checkpoint(info, tensors, (source,))


def _member_object(
    archive: Archive, name: str, path: str, limits: ReadLimits, problems: list[Problem]
) -> dict[str, Any] | None:
    try:
        raw = read_member(archive, name, limits.json_bytes, limits)
        if raw is None:
            problems.append(Problem(ProblemKind.INCOMPLETE, f"the archive holds no {name}", name))
            return None
        return parse_object(raw, name, limits)
    except CheckpointError as error:
        problems.append(Problem(ProblemKind.DAMAGED, str(error).removeprefix(f"{path}: "), name))
        return None


def _open_keras_dir(path: str, names: set[str], opener: Opener, limits: ReadLimits) -> Checkpoint:
    problems: list[Problem] = []
    documents: dict[str, dict[str, Any] | None] = {}
    size = 0
    for name in ("config.json", "metadata.json"):
        documents[name] = None
        if name not in names:
            problems.append(Problem(ProblemKind.INCOMPLETE, f"the directory holds no {name}", name))
            continue
        try:
            source = opener.open(join(path, name), inside=path)
            size += source.size
            raw = source.read(0, min(source.size, limits.json_bytes + 1))
            source.close()
            documents[name] = parse_object(raw, name, limits)
        except CheckpointError as error:
            problems.append(Problem(ProblemKind.DAMAGED, str(error), name))
    weights = opener.open(join(path, WEIGHTS_H5), inside=path)
    try:
        window = Window(weights, 0, weights.size, block=opener.read_ahead)
        config = documents["config.json"]
        tensors, coverage, weight_problems = _keras3_weights(window, join(path, WEIGHTS_H5), config, limits)
    except BaseException:
        weights.close()
        raise
    problems.extend(weight_problems)
    size += weights.size
    info = _keras_info(path, Format.KERAS_DIR, size, config, documents["metadata.json"], problems, coverage)
    return _checkpoint(info, tensors, (weights,))


def _keras3_weights(
    window: Window, where: str, config: JsonObject | None, limits: ReadLimits
) -> tuple[list[StoredTensor], float, list[Problem]]:
    """Tensors of the HDF5 in a `.keras`; damage is told, not raised, because the configuration remains."""
    try:
        content = open_hdf5(window, where, limits)
    except CheckpointError as error:
        return [], 0.0, [Problem(ProblemKind.DAMAGED, str(error))]
    root = config_tree(config) if config is not None else None
    compiled = _compile_config(config)
    tensors = describe(content.tensors, content.names, root, compiled, content.order)
    return tensors, _coverage(content), content.problems


def _coverage(content: H5Content) -> float:
    total = content.located_bytes + content.missing_bytes
    return content.located_bytes / total if total else 1.0


def _compile_config(config: JsonObject | None) -> JsonObject | Missing:
    compiled = None if config is None else config.get("compile_config")
    return compiled if isinstance(compiled, Mapping) else Missing("the model was saved without being compiled")


def _keras_info(
    path: str,
    form: Format,
    size: int,
    config: JsonObject | None,
    metadata: JsonObject | None,
    problems: list[Problem],
    coverage: float,
) -> CheckpointInfo:
    absent = Missing("metadata.json is absent or damaged")
    return CheckpointInfo(
        path=path,
        format=form,
        size_bytes=size,
        keras_version=_text(metadata, "keras_version", absent),
        saved_at=_text(metadata, "date_saved", absent),
        backend=Missing("a .keras file does not record its backend"),
        model_config=config if config is not None else Missing("config.json is absent or damaged"),
        compile_config=_compile_config(config),
        problems=tuple(problems),
        coverage=coverage,
    )


def _text(document: JsonObject | None, key: str, absent: Missing) -> str | Missing:
    value = None if document is None else document.get(key)
    return value if isinstance(value, str) else absent


# --- HDF5 files ------------------------------------------------------------------------------------


def _open_h5_file(path: str, source: ByteSource, window: Window, limits: ReadLimits) -> Checkpoint:
    content = open_hdf5(window, path, limits)
    groups = content.tree.groups
    if is_legacy(groups):
        return _open_legacy(path, source, content, limits)
    if not any(p == "vars" or p.endswith("/vars") for p in groups):
        raise CheckpointError(
            f"{path} is an HDF5 file but holds no Keras weights (no group named vars or model_weights)"
        )
    tensors = describe(content.tensors, content.names, None, Missing("weights only"), content.order)
    info = CheckpointInfo(
        path=path,
        format=Format.WEIGHTS_H5,
        size_bytes=source.size,
        keras_version=Missing("a weights file does not record its Keras version"),
        saved_at=Missing("a weights file does not record when it was saved"),
        backend=Missing("a weights file does not record its backend"),
        model_config=Missing("a weights file holds no model configuration"),
        compile_config=Missing("a weights file holds no compile configuration"),
        problems=tuple(content.problems),
        coverage=_coverage(content),
    )
    return _checkpoint(info, tensors, (source,))


def _open_legacy(path: str, source: ByteSource, content: H5Content, limits: ReadLimits) -> Checkpoint:
    root = content.tree.groups[""].attributes
    weights = content.tree.groups.get("model_weights")
    attributes = {**(weights.attributes if weights is not None else {}), **root}
    problems = list(content.problems)
    documents: dict[str, JsonObject | Missing] = {}
    for name, what in (("model_config", "model"), ("training_config", "compile")):
        raw = attributes.get(name)
        documents[name] = Missing(f"a weights-only file holds no {what} configuration")
        if isinstance(raw, str):
            try:
                documents[name] = parse_object(raw.encode("utf-8", "replace"), name, limits)
            except CheckpointError as error:
                documents[name] = Missing(str(error))
                problems.append(Problem(ProblemKind.DAMAGED, str(error), name))
        elif "model_config" in attributes and name == "training_config":
            documents[name] = Missing("the model was saved without being compiled")
    tree: ConfigLayer | None = config_tree(documents["model_config"]) if documents["model_config"] else None
    tensors, more = describe_legacy(content.tensors, content.tree.groups, tree)
    info = CheckpointInfo(
        path=path,
        format=Format.LEGACY_H5,
        size_bytes=source.size,
        keras_version=_text(attributes, "keras_version", Missing("not recorded in this file")),
        saved_at=Missing("a legacy HDF5 file does not record when it was saved"),
        backend=_text(attributes, "backend", Missing("not recorded in this file")),
        model_config=documents["model_config"],
        compile_config=documents["training_config"],
        problems=(*problems, *more),
        coverage=_coverage(content),
    )
    return _checkpoint(info, tensors, (source,))


# --- the result ------------------------------------------------------------------------------------


def _checkpoint(info: CheckpointInfo, tensors: list[StoredTensor], sources: tuple[ByteSource, ...]) -> Checkpoint:
    return Checkpoint(info, tuple(tensors), read_scalars(tensors), sources)


_SCALARS = frozenset({"iterations", "learning_rate", "loss_scale", "loss_scale_step_counter", "inner_iterations"})


def read_scalars(tensors: list[StoredTensor]) -> dict[str, float]:
    """The optimizer's scalars as numbers, by name; the first of a name counts.

    Under a loss scale the outer iteration count never moves: `iterations` is then the inner one, the updates applied.
    """
    from ckptdoctor.checkpoints.contract import TensorReadError
    from ckptdoctor.checkpoints.dtypes import decode

    found: dict[str, float] = {}
    for stored in tensors:
        info = stored.info
        if info.role is not Role.OPTIMIZER or info.variable not in _SCALARS or info.variable in found:
            continue
        if info.shape != () or info.nbytes > _SCALAR_BYTES or stored.problem is not None:
            continue
        try:
            found[info.variable] = float(decode(stored.load(), info.dtype))
        except (TensorReadError, CheckpointError):
            continue
    if "iterations" not in found and "inner_iterations" in found:
        found["iterations"] = found["inner_iterations"]
    return found
