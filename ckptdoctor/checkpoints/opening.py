"""From a path to an open checkpoint: which container it is, and who opens it."""

from __future__ import annotations

import os

from ckptdoctor.checkpoints.contract import ByteSource, Checkpoint, CheckpointError
from ckptdoctor.checkpoints.hdf5 import find_signature
from ckptdoctor.checkpoints.limits import DEFAULT_LIMITS, ReadLimits
from ckptdoctor.checkpoints.sources import LocalOpener, Opener, Window
from ckptdoctor.checkpoints.zips import LOCAL_SIGNATURE


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
    if opener.stat(name).is_dir:
        return _open_directory(name, opener, limits)
    source = opener.open(name)
    try:
        return _open_file(name, source, opener, limits)
    except BaseException:
        source.close()
        raise


def _open_file(path: str, source: ByteSource, opener: Opener, limits: ReadLimits) -> Checkpoint:
    head = source.read(0, 64)
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes): saving it never got as far as writing anything")
    if head[:4] == LOCAL_SIGNATURE:
        from ckptdoctor.checkpoints.keras_archive import open_keras_zip

        return open_keras_zip(path, source, opener, limits)
    window = Window(source, 0, source.size, block=opener.read_ahead)
    if find_signature(window) is not None:
        from ckptdoctor.checkpoints.h5_checkpoint import open_h5_file

        return open_h5_file(path, source, window, limits)
    if head.lstrip()[:1] == b"{" and source.size <= limits.json_bytes:
        from ckptdoctor.checkpoints.h5_checkpoint import open_sharded

        raw = source.read(0, source.size)
        opened = open_sharded(path, raw, opener, limits)
        source.close()
        return opened
    raise CheckpointError(
        f"{path} is not a checkpoint that Keras writes: expected a .keras archive, HDF5, a TensorFlow checkpoint or a "
        f"directory of one, found a file that starts with {head[:8]!r}"
    )


def _open_directory(path: str, opener: Opener, limits: ReadLimits) -> Checkpoint:
    from ckptdoctor.checkpoints.keras_archive import WEIGHTS, open_keras_dir

    names = set(opener.list(path))
    if "config.json" in names and any(w in names for w in WEIGHTS):
        return open_keras_dir(path, names, opener, limits)
    raise CheckpointError(f"{path} is a directory without a checkpoint that can be opened as one; name a file in it")
