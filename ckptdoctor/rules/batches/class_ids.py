"""CKD405: class ids outside the head."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import ArrayStats, Cause, Evidence, Finding, LossSpec, Severity
from ckptdoctor.rules.anatomy import head
from ckptdoctor.rules.parts import batches_of, losses_of, maybe_spec, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import main_loss, targets

IDS = "sparse_categorical_crossentropy"


@rule(
    code="CKD405",
    name="class-ids-out-of-range",
    severity=Severity.ERROR,
    needs={"batches", "spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    Class ids that are negative, not whole, or not below the number of units of the head.
    ## Why it matters
    On the CPU TensorFlow raises an error; on a GPU, and under XLA, the loss of such a row is NaN, and every weight with it.
    ## How to confirm
    `y.min(), y.max()` against the head's units.
    ## How to fix
    Shift ids to 0…C-1 (`y - y.min()`), or give the head one unit more; mask unlabelled pixels (255, -1) with `ignore_class`.
    ## References
    tensorflow#8484; Keras' `ignore_class`.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for units, layer, loss, array in _pairs(evidence):
        yield from _judged(units, layer, loss, array)


def _pairs(evidence: Evidence) -> Iterator[tuple[int, str, LossSpec, ArrayStats]]:
    """(units of the head, its name, loss, targets) for every head whose loss takes class ids."""
    spec, found = spec_of(evidence), head(spec_of(evidence))
    if found is not None:
        loss, array = main_loss(maybe_spec(evidence)), targets(evidence)
        if loss is not None and array is not None and loss.name == IDS and found[0].units is not None:
            yield found[0].units, found[0].name, loss, array
        return
    measured = batches_of(evidence).targets
    losses = losses_of(spec)
    if len(measured) != len(spec.outputs) or len(losses) not in (1, len(spec.outputs)):
        return
    for place, name in enumerate(spec.outputs):
        layer = spec.layer(name)
        array = next((a for a in measured if a.name.endswith(f"_{name}")), measured[place])
        loss = next((one for one in losses if one.output in (None, name)), losses[min(place, len(losses) - 1)])
        if layer is not None and layer.units is not None and loss.name == IDS:
            yield layer.units, layer.name, loss, array


def _judged(units: int, layer: str, loss: LossSpec, array: ArrayStats) -> Iterator[Finding]:
    if array.min is None or array.max is None:
        return
    ignored = loss.config.get("ignore_class")
    low, high = array.min, array.max
    if isinstance(ignored, int) and array.classes:
        kept = [value for value, _ in array.classes if value != ignored]
        low, high = (min(kept), max(kept)) if kept else (0.0, 0.0)
    if low >= 0 and high < units and array.integral:
        return
    if not array.integral and low >= 0 and high < units:
        text = f"The targets {array.name} of sparse_categorical_crossentropy are not whole numbers."
    else:
        text = (
            f"Class ids of {array.name} run from {low:g} to {high:g}, but {layer} has {units} units (0 to {units - 1})."
        )
    shifted = low == 1 and high == units
    yield Finding(
        rule="CKD405",
        severity=Severity.ERROR,
        message=text + (" They seem to be counted from 1." if shifted else ""),
        layer=layer,
        measured=high if high >= units else low,
        threshold=float(units - 1),
        unit="class id",
        votes=votes(
            (Cause.LABELS, 7.0, "class ids the head does not have"),
            (Cause.LEARNING_RATE, -1.5, "the labels explain the NaN"),
            (Cause.EXPLODING_GRADIENTS, -1.5, "the labels explain the NaN"),
        ),
        data={"confirms": Cause.LABELS.value},
    )
