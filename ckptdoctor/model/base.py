"""Words that every other part of the vocabulary uses: absence, causes, grades, severities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any

JsonValue = None | bool | int | float | str | Sequence[Any] | Mapping[str, Any]
JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that a file does not hold or that was not measured, and why. It is falsy."""

    reason: str

    def __bool__(self) -> bool:
        return False


class CkptDoctorError(Exception):
    """A question that could not be answered; its text is one sentence for the user.

    The text says what was expected, what was found, in which file, and what to do next.
    """

    exit_status = 2


class Cause(str, Enum):
    """Why a run failed, in the words of the JSON document."""

    DATA_NONFINITE = "data_nonfinite"
    DATA_SCALE = "data_scale"
    LABELS = "labels"
    LEARNING_RATE = "learning_rate"
    EXPLODING_GRADIENTS = "exploding_gradients"
    VANISHING_GRADIENTS = "vanishing_gradients"
    ACTIVATION = "activation"
    LOSS_FUNCTION = "loss_function"
    MIXED_PRECISION = "mixed_precision"
    OPTIMIZER = "optimizer"
    INITIALIZATION = "initialization"
    ARCHITECTURE = "architecture"
    HEALTHY = "healthy"
    UNKNOWN = "unknown"

    @property
    def group(self) -> Group:
        """The word people use for this cause."""
        return _GROUPS[self]


class Group(str, Enum):
    """The four words people use for causes, and two for their absence."""

    DATA = "data"
    GRADIENTS = "gradients"
    LEARNING_RATE = "learning rate"
    ACTIVATION = "activation"
    HEALTHY = "healthy"
    UNKNOWN = "unknown"


_GROUPS: Mapping[Cause, Group] = {
    Cause.DATA_NONFINITE: Group.DATA,
    Cause.DATA_SCALE: Group.DATA,
    Cause.LABELS: Group.DATA,
    Cause.EXPLODING_GRADIENTS: Group.GRADIENTS,
    Cause.VANISHING_GRADIENTS: Group.GRADIENTS,
    Cause.INITIALIZATION: Group.GRADIENTS,
    Cause.LEARNING_RATE: Group.LEARNING_RATE,
    Cause.OPTIMIZER: Group.LEARNING_RATE,
    Cause.ACTIVATION: Group.ACTIVATION,
    Cause.LOSS_FUNCTION: Group.ACTIVATION,
    Cause.ARCHITECTURE: Group.ACTIVATION,
    Cause.MIXED_PRECISION: Group.ACTIVATION,
    Cause.HEALTHY: Group.HEALTHY,
    Cause.UNKNOWN: Group.UNKNOWN,
}

FAULTS: tuple[Cause, ...] = tuple(c for c in Cause if c not in (Cause.HEALTHY, Cause.UNKNOWN))
"""The causes that are faults: every one but `healthy` and `unknown`."""


class Grade(str, Enum):
    """How a cause was established; see the method page."""

    CONFIRMED = "confirmed"
    LIKELY = "likely"
    POSSIBLE = "possible"
    UNKNOWN = "unknown"


class Status(str, Enum):
    """What the verdict, or one checkpoint of a timeline, says."""

    SICK = "sick"
    HEALTHY = "healthy"
    UNREADABLE = "unreadable"


class Severity(IntEnum):
    """How bad a finding is by itself, whatever its cause. Only ERROR makes a run `sick`.

    INFO: worth knowing. WARNING: a hazard or an oddity that healthy runs may also show.
    ERROR: something is broken (non-finite weights or loss, a file that lies, a model that cannot learn).
    """

    INFO = 0
    WARNING = 1
    ERROR = 2


class Phase(str, Enum):
    """Where in a training step the first non-finite value stood."""

    INPUT = "input"
    FORWARD = "forward"
    LOSS = "loss"
    BACKWARD = "backward"
    UPDATE = "update"
