"""Which container a file or directory is, decided in one place for opening and for detecting."""

from __future__ import annotations

from dataclasses import dataclass

from ckptdoctor.checkpoints.contract import ByteSource, CheckpointError
from ckptdoctor.checkpoints.hdf5 import Unsupported, find_signature
from ckptdoctor.checkpoints.hdf5.reader import read_top
from ckptdoctor.checkpoints.hdf5.tree import H5Error
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import Opener, Window, join
from ckptdoctor.checkpoints.zip_directory import LOCAL_SIGNATURE
from ckptdoctor.checkpoints.zips import read_archive
from ckptdoctor.model import Format

KERAS_WEIGHTS = ("model.weights.h5", "model.weights.npz")
BACKUP_WEIGHTS = "latest.weights.h5"
SAVED_MODEL = "saved_model.pb"
_MAP_START = 1 << 16  # bytes in which a shard map names itself: only its total size stands before


@dataclass(frozen=True, slots=True)
class Found:
    """A container, and the path inside it that matters: a checkpoint's prefix, a step's directory, a shard map."""

    format: Format
    inner: str | None = None


def in_directory(path: str, opener: Opener) -> Found | None:
    """What a directory is as one checkpoint, None where it is none (though files in it may be).

    Raises:
        CheckpointError: it cannot be listed.
    """
    from ckptdoctor.checkpoints.backup import keras2_prefix
    from ckptdoctor.checkpoints.orbax import find_step
    from ckptdoctor.checkpoints.tf_checkpoint import find_prefix

    listed = opener.list(path)
    names = set(listed)
    if "config.json" in names and any(w in names for w in KERAS_WEIGHTS):
        return Found(Format.KERAS_DIR)
    if SAVED_MODEL in names:
        return Found(Format.SAVED_MODEL)
    if BACKUP_WEIGHTS in names:
        return Found(Format.BACKUP)
    step = find_step(path, names, opener)
    if step is not None:
        return Found(Format.ORBAX, step)
    prefix = keras2_prefix(path, names, opener)
    if prefix is not None:
        return Found(Format.BACKUP, prefix)
    maps = [n for n in listed if n.endswith(".weights.json")]
    if len(maps) == 1:
        return Found(Format.SHARDED_H5, join(path, maps[0]))
    prefix = find_prefix(path, listed, opener)
    return None if prefix is None else Found(Format.TF_CHECKPOINT, prefix)


def in_file(path: str, source: ByteSource, opener: Opener) -> Found | None:
    """What a file is, by its first and last bytes."""
    from ckptdoctor.checkpoints.tf_bundle import is_table

    head = source.read(0, 64)
    if head[:4] == LOCAL_SIGNATURE:
        return Found(Format.KERAS_ZIP)
    window = Window(source, 0, source.size, block=opener.read_ahead)
    if find_signature(window) is not None:
        return Found(Format.WEIGHTS_H5)
    if head.lstrip()[:1] == b"{" and b'"weight_map"' in source.read(0, _MAP_START):
        return Found(Format.SHARDED_H5, path)
    if is_table(source) and path.endswith(".index"):
        return Found(Format.TF_CHECKPOINT, path[:-6])
    return None


def narrowed(found: Found, source: ByteSource, opener: Opener, limits: ReadLimits) -> Format | None:
    """The format of a file after a look inside: a zip that is no `.keras` is None, legacy HDF5 is told apart."""
    if found.format is Format.KERAS_ZIP:
        try:
            names = read_archive(source, limits, block=opener.read_ahead).members
        except CheckpointError:
            return None
        return Format.KERAS_ZIP if "config.json" in names or any(w in names for w in KERAS_WEIGHTS) else None
    if found.format is Format.WEIGHTS_H5:
        return _hdf5(Window(source, 0, source.size, block=opener.read_ahead), limits)
    return found.format


def _hdf5(window: Window, limits: ReadLimits) -> Format | None:
    from ckptdoctor.checkpoints.legacy import is_legacy

    try:
        groups = read_top(window, limits).groups
    except Unsupported:
        return Format.WEIGHTS_H5  # new-style groups: only the library can tell more
    except H5Error:
        return None
    if is_legacy(groups):
        return Format.LEGACY_H5
    tops = ("layers", "_layer_checkpoint_dependencies", "optimizer")
    keras3 = any(p == "vars" or p.endswith("/vars") or p.split("/", 1)[0] in tops for p in groups)
    return Format.WEIGHTS_H5 if keras3 else None
