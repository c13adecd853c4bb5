"""Experiments with the optimizer: rate, clipping, another one, its state, its epsilon."""

from __future__ import annotations

import numpy as np

from ckptdoctor.model import Cause
from ckptdoctor.replay import changes, surgery
from ckptdoctor.replay.code import number
from ckptdoctor.replay.lab import Trial
from ckptdoctor.replay.situation import ADAM_RATE, ADAPTIVE, SAFE_EPSILON, SAFE_EPSILON_HALF, Situation, named

PAPER_RATES = {"Adadelta": 1.0}
"""Rates of optimizers whose default in Keras is far from that of their paper (Zeiler 2012, equation 14: a rate of 1)."""
FARTHER = 300.0  # times the rate in force, beyond what the rates tried anyway would find; hand-chosen


def smaller_rates(at: Situation) -> list[Trial]:
    if not usable_rate(at):
        at.skipped.append(("learning rate divided", f"the learning rate is {at.code.rate}"))
        return []
    return [changes.rate_trial(at.code, 0.1), changes.rate_trial(at.code, 0.01)]


def rates_near(at: Situation) -> list[Trial]:
    """Ten times more and less; before them the rate of the optimizer's paper, where the one in force is far below."""
    if not usable_rate(at):
        return []
    usual = PAPER_RATES.get(at.code.name, 0.0) / at.code.rate
    return [changes.rate_trial(at.code, f) for f in ([usual] if usual > FARTHER else []) + [10.0, 0.1]]


def rates_far(at: Situation) -> list[Trial]:
    return [] if not usable_rate(at) else [changes.rate_trial(at.code, f) for f in (100.0, 0.01)]


def usable_rate(at: Situation) -> bool:
    return bool(np.isfinite(at.code.rate)) and at.code.rate > 0


def clipping(at: Situation) -> list[Trial]:
    if any(at.code.options.get(o) for o in ("clipnorm", "clipvalue", "global_clipnorm")):
        at.skipped.append(("gradient clipping", "the optimizer clips already"))
        return []
    return [changes.clip_trial(at.code)]


def adam(at: Situation) -> list[Trial]:
    if at.code.name in ADAPTIVE:
        at.skipped.append(("an adaptive optimizer", f"{at.code.name} is one"))
        return []
    make = surgery.adam(at.step.dialect, ADAM_RATE)
    change = f"Adam with learning rate {number(ADAM_RATE)} instead of {at.code.name}"
    return [
        surgery.optimizer_trial(
            "optimizer_adam", change, Cause.OPTIMIZER, surgery.describe_adam(at.code, ADAM_RATE), make
        )
    ]


def slots(at: Situation) -> list[Trial]:
    if at.step.dialect.iterations(at.model.optimizer) == 0:
        return []
    inner = getattr(at.model.optimizer, "inner_optimizer", at.model.optimizer)
    make = lambda: type(inner).from_config(surgery.optimizer_config(inner))  # noqa: E731
    change = f"{at.code.name} with its state reset"
    code = "model.compile(optimizer=..., loss=...)  # again after loading: drops the optimizer's state"
    return [surgery.optimizer_trial("reset_slots", change, Cause.OPTIMIZER, code, make)]


def epsilon(at: Situation) -> list[Trial]:
    trials: list[Trial] = []
    inner = getattr(at.model.optimizer, "inner_optimizer", at.model.optimizer)
    epsilon = getattr(inner, "epsilon", None)
    wanted = SAFE_EPSILON_HALF if at.half else SAFE_EPSILON
    if isinstance(epsilon, float) and epsilon < wanted:
        cause = Cause.MIXED_PRECISION if at.half else Cause.OPTIMIZER
        trials.append(
            surgery.in_place_trial(
                "epsilon",
                f"{at.code.name}'s epsilon {number(wanted)} instead of {number(epsilon)}",
                cause,
                at.code.with_options(epsilon=wanted),
                [(inner, "epsilon", wanted)],
            )
        )
    place = named(at, at.point.layer) if at.point is not None else None
    own = getattr(place.layer, "epsilon", None) if place is not None else None
    if place is not None and isinstance(own, float) and own < 1e-3:
        trials.append(
            surgery.in_place_trial(
                "layer_epsilon",
                f"epsilon 0.001 instead of {number(own)} in {place.name}",
                Cause.ARCHITECTURE,
                f"{place.class_name}(epsilon=1e-3, name={place.layer.name!r})",
                [(place.layer, "epsilon", 1e-3)],
                layer=place.name,
            )
        )
    return trials
