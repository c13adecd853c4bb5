"""CKD126: layers in a row without a non-linearity."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import HAS_KERNEL, PASS_THROUGH, head
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.standstill_log import easy_for_simple_models
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD126",
    name="linear-stack",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    thresholds={"layers": Threshold(2.0, unit="hidden layers", source="two linear maps in a row are one")},
    doc="""
    ## What it finds
    A model whose hidden layers all have a linear activation.
    ## Why it matters
    Linear layers in a row are one linear layer: depth adds parameters, not abilities.
    ## How to confirm
    A linear regression on the same data does as well.
    ## How to fix
    Give hidden layers an activation such as relu.
    ## References
    UMLAUT's check for missing hidden activations.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    found = head(spec)
    if found is None or not spec.graph_known or went_nonfinite(evidence):
        return
    others = [layer for layer in spec.layers if layer.name not in {found[0].name, found[1].name}]
    hidden = [layer for layer in others if layer.class_name in HAS_KERNEL]
    allowed = HAS_KERNEL | PASS_THROUGH | {"InputLayer", "Sequential", "Functional"}
    plain = all(layer.class_name in allowed and layer.activation in (None, "linear") for layer in others)
    if not plain or not _too_simple(evidence, len(hidden), limits):
        return
    stuck = standstill(evidence) is not None
    single = not hidden
    text = (
        f"{found[0].name} is the only layer with weights: the model is linear."
        if single
        else f"None of the {len(hidden)} hidden layers has a non-linear activation: together they are one linear map."
    )
    why = "the model is linear, and the task is not" if stuck else "the model is linear"
    yield Finding(
        rule="CKD126",
        severity=Severity.INFO,
        message=text,
        layer=found[0].name if single else hidden[0].name,
        measured=float(len(hidden)),
        threshold=limits["layers"],
        unit="hidden layers",
        votes=votes(
            (Cause.ACTIVATION, 0.8 if single else 2.8 if stuck else 1.8, why),
            (Cause.ARCHITECTURE, 3.0 if single else 2.0 if stuck else 1.5, why),
        ),
        data={"locates": stuck},
    )


def _too_simple(evidence: Evidence, hidden: int, limits: Limits) -> bool:
    """Hidden layers without effect; or none at all where simple non-linear models do much better."""
    if hidden >= limits["layers"]:
        return True
    return standstill(evidence) is not None and easy_for_simple_models(evidence)
