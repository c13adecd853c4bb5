"""The size of the last update, computed entry by entry from an optimizer's two moments as they stand in the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.checkpoints.contract import Checkpoint, StoredTensor, TensorReadError
from ckptdoctor.evidence.blocks import BLOCK, chunk_blocks, expect_bytes, read_exactly
from ckptdoctor.evidence.kernels import Layout, UnknownDtypeError, layout, values

WHOLE = 16 << 20
"""Tensors up to this many bytes are read whole, while the budget lasts."""
BUDGET = 64 << 20
"""Bytes that are read whole; beyond, each tensor is sampled."""
SAMPLES = 8
"""Evenly spaced blocks of 256 KiB that are read of a large tensor."""


@dataclass(frozen=True, slots=True)
class Moments:
    """update = rate · second_factor · m / (√v + epsilon), or with v in place of √v where `root` is False (Adamax)."""

    rate: float
    root: bool
    second_factor: float
    epsilon: float

    def squares(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared updates, shape of the arguments; NaN or Inf where a moment is not finite."""
        spread = np.sqrt(second) if self.root else second
        update: NDArray[np.float64] = first / (spread + self.epsilon)
        update *= self.rate * self.second_factor
        return np.square(update)

    def estimate(self, first_rms: float, second_mean: float) -> float:
        """The rms of the update if m and v had the same ratio everywhere."""
        spread = math.sqrt(second_mean) if self.root else second_mean
        divisor = spread + self.epsilon
        return self.rate * self.second_factor * first_rms / divisor if divisor else 0.0


class PairReader:
    """Reads two tensors of one size side by side. `sampled` tells whether any was too large to read whole."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._left = budget
        self.sampled = False

    def pairs(self, a: StoredTensor, b: StoredTensor) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Equal stretches of both, as float64.

        Raises:
            TensorReadError, UnknownDtypeError, OSError: one of them cannot be read.
        """
        how = layout(a.info.dtype), layout(b.info.dtype)
        sizes = expect_bytes(a, how[0]), expect_bytes(b, how[1])
        entries = BLOCK // max(h.itemsize for h in how)
        if max(sizes) > WHOLE or sum(sizes) > self._left:
            self.sampled = True
            starts = _spaced(a.info.size, entries)
        else:
            self._left -= sum(sizes)
            starts = list(range(0, a.info.size, entries))
        yield from zip(_pieces(a, how[0], starts, entries), _pieces(b, how[1], starts, entries), strict=True)


class UpdateMeter:
    """Reads pairs of slots of one open checkpoint. `sampled` tells whether any was too large to read whole."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._stored = {t.info.path: t for t in checkpoint.tensors}
        self._reader = PairReader()

    @property
    def sampled(self) -> bool:
        """Whether any slot was too large to read whole."""
        return self._reader.sampled

    def update_rms(self, first: str, second: str, moments: Moments) -> float | None:
        """Root mean square of the last update over entries where it is finite.

        Args:
            first, second: paths of the slots with m and v.
            moments: the update rule.

        Returns:
            None where the slots cannot be read side by side or no entry gives a finite update.
        """
        a, b = self._stored.get(first), self._stored.get(second)
        if a is None or b is None or a.info.shape != b.info.shape:
            return None
        total = count = 0.0
        try:
            with np.errstate(all="ignore"):
                for m, v in self._reader.pairs(a, b):
                    squares = moments.squares(m, v)
                    good = squares[np.isfinite(squares)]
                    total, count = total + float(good.sum()), count + good.size
        except (TensorReadError, UnknownDtypeError, OSError):
            return None
        return math.sqrt(total / count) if count else None


def _spaced(size: int, entries: int) -> list[int]:
    """Starts of evenly spaced blocks of whole length, the last one at the end."""
    count = min(SAMPLES, max(size // entries, 1))
    return [round(i * (size - min(size, entries)) / max(count - 1, 1)) for i in range(count)]


def _pieces(stored: StoredTensor, how: Layout, starts: list[int], entries: int) -> Iterator[NDArray[np.float64]]:
    """The entries [start, start + entries) of a tensor for each start, ascending, as float64."""
    size, item = stored.info.size, how.itemsize
    if stored.span is not None:
        for start in starts:
            raw = np.empty(min(entries, size - start) * item, np.uint8)
            read_exactly(stored.span, start * item, raw, stored.info.path)
            yield values(raw, how)
        return
    buffer = np.empty(entries * item, np.uint8)
    kept = np.empty(0, np.uint8)
    wanted = list(reversed(starts))
    first = 0  # byte position of kept[0]
    for position, block in chunk_blocks(stored, size * item, buffer, step=entries * item):
        kept = np.concatenate([kept, block])
        while wanted and min(wanted[-1] + entries, size) * item <= position + block.size:
            start = wanted.pop()
            yield values(kept[start * item - first : min(start + entries, size) * item - first], how)
        if not wanted:
            return
        drop = min(wanted[-1] * item, position + block.size) - first
        kept, first = kept[drop:].copy(), first + drop
