"""How far each weight went between the first and the last healthy checkpoint of a run, entry by entry.

The size of a weight says little about that: a kernel that was turned around has the same rms. A run whose weights hardly
left their initial values was given steps that were too small, or no gradient; where only the last layers moved, gradients
vanished on their way back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ckptdoctor.checkpoints import open_checkpoint
from ckptdoctor.checkpoints.contract import StoredTensor, TensorReadError
from ckptdoctor.evidence.kernels import UnknownDtypeError
from ckptdoctor.evidence.updates import WHOLE, PairReader
from ckptdoctor.model import Census, CkptDoctorError, Displacement, Role, Status, TimelinePoint

MAX_WEIGHTS = 256
"""Weights that are compared; more are evenly thinned."""
FLOATS = ("float16", "bfloat16", "float32", "float64")


def displacement(points: Sequence[TimelinePoint]) -> tuple[Displacement, ...]:
    """Displacements of trainable weights, in the order of the file; empty without two healthy checkpoints of one model.

    Args:
        points: in training order.
    """
    healthy = [p for p in points if p.status is Status.HEALTHY and isinstance(p.census, Census)]
    if len(healthy) < 2:
        return ()
    try:
        with open_checkpoint(healthy[0].path) as first, open_checkpoint(healthy[-1].path) as last:
            before = {t.info.path: t for t in first.tensors}
            pairs = [(before[t.info.path], t) for t in last.tensors if _counts(t) and t.info.path in before]
            every = max(1, math.ceil(len(pairs) / MAX_WEIGHTS))
            reader = PairReader()
            found = [_between(reader, a, b) for a, b in pairs[::every]]
    except (CkptDoctorError, OSError):
        return ()
    return tuple(d for d in found if d is not None)


def _counts(tensor: StoredTensor) -> bool:
    info = tensor.info
    return info.role is Role.WEIGHT and info.trainable is not False and info.dtype in FLOATS and info.size > 0


def _between(reader: PairReader, first: StoredTensor, last: StoredTensor) -> Displacement | None:
    if first.info.shape != last.info.shape:
        return None
    if last.info.nbytes > WHOLE and None in (first.span, last.span):
        return None  # a sample of a compressed tensor costs as much as all of it
    distance = size = count = 0.0
    try:
        with np.errstate(all="ignore"):
            for a, b in reader.pairs(first, last):
                distance += float(np.square(b - a).sum())
                size += float(np.square(a).sum())
                count += a.size
    except (TensorReadError, UnknownDtypeError, OSError):
        return None
    if not count or not math.isfinite(distance + size):
        return None
    info = last.info
    return Displacement(info.path, info.layer, info.variable, math.sqrt(distance / count), math.sqrt(size / count))
