"""From a path to an open checkpoint: which container it is, and who opens it."""

from __future__ import annotations

import os

from ckptdoctor.checkpoints.containers import Found, in_directory, in_file
from ckptdoctor.checkpoints.contract import ByteSource, Checkpoint, CheckpointError
from ckptdoctor.checkpoints.limits import ReadLimits, current_limits
from ckptdoctor.checkpoints.sources import CachingOpener, LocalOpener, Opener, Window
from ckptdoctor.model import Format


def open_checkpoint(
    path: str | os.PathLike[str], *, limits: ReadLimits | None = None, opener: Opener | None = None
) -> Checkpoint:
    """Open any checkpoint that Keras 2.12 to 3.15 writes, found by its content.

    Args:
        path: a file or a directory; for a TensorFlow checkpoint its `.index`, a data file or their common prefix. With
            `opener`, in that store's spelling.
        limits: bounds on what the file may ask for; those of `use_limits` where none are given.
        opener: where files come from; this machine without one.

    Raises:
        CheckpointError: it does not exist, is not a checkpoint, or is damaged beyond use.
    """
    name = os.fspath(path)
    limits = current_limits() if limits is None else limits
    opener = LocalOpener(limits) if opener is None else CachingOpener(opener)
    if not name:
        raise CheckpointError("an empty path names no checkpoint")
    try:
        is_dir = opener.stat(name).is_dir
    except CheckpointError:
        prefix = _as_prefix(name, opener)
        if prefix is None:
            raise
        return _tf(name, prefix, opener, limits)
    if is_dir:
        return _open_directory(name, opener, limits)
    source = opener.open(name)
    try:
        return _open_file(name, source, opener, limits)
    except BaseException:
        source.close()
        raise


def _as_prefix(name: str, opener: Opener) -> str | None:
    """The name itself where it is the common part of a TensorFlow checkpoint's files."""
    try:
        return None if opener.stat(f"{name}.index").is_dir else name
    except CheckpointError:
        return None


def _open_file(path: str, source: ByteSource, opener: Opener, limits: ReadLimits) -> Checkpoint:
    if source.size == 0 or not source.read(0, 1):
        raise CheckpointError(f"{path} is empty (0 bytes): saving it never got as far as writing anything")
    found = in_file(path, source, opener)
    if found is None:
        head, part, _ = path.rpartition(".data-")
        if part and _as_prefix(head, opener) is not None:
            source.close()
            return _tf(path, head, opener, limits)
        raise CheckpointError(
            f"{path} is not a checkpoint that Keras writes: expected a .keras archive, HDF5, a TensorFlow checkpoint or "
            f"a directory of one, found a file that starts with {source.read(0, 8)!r}"
        )
    if found.format is Format.KERAS_ZIP:
        from ckptdoctor.checkpoints.keras_archive import open_keras_zip

        return open_keras_zip(path, source, opener, limits)
    if found.format is Format.WEIGHTS_H5:
        from ckptdoctor.checkpoints.h5_checkpoint import open_h5_file

        return open_h5_file(path, source, Window(source, 0, source.size, block=opener.read_ahead), limits)
    source.close()
    return _opened(path, found, opener, limits)


def _open_directory(path: str, opener: Opener, limits: ReadLimits) -> Checkpoint:
    found = in_directory(path, opener)
    if found is None:
        raise CheckpointError(
            f"{path} is a directory that is not itself a checkpoint (expected an unzipped .keras, a SavedModel, a TensorFlow "
            "or Orbax checkpoint, or a BackupAndRestore folder); name a checkpoint in it"
        )
    return _opened(path, found, opener, limits)


def _opened(path: str, found: Found, opener: Opener, limits: ReadLimits) -> Checkpoint:
    """Open a container that is more than one file."""
    inner = found.inner
    if found.format is Format.KERAS_DIR:
        from ckptdoctor.checkpoints.keras_archive import open_keras_dir

        return open_keras_dir(path, set(opener.list(path)), opener, limits)
    if found.format is Format.SAVED_MODEL:
        from ckptdoctor.checkpoints.tf_checkpoint import open_saved_model

        return open_saved_model(path, opener, limits)
    if found.format is Format.BACKUP:
        from ckptdoctor.checkpoints.backup import open_backup, open_keras2_backup

        return open_backup(path, opener, limits) if inner is None else open_keras2_backup(path, inner, opener, limits)
    assert inner is not None
    if found.format is Format.ORBAX:
        from ckptdoctor.checkpoints.orbax import open_orbax

        return open_orbax(path, inner, opener, limits)
    if found.format is Format.SHARDED_H5:
        from ckptdoctor.checkpoints.h5_checkpoint import open_sharded

        return open_sharded(path, inner, opener, limits)
    return _tf(path, inner, opener, limits)


def _tf(path: str, prefix: str, opener: Opener, limits: ReadLimits) -> Checkpoint:
    from ckptdoctor.checkpoints.tf_checkpoint import open_tf_checkpoint

    return open_tf_checkpoint(path, prefix, opener, limits, inside=prefix.rpartition("/")[0] or ".")
