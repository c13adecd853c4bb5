"""Recording a training loop of the user's own, step by step, eagerly."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import tensorflow as tf

from ckptdoctor.recorder.batchfile import Batch
from ckptdoctor.recorder.measures import gradient_norm, loss_scale, weights_finite
from ckptdoctor.recorder.record import Reason
from ckptdoctor.recorder.rng import seed_generators
from ckptdoctor.recorder.seam import StepRow
from ckptdoctor.recorder.session import Session

logger = logging.getLogger("ckptdoctor.recorder")


class Step:
    """What a step of a custom loop tells the recorder. Both are optional; tensors are not copied."""

    def __init__(self) -> None:
        self.measured_loss: Any = None
        self.measured_norm: Any = None
        self.rate = math.nan

    def loss(self, value: Any) -> None:
        """The step's loss, a scalar."""
        self.measured_loss = value

    def gradients(self, values: Any) -> None:
        """The step's gradients, one per variable, before clipping."""
        try:
            self.measured_norm = gradient_norm(list(values))
        except Exception:  # a norm is not worth a training
            logger.debug("no gradient norm", exc_info=True)


class Loop:
    """The steps of one such loop, as `session` sees them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._model, self._optimizer = session.subject.model, session.subject.optimizer
        self._check: Any = None

    def before(self, arguments: tuple[Any, Any, Any], step: Step) -> None:
        """Keep the batch and the seed states; the step has not begun."""
        session = self._session
        session.begin(session.step, build=True)
        generators = seed_generators(self._model)
        session.seed_names = [(layer, index) for layer, index, _ in generators]
        seeds = np.asarray([state.numpy() for _, _, state in generators], np.int64).reshape(-1, 2)
        kept = tf.nest.map_structure(_kept, arguments)
        first = next((a for a in tf.nest.flatten(kept) if a is not None), None)
        rows = (int(first.shape[0]),) if first is not None and len(first.shape) else (1,)
        step.rate = number(getattr(self._optimizer, "learning_rate", None))
        session.take([Batch(session.step, kept, rows, seeds)], [])

    def after(self, step: Step) -> Reason | None:
        """Judge the step that has just ended.

        Returns:
            What is non-finite now, or None.
        """
        session = self._session
        loss, norm, scale = number(step.measured_loss), number(step.measured_norm), number(loss_scale(self._optimizer))
        if self._check is None and self._model.built:
            check = tf.function(lambda: weights_finite(self._model.weights), autograph=False)
            self._check = check.get_concrete_function()
        finite = bool(self._check()) if self._check is not None else True
        row = StepRow(session.step, loss, step.rate, norm / scale, scale, finite)
        session.take([], [row])
        session.step += 1
        session.begin(session.step)
        if not finite or (step.measured_loss is not None and not math.isfinite(loss)):
            reason = session.confirm(row.step, loss_known=step.measured_loss is not None)
            if reason is not None:
                return reason
        if session.wants_rotation():
            session.rotate()
        return None


def _kept(value: Any) -> Any:
    """Tensors cannot change any more; arrays can, so they are copied."""
    return np.array(value) if isinstance(value, (np.ndarray, np.generic, int, float)) else value


def number(value: Any) -> float:
    """`value` as a float, NaN if it is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
