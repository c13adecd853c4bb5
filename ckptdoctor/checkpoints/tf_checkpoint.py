"""TensorFlow checkpoints (`X.index` and `X.data-…`) and the SavedModel directories that hold one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ckptdoctor.checkpoints.assembly import checkpoint, safe_name
from ckptdoctor.checkpoints.contract import ByteSource, Checkpoint, CheckpointError, Span, StoredTensor
from ckptdoctor.checkpoints.documents import parse_object
from ckptdoctor.checkpoints.dtypes import decode, itemsize
from ckptdoctor.checkpoints.keras3 import RawTensor, span_chunks, tensor, unreadable
from ckptdoctor.checkpoints.layers import ConfigLayer, config_tree
from ckptdoctor.checkpoints.legacy import NamedWeight, slot_from_name, spellings_of, weight_info
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.protobuf import fields, message, text
from ckptdoctor.checkpoints.sources import Opener, join
from ckptdoctor.checkpoints.tf_bundle import OBJECT_GRAPH, Bundle, BundleEntry, read_bundle, scalar_text
from ckptdoctor.checkpoints.tf_graph import GraphNode, read_graph
from ckptdoctor.model import CheckpointInfo, Format, JsonObject, Missing, Problem, ProblemKind, Role, TensorInfo

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_SLOT_PART = "/.OPTIMIZER_SLOT/"
_OPTIMIZER = re.compile(r"(^|/)_?optimizer/(?!_trainable_variables/)")
_METRIC = re.compile(r"(^|/)(_?metrics|_loss_tracker|keras_api/metrics)/")
_COPIES = "_all_variables/"  # `model.export` stores every variable twice
_BOOKKEEPING = frozenset({"save_counter", "train_counter", "ckpt_saved_epoch", "ckpt_saved_batch", "Variable"})
_STATE_FILE = re.compile(rb'^model_checkpoint_path:\s*"([^"\n]{1,4096})"', re.MULTILINE)


@dataclass(slots=True)
class _Parts:
    """A checkpoint while it is put together."""

    prefix: str
    bundle: Bundle
    sources: list[ByteSource | None]
    size: int
    problems: list[Problem] = field(default_factory=list)
    graph: list[GraphNode] = field(default_factory=list)

    def open_sources(self) -> list[ByteSource]:
        return [s for s in self.sources if s is not None]


def open_tf_checkpoint(
    path: str, prefix: str, opener: Opener, limits: ReadLimits, *, inside: str | None = None
) -> Checkpoint:
    """The checkpoint whose files start with `prefix`.

    Raises:
        CheckpointError: its index cannot be read.
    """
    parts = _open_parts(prefix, opener, limits, inside)
    try:
        tensors = _tensors(parts, None)
        found = {t.info.variable: t for t in tensors}
        epoch = _counter(found.get("ckpt_saved_epoch"), "epoch")
        backup = not isinstance(epoch, Missing)
        info = CheckpointInfo(
            path=path,
            format=Format.BACKUP if backup else Format.TF_CHECKPOINT,
            size_bytes=parts.size,
            keras_version=Missing("a TensorFlow checkpoint does not record a Keras version"),
            saved_at=Missing("a TensorFlow checkpoint does not record when it was saved"),
            backend="tensorflow",
            model_config=Missing("a TensorFlow checkpoint holds no model configuration"),
            compile_config=Missing("a TensorFlow checkpoint holds no compile configuration"),
            epoch=epoch,
            batch=_counter(found.get("ckpt_saved_batch"), "batch"),
            problems=tuple(parts.problems),
            coverage=_coverage(tensors),
        )
        return checkpoint(info, tensors, parts.open_sources())
    except BaseException:
        _close(parts)
        raise


def open_saved_model(path: str, opener: Opener, limits: ReadLimits) -> Checkpoint:
    """A SavedModel directory, of Keras 2 (with its configuration) or exported (without).

    Raises:
        CheckpointError: its variables cannot be read.
    """
    metadata, size = _keras_metadata(path, opener, limits)
    parts = _open_parts(join(path, "variables/variables"), opener, limits, path)
    try:
        parts.problems.extend(metadata.problems)
        tensors = _tensors(parts, config_tree(metadata.model))
        info = CheckpointInfo(
            path=path,
            format=Format.SAVED_MODEL,
            size_bytes=parts.size + size + opener.stat(join(path, "saved_model.pb")).size,
            keras_version=metadata.keras_version,
            saved_at=Missing("a SavedModel does not record when it was saved"),
            backend="tensorflow",
            model_config=metadata.model,
            compile_config=metadata.compiled,
            problems=tuple(parts.problems),
            coverage=_coverage(tensors),
        )
        return checkpoint(info, tensors, parts.open_sources())
    except BaseException:
        _close(parts)
        raise


def find_prefix(directory: str, names: Sequence[str], opener: Opener) -> str | None:
    """The checkpoint that a directory's `checkpoint` file calls the latest, else its only or last index."""
    indexes = sorted(n[:-6] for n in names if n.endswith(".index") and len(n) > 6)
    if "checkpoint" in names:
        try:
            source = opener.open(join(directory, "checkpoint"), inside=directory)
        except CheckpointError:
            source = None
        if source is not None:
            found = _STATE_FILE.search(source.read(0, 1 << 16))
            source.close()
            latest = found.group(1).decode("utf-8", "replace").rpartition("/")[2] if found else ""
            if safe_name(latest) and latest in indexes:
                return join(directory, latest)
    if not indexes:
        return None
    return join(directory, max(indexes, key=lambda n: [int(d) for d in re.findall(r"\d{1,12}", n)]))


# --- files -----------------------------------------------------------------------------------------


def _open_parts(prefix: str, opener: Opener, limits: ReadLimits, inside: str | None) -> _Parts:
    index = opener.open(f"{prefix}.index", inside=inside)
    try:
        bundle = read_bundle(index, limits)
        size = index.size
    finally:
        index.close()
    if not 0 < bundle.shards <= limits.shards:
        raise CheckpointError(
            f"{prefix}.index names {bundle.shards:,} data files, more than the {limits.shards:,} allowed; see --limit shards"
        )
    parts = _Parts(prefix, bundle, [], size)
    for i in range(bundle.shards):
        name = f"{prefix}.data-{i:05d}-of-{bundle.shards:05d}"
        try:
            source = opener.open(name, inside=inside)
        except CheckpointError as error:
            parts.problems.append(Problem(ProblemKind.INCOMPLETE, f"a data file is missing: {error}", name))
            parts.sources.append(None)
            continue
        parts.sources.append(source)
        parts.size += source.size
    entry = bundle.entries.get(OBJECT_GRAPH)
    if entry is not None and 0 <= entry.shard < len(parts.sources):
        source_or_none = parts.sources[entry.shard]
        if source_or_none is not None:
            try:
                parts.graph = read_graph(scalar_text(source_or_none, entry, limits), limits)
            except CheckpointError as error:
                parts.problems.append(Problem(ProblemKind.DAMAGED, f"names are lost: {error}", OBJECT_GRAPH))
    return parts


def _close(parts: _Parts) -> None:
    for source in parts.open_sources():
        source.close()


def _raw(entry: BundleEntry, parts: _Parts, order: int) -> RawTensor:
    dtype = entry.dtype or "unknown"
    problem: str | None = None
    nbytes = entry.size
    source: ByteSource | None = None
    if entry.dtype is None:
        problem = f"{entry.key} holds no numbers"
    elif entry.sliced:
        problem = f"{entry.key} is stored in slices, which cannot be read"
    else:
        if parts.bundle.big_endian and itemsize(dtype) > 1:
            dtype = {"bfloat16": ">bfloat16"}.get(dtype, _big(dtype))
        nbytes = _product(entry.shape) * itemsize(dtype)
        source = parts.sources[entry.shard] if 0 <= entry.shard < len(parts.sources) else None
        if source is None:
            problem = f"{entry.key} stands in a data file that is missing"
        elif nbytes != entry.size:
            problem = f"{entry.key} declares {nbytes:,} bytes by its shape and dtype but stores {entry.size:,}"
        elif entry.offset < 0 or entry.offset + nbytes > source.size:
            problem = f"{entry.key} lies beyond the end of {source.name.rpartition('/')[2]}: the file was cut off"
    path = entry.key.removesuffix(_VALUE)
    if problem is not None or source is None:
        sentence = problem or entry.key
        parts.problems.append(Problem(ProblemKind.DAMAGED, sentence, path))
        return RawTensor(path, order, entry.shape, dtype, nbytes, None, unreadable(sentence), sentence)
    span = Span(source, entry.offset, nbytes)
    return RawTensor(path, order, entry.shape, dtype, nbytes, span, span_chunks(span))


def _big(dtype: str) -> str:
    import numpy as np

    return np.dtype(dtype).newbyteorder(">").str


def _product(shape: Sequence[int]) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total


# --- names -----------------------------------------------------------------------------------------


def _tensors(parts: _Parts, root: ConfigLayer | None) -> list[StoredTensor]:
    """Weights, then metrics and counters, then the optimizer."""
    full_names = {key: full for node in parts.graph for key, full in node.keys}
    trainable = _trainable_keys(parts.graph)
    entries = [e for e in parts.bundle.entries.values() if not e.is_text and e.key != OBJECT_GRAPH]
    named = [(e, full_names.get(e.key) or e.key.removesuffix(_VALUE)) for e in entries]
    stored_once = {(full, e.shape) for e, full in named if not e.key.startswith(_COPIES)}
    weights: list[NamedWeight] = []
    found: list[StoredTensor] = []
    others: list[StoredTensor] = []
    optimizer: list[tuple[RawTensor, str]] = []
    created = {key: i for i, node in enumerate(parts.graph) for key, _ in node.keys}
    named.sort(key=lambda n: (created.get(n[0].key, len(parts.graph)), _natural(n[0].key)))
    for order, (entry, full) in enumerate(named):
        if entry.key.startswith(_COPIES) and (full, entry.shape) in stored_once:
            continue
        raw = _raw(entry, parts, order)
        if _SLOT_PART in entry.key or _OPTIMIZER.search(entry.key):
            optimizer.append((raw, full))
            continue
        if _METRIC.search(entry.key) or "/" not in full:
            others.append(tensor(raw, _other(raw, full, metric=bool(_METRIC.search(entry.key)))))
            continue
        info = _weight(raw, full, root)
        if trainable is not None and info.role is Role.WEIGHT:
            info = replace(info, trainable=entry.key in trainable)
        weights.append(NamedWeight(info, full))
        found.append(tensor(raw, info))
    spellings = spellings_of(weights)
    scaled = any("loss_scale" in full for _, full in optimizer)
    found.extend(others)
    found.extend(tensor(raw, slot_from_name(raw, full, spellings, scaled=scaled)) for raw, full in optimizer)
    return found


def _natural(key: str) -> list[tuple[int, int, str]]:
    return [(0, int(p), "") if p.isdigit() and len(p) < 10 else (1, 0, p) for p in re.split(r"[/-]", key)]


def _trainable_keys(graph: Sequence[GraphNode]) -> frozenset[str] | None:
    """Keys under the root's `trainable_variables`, None where the graph has no such list."""
    if not graph:
        return None
    index = next((node for name, node in graph[0].children if name == "trainable_variables"), None)
    if index is None or not 0 <= index < len(graph):
        return None
    members = (graph[n] for _, n in graph[index].children if 0 <= n < len(graph))
    return frozenset(key for node in members for key, _ in node.keys)


def _other(raw: RawTensor, full: str, *, metric: bool) -> TensorInfo:
    role = Role.METRIC if metric else (Role.STATE if full in _BOOKKEEPING or raw.shape == () else Role.WEIGHT)
    name = raw.path.rpartition("/")[2] if full == "Variable" else full.rpartition("/")[2]
    return TensorInfo(raw.path, None, None, name, role, raw.shape, raw.dtype, raw.nbytes, trainable=False)


def _weight(raw: RawTensor, full: str, root: ConfigLayer | None) -> TensorInfo:
    own = full.split("/", 1)[0]
    config: ConfigLayer | None = None
    if root is not None:
        config = next((layer for layer in root.layers if layer.own == own), None)
        if config is None:
            alike = [leaf for leaf in root.leaves() if leaf.own == own]
            config = alike[0] if len(alike) == 1 else None
    path = raw.path.rpartition("/")[0] or None
    return weight_info(raw, own, path, full, config, model=root, user=config.name if config is not None else own)


def _counter(stored: StoredTensor | None, what: str) -> int | Missing:
    absent = Missing(f"this container does not record {'an' if what[0] in 'aeiou' else 'a'} {what}")
    if stored is None or stored.problem is not None or stored.info.shape != ():
        return absent
    return int(decode(stored.load(), stored.info.dtype))


def _coverage(tensors: Sequence[StoredTensor]) -> float:
    total = sum(t.info.nbytes for t in tensors)
    return sum(t.info.nbytes for t in tensors if t.problem is None) / total if total else 1.0


# --- keras_metadata.pb -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Metadata:
    keras_version: str | Missing
    model: JsonObject | Missing
    compiled: JsonObject | Missing
    problems: list[Problem]


def _keras_metadata(path: str, opener: Opener, limits: ReadLimits) -> tuple[_Metadata, int]:
    """Configuration and version that Keras 2 kept beside the graph, and the size of that file."""
    absent = "an exported SavedModel holds no Keras configuration"
    found = _Metadata(Missing(absent), Missing(absent), Missing(absent), [])
    if "keras_metadata.pb" not in opener.list(path):
        return found, 0
    source = opener.open(join(path, "keras_metadata.pb"), inside=path)
    try:
        root = _root_metadata(source.read(0, min(source.size, limits.proto_bytes)))
        document = parse_object(root, "the root of keras_metadata.pb", limits) if root is not None else {}
    except CheckpointError as error:
        found.problems.append(Problem(ProblemKind.DAMAGED, str(error), "keras_metadata.pb"))
        return found, source.size
    finally:
        source.close()
    version, model, compiled = (
        document.get("keras_version"),
        document.get("model_config"),
        document.get("training_config"),
    )
    if isinstance(version, str):
        found.keras_version = version
    if not isinstance(model, Mapping) and isinstance(document.get("config"), Mapping):
        model = {"class_name": document.get("class_name"), "config": document["config"]}
    found.model = (
        model if isinstance(model, Mapping) else Missing("a subclassed model saves no configuration in this format")
    )
    found.compiled = (
        compiled if isinstance(compiled, Mapping) else Missing("the model was saved without being compiled")
    )
    return found, source.size


def _root_metadata(data: bytes) -> bytes | None:
    for tag, node in fields(data):
        if tag != 1:
            continue
        path, metadata = "", b""
        for kind, value in fields(message(node)):
            if kind == 3:
                path = text(value)
            elif kind == 5:
                metadata = bytes(message(value))
        if path == "root":
            return metadata
    return None
