"""`.keras`: a zip archive, or the same files in a directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ckptdoctor.checkpoints.assembly import checkpoint, compile_config, read_document, text
from ckptdoctor.checkpoints.containers import KERAS_WEIGHTS
from ckptdoctor.checkpoints.contract import ByteSource, Checkpoint, CheckpointError, StoredTensor
from ckptdoctor.checkpoints.documents import parse_object
from ckptdoctor.checkpoints.h5files import open_hdf5
from ckptdoctor.checkpoints.keras3 import RawTensor, describe
from ckptdoctor.checkpoints.layers import config_tree
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.npz import read_npz_weights
from ckptdoctor.checkpoints.salvage import expected_loss
from ckptdoctor.checkpoints.sources import LocalFile, Opener, Window, join
from ckptdoctor.checkpoints.zips import STORED, Archive, member_window, read_archive, read_member, verify
from ckptdoctor.model import CheckpointInfo, Format, JsonObject, Missing, Problem, ProblemKind

CONFIG, METADATA = "config.json", "metadata.json"
WEIGHTS_H5, WEIGHTS_NPZ = KERAS_WEIGHTS
WEIGHTS = KERAS_WEIGHTS


def open_keras_zip(path: str, source: ByteSource, opener: Opener, limits: ReadLimits) -> Checkpoint:
    """A `.keras` archive, whole or cut off.

    Raises:
        CheckpointError: another zip archive, or nothing in it can be read.
    """
    archive = read_archive(source, limits, block=opener.read_ahead)
    if CONFIG not in archive.members and not any(name in archive.members for name in WEIGHTS):
        raise CheckpointError(_not_keras(path, archive))
    problems: list[Problem] = []
    if archive.cut and not archive.problems:
        problems.append(
            Problem(ProblemKind.DAMAGED, "the archive ends before its table of contents: saving was cut off half-way")
        )
    config = _member_object(archive, CONFIG, path, limits, problems)
    metadata = _member_object(archive, METADATA, path, limits, problems)
    weights = next((name for name in WEIGHTS if name in archive.members), None)
    window: Window | None = None
    if weights is not None:
        try:
            window = member_window(archive, weights, limits, block=opener.read_ahead)
        except CheckpointError as error:
            problems.append(Problem(ProblemKind.HOSTILE, str(error).removeprefix(f"{path}: "), weights))
    elif not any((p.where or "").startswith("model.weights") for p in archive.problems):
        problems.append(Problem(ProblemKind.INCOMPLETE, f"the archive holds no {WEIGHTS_H5}, so it has no weights"))
    return _assemble(
        path,
        Format.KERAS_ZIP,
        source.size,
        config,
        metadata,
        window,
        weights or WEIGHTS_H5,
        [source],
        problems,
        archive,
        limits,
    )


def _not_keras(path: str, archive: Archive) -> str:
    if archive.cut and not archive.members:
        return f"{path} starts like a .keras archive but was cut off before any part of it was complete"
    names = ", ".join(sorted(archive.members)[:3])
    reason = archive.problems[0].message if archive.problems else f"it holds {names or 'nothing'}"
    return f"{path} is a zip archive but not a .keras file (expected config.json in it): {reason}"


def open_keras_dir(path: str, names: set[str], opener: Opener, limits: ReadLimits) -> Checkpoint:
    """An unzipped `.keras`.

    Raises:
        CheckpointError: its weights cannot be opened.
    """
    problems: list[Problem] = []
    config, size = read_document(opener, path, CONFIG, limits, problems)
    metadata, more = read_document(opener, path, METADATA, limits, problems)
    weights = next(name for name in WEIGHTS if name in names)
    source = opener.open(join(path, weights), inside=path)
    window = Window(source, 0, source.size, block=opener.read_ahead)
    size += more + source.size
    return _assemble(path, Format.KERAS_DIR, size, config, metadata, window, weights, [source], problems, None, limits)


def _member_object(
    archive: Archive, name: str, path: str, limits: ReadLimits, problems: list[Problem]
) -> dict[str, Any] | None:
    try:
        raw = read_member(archive, name, limits.json_bytes)
        if raw is None:
            if not any(p.where == name for p in archive.problems):
                problems.append(Problem(ProblemKind.INCOMPLETE, f"the archive holds no {name}", name))
            return None
        return parse_object(raw, name, limits)
    except CheckpointError as error:
        problems.append(Problem(ProblemKind.DAMAGED, str(error).removeprefix(f"{path}: "), name))
        return None


def _assemble(
    path: str,
    form: Format,
    size: int,
    config: JsonObject | None,
    metadata: JsonObject | None,
    window: Window | None,
    weights: str,
    sources: list[ByteSource],
    problems: list[Problem],
    archive: Archive | None,
    limits: ReadLimits,
) -> Checkpoint:
    """The checkpoint from its parts; damage to the weights is told, not raised, because the configuration remains."""
    try:
        tensors, coverage, found = _weights(window, weights, config, sources, limits)
        problems.extend(archive.problems if archive is not None else ())
        problems.extend(found)
        if coverage < 1.0 or window is None or any(p.kind is ProblemKind.DAMAGED for p in found):
            lost, coverage = expected_loss(tensors, config, coverage)
            problems.extend(lost)
        absent = Missing(f"{METADATA} is absent or damaged")
        info = CheckpointInfo(
            path=path,
            format=form,
            size_bytes=size,
            keras_version=text(metadata, "keras_version", absent),
            saved_at=text(metadata, "date_saved", absent),
            backend=Missing("a .keras file does not record its backend"),
            model_config=config if config is not None else Missing(f"{CONFIG} is absent or damaged"),
            compile_config=compile_config(config),
            problems=tuple(problems),
            coverage=coverage,
        )
        member = None if archive is None else archive.members.get(weights)
        if archive is not None and member is not None and member.method == STORED and isinstance(sources[0], LocalFile):
            return replace(checkpoint(info, tensors, sources), verify=lambda: verify(archive, weights))
        return checkpoint(info, tensors, sources)
    except BaseException:
        for source in sources:
            source.close()
        raise


def _weights(
    window: Window | None, weights: str, config: JsonObject | None, sources: list[ByteSource], limits: ReadLimits
) -> tuple[list[StoredTensor], float, Sequence[Problem]]:
    if window is None:
        return [], 0.0, ()
    if window.source not in sources:
        sources.append(window.source)  # an inflated copy
    raws: Sequence[RawTensor]
    try:
        if weights == WEIGHTS_NPZ:
            raws, names, problems = read_npz_weights(window, limits)
            tensors = describe(raws, names, config_tree(config), compile_config(config), {})
            return tensors, 1.0 if not problems else 0.999, problems
        content = open_hdf5(window, weights, limits)
    except CheckpointError as error:
        return [], 0.0, [Problem(ProblemKind.DAMAGED, str(error), weights)]
    sources.extend(content.sources)
    damaged = content.coverage < 1.0
    tree = config_tree(config)
    tensors = describe(content.tensors, content.names, tree, compile_config(config), content.order, partial=damaged)
    return tensors, content.coverage, content.problems
