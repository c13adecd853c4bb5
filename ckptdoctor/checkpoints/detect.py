"""A cheap look at a path: which container it is, by content. Never raises for a bad file."""

from __future__ import annotations

import os

from ckptdoctor.checkpoints.contract import ByteSource, CheckpointError
from ckptdoctor.checkpoints.hdf5 import Unsupported, find_signature
from ckptdoctor.checkpoints.hdf5.tree import H5Error
from ckptdoctor.checkpoints.limits import DEFAULT_LIMITS, ReadLimits
from ckptdoctor.checkpoints.sources import LocalOpener, Opener, Window
from ckptdoctor.checkpoints.zips import LOCAL_SIGNATURE, read_archive
from ckptdoctor.model import Format


def detect_format(
    path: str | os.PathLike[str], *, limits: ReadLimits = DEFAULT_LIMITS, opener: Opener | None = None
) -> Format | None:
    """The container at a path, or None where there is no checkpoint. Reads a few blocks at most."""
    name = os.fspath(path)
    opener = opener if opener is not None else LocalOpener(limits)
    try:
        if opener.stat(name).is_dir:
            return directory_format(name, opener)
        source = opener.open(name)
    except CheckpointError:
        return None
    try:
        return file_format(source, opener, limits)
    except CheckpointError:
        return None
    finally:
        source.close()


def directory_format(path: str, opener: Opener) -> Format | None:
    """The container that a directory is as a whole."""
    names = set(opener.list(path))
    if "config.json" in names and any(
        n in names for n in ("model.weights.h5", "model.weights.npz", "model.weights.json")
    ):
        return Format.KERAS_DIR
    return None


def file_format(source: ByteSource, opener: Opener, limits: ReadLimits) -> Format | None:
    """The container that a file is."""
    head = source.read(0, 8)
    if head[:4] == LOCAL_SIGNATURE:
        names = read_archive(source, limits, block=opener.read_ahead).members
        keras = "config.json" in names or any(n.startswith("model.weights.") for n in names)
        return Format.KERAS_ZIP if keras else None
    window = Window(source, 0, source.size, block=opener.read_ahead)
    if find_signature(window) is not None:
        return _hdf5_format(window, limits)
    return None


def _hdf5_format(window: Window, limits: ReadLimits) -> Format | None:
    from ckptdoctor.checkpoints.hdf5.reader import read_top
    from ckptdoctor.checkpoints.legacy import is_legacy

    try:
        tree = read_top(window, limits)
    except Unsupported:
        return Format.LEGACY_H5
    except H5Error:
        return None
    if is_legacy(tree.groups):
        return Format.LEGACY_H5
    if any(
        p == "vars" or p.endswith("/vars") or p.split("/")[0] in ("layers", "_layer_checkpoint_dependencies")
        for p in tree.groups
    ):
        return Format.WEIGHTS_H5
    return None
