"""CKD208: a cross-entropy far above an even guess."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, ModelSpec, Severity
from ckptdoctor.rules.anatomy import head, own_layers
from ckptdoctor.rules.log.series import finite, loss
from ckptdoctor.rules.parts import maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import BINARY, CATEGORICAL, main_loss

ABSURD = 1e6  # × an even guess; hand-chosen: raw inputs in the thousands give some thousands


@rule(
    code="CKD208",
    name="huge-cross-entropy",
    severity=Severity.WARNING,
    needs={"logs", "spec"},
    since="0.1.0",
    thresholds={
        "factor": Threshold(
            8.0, unit="× an even guess", source="hand-chosen; AUTOTRAINER takes a loss of 1e3, TheDeepChecker ln k"
        )
    },
    doc="""
    ## What it finds
    A cross-entropy whose first epochs are many times that of an even guess, ln k.
    ## Why it matters
    Such a loss means logits in the tens and hundreds: inputs, or initial weights, are far too large for the head.
    ## How to confirm
    The range of the inputs; the loss of one batch before training should be about ln k.
    ## How to fix
    Standardise the inputs; look at the initialisers.
    ## References
    Loss at ln k before training: TheDeepChecker.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series, spec = loss(evidence), maybe_spec(evidence)
    known, found = main_loss(spec), head(spec)
    if series is None or known is None or found is None:
        return
    classes = (found[0].units or 0) if known.name in CATEGORICAL else 2 if known.name in BINARY else 0
    values = finite(series)
    if classes < 2 or not values:
        return
    factor = values[0] / math.log(classes)
    if factor < limits["factor"]:
        return
    stuck = standstill(evidence) is not None
    yield Finding(
        rule="CKD208",
        severity=Severity.WARNING,
        message=f"{series.name} starts at {values[0]:.4g}, {factor:.3g} times an even guess over {classes} classes: logits are huge.",
        measured=factor,
        threshold=limits["factor"],
        unit="× an even guess",
        votes=votes(
            (Cause.DATA_SCALE, 2.5 if stuck else 1.5, "huge logits come from unscaled inputs"),
            (Cause.LEARNING_RATE, 0.8, "huge logits may come from large steps"),
            (Cause.INITIALIZATION, 0.6, "huge logits may come from large initial weights"),
            (Cause.LABELS, -0.5, "labels do not make logits huge"),
            (Cause.VANISHING_GRADIENTS, -1.5, "a huge loss has gradients"),
            (
                Cause.ARCHITECTURE,
                2.0 if factor > ABSURD and _own(spec) else 0.0,
                "a layer of one's own computes numbers that no scaling of inputs makes",
            ),
        ),
    )


def _own(spec: ModelSpec | None) -> bool:
    lambdas = any(layer.class_name == "Lambda" for layer in spec.layers) if spec is not None else False
    return lambdas or bool(own_layers(spec))
