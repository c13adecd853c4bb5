"""Does x predict y at all? A small cross-validated measure, compared with itself on permuted targets.

Two linear smoothers predict y (classes one-hot, numbers standardised): ridge regression on the standardised features, and
kernel ridge regression with a Gaussian kernel, which sees neighbourhoods. For both the leave-one-out residual has the
closed form e_i / (1 - H_ii) (Allen's PRESS, 1974), so nothing is refitted. The score is the best
share of variance explained, 1 - PRESS / total, over both and four strengths of regularisation; for one-hot targets that is
Brier's skill score. The same best-of is taken for each permutation of y, so choosing does not favour the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import Association, Missing

Floats = NDArray[np.float64]

MAX_ROWS = 600
"""Rows that are used: the cost is that of two eigendecompositions of a matrix of this size."""
MIN_ROWS = 40
"""Below, a permutation test of this kind cannot tell a weak relation from none (hand-chosen)."""
MANY_CLASSES = 10  # from which on ids may well be numbers: ages, grades, digits of a price; hand-chosen
NOTHING = 0.03  # share of the classes explained that a lucky sample shows; hand-chosen
SOMETHING = 0.1  # share of the ids' variance explained
SURE = 6.0  # standard deviations above chance
MIN_PER_CLASS = 4
MAX_FEATURES = 256
"""Wider inputs are projected at random to this width, which keeps distances (Johnson and Lindenstrauss)."""
MAX_OUTPUTS = 32
PERMUTATIONS = 30
VOCABULARY = 512
_STRENGTHS = (0.03, 0.3, 3.0, 30.0)
_SEED = 20
_BLOCK = 16_384  # columns projected at a time: 32 MB of random numbers


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one array for the measure, shape (N, …). `tokens` where they are ids of a vocabulary; `classes` where labels."""

    values: NDArray[Any]
    tokens: bool = False
    classes: bool = False


def associate(inputs: Sequence[Rows], targets: Sequence[Rows]) -> Association | Missing:
    """Measure whether the inputs tell anything about the targets.

    Args:
        inputs, targets: arrays with the same rows in the same order.

    Returns:
        The measure, or why there is none: too few usable rows, or targets that do not vary.
    """
    if not inputs or not targets:
        return Missing("the recorded batches hold no targets")
    rng = np.random.default_rng(_SEED)
    x = np.concatenate([_features(rows, rng) for rows in inputs], axis=1)
    y, described = _outputs(targets, rng)
    keep = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    keep &= _first_of_each(x)
    x, y = x[keep], y[keep]
    if len(x) < MIN_ROWS:
        return Missing(
            f"only {len(x)} different rows with finite values: at least {MIN_ROWS} are needed to tell whether x predicts y"
        )
    chosen = np.arange(len(x))
    if len(x) > MAX_ROWS:
        chosen = np.linspace(0, len(x) - 1, MAX_ROWS).astype(np.int64)
        x, y = x[chosen], y[chosen]
    numbers = _many_ids(targets)
    numbers = numbers[keep][chosen] if numbers is not None else None
    x, y = _standardised(x), y - y.mean(axis=0)
    if any(rows.classes for rows in targets):
        counts = _class_counts(targets, keep)
        if counts < 2:
            return Missing(f"fewer than two classes have {MIN_PER_CLASS} rows or more")
    if float((y * y).sum()) <= 1e-24 * len(y) or not x.size:
        return Missing(
            "the targets do not vary over the recorded rows"
            if x.size
            else "the inputs do not vary over the recorded rows"
        )
    score, *chance = _scores(x, [y, *(y[rng.permutation(len(y))] for _ in range(PERMUTATIONS))])
    by_number = False
    if numbers is not None and score < NOTHING:
        n = numbers - numbers.mean(axis=0)
        other, *others = _scores(x, [n, *(n[rng.permutation(len(n))] for _ in range(PERMUTATIONS))])
        if other > SOMETHING and other > np.mean(others) + SURE * np.std(others, ddof=1):
            score, chance, by_number, described = other, others, True, "the class ids as numbers"
    return Association(
        method=f"leave-one-out ridge and kernel ridge regression of {described} on {_described(inputs)}, "
        f"against {PERMUTATIONS} permutations",
        score=float(np.clip(score, -1.0, 1.0)),
        chance=float(np.clip(np.mean(chance), -1.0, 1.0)),
        chance_std=float(np.std(chance, ddof=1)),
        rows=len(x),
        by_number=by_number,
    )


def _many_ids(targets: Sequence[Rows]) -> Floats | None:
    """The ids of the classes, shape (rows, 1), of a single target with many classes; ids in an order may be what is learned."""
    if len(targets) != 1 or not targets[0].classes:
        return None
    values = targets[0].values.reshape(len(targets[0].values), -1).astype(np.float64)
    if values.shape[1] > 1 and not ((values == 0) | (values == 1)).all():
        return None
    ids = values if values.shape[1] == 1 else values.argmax(axis=1)[:, None].astype(np.float64)
    return ids if len(np.unique(ids[np.isfinite(ids)])) >= MANY_CLASSES else None


def _scores(x: Floats, targets: Sequence[Floats]) -> list[float]:
    """The largest share of variance explained for each of several (n, c) targets, over both kernels and all strengths.

    Leave-one-out, and against the leave-one-out mean, so that a predictor of nothing scores 0. The intercept is
    not penalised: kernels are centred, and 1/n is added to the diagonal of the smoother.
    """
    n, width = targets[0].shape
    together = np.concatenate(targets, axis=1)
    total = float((targets[0] * targets[0]).sum()) * (n / (n - 1.0)) ** 2
    best = np.full(len(targets), -np.inf)
    for kernel in _kernels(x):
        means = kernel.mean(axis=0)
        values, vectors = np.linalg.eigh(kernel - means[:, None] - means[None, :] + means.mean())
        values = np.maximum(values, 0.0)
        rotated, squared = vectors.T @ together, vectors * vectors
        for strength in _STRENGTHS:
            shrunk = values / (values + strength)
            rest = np.maximum(1.0 - squared @ shrunk - 1.0 / n, 1e-6)
            residual = (together - vectors @ (shrunk[:, None] * rotated)) / rest[:, None]
            lost = (residual * residual).sum(axis=0).reshape(len(targets), width).sum(axis=1)
            best = np.maximum(best, 1.0 - lost / total)
    found: list[float] = best.tolist()
    return found


def _kernels(x: Floats) -> Iterator[Floats]:
    """A linear kernel, then a Gaussian one as wide as rows are apart in the median."""
    gram = x @ x.T
    yield gram / x.shape[1]
    squared = np.maximum(np.diag(gram)[:, None] + np.diag(gram)[None, :] - 2 * gram, 0.0)
    middle = float(np.median(squared[~np.eye(len(x), dtype=np.bool_)])) or 1.0
    yield np.exp(-2.0 * squared / middle)


def _features(rows: Rows, rng: np.random.Generator) -> Floats:
    values = rows.values.reshape(len(rows.values), -1)
    if rows.tokens:
        return _bag_of_words(values)
    flat = values.astype(np.float64)
    if flat.shape[1] <= MAX_FEATURES:
        return flat
    with np.errstate(invalid="ignore", over="ignore"):
        spread = np.nanstd(np.where(np.isfinite(flat), flat, np.nan), axis=0)
    scaled = np.divide(flat, spread, out=np.zeros_like(flat), where=np.isfinite(spread) & (spread > 0))
    scaled[~np.isfinite(flat).all(axis=1)] = np.nan
    return _projected(scaled, MAX_FEATURES, rng)


def _projected(columns: Floats, width: int, rng: np.random.Generator) -> Floats:
    """Columns projected at random, some at a time: the whole matrix of a wide array would take gigabytes."""
    total = np.zeros((len(columns), width))
    for start in range(0, columns.shape[1], _BLOCK):
        block = columns[:, start : start + _BLOCK]
        total += block @ rng.standard_normal((block.shape[1], width))
    scaled: Floats = total / np.sqrt(columns.shape[1])
    return scaled


def _bag_of_words(ids: NDArray[Any]) -> Floats:
    """Square roots of token counts, ids folded into `VOCABULARY` columns; the most frequent id (padding) left out."""
    finite = np.where(np.isfinite(ids), ids, 0).astype(np.int64)
    words, counts = np.unique(finite, return_counts=True)
    folded = finite % VOCABULARY
    table = np.zeros((len(ids), VOCABULARY))
    np.add.at(table, (np.arange(len(ids))[:, None], folded), 1.0)
    if len(words) > 2:
        table[:, int(words[counts.argmax()]) % VOCABULARY] = 0.0
    used = table.any(axis=0)
    bag: Floats = np.sqrt(table[:, used])
    if finite.shape[1] <= 64:  # where a token stands may matter more than that it does
        return np.concatenate([bag, finite.astype(np.float64)], axis=1)
    return bag


def _outputs(targets: Sequence[Rows], rng: np.random.Generator) -> tuple[Floats, str]:
    columns: list[Floats] = []
    classes = False
    for rows in targets:
        values = rows.values.reshape(len(rows.values), -1)
        if rows.classes and values.shape[1] == 1:
            labels = values[:, 0].astype(np.float64)
            distinct = np.unique(labels[np.isfinite(labels)])
            one_hot = (labels[:, None] == distinct[None, :]).astype(np.float64)
            one_hot[~np.isfinite(labels)] = np.nan
            columns.append(_narrow(one_hot, rng))
            classes = True
            continue
        numbers = values.astype(np.float64)
        if rows.classes:
            columns.append(_narrow(numbers, rng))
            classes = True
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.where(np.isfinite(numbers), numbers, np.nan)
            low, high = (
                np.nanpercentile(finite, [1, 99], axis=0) if np.isfinite(finite).any(axis=0).all() else (np.nan, np.nan)
            )
            clipped = np.clip(numbers, low, high) if np.all(np.isfinite(low)) else numbers
            spread = np.nanstd(np.where(np.isfinite(clipped), clipped, np.nan), axis=0)
        scaled = np.divide(clipped, spread, out=np.zeros_like(clipped), where=np.isfinite(spread) & (spread > 0))
        scaled[~np.isfinite(numbers).all(axis=1)] = np.nan
        columns.append(_narrow(scaled, rng))
    return np.concatenate(columns, axis=1), "the classes" if classes else "the targets"


def _narrow(columns: Floats, rng: np.random.Generator) -> Floats:
    """At most `MAX_OUTPUTS` columns: more are projected at random."""
    if columns.shape[1] <= MAX_OUTPUTS:
        return columns
    return _projected(columns, MAX_OUTPUTS, rng)


def _class_counts(targets: Sequence[Rows], keep: NDArray[np.bool_]) -> int:
    """The largest number of classes with `MIN_PER_CLASS` rows among the targets that are labels."""
    most = 0
    for rows in targets:
        if not rows.classes:
            most = max(most, 2)
            continue
        values = rows.values.reshape(len(rows.values), -1)[keep]
        if values.shape[1] == 1:
            counts = np.unique(values[:, 0], return_counts=True)[1]
        elif values.shape[1] > 1:
            counts = (values > 0.5).sum(axis=0)
        most = max(most, int((counts >= MIN_PER_CLASS).sum()))
    return most


def _standardised(x: Floats) -> Floats:
    """Columns with mean 0 and spread 1, clipped at ten robust spreads so that one outlier does not rule the distances."""
    with np.errstate(over="ignore", invalid="ignore"):
        middle = np.median(x, axis=0)
        spread = 1.4826 * np.median(np.abs(x - middle), axis=0)
        plain = x.std(axis=0)
    spread = np.where(spread > 0, spread, plain)
    usable = np.isfinite(spread) & (spread > 0) & np.isfinite(middle)
    z = np.clip((x[:, usable] - middle[usable]) / spread[usable], -10.0, 10.0)
    deviation = z.std(axis=0)
    kept: Floats = (z[:, deviation > 0] - z[:, deviation > 0].mean(axis=0)) / deviation[deviation > 0]
    return kept


def _first_of_each(x: Floats) -> NDArray[np.bool_]:
    """The first of each group of equal rows: a row that stands twice would predict itself."""
    _, first = (
        np.unique(np.ascontiguousarray(x).view(np.uint64), axis=0, return_index=True)
        if x.size
        else (None, np.arange(len(x)))
    )
    mask = np.zeros(len(x), dtype=np.bool_)
    mask[first] = True
    return mask


def _described(inputs: Sequence[Rows]) -> str:
    if any(rows.tokens for rows in inputs):
        return "the counts of tokens"
    wide = max(int(np.prod(rows.values.shape[1:], dtype=np.int64)) for rows in inputs)
    return f"a random projection of {wide:,} features" if wide > MAX_FEATURES else f"{wide:,} features"
