"""A custom loss whose code is missing: would its usual formula have failed on these batches?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from ckptdoctor.model import Cause, NonfinitePoint
from ckptdoctor.replay.closeup import examine, observe
from ckptdoctor.replay.formulas import Formula, usual_formula
from ckptdoctor.replay.lab import Trial
from ckptdoctor.replay.losses import LossPlan, as_loss
from ckptdoctor.replay.reproduce import run
from ckptdoctor.replay.session import Session, Start
from ckptdoctor.replay.state import put
from ckptdoctor.replay.step import TrainingStep
from ckptdoctor.replay.surgery import in_place_trial, recompile


def suspect(session: Session, starts: list[Start]) -> tuple[NonfinitePoint, Formula, int, Start] | None:
    """Run the recorded batches under the usual formula of the missing loss.

    Returns:
        the first bad place, the formula, the failing step and the start; None where the name is unfamiliar, the
        formula does not fit head and targets, or nothing fails.
    """
    plan = session.rebuilt.plan
    formula = usual_formula(plan.custom)
    if formula is None or len(plan.losses) != 1:
        return None
    model, optimizer = session.rebuilt.model, session.rebuilt.model.optimizer
    recompile(model, optimizer, formula_plan(session, formula.usual, plan.custom))
    try:
        step = TrainingStep(session.rebuilt.dialect, model, formula_plan(session, formula.usual, plan.custom))
        for start in starts:
            with tf.device(session.device):
                outcome = run(
                    step,
                    start.snapshot,
                    session.recording.batches,
                    session.request.steps,
                    deadline=time.monotonic() + 15,
                )
                if outcome.failed_step is None or outcome.failed_batch is None or outcome.before is None:
                    continue
                put(step.variables, outcome.before)
                iteration = session.rebuilt.dialect.iterations(optimizer)
                seen = observe(step, outcome.before, outcome.failed_batch)
            point = examine(step, seen, step_index=outcome.failed_step, optimizer_step=iteration)
            if point is not None:
                text = f"If '{plan.custom}', whose code is not at hand, is {formula.text}: {point.message}"
                return replace(point, message=text), formula, outcome.failed_step, start
    except (ValueError, TypeError, tf.errors.OpError):
        return None  # the formula does not fit this head and these targets
    finally:
        recompile(model, optimizer, plan)
    return None


def formula_plan(session: Session, function: Callable[[Any, Any], Any], name: str) -> LossPlan:
    """A loss plan of one formula."""
    return LossPlan((as_loss(session.rebuilt.dialect, function, name),), None, (name,), "substituted", custom=name)


def guarded_trial(session: Session, formula: Formula) -> Trial:
    """The same formula with its weak spot guarded."""
    custom = session.rebuilt.plan.custom
    return in_place_trial(
        "stable_loss",
        f"the usual formula for '{custom}' with its weak spot guarded",
        Cause.LOSS_FUNCTION,
        formula.code,
        [],
        plan=formula_plan(session, formula.guarded, custom),
    )
