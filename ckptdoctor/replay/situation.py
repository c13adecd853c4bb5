"""What proposals for experiments are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ckptdoctor.model import LayerActivity, NonfinitePoint
from ckptdoctor.replay.activity import finite_rows
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.code import OptimizerCode
from ckptdoctor.replay.lab import Trial
from ckptdoctor.replay.labelrange import LabelRange
from ckptdoctor.replay.naming import NamedLayer
from ckptdoctor.replay.state import Snapshot
from ckptdoctor.replay.step import TrainingStep

ADAPTIVE = frozenset(
    {"Adam", "AdamW", "Nadam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Lamb", "Adafactor", "Lion"}
)
GROWING_OPS = frozenset({"Exp", "Expm1", "Pow", "Square", "Cosh", "Sinh", "Softplus", "Cumprod", "Prod"})
LOSS_OPS = frozenset(
    {"Log", "Log1p", "RealDiv", "Div", "DivNoNan", "Sqrt", "Rsqrt", "Pow", "Exp", "Reciprocal", "Xlogy"}
)
HALF = ("float16", "mixed_float16")
DEAD, SATURATED = 0.5, 0.5  # shares from which a layer counts as dead or saturated (SageMaker Debugger)
ADAM_RATE = 1e-3  # Keras' own default
SAFE_EPSILON_HALF = 1e-3  # float16 cannot hold the usual 1e-7, and its smallest normal number is 6e-5
SAFE_EPSILON = 1e-7


@dataclass(slots=True)
class Situation:
    """What the proposals are made from.

    Attributes:
        point: the first bad place, None for a run that stays finite (a collapse).
        batches: of the trials' training. start: state they begin from.
    """

    step: TrainingStep
    batches: Sequence[Batch]
    start: Snapshot
    code: OptimizerCode
    point: NonfinitePoint | None
    labels: LabelRange | None
    activity: Sequence[LayerActivity]
    activity_end: Sequence[LayerActivity]
    policy: str
    seed: int
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def collapsed(self) -> bool:
        """Finite, but it does not learn."""
        return self.point is None

    @property
    def model(self) -> Any:
        """The Keras model."""
        return self.step.model

    @property
    def half(self) -> bool:
        """Whether any layer computes in float16."""
        return any(policy_name(n.layer) in HALF for n in self.step.owners.layers)


def policy_name(layer: Any) -> str:
    return str(getattr(getattr(layer, "dtype_policy", None), "name", "float32"))


Maker = Callable[[Situation], list[Trial]]


def any_nonfinite(at: Situation) -> bool:
    """Whether a recorded row holds a non-finite entry."""
    return any(not finite_rows(b).all() for b in at.batches)


def all_finite(arrays: Sequence[Any]) -> bool:
    """Whether arrays of floats are wholly finite."""
    return all(bool(np.isfinite(a).all()) for a in arrays if a.dtype.kind == "f")


def layer_formula(at: Situation) -> bool:
    """Whether the first bad op is one of a formula (exp, log, a division), not of a product that grew too large."""
    op = (at.point.op or "").removesuffix("Grad") if at.point is not None else ""
    return op in GROWING_OPS | LOSS_OPS


def named(at: Situation, name: str | None) -> NamedLayer | None:
    """The leaf layer of that flattened name."""
    return next((n for n in at.step.owners.layers if n.name == name), None)
