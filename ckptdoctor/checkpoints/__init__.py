"""Checkpoints of every container, opened without executing, extracting or trusting anything in them."""

from ckptdoctor.checkpoints.contract import (
    ByteSource,
    Checkpoint,
    CheckpointError,
    NotACheckpointError,
    Span,
    StoredTensor,
    TensorReadError,
)
from ckptdoctor.checkpoints.detect import detect_format
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.opening import open_checkpoint
from ckptdoctor.checkpoints.sources import FileStat, LocalOpener, Opener

__all__ = [
    "ByteSource",
    "Checkpoint",
    "CheckpointError",
    "FileStat",
    "LocalOpener",
    "NotACheckpointError",
    "Opener",
    "ReadLimits",
    "Span",
    "StoredTensor",
    "TensorReadError",
    "detect_format",
    "open_checkpoint",
]
