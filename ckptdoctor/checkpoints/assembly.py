"""What all containers share when the pieces are put together: texts, scalars, the open checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ckptdoctor.checkpoints.contract import ByteSource, Checkpoint, CheckpointError, StoredTensor, TensorReadError
from ckptdoctor.checkpoints.documents import parse_object
from ckptdoctor.checkpoints.dtypes import decode
from ckptdoctor.checkpoints.limits import ReadLimits
from ckptdoctor.checkpoints.sources import Opener, join
from ckptdoctor.model import CheckpointInfo, JsonObject, Missing, Problem, ProblemKind, Role

_SCALARS = frozenset({"iterations", "learning_rate", "loss_scale", "loss_scale_step_counter", "inner_iterations"})
_SCALAR_BYTES = 16  # widest scalar that is read while opening


def checkpoint(info: CheckpointInfo, tensors: Sequence[StoredTensor], sources: Sequence[ByteSource]) -> Checkpoint:
    """An open checkpoint that owns its sources."""
    return Checkpoint(info, tuple(tensors), read_scalars(tensors), tuple(sources))


def read_scalars(tensors: Sequence[StoredTensor]) -> dict[str, float]:
    """The optimizer's scalars as numbers, by name; the first of a name counts.

    Under a loss scale the outer iteration count never moves: `iterations` is then the inner one, the updates applied.
    """
    found: dict[str, float] = {}
    for stored in tensors:
        info = stored.info
        if info.role is not Role.OPTIMIZER or info.variable not in _SCALARS or info.variable in found:
            continue
        if info.shape != () or info.nbytes > _SCALAR_BYTES or stored.problem is not None:
            continue
        try:
            found[info.variable] = float(decode(stored.load(), info.dtype))
        except (TensorReadError, CheckpointError):
            continue
    if "iterations" not in found and "inner_iterations" in found:
        found["iterations"] = found["inner_iterations"]
    return found


def text(document: JsonObject | None, key: str, absent: Missing) -> str | Missing:
    """A string of a document, or why there is none."""
    value = None if document is None else document.get(key)
    return value if isinstance(value, str) else absent


def compile_config(config: JsonObject | None) -> JsonObject | Missing:
    """The `compile_config` of a serialised model."""
    compiled = None if config is None else config.get("compile_config")
    return compiled if isinstance(compiled, Mapping) else Missing("the model was saved without being compiled")


def read_document(
    opener: Opener, directory: str, name: str, limits: ReadLimits, problems: list[Problem]
) -> tuple[dict[str, Any] | None, int]:
    """A JSON object in a directory checkpoint and its size; damage is told in `problems`, the value then None."""
    try:
        source = opener.open(join(directory, name), inside=directory)
    except CheckpointError as error:
        problems.append(Problem(ProblemKind.INCOMPLETE, str(error), name))
        return None, 0
    try:
        raw = source.read(0, min(source.size, limits.json_bytes + 1))
        return parse_object(raw, name, limits), source.size
    except CheckpointError as error:
        problems.append(Problem(ProblemKind.DAMAGED, str(error), name))
        return None, source.size
    finally:
        source.close()


def safe_name(name: str) -> bool:
    """Whether a file name from inside a document names a file of the same directory and nothing else."""
    return bool(name) and name not in (".", "..") and not any(c in name for c in "/\\\0") and len(name) <= 255
