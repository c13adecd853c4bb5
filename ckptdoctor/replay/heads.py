"""Does the head fit targets and loss? The usual pairing, and the change that restores it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ckptdoctor.model import Cause
from ckptdoctor.replay.rebuild import head_activation, head_layer
from ckptdoctor.replay.step import TrainingStep

_RANGES = {
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "relu": (0.0, np.inf),
    "tanh": (-1.0, 1.0),
    "softplus": (0.0, np.inf),
}
MAX_CLASSES = 100
OUTSIDE = 0.02  # share of targets outside the head's range from which the head cannot fit


@dataclass(frozen=True, slots=True)
class HeadFix:
    """A head (and loss) that fits the targets.

    Attributes:
        why: one clause. activation: of the new head. loss: Keras' name of the loss to go with it.
        units: of the new head, None to keep them. code: the lines to write.
        severe: the present head cannot fit these targets at all; otherwise it only fits them slowly.
    """

    why: str
    activation: str
    loss: str
    units: int | None
    cause: Cause
    layer: str
    code: str
    severe: bool = True


def head_fix(step: TrainingStep, targets: NDArray[Any]) -> HeadFix | None:
    """What is wrong with the head of a model with one output, None where it fits.

    Args:
        step: of the model. targets: recorded targets, rows first.
    """
    layer = head_layer(step.model)
    if layer is None or len(step.plan.names) != 1 or not targets.size:
        return None
    name, loss, activation = _display(step, layer), step.plan.names[0], head_activation(step.model) or "linear"
    units = int(step.model.output_shape[-1] or 0) if isinstance(step.model.output_shape, tuple) else 0
    finite = targets[np.isfinite(targets)] if targets.dtype.kind == "f" else targets.ravel()
    if not finite.size or not units:
        return None
    logits = bool(getattr(step.plan.losses[0], "from_logits", False) or _config(step.plan.losses[0]).get("from_logits"))
    described = _describe(finite, targets)
    return _choose(name, loss, activation, units, described, finite, logits=logits)


def _display(step: TrainingStep, layer: Any) -> str:
    return next((n.name for n in step.owners.layers if n.layer is layer), str(layer.name))


def _config(loss: Any) -> dict[str, Any]:
    try:
        return dict(loss.get_config())
    except (AttributeError, NotImplementedError, TypeError):
        return {}


def _describe(finite: NDArray[Any], targets: NDArray[Any]) -> str:
    """`binary`, `one_hot`, `multi_hot`, `classes` or `numbers`."""
    width = targets.shape[-1] if targets.ndim > 1 else 1
    if bool(((finite == 0) | (finite == 1)).all()):
        if width == 1:
            return "binary"
        sums = targets.reshape(-1, width).sum(axis=1)
        return "one_hot" if bool(np.isclose(sums, 1).all()) else "multi_hot"
    whole = bool((finite == np.round(finite)).all())
    if whole and width == 1 and float(finite.min()) >= 0 and 2 < len(np.unique(finite)) <= MAX_CLASSES:
        return "classes"
    return "numbers"


def _choose(
    name: str, loss: str, activation: str, units: int, kind: str, finite: NDArray[Any], *, logits: bool
) -> HeadFix | None:
    crossentropy = "crossentropy" in loss
    if activation == "softmax" and units == 1:
        if kind == "binary":
            return _fix(name, "softmax over one unit is always 1", "sigmoid", "binary_crossentropy", None)
        return _fix(name, "softmax over one unit is always 1", "linear", "mean_squared_error", None)
    if kind == "classes" and loss.startswith("binary"):
        count = int(finite.max()) + 1
        why = f"{count} classes as indices cannot be told apart by {units} unit(s) with {loss}"
        return _fix(name, why, "softmax", "sparse_categorical_crossentropy", count, Cause.LOSS_FUNCTION)
    if crossentropy and activation == "linear" and not logits:
        fitting = "sigmoid" if loss.startswith("binary") else "softmax"
        why = f"{loss} expects probabilities, but the head has no {fitting} and from_logits is False"
        return _fix(name, why, fitting, loss, None, Cause.LOSS_FUNCTION)
    if crossentropy and logits and activation in ("sigmoid", "softmax"):
        why = f"{loss} with from_logits=True applies {activation} a second time"
        return _fix(name, why, "linear", loss, None, Cause.LOSS_FUNCTION)
    if kind == "one_hot" and activation == "sigmoid" and loss.startswith("categorical"):
        why = "one class of several, but the head has a sigmoid for each"
        return _fix(name, why, "softmax", loss, None)
    if kind == "multi_hot" and activation == "softmax":
        why = "several labels can hold at once, but softmax makes them compete"
        return _fix(name, why, "sigmoid", "binary_crossentropy", None)
    if kind in ("binary", "one_hot") and loss.startswith("mean") and activation in ("sigmoid", "softmax"):
        fitting = "binary_crossentropy" if kind == "binary" or activation == "sigmoid" else "categorical_crossentropy"
        why = f"{loss} on a {activation} has a vanishing gradient where the prediction is wrong"
        return replace(_fix(name, why, activation, fitting, None, Cause.LOSS_FUNCTION), severe=False)
    if loss.startswith("sparse"):  # targets are indices of units, not values that the head gives
        return None
    return _range(name, loss, activation, kind, finite)


def _range(name: str, loss: str, activation: str, kind: str, finite: NDArray[Any]) -> HeadFix | None:
    low, high = _RANGES.get(activation, (-np.inf, np.inf))
    outside = float(((finite < low - 1e-6) | (finite > high + 1e-6)).mean())
    if outside < OUTSIDE or kind not in ("numbers", "classes"):
        return None
    why = (
        f"{outside:.0%} of the targets (from {float(finite.min()):.4g} to {float(finite.max()):.4g}) lie outside what "
        f"{activation} can give"
    )
    return _fix(name, why, "linear", "mean_squared_error" if "crossentropy" in loss else loss, None)


def _fix(
    layer: str, why: str, activation: str, loss: str, units: int | None, cause: Cause = Cause.ACTIVATION
) -> HeadFix:
    plain = layer.rpartition("/")[2]
    shown = repr(activation) if activation != "linear" else "None"
    if units is not None:
        code = f"Dense({units}, activation={shown}, name={plain!r}); model.compile(..., loss={loss!r})"
    else:
        code = f"activation={shown} in layer {plain!r}; model.compile(..., loss={loss!r})"
    return HeadFix(why, activation, loss, units, cause, layer, code)
