"""The lines to write, with this model's own numbers and names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_OPTIONS = ("momentum", "nesterov", "weight_decay", "global_clipnorm", "clipnorm", "clipvalue")


def number(value: float) -> str:
    """A float as one would type it: `0.001`, `1e-05`."""
    return f"{float(f'{value:.6g}'):g}"


@dataclass(frozen=True, slots=True)
class OptimizerCode:
    """The run's optimizer, ready to be written down with one thing changed.

    Attributes:
        name: class. rate: learning rate in force at the start. scheduled: it comes from a schedule.
        options: arguments that differ from the usual ones.
    """

    name: str
    rate: float
    scheduled: bool
    options: Mapping[str, Any]

    def with_rate(self, rate: float) -> str:
        """The optimizer with another learning rate."""
        return self._call(rate, self.options)

    def with_options(self, **changes: Any) -> str:
        """The optimizer with other arguments."""
        options = {**self.options, **changes}
        if "global_clipnorm" in changes:  # Keras takes one kind of clipping only
            options.pop("clipnorm", None)
            options.pop("clipvalue", None)
        return self._call(self.rate, options)

    def _call(self, rate: float, options: Mapping[str, Any]) -> str:
        rate_text = number(rate)
        shown = ", ".join([f"learning_rate={rate_text}", *(f"{k}={v!r}" for k, v in options.items())])
        note = "  # or the schedule scaled alike" if self.scheduled else ""
        return f"optimizer = keras.optimizers.{self.name}({shown}){note}"


def optimizer_code(optimizer: Any, rate: float) -> OptimizerCode:
    """Describe a Keras optimizer."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    options: dict[str, Any] = {}
    for name in _OPTIONS:
        value = getattr(inner, name, None)
        if value not in (None, False, 0, 0.0) and isinstance(value, (int, float, bool)):
            options[name] = value
    learning = inner._learning_rate  # noqa: SLF001 - the public getter evaluates a schedule
    scheduled = callable(learning) and not hasattr(learning, "assign")
    return OptimizerCode(type(inner).__name__, rate, scheduled, options)
