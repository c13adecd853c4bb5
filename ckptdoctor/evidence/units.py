"""What the columns of a kernel look like: dead, constant or copied units."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import Role, TensorInfo, UnitStats

Values = NDArray[np.float64]

EXACT_TENSOR = 4 << 20
"""Tensors up to this many bytes are read whole for it …"""
EXACT_TOTAL = 16 << 20
"""… until this many bytes of one checkpoint were; beyond, rows are sampled, so that the census keeps its speed."""
SAMPLE = 128 << 10
"""Bytes of evenly spaced rows that are read of larger tensors."""
MAX_ROWS = 64
MAX_UNITS = 1 << 18


def wanted(info: TensorInfo) -> bool:
    """Whether unit statistics make sense: weights of rank 2 and more, not packed."""
    return (
        info.role is Role.WEIGHT
        and len(info.shape) >= 2
        and info.size > 0
        and info.shape[-1] <= MAX_UNITS
        and info.dtype not in ("int4", "uint4")
    )


def sample_rows(rows: int, row_bytes: int) -> NDArray[np.int64]:
    """Evenly spaced row numbers, first and last included, within the sample's budget; at least 2 rows if there are 2."""
    count = min(rows, MAX_ROWS, max(2, SAMPLE // max(row_bytes, 1)))
    return np.linspace(0, rows - 1, count).round().astype(np.int64)


def unit_stats(matrix: Values, *, sampled: bool = False) -> UnitStats:
    """Statistics of the columns of a (rows, units) matrix.

    Units with a non-finite entry are neither zero nor constant; their norms are over the finite entries, and they count
    as one distinct unit each.
    """
    units = matrix.shape[1]
    low, high = matrix.min(axis=0), matrix.max(axis=0)
    finite = np.isfinite(low) & np.isfinite(high)
    clean = bool(finite.all())
    if not clean:
        matrix = np.where(np.isfinite(matrix), matrix, 0.0)
    # Columns are summed entry by entry in the same order, so equal columns have equal sums to the last bit.
    totals = matrix.sum(axis=0)
    peak = max(abs(float(matrix.min())), abs(float(matrix.max())))
    scale = peak if peak > 1e150 or 0 < peak < 1e-150 else 1.0  # squares must neither overflow nor vanish
    squares = np.square(matrix if scale == 1.0 else matrix / scale).sum(axis=0)
    constant = (low == high) & finite
    marks = totals + 1j * squares
    if not clean:
        marks = marks[finite]
    marks.sort()
    distinct = int(np.count_nonzero(marks[1:] != marks[:-1])) + bool(marks.size) + units - marks.size
    norms = np.sqrt(squares) * scale
    norms.sort()
    return UnitStats(
        units=units,
        zero_units=int(np.count_nonzero(constant & (low == 0))),
        constant_units=int(np.count_nonzero(constant)) if matrix.shape[0] > 1 else 0,
        distinct_units=distinct,
        norm_min=float(norms[0]),
        norm_median=float((norms[(units - 1) // 2] + norms[units // 2]) / 2),
        norm_max=float(norms[-1]),
        sampled=sampled,
    )


class RowPicker:
    """Keeps the sampled rows while the bytes of a tensor stream by."""

    def __init__(self, rows: int, row_bytes: int) -> None:
        self._numbers = sample_rows(rows, row_bytes)
        self._row_bytes = row_bytes
        self.kept = np.zeros((self._numbers.size, row_bytes), np.uint8)

    def feed(self, position: int, block: NDArray[np.uint8]) -> None:
        """Take the tensor's bytes from `position` on."""
        starts = self._numbers * self._row_bytes
        touched = np.flatnonzero((starts < position + block.size) & (starts + self._row_bytes > position))
        for i in touched.tolist():
            start = int(starts[i])
            first, end = max(start, position), min(start + self._row_bytes, position + block.size)
            self.kept[i, first - start : end - start] = block[first - position : end - position]
