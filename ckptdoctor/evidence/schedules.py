"""Learning-rate schedules, evaluated from their saved configuration.

The formulas are those of `keras.optimizers.schedules`; `step` is the optimizer's iteration count.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ckptdoctor.evidence.serialized import bare_class, config_of, items, number
from ckptdoctor.model import JsonObject


class _Config:
    """A schedule's arguments as numbers; a missing or unusable one without a default ends the evaluation."""

    def __init__(self, config: JsonObject) -> None:
        self.raw = config

    def get(self, key: str, default: float | None = None) -> float:
        found = number(self.raw.get(key))
        if found is None:
            found = default
        if found is None:
            raise ValueError(key)
        return found


def learning_rate_at(schedule: JsonObject, step: int) -> float | None:
    """The learning rate at a step, None for a schedule that is not Keras' own or lacks an argument.

    Args:
        schedule: serialised, `{"class_name": "CosineDecay", "config": {…}}`.
        step: not negative.
    """
    evaluate = _SCHEDULES.get(bare_class(schedule) or "")
    if evaluate is None:
        return None
    try:
        return float(evaluate(_Config(config_of(schedule)), float(step)))
    except (ValueError, OverflowError, ZeroDivisionError, TypeError):
        return None


def _cosine(config: _Config, step: float) -> float:
    base, steps, alpha = config.get("initial_learning_rate"), config.get("decay_steps"), config.get("alpha", 0.0)
    target = number(config.raw.get("warmup_target"))
    warmup = config.get("warmup_steps", 0.0)
    if target is not None:
        if step < warmup:
            return base + (target - base) * step / warmup
        base, step = target, step - warmup
    part = min(step, steps) / steps
    return base * ((1 - alpha) * 0.5 * (1 + math.cos(math.pi * part)) + alpha)


def _cosine_restarts(config: _Config, step: float) -> float:
    base, first = config.get("initial_learning_rate"), config.get("first_decay_steps")
    longer, smaller, alpha = config.get("t_mul", 2.0), config.get("m_mul", 1.0), config.get("alpha", 0.0)
    done = step / first
    if longer == 1.0:
        period = math.floor(done)
        part = done - period
    else:
        period = math.floor(math.log(1 - done * (1 - longer)) / math.log(longer))
        part = (done - (1 - longer**period) / (1 - longer)) / longer**period
    height = math.pow(smaller, period)
    return base * ((1 - alpha) * 0.5 * height * (1 + math.cos(math.pi * part)) + alpha)


def _exponential(config: _Config, step: float) -> float:
    power = _stairs(config, step / config.get("decay_steps"))
    return config.get("initial_learning_rate") * math.pow(config.get("decay_rate"), power)


def _inverse_time(config: _Config, step: float) -> float:
    power = _stairs(config, step / config.get("decay_steps"))
    return config.get("initial_learning_rate") / (1 + config.get("decay_rate") * power)


def _stairs(config: _Config, power: float) -> float:
    return math.floor(power) if config.raw.get("staircase") is True else power


def _polynomial(config: _Config, step: float) -> float:
    base, end = config.get("initial_learning_rate"), config.get("end_learning_rate", 0.0001)
    steps, power = config.get("decay_steps"), config.get("power", 1.0)
    if config.raw.get("cycle") is True:
        steps *= 1.0 if step == 0 else math.ceil(step / steps)
    else:
        step = min(step, steps)
    return (base - end) * math.pow(1 - step / steps, power) + end


def _piecewise(config: _Config, step: float) -> float:
    boundaries = [number(b) for b in items(config.raw.get("boundaries"))]
    values = [number(v) for v in items(config.raw.get("values"))]
    for boundary, value in zip(boundaries, values, strict=False):
        if boundary is None or value is None:
            raise ValueError("boundaries")
        if step <= boundary:
            return value
    last = values[-1] if len(values) == len(boundaries) + 1 else None
    if last is None:
        raise ValueError("values")
    return last


_SCHEDULES: dict[str, Callable[[_Config, float], float]] = {
    "CosineDecay": _cosine,
    "CosineDecayRestarts": _cosine_restarts,
    "ExponentialDecay": _exponential,
    "InverseTimeDecay": _inverse_time,
    "PolynomialDecay": _polynomial,
    "PiecewiseConstantDecay": _piecewise,
}
