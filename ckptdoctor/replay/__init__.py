"""Replay: rebuild the model and run its last batches, in a process of its own.

The parent side, which is all that this package exports, imports no TensorFlow.
"""

from ckptdoctor.replay.parent import run_replay
from ckptdoctor.replay.request import CheckpointRef, ReplayError, ReplayRequest, request_from

__all__ = ["CheckpointRef", "ReplayError", "ReplayRequest", "request_from", "run_replay"]
