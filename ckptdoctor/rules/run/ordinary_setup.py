"""CKD602: nothing in the set-up explains why the run does not learn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from ckptdoctor.model import Batches, Cause, Evidence, Finding, ModelSpec, Severity, Timeline
from ckptdoctor.rules.anatomy import FLAT, HAS_KERNEL, head, hidden_activations
from ckptdoctor.rules.batches.input_scale import rms
from ckptdoctor.rules.checkpoint.learning_rate_unusual import ADAPTIVE
from ckptdoctor.rules.checkpoint.loss_head_mismatch import judge_pair
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.standstill_log import easy_for_simple_models
from ckptdoctor.rules.symptoms import BINARY, CATEGORICAL, learning_rate, main_loss, optimizer_class

ORDINARY_WAY = (0.02, 3.0)  # median distance of kernels ÷ their first size; measured, see CKD307
INITIALIZERS = {
    "GlorotUniform",
    "GlorotNormal",
    "HeUniform",
    "HeNormal",
    "LecunUniform",
    "LecunNormal",
    "VarianceScaling",
}


@rule(
    code="CKD602",
    name="ordinary-setup",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    A classifier that does not learn although rate, optimizer, activations, initialisers, head and loss are the usual ones, and
    it is not deep.
    ## Why it matters
    What is left is the data: labels that do not belong to the inputs, or inputs on the wrong scale.
    ## How to confirm
    Overfit twenty rows; look at ten rows with their labels.
    ## How to fix
    Check the pairing of inputs and labels; standardise the inputs.
    ## References
    By elimination.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    found = standstill(evidence)
    if found is None or not _ordinary(spec, evidence):
        return
    if _unmoved(evidence):
        return  # even wrong labels move every weight
    if easy_for_simple_models(evidence) and _ordinary_size(evidence):
        # The recorded inputs do predict the targets: it is not the data that is left, but the model.
        yield from _model_is_left(spec, evidence)
        return
    worse = found.kind == "worse_than_constant"
    why = "rate, activations, initialisers, head and loss are the usual ones"
    yield Finding(
        rule="CKD602",
        severity=Severity.INFO,
        message="Rate, optimizer, activations, initialisers, head and loss are the usual ones; the data is what is left.",
        votes=votes(
            (Cause.LABELS, 0.6 if worse else 1.6, why),
            (Cause.DATA_SCALE, 1.6 if worse else 0.8, why),
            (Cause.ACTIVATION, -0.8, why),
            (Cause.INITIALIZATION, -1.0, why),
            (Cause.LOSS_FUNCTION, -0.8, why),
            (Cause.VANISHING_GRADIENTS, -0.7, why),
        ),
    )


def _unmoved(evidence: Evidence) -> bool:
    return isinstance(evidence.timeline, Timeline) and bool(evidence.timeline.unmoved)


def _model_is_left(spec: ModelSpec, evidence: Evidence) -> Iterator[Finding]:
    """Weights went an ordinary way, the data can be learned, every setting is usual: the layers lose what counts."""
    went = evidence.timeline.displacement if isinstance(evidence.timeline, Timeline) else ()
    moved = [d.distance / d.size for d in went if d.size > 1e-6 and "bias" not in d.variable]
    if not moved or not ORDINARY_WAY[0] < median(moved) < ORDINARY_WAY[1]:
        return
    pooling = next((layer for layer in spec.layers if layer.class_name.startswith("Global")), None)
    why = "the data is learnable, every setting is usual, and the weights went an ordinary way"
    yield Finding(
        rule="CKD602",
        severity=Severity.INFO,
        message="Simple models learn these targets; rate, activations, initialisers, head and loss are the usual ones: the layers are what is left.",
        layer=pooling.name if pooling is not None else None,
        votes=votes(
            (Cause.ARCHITECTURE, 1.6 if pooling is not None else 1.0, why),
            (Cause.LABELS, -0.8, "simple models learn these targets"),
            (Cause.LOSS_FUNCTION, -0.5, why),
        ),
    )


def _ordinary(spec: ModelSpec, evidence: Evidence) -> bool:
    rate, loss, found = learning_rate(evidence), main_loss(spec), head(spec)
    if (
        rate is None
        or not math.isfinite(rate)
        or loss is None
        or found is None
        or loss.name not in CATEGORICAL | BINARY
    ):
        return False
    low, high = (1e-4, 1e-2) if optimizer_class(evidence) in ADAPTIVE else (1e-3, 0.5)
    kernels = [layer for layer in spec.layers if layer.class_name in HAS_KERNEL]
    usual = all(_initializer(layer.config.get("kernel_initializer")) in INITIALIZERS for layer in kernels)
    soft = all(activation not in FLAT | {"exponential"} for _, activation in hidden_activations(spec))
    paired = judge_pair(loss.name, loss.from_logits, found[2], found[0].units or 0) is None and not (
        found[2] == "softmax" and found[0].units == 1
    )
    return low <= rate <= high and usual and soft and paired and len(kernels) < 8


def _initializer(config: object) -> str:
    name = config.get("class_name") if isinstance(config, dict) else config
    text = str(name or "GlorotUniform")
    return "".join(part.capitalize() for part in text.split("_")) if "_" in text else text


def _ordinary_size(evidence: Evidence) -> bool:
    """Recorded inputs are of ordinary size, so that scale is no way out either."""
    arrays = evidence.batches.inputs if isinstance(evidence.batches, Batches) else ()
    return all((rms(array) or 0.0) < 8.0 for array in arrays)
