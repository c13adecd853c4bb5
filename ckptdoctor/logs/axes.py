"""Which column counts time, which are metrics, which are neither. One answer for CSV, JSON and JSONL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

STEP_NAMES = (
    "_step",
    "step",
    "global_step",
    "train/global_step",
    "trainer/global_step",
    "steps",
    "iteration",
    "iterations",
    "iter",
)
EPOCH_NAMES = ("epoch", "epochs", "train/epoch")
BATCH_NAMES = ("batch", "batches", "train/batch")
CLOCK_NAMES = frozenset(
    {"_runtime", "_timestamp", "wall time", "wall_time", "walltime", "time", "timestamp", "date", "datetime", "elapsed"}
)
"""Columns that tell the time of day: no metrics, and no axis either."""

_METRIC = re.compile(
    r"loss|acc|error|\bm[as]e\b|\bmape\b|rmse|\bauc\b|\bf1|precision|recall|\blr\b|learning_?rate|grad|norm|metric"
    r"|perplexity|\bppl\b|bleu|iou|dice|psnr|ssim|entropy|reward|score|\bkl\b|elbo|nll|^val_|^train[/_]|^eval[/_]",
    re.IGNORECASE,
)


def looks_like_metric(name: str) -> bool:
    """Whether a name is one that training logs use for a measured quantity."""
    return bool(_METRIC.search(name.replace("_", " ") if "val_" not in name else name)) or bool(_METRIC.search(name))


def is_axis(name: str) -> bool:
    """Whether a name counts epochs, steps or batches."""
    return normal(name) in {*STEP_NAMES, *EPOCH_NAMES, *BATCH_NAMES}


def is_clock(name: str) -> bool:
    """Whether a name tells the time of day."""
    return normal(name) in CLOCK_NAMES


def normal(name: str) -> str:
    """A column's name for comparison."""
    return name.strip().lower()


@dataclass(frozen=True, slots=True)
class Axis:
    """How the rows of a table are placed in time.

    Attributes:
        column: index of the column that counts, None to count the rows from 0.
        kind: `epoch`, `step` or `batch`.
        metrics: indices of the other columns, clocks left out; an epoch column beside a step column is among them.
    """

    column: int | None
    kind: str
    metrics: tuple[int, ...]


def choose_axis(names: Sequence[str]) -> Axis:
    """Pick the time axis among columns: a step count, else the epoch, else the batch, else the row.

    A table with both `epoch` and `batch` counts its rows, because the batch starts again in each epoch. An unnamed first
    column is the index that pandas writes.
    """
    plain = [normal(name) for name in names]
    step = next((plain.index(name) for name in STEP_NAMES if name in plain), None)
    epoch = next((plain.index(name) for name in EPOCH_NAMES if name in plain), None)
    batch = next((plain.index(name) for name in BATCH_NAMES if name in plain), None)
    index = 0 if plain and plain[0] in ("", "unnamed: 0", "index") else None
    rows_are_epochs = any(name.startswith("val_") for name in plain)
    if step is not None:
        column, kind = step, "step"
    elif epoch is not None and batch is not None:
        column, kind = None, "step"
    elif epoch is not None:
        column, kind = epoch, "epoch"
    elif batch is not None:
        column, kind = batch, "batch"
    else:
        column, kind = index, "epoch" if rows_are_epochs or index is not None else "step"
    skip = {column, index} | {i for i, name in enumerate(plain) if name in CLOCK_NAMES}
    return Axis(column, kind, tuple(i for i in range(len(plain)) if i not in skip))
