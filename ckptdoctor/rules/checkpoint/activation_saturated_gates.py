"""CKD130: biases that hold gates or units in the flat part of their activation."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Role, Severity
from ckptdoctor.rules.anatomy import FLAT, RECURRENT
from ckptdoctor.rules.parts import census_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule


@rule(
    code="CKD130",
    name="saturated-gates",
    severity=Severity.INFO,
    needs={"census", "spec"},
    since="0.1.0",
    thresholds={"bias": Threshold(10.0, unit="|bias|", source="sigmoid(10) = 0.99995; its slope there is 4.5e-5")},
    doc="""
    ## What it finds
    Biases of sigmoid, tanh or gated layers so large that the unit is flat whatever its input.
    ## Why it matters
    A flat unit passes no gradient; a gate that is always open or shut is no gate.
    ## How to confirm
    The range of the layer's output on one batch.
    ## How to fix
    Smaller learning rate, standardised inputs, a weight decay on biases.
    ## References
    Slope of the logistic function.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = maybe_spec(evidence)
    for t in census_of(evidence).of_role(Role.WEIGHT):
        layer = spec.layer(t.info.layer) if spec is not None and t.info.layer else None
        if (
            layer is None
            or "bias" not in t.info.variable
            or t.rms is None
            or layer.name in (spec.outputs if spec else ())
        ):
            continue
        if (layer.activation in FLAT or layer.class_name in RECURRENT) and t.rms > limits["bias"]:
            yield Finding(
                rule="CKD130",
                severity=Severity.INFO,
                message=f"Biases of {layer.name} have rms {t.rms:.3g}: its units stay in the flat part of {layer.activation or 'their gates'}.",
                layer=layer.name,
                variable=t.info.variable,
                measured=t.rms,
                threshold=limits["bias"],
                unit="|bias|",
                votes=votes(
                    (Cause.ACTIVATION, 0.8, "flat units pass no gradient"),
                    (Cause.LEARNING_RATE, 0.3, "large steps drive biases far out"),
                ),
            )
