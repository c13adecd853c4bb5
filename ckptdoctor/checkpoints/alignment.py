"""Laying a model's weights along the list of shapes that an optimizer keeps slots for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
_SEARCH_STEPS = 20_000  # steps of the search for an order of layers; a model whose order is known takes one a layer
_MOST_SOLUTIONS = 16  # more ways than this tell nothing about any weight


@dataclass(frozen=True, slots=True)
class TrainVar:
    """A variable that the optimizer may hold slots for. `path` is None for one that the file does not hold (LoRA)."""

    path: str | None
    layer: str | None
    layer_path: str | None
    variable: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Block:
    """The variables of one layer, contiguous in the optimizer's order.

    Attributes:
        variables: in order.
        counts: how many of them, from the front, the optimizer may hold slots for; ascending.
        rank: blocks of one rank may stand in any order among each other; ranks ascend.
    """

    variables: tuple[TrainVar, ...]
    counts: tuple[int, ...]
    rank: int


def align(references: Sequence[Shape], blocks: Sequence[Block]) -> list[TrainVar | None] | None:
    """Lay the model's blocks along the list of weights that the optimizer has.

    Returns:
        For each reference the weight, None where more than one is possible; None as a whole where nothing fits.
    """
    total = len(references)
    ranks: dict[int, list[Block]] = {}
    for block in blocks:
        if block.variables:
            ranks.setdefault(block.rank, []).append(block)
    most = sum(b.counts[-1] for b in blocks)
    least = sum(b.counts[0] for b in blocks)
    if not least <= total <= most:
        return None
    search = _Search(references, [ranks[r] for r in sorted(ranks)])
    solutions = search.run()
    if not solutions:
        return None
    result: list[TrainVar | None] = []
    for i in range(total):
        first = solutions[0][i]
        same = not search.exhausted and all(s[i] == first for s in solutions)
        result.append(first if same else None)
    return result


@dataclass(frozen=True, slots=True)
class _Kind:
    """Blocks of one rank that look alike."""

    shapes: tuple[Shape, ...]
    counts: tuple[int, ...]
    blocks: tuple[Block, ...]


class _Search:
    """All ways to lay blocks along shapes, at most a few; blocks of one rank and equal shapes are not told apart."""

    def __init__(self, references: Sequence[Shape], ranks: list[list[Block]]) -> None:
        self.references = tuple(references)
        self.ranks = [_kinds(blocks) for blocks in ranks]
        self.exhausted = False

    def run(self) -> list[list[TrainVar | None]]:
        """Every solution up to `_MOST_SOLUTIONS`; sets `exhausted` where there may be more."""
        solutions: list[list[TrainVar | None]] = []
        # (rank, how many of each kind are left, position, what was laid): an explicit stack, because recursion would
        # follow the number of layers.
        stack: list[tuple[int, tuple[int, ...], int, tuple[Any, ...]]] = [(-1, (), 0, ())]
        steps = 0
        while stack:
            steps += 1
            if steps > _SEARCH_STEPS or len(solutions) > _MOST_SOLUTIONS:
                self.exhausted = True
                break
            rank, left, at, laid = stack.pop()
            if not any(left):
                rank += 1
                if rank == len(self.ranks):
                    if at == len(self.references):
                        solutions.append(_unroll(laid))
                    continue
                left = tuple(len(kind.blocks) for kind in self.ranks[rank])
            stack.extend(self._extend(rank, left, at, laid))
        return solutions

    def _extend(
        self, rank: int, left: tuple[int, ...], at: int, laid: tuple[Any, ...]
    ) -> Iterator[tuple[int, tuple[int, ...], int, tuple[Any, ...]]]:
        for i, kind in enumerate(self.ranks[rank]):
            if not left[i]:
                continue
            rest = (*left[:i], left[i] - 1, *left[i + 1 :])
            for count in kind.counts:
                if self.references[at : at + count] == kind.shapes[:count]:
                    single = len(kind.blocks) == 1
                    known = kind.blocks[0].variables[:count] if single else (None,) * count
                    yield rank, rest, at + count, (laid, known)


def _kinds(blocks: list[Block]) -> list[_Kind]:
    found: dict[tuple[tuple[Shape, ...], tuple[int, ...]], list[Block]] = {}
    for block in blocks:
        found.setdefault((tuple(v.shape for v in block.variables), block.counts), []).append(block)
    return [_Kind(shapes, counts, tuple(alike)) for (shapes, counts), alike in found.items()]


def _unroll(laid: tuple[Any, ...]) -> list[TrainVar | None]:
    parts: list[tuple[TrainVar | None, ...]] = []
    while laid:
        laid, known = laid
        parts.append(known)
    return [v for known in reversed(parts) for v in known]
