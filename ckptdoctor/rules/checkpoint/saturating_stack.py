"""CKD125: many saturating activations in a row."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import HAS_KERNEL, NORMALISING, hidden_activations
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD125",
    name="saturating-stack",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    thresholds={
        "sigmoid": Threshold(
            2.0, unit="hidden layers", source="the sigmoid's slope is at most 1/4: two cost a factor of 16 or more"
        ),
        "tanh": Threshold(6.0, unit="hidden layers", source="hand-chosen: tanh keeps its slope of 1 near zero"),
    },
    doc="""
    ## What it finds
    Several hidden layers with sigmoid or tanh and no normalisation between them.
    ## Why it matters
    Every sigmoid multiplies the gradient by at most a quarter; after a few layers nothing is left for the first ones.
    ## How to confirm
    Gradient norms per layer on one batch.
    ## How to fix
    relu with He initialisation, normalisation layers, residual connections.
    ## References
    Glorot and Bengio 2010.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    if any(layer.class_name in NORMALISING for layer in spec.layers) or went_nonfinite(evidence):
        return
    hidden = [(layer, a) for layer, a in hidden_activations(spec) if layer.class_name in HAS_KERNEL | {"Activation"}]
    for name, limit in (("sigmoid", limits["sigmoid"]), ("tanh", limits["tanh"])):
        found = [layer for layer, activation in hidden if activation == name]
        if len(found) < limit:
            continue
        yield Finding(
            rule="CKD125",
            severity=Severity.INFO,
            message=f"{len(found)} hidden {name} layers follow one another without normalisation.",
            layer=found[0].name,
            measured=float(len(found)),
            threshold=limit,
            unit="hidden layers",
            votes=votes(
                (Cause.VANISHING_GRADIENTS, 1.5 if name == "sigmoid" else 0.8, f"every {name} shrinks the gradient"),
                (Cause.ACTIVATION, 0.5, f"every {name} shrinks the gradient"),
            ),
        )
