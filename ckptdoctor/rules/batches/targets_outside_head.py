"""CKD407: targets that the output activation cannot reach."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import ArrayStats, Cause, Evidence, Finding, LayerSpec, LossSpec, ModelSpec, Severity
from ckptdoctor.rules.anatomy import head, restores_inputs
from ckptdoctor.rules.parts import maybe_spec, spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import REGRESSION, main_loss, targets, unlabelled_code

RANGES = {
    "relu": (0.0, None),
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softplus": (0.0, None),
    "exponential": (0.0, None),
}


@rule(
    code="CKD407",
    name="targets-outside-head",
    severity=Severity.WARNING,
    needs={"batches", "spec"},
    since="0.1.0",
    thresholds={
        "margin": Threshold(
            0.05, unit="of the targets' range", source="hand-chosen: rounding and rare outliers are no fault"
        )
    },
    doc="""
    ## What it finds
    Targets outside the range of the output's activation, under a loss of distances.
    ## Why it matters
    relu cannot give a negative number, a sigmoid none above 1. The output settles at its limit, where its gradient is zero: it
    predicts one value for every row.
    ## How to confirm
    Compare the range of `model.predict(x)` with that of the targets.
    ## How to fix
    A linear output for regression, tanh for targets from -1 to 1; or scale the targets into the range.
    ## References
    AUTOTRAINER's table of pairs; common in the DeepLocalize and DeepFD collections.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    found, loss, array = head(spec_of(evidence)), main_loss(maybe_spec(evidence)), targets(evidence)
    if found is None or array is None or array.min is None or array.max is None:
        return
    if loss is None or not (loss.custom or loss.name in REGRESSION):
        return
    _, layer, activation = found
    if activation not in RANGES:
        return
    low, high = RANGES[activation]
    margin = limits["margin"] * max(array.max - array.min, 1e-12)
    below = low is not None and array.min < low - margin
    above = high is not None and array.max > high + margin
    if not (below or above):
        return
    stuck = standstill(evidence) is not None
    if loss.custom and _only_unlabelled(array, low, high):
        return
    if activation == "softmax" and _are_classes(array, layer):
        yield _classes_as_numbers(array, layer, loss, stuck=stuck)
        return
    share = _share_outside(array.mean, low if below else high)
    # With most targets out of reach no constant within is near them: that is at fault whether or not a log shows it.
    plain = stuck or (bool(share) and not loss.custom)
    yield Finding(
        rule="CKD407",
        severity=Severity.ERROR if plain else Severity.WARNING,
        message=(
            f"Targets {array.name} run from {array.min:.3g} to {array.max:.3g}, but {layer.name} ends in {activation}, "
            f"which gives {'nothing below ' + format(low, 'g') if below else 'nothing above ' + format(high, 'g')}."
        ),
        layer=layer.name,
        measured=array.min if below else array.max,
        threshold=low if below else high,
        unit="target",
        votes=votes(
            (Cause.ACTIVATION, 4.0 if plain else 1.5, f"{activation} cannot reach the targets{share}"),
            (Cause.DATA_SCALE, _by_scaling(spec_of(evidence), above=above), "targets could be scaled into the range"),
        ),
        data={"locates": True},
    )


def _by_scaling(spec: ModelSpec, *, above: bool) -> float:
    if not above:
        return 0.0
    return 2.5 if restores_inputs(spec) else 1.0


def _only_unlabelled(array: ArrayStats, low: float | None, high: float | None) -> bool:
    """Whether nothing is out of reach but the value for "no label", which a loss of the user's own may well leave out."""
    code = unlabelled_code(array)
    others = [value for value, _ in array.classes if value != code]
    return code is not None and all((low is None or v >= low) and (high is None or v <= high) for v in others)


def _are_classes(array: ArrayStats, layer: LayerSpec) -> bool:
    """One whole number a row, from 0 to below the number of units: the number of a class."""
    single = len(array.shape) <= 2 or array.shape[-1] == 1
    units = layer.units or 0
    return (
        single
        and array.integral
        and array.min is not None
        and array.min >= 0
        and units > 1
        and (array.max or 0) < units
    )


def _classes_as_numbers(array: ArrayStats, layer: LayerSpec, loss: LossSpec, *, stuck: bool) -> Finding:
    why = f"{loss.name} compares each of the {layer.units} shares with the number of the class"
    return Finding(
        rule="CKD407",
        severity=Severity.ERROR if stuck else Severity.WARNING,
        message=f"Targets {array.name} are class numbers from 0 to {array.max:.3g}, and {layer.name} gives {layer.units} shares: {why}; "
        "sparse_categorical_crossentropy looks the share of the class up.",
        layer=layer.name,
        measured=array.max,
        threshold=1.0,
        unit="target",
        votes=votes((Cause.LOSS_FUNCTION, 4.5 if stuck else 1.5, why), (Cause.LABELS, 2.5 if stuck else 1.0, why)),
        data={
            "locates": True,
            "fix": "Take sparse_categorical_crossentropy, which looks the share of the class up.",
            "code": 'model.compile(..., loss="sparse_categorical_crossentropy")',
        },
    )


def _share_outside(mean: float | None, bound: float | None) -> str:
    return (
        ", not even their mean"
        if mean is not None and bound is not None and (mean < bound <= 0 or mean > bound > 0)
        else ""
    )
