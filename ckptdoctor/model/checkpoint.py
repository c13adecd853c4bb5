"""A checkpoint as a whole: what its container says besides the tensors."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ckptdoctor.model.base import JsonObject, Missing
from ckptdoctor.model.tensors import Role, TensorStats


class Format(str, Enum):
    """The containers that can be opened, found by content."""

    KERAS_ZIP = "keras"  # .keras archive
    KERAS_DIR = "keras-directory"  # unzipped .keras
    WEIGHTS_H5 = "weights-h5"  # Keras 3 .weights.h5, and the HDF5 inside .keras
    SHARDED_H5 = "sharded-weights"  # .weights.json and its shards
    LEGACY_H5 = "legacy-h5"  # whole-model or weights HDF5 of Keras 2 (and a Keras 2.12 ".keras")
    TF_CHECKPOINT = "tf-checkpoint"
    SAVED_MODEL = "saved-model"
    ORBAX = "orbax"
    BACKUP = "backup-and-restore"


class ProblemKind(str, Enum):
    """What is wrong with a file as a file."""

    DAMAGED = "damaged"  # cut off, corrupted, shape disagrees with bytes
    HOSTILE = "hostile"  # external storage, links out, bombs, traversal: refused
    UNSUPPORTED = "unsupported"  # well formed, but not something that can be read
    INCOMPLETE = "incomplete"  # a part that belongs there is absent


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file, found while opening it. Never a reason to stop reading the rest.

    Attributes:
        where: address inside the file.
        altered: the weights are not those that were saved, so that what stands in them tells nothing of the training.
    """

    kind: ProblemKind
    message: str
    where: str | None = None
    altered: bool = False


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a checkpoint says of itself. What its container cannot hold is Missing.

    Attributes:
        path: as the user gave it (or discovery found it).
        format: the container.
        size_bytes: of all its files.
        model_config: Keras' serialised model: `{"class_name": "Functional", "config": {…}}`.
        compile_config: optimizer, loss, metrics as Keras serialised them.
        epoch, batch: from `training_metadata.json` of BackupAndRestore.
        coverage: fraction of the tensor bytes (0 to 1) that could be located; below 1 only for damaged files.
    """

    path: str
    format: Format
    size_bytes: int
    keras_version: str | Missing
    saved_at: str | Missing
    backend: str | Missing
    model_config: JsonObject | Missing
    compile_config: JsonObject | Missing
    epoch: int | Missing = Missing("this container does not record an epoch")
    batch: int | Missing = Missing("this container does not record a batch")
    problems: tuple[Problem, ...] = ()
    coverage: float = 1.0


@dataclass(frozen=True, slots=True)
class Census:
    """Every tensor of one checkpoint, measured.

    Attributes:
        info: the checkpoint.
        tensors: in the container's order.
        scalars: the optimizer's own scalars by name, read as numbers: `iterations`, `learning_rate`,
            `loss_scale`, `loss_scale_step_counter`, `inner_iterations`.
        seconds: wall time of the measurement.
        bytes_read: bytes that were read for it.
    """

    info: CheckpointInfo
    tensors: tuple[TensorStats, ...]
    scalars: dict[str, float]
    seconds: float = 0.0
    bytes_read: int = 0

    @property
    def nonfinite(self) -> int:
        """Non-finite entries in weights, statistics, slots and optimizer scalars together."""
        return sum(t.nonfinite for t in self.tensors if t.info.role is not Role.METRIC)

    def of_role(self, *roles: Role) -> tuple[TensorStats, ...]:
        """The tensors with one of these roles, in order."""
        return tuple(t for t in self.tensors if t.info.role in roles)

    def of_layer(self, layer: str) -> tuple[TensorStats, ...]:
        """A layer's own tensors (no slots), in order."""
        return tuple(t for t in self.tensors if t.info.layer == layer and t.info.role is not Role.SLOT)

    @property
    def iterations(self) -> int | None:
        """The optimizer's step count, where it is stored and sane."""
        value = self.scalars.get("iterations")
        return int(value) if value is not None and value == value and abs(value) < 2**62 else None
