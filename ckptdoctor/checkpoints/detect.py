"""A cheap look at a path: which container it is, by content. Never raises for a bad file."""

from __future__ import annotations

import os

from ckptdoctor.checkpoints.containers import in_directory, in_file, narrowed
from ckptdoctor.checkpoints.contract import CheckpointError
from ckptdoctor.checkpoints.limits import ReadLimits, current_limits
from ckptdoctor.checkpoints.sources import CachingOpener, LocalOpener, Opener
from ckptdoctor.model import Format


def detect_format(
    path: str | os.PathLike[str], *, limits: ReadLimits | None = None, opener: Opener | None = None
) -> Format | None:
    """The container at a path, or None where there is no checkpoint. Reads a few blocks at most."""
    name = os.fspath(path)
    limits = current_limits() if limits is None else limits
    opener = LocalOpener(limits) if opener is None else CachingOpener(opener)
    try:
        if opener.stat(name).is_dir:
            found = in_directory(name, opener)
            return None if found is None else found.format
        source = opener.open(name)
    except CheckpointError:
        return None
    try:
        found = in_file(name, source, opener)
        return None if found is None else narrowed(found, source, opener, limits)
    except CheckpointError:
        return None
    finally:
        source.close()
