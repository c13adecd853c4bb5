"""Folders of the `BackupAndRestore` callback: the last weights, and the epoch they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ckptdoctor.checkpoints.assembly import read_document
from ckptdoctor.checkpoints.contract import Checkpoint
from ckptdoctor.checkpoints.h5_checkpoint import open_h5_file
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import Opener, Window, join
from ckptdoctor.checkpoints.tf_checkpoint import find_prefix, open_tf_checkpoint
from ckptdoctor.model import Format, Missing, Problem

WEIGHTS, METADATA = "latest.weights.h5", "training_metadata.json"
WORKERS = "chief"  # where Keras 2 puts a single worker's checkpoint


def open_backup(path: str, opener: Opener, limits: ReadLimits) -> Checkpoint:
    """`latest.weights.h5` with `training_metadata.json`, as Keras 3 writes them.

    Raises:
        CheckpointError: the weights cannot be read.
    """
    problems: list[Problem] = []
    document, size = read_document(opener, path, METADATA, limits, problems)
    source = opener.open(join(path, WEIGHTS), inside=path)
    try:
        opened = open_h5_file(path, source, Window(source, 0, source.size, block=opener.read_ahead), limits)
    except BaseException:
        source.close()
        raise
    opened.info = replace(
        opened.info,
        format=Format.BACKUP,
        size_bytes=opened.info.size_bytes + size,
        epoch=_counter(document, "epoch"),
        batch=_counter(document, "batch"),
        problems=(*problems, *opened.info.problems),
    )
    return opened


def _counter(document: Mapping[str, Any] | None, key: str) -> int | Missing:
    value = None if document is None else document.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62:
        return value
    return Missing(f"{METADATA} gives no {key}")


def open_keras2_backup(path: str, prefix: str, opener: Opener, limits: ReadLimits) -> Checkpoint:
    """The TensorFlow checkpoint in a worker's folder, as Keras 2 writes it."""
    opened = open_tf_checkpoint(path, prefix, opener, limits, inside=path)
    opened.info = replace(opened.info, format=Format.BACKUP)
    return opened


def keras2_prefix(path: str, names: set[str], opener: Opener) -> str | None:
    """The checkpoint in the folder of the chief worker, None without one."""
    if WORKERS not in names:
        return None
    directory = join(path, WORKERS)
    return find_prefix(directory, opener.list(directory), opener) if opener.stat(directory).is_dir else None
