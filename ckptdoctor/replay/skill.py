"""Does a state predict the targets better than a constant would?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ckptdoctor.model import Skill
from ckptdoctor.replay.activity import finite_rows
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.rebuild import head_activation
from ckptdoctor.replay.state import Snapshot, put
from ckptdoctor.replay.step import TrainingStep

LEARNS_SCORE = 0.15  # share explained from which a state counts as having learnt; measured on the case book
FAINT = 0.05  # spread of probabilities ÷ spread of targets below which classes are told by chance; hand-chosen
MAX_ROWS = 4096
MAX_CLASSES = 1000
FEWEST_RANKED = 16  # rows from which a rank correlation is more than chance (hand-chosen)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judge:
    """How predictions of one model are compared with its targets.

    Attributes:
        kind: `classes` (one index a row), `one_hot`, `binary` (0 or 1 an output), `numbers`, or `` for no comparison.
        link: what turns outputs into probabilities: `softmax`, `sigmoid` or empty.
        classes: number of classes of kind `classes`.
    """

    kind: str
    link: str = ""
    classes: int = 0


def judge_for(step: TrainingStep, batches: Sequence[Batch]) -> Judge:
    """Choose by loss, head and targets; only models with one output and one target are judged."""
    if not batches[0].targets or len(batches[0].targets) != 1 or len(step.plan.names) != 1:
        return Judge("")
    y = np.concatenate([b.targets[0] for b in batches])
    shape = getattr(step.model, "output_shape", None)
    outputs = tuple(e for e in (shape or ())[1:] if isinstance(e, int)) if isinstance(shape, tuple) else ()
    name, activation = step.plan.names[0], head_activation(step.model)
    if name.startswith("sparse_categorical"):
        return Judge("classes", "" if activation == "softmax" else "softmax", outputs[-1] if outputs else 0)
    size = math.prod(outputs) if outputs else None
    if size is not None and size != math.prod(y.shape[1:]):
        return Judge("")
    finite = y[np.isfinite(y)] if y.dtype.kind == "f" else y
    whole = bool(finite.size) and bool(((finite == 0) | (finite == 1)).all())
    if name.startswith("categorical") and outputs and outputs[-1] > 1:
        return Judge("one_hot", "" if activation == "softmax" else "softmax")
    if name.startswith("binary"):
        return Judge("binary" if whole else "numbers", "" if activation in ("sigmoid", "softmax") else "sigmoid")
    if whole and activation == "softmax" and y.ndim > 1 and y.shape[-1] > 1:
        return Judge("one_hot")
    return Judge("binary" if whole and activation == "sigmoid" else "numbers")


def predict(step: TrainingStep, batches: Sequence[Batch]) -> Floats:
    """Outputs in inference mode over all rows, rows first, flattened to two axes (the last one kept)."""
    parts, rows = [], 0
    for batch in batches:
        output = step.forward(tuple(tf.constant(a) for a in batch.inputs), training=False)
        output = output[0] if isinstance(output, (list, tuple)) else output
        parts.append(tf.cast(output, tf.float32).numpy())
        rows += batch.rows
        if rows >= MAX_ROWS:
            break
    return np.concatenate(parts).astype(np.float64)


def measure_skill(
    step: TrainingStep, state: Snapshot | None, batches: Sequence[Batch], judge: Judge, held_out: Sequence[Batch] = ()
) -> Skill:
    """Compare a state's predictions with the targets.

    Args:
        step: of the model. state: to put in first; None to judge the model as it stands.
        batches: rows to judge on; rows with non-finite entries are left out. judge: how.
        held_out: rows that were not trained on, judged apart.
    """
    if state is not None:
        put(step.variables, state)
    clean = clean_batches(batches)
    if not judge.kind or not clean:
        return Skill(None)
    predictions = predict(step, clean)
    targets = np.concatenate([b.targets[0] for b in clean])[: len(predictions)]
    score, accuracy, majority = _score(predictions, targets, judge)
    apart = None
    others = clean_batches(held_out)
    if others:
        seen = predict(step, others)
        apart = _score(seen, np.concatenate([b.targets[0] for b in others])[: len(seen)], judge)[0]
    wide = targets.reshape(len(targets), -1).astype(np.float64)
    if judge.kind == "classes":
        wide = _one_hot(targets, judge.classes)
    ordered = rank_correlations(predictions.reshape(len(predictions), -1), wide)
    return Skill(
        score=score,
        held_out=apart,
        accuracy=accuracy,
        majority=majority,
        loss=own_loss(step, predictions, targets),
        trivial_loss=trivial_loss(step, targets, judge, predictions.shape),
        prediction_std=_number(predictions.reshape(len(predictions), -1).std(axis=0).mean()),
        target_std=_number(wide.std(axis=0).mean()),
        rank_correlation=_number(np.mean(np.abs(ordered))) if len(ordered) else None,
        signed_rank_correlation=_number(np.mean(ordered)) if len(ordered) else None,
        outputs=len(ordered) or None,
    )


def rank_correlations(given: Floats, wanted: Floats) -> Floats:
    """Spearman's rho of each output that varies, of arrays (rows, outputs); empty where none does or widths differ."""
    if given.shape != wanted.shape or len(given) < FEWEST_RANKED or not np.isfinite(given).all():
        return np.empty(0)
    columns = np.flatnonzero((np.ptp(given, axis=0) > 0) & (np.ptp(wanted, axis=0) > 0))[:MAX_CLASSES]
    return np.array([np.corrcoef(_ranks(given[:, c]), _ranks(wanted[:, c]))[0, 1] for c in columns])


def _ranks(values: Floats) -> Floats:
    """Ranks, equal values sharing their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2.0)[place], dtype=np.float64)


def clean_batches(batches: Sequence[Batch]) -> list[Batch]:
    """The batches without rows that hold non-finite entries; empty ones left out."""
    taken = [b.take(finite_rows(b)) for b in batches]
    return [b for b in taken if b.rows]


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _score(outputs: Floats, targets: NDArray[Any], judge: Judge) -> tuple[float | None, float | None, float | None]:
    """Score, accuracy and majority; see `Skill`."""
    if not np.isfinite(outputs).all():
        return -1.0, None, None
    if judge.kind == "numbers":
        return _explained(outputs.reshape(len(outputs), -1), targets.reshape(len(targets), -1)), None, None
    probabilities = _linked(outputs, judge.link)
    if judge.kind == "binary":
        wanted = targets.reshape(len(targets), -1).astype(np.float64)
        given = probabilities.reshape(len(probabilities), -1)
        hits, share = float(((given > 0.5) == (wanted > 0.5)).mean()), wanted.mean(axis=0)
        majority = float(np.maximum(share, 1 - share).mean())
        return _better(given, wanted, hits, majority), hits, majority
    width = probabilities.shape[-1]
    given = probabilities.reshape(-1, width)
    wanted = _one_hot(targets, width) if judge.kind == "classes" else targets.reshape(-1, width).astype(np.float64)
    hits = float((given.argmax(axis=1) == wanted.argmax(axis=1)).mean())
    majority = float(wanted.mean(axis=0).max())
    return _better(given, wanted, hits, majority), hits, majority


def _better(given: Floats, wanted: NDArray[Any], hits: float, majority: float) -> float:
    """The better of R² on probabilities and the share of the majority's errors that are avoided.

    R² punishes overconfidence although the classes are right; accuracy cannot beat a large majority. Where probabilities
    are all but equal for all rows, which side of one half they lie on is chance, and accuracy does not count.
    """
    explained = _explained(given, wanted)
    if given.std(axis=0).mean() < FAINT * wanted.std(axis=0).mean():
        return max(explained if explained is not None else -1.0, -1.0)
    avoided = (hits - majority) / (1 - majority) if majority < 1 else 0.0
    return max(explained if explained is not None else -1.0, avoided, -1.0)


def _explained(given: Floats, wanted: NDArray[Any]) -> float | None:
    """R², outputs weighted by their variance, clipped at -1; None where the targets do not vary."""
    wanted = wanted.astype(np.float64)
    total = float(np.square(wanted - wanted.mean(axis=0)).sum())
    if total <= 0:
        return None
    return max(-1.0, 1.0 - float(np.square(given - wanted).sum()) / total)


def _one_hot(targets: NDArray[Any], width: int) -> Floats:
    index = np.clip(targets.reshape(-1).astype(np.int64), 0, max(0, width - 1))
    hot = np.zeros((len(index), width))
    hot[np.arange(len(index)), index] = 1
    return hot


def _linked(outputs: Floats, link: str) -> Floats:
    if link == "softmax":
        shifted = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))
    if link == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-np.clip(outputs, -500, 500))))
    return outputs


def own_loss(step: TrainingStep, outputs: Floats, targets: NDArray[Any]) -> float | None:
    """The run's loss on plain predictions (without regularisation and without cached logits)."""
    try:
        value = step.plan.losses[0](tf.constant(targets), tf.constant(outputs.astype(np.float32)))
        return _number(float(value.numpy()))
    except (ValueError, TypeError, tf.errors.OpError):
        return None


def trivial_loss(step: TrainingStep, targets: NDArray[Any], judge: Judge, shape: tuple[int, ...]) -> float | None:
    """The run's loss under the best constant: class shares, the median for an absolute error, the mean otherwise."""
    if judge.kind == "classes":
        constant = _one_hot(targets, judge.classes).mean(axis=0)
    elif "absolute" in step.plan.names[0]:
        constant = np.median(targets.astype(np.float64), axis=0)
    else:
        constant = targets.astype(np.float64).mean(axis=0)
    if judge.link == "softmax":
        constant = np.log(np.maximum(constant, 1e-12))
    elif judge.link == "sigmoid":
        share = np.clip(constant, 1e-12, 1 - 1e-12)
        constant = np.log(share / (1 - share))
    try:
        spread = np.broadcast_to(constant, shape if judge.kind == "classes" else targets.shape)
    except ValueError:
        return None
    return own_loss(step, np.ascontiguousarray(spread, dtype=np.float64), targets)


def learns(skill: Skill | None) -> bool | None:
    """Whether a state predicts markedly better than a constant; None where it could not be judged."""
    if skill is None or skill.score is None:
        return None
    return skill.score >= LEARNS_SCORE
