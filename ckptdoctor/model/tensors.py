"""Tensors of a checkpoint: where they stand, and what was counted in them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Role(str, Enum):
    """What a stored tensor is for."""

    WEIGHT = "weight"  # a layer's variable that a gradient may change: kernel, bias, gamma, embeddings
    STATISTIC = "statistic"  # BatchNormalization moving mean and variance, Normalization mean and variance
    STATE = "state"  # other non-trainable layer state: seed generators, quantisation scales, amax histories
    SLOT = "slot"  # an optimizer's tensor for one weight: momentum, velocity, accumulator, EMA
    OPTIMIZER = "optimizer"  # the optimizer's own scalars: iteration, learning rate, loss scale
    METRIC = "metric"  # metric accumulators (Keras 2.13 to 2.15 stored them)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the container describes it, before a byte of it is read.

    Attributes:
        path: unique address inside the container, e.g. `layers/dense/vars/0` or
            `model_weights/dense/dense/kernel`; for shards it is the address without the shard's name.
        layer: the user's layer name; nested layers as `outer/inner`; None for the optimizer's own tensors.
        layer_path: the container's address of the layer, e.g. `layers/dense`; None where there is none.
        variable: `kernel`, `bias`, `gamma`, …; for slots the name of the weight, e.g. `kernel`.
        role: what the tensor is for.
        shape: as declared; for packed int4 the shape of the packed bytes.
        dtype: `float32`, `bfloat16`, `float8_e4m3fn`, `int4`, `complex64`, …; big-endian as `>f4`.
        nbytes: bytes it occupies in the file, uncompressed.
        slot: for role SLOT `momentum`, `velocity`, `accumulator`, `average`, …; None otherwise.
        slot_of: for role SLOT the `path` of the weight it belongs to, where that is known.
        trainable: None where neither file nor configuration says.
    """

    path: str
    layer: str | None
    layer_path: str | None
    variable: str
    role: Role
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    slot: str | None = None
    slot_of: str | None = None
    trainable: bool | None = None

    @property
    def size(self) -> int:
        """Number of entries."""
        n = 1
        for extent in self.shape:
            n *= extent
        return n

    @property
    def label(self) -> str:
        """A name for people: `dense/kernel`, `dense/kernel velocity`, `learning_rate`."""
        name = self.variable if self.layer is None else f"{self.layer}/{self.variable}"
        return name if self.slot is None else f"{name} {self.slot}"


@dataclass(frozen=True, slots=True)
class AxisNonfinite:
    """How the non-finite entries of one tensor lie along one axis.

    Attributes:
        axis: from 0.
        extent: length of the axis.
        touched: number of indices with at least one non-finite entry.
        full: number of indices whose entries are all non-finite.
        indices: the first touched indices, at most 64 of them, ascending.
    """

    axis: int
    extent: int
    touched: int
    full: int
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UnitStats:
    """What was measured per output unit (last axis) of a kernel or embedding-like tensor.

    Attributes:
        units: length of the last axis.
        zero_units: units whose incoming entries are all exactly zero.
        constant_units: units whose incoming entries are all one value (zero included); only counted
            where a unit has more than one incoming entry.
        distinct_units: number of distinct columns, by their sum and sum of squares; 1 means every unit is a copy.
        norm_min, norm_median, norm_max: Euclidean norms of the columns.
        sampled: True where not every row was read.
    """

    units: int
    zero_units: int
    constant_units: int
    distinct_units: int
    norm_min: float
    norm_median: float
    norm_max: float
    sampled: bool = False


@dataclass(frozen=True, slots=True)
class TensorStats:
    """Exact counts over one tensor, and moments over its finite entries.

    `min`, `max`, `mean`, `rms` are over finite entries and None where there is none (or the dtype is not numeric).
    Complex entries are measured by their magnitude. Quantised integers are measured as stored.
    `sampled` is True where not all entries were read; counts are then those of the part that was.
    `error` says why a tensor could not be read; its counts are then zero and mean nothing.
    """

    info: TensorInfo
    nan: int = 0
    posinf: int = 0
    neginf: int = 0
    zeros: int = 0
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    rms: float | None = None
    axes: tuple[AxisNonfinite, ...] = ()
    units: UnitStats | None = None
    sampled: bool = False
    error: str | None = None

    @property
    def nonfinite(self) -> int:
        """NaN and both infinities."""
        return self.nan + self.posinf + self.neginf

    @property
    def finite(self) -> int:
        """Entries that are neither NaN nor infinite."""
        return self.info.size - self.nonfinite

    @property
    def std(self) -> float | None:
        """Standard deviation over the finite entries, from mean and rms."""
        if self.rms is None or self.mean is None:
            return None
        return float(max(self.rms * self.rms - self.mean * self.mean, 0.0) ** 0.5)

    @property
    def absmax(self) -> float | None:
        """Largest finite magnitude."""
        if self.min is None or self.max is None:
            return None
        return max(abs(self.min), abs(self.max))

    @property
    def norm(self) -> float | None:
        """Euclidean norm over the finite entries."""
        return None if self.rms is None else float(self.rms * self.finite**0.5)
