"""How non-finite entries lie along the axes of a tensor, counted in one pass over its blocks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import AxisNonfinite

Mask = NDArray[np.bool_]

INDICES = 64
"""Indices kept per axis."""

MAX_EXTENT = 1 << 24
"""Longer axes are left out: two bytes an index would break the memory bound of the census."""


def all_axes(shape: tuple[int, ...]) -> tuple[AxisNonfinite, ...]:
    """The axes of a tensor without one finite entry."""
    return tuple(
        AxisNonfinite(axis, extent, extent, extent, tuple(range(min(extent, INDICES))))
        for axis, extent in enumerate(shape)
        if extent <= MAX_EXTENT
    )


def _along_rows(combine: np.ufunc, block: Mask) -> Mask:
    """`combine.reduce(block, axis=1)`; short rows column by column, which is ten times faster."""
    if block.shape[1] > 16:
        return np.asarray(combine.reduce(block, axis=1), np.bool_)
    result = block[:, 0].copy()
    for column in range(1, block.shape[1]):
        combine(result, block[:, column], out=result)
    return result


class AxisCounter:
    """Takes the mask of non-finite entries in C order, piece by piece.

    Memory: two bytes per index of every axis.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._touched = [np.zeros(extent if extent <= MAX_EXTENT else 0, np.bool_) for extent in shape]
        self._finite = [np.zeros_like(t) for t in self._touched]
        self._position = 0

    def feed(self, bad: Mask) -> None:
        """Take the next entries: True where non-finite, shape (entries,)."""
        last = self._shape[-1]
        start = 0
        while start < bad.size:
            row, column = divmod(self._position, last)
            if column or bad.size - start < last:
                take = min(last - column, bad.size - start)
                piece = bad[start : start + take]
                self._columns(column, piece, ~piece)
                self._rows(row, np.array([piece.any()]), np.array([not piece.all()]))
            else:
                rows = (bad.size - start) // last
                take = rows * last
                block = bad[start : start + take].reshape(rows, last)
                self._columns(0, np.logical_or.reduce(block, axis=0), ~np.logical_and.reduce(block, axis=0))
                self._rows(row, _along_rows(np.logical_or, block), ~_along_rows(np.logical_and, block))
            start += take
            self._position += take

    def _columns(self, first: int, bad: Mask, finite: Mask) -> None:
        if self._touched[-1].size:
            self._touched[-1][first : first + bad.size] |= bad
            self._finite[-1][first : first + bad.size] |= finite

    def _rows(self, first: int, bad: Mask, finite: Mask) -> None:
        """Rows of the last axis, flat over all leading axes, from row `first` on."""
        leading = self._shape[:-1]
        if len(leading) == 1 and self._touched[0].size:
            self._touched[0][first : first + bad.size] |= bad
            self._finite[0][first : first + bad.size] |= finite
            return
        for found, marks in ((bad, self._touched), (finite, self._finite)):
            rows = first + np.flatnonzero(found)
            for axis in range(len(leading) - 1, -1, -1):
                rows, index = np.divmod(rows, leading[axis])
                if marks[axis].size:
                    marks[axis][index] = True

    def result(self) -> tuple[AxisNonfinite, ...]:
        """What was seen, axis by axis; axes beyond `MAX_EXTENT` are left out."""
        return tuple(
            AxisNonfinite(
                axis=axis,
                extent=extent,
                touched=int(np.count_nonzero(touched)),
                full=int(np.count_nonzero(touched & ~finite)),
                indices=tuple(np.flatnonzero(touched)[:INDICES].tolist()),
            )
            for axis, (extent, touched, finite) in enumerate(zip(self._shape, self._touched, self._finite, strict=True))
            if touched.size
        )
