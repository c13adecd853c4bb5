"""CKD132: many layers without normalisation or shortcuts."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import HAS_KERNEL, NORMALISING
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite

MERGES = {"Add", "Concatenate", "Average", "Subtract", "Multiply"}


@rule(
    code="CKD132",
    name="deep-plain-stack",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    thresholds={
        "layers": Threshold(
            8.0, unit="layers with kernels", source="hand-chosen: plain nets of five to seven train well"
        )
    },
    doc="""
    ## What it finds
    Eight or more layers with kernels in a row, with no normalisation layer and no residual connection.
    ## Why it matters
    Errors of scale multiply along the depth: signals and gradients vanish, or explode, and relu layers die one after another.
    ## How to confirm
    The spread of each layer's output on one batch.
    ## How to fix
    Fewer layers, normalisation between them, or shortcuts.
    ## References
    He et al. 2016; Ioffe and Szegedy 2015; Lu et al. 2019.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    kernels = [layer for layer in spec.layers if layer.class_name in HAS_KERNEL]
    if len(kernels) < limits["layers"] or any(layer.class_name in NORMALISING | MERGES for layer in spec.layers):
        return
    stuck, failing = standstill(evidence) is not None, went_nonfinite(evidence)
    yield Finding(
        rule="CKD132",
        severity=Severity.INFO,
        message=f"{len(kernels)} layers follow one another without normalisation or shortcut.",
        layer=kernels[0].name,
        measured=float(len(kernels)),
        threshold=limits["layers"],
        unit="layers with kernels",
        votes=votes(
            (Cause.ARCHITECTURE, 1.2 if stuck else 0.3, "errors of scale multiply along the depth"),
            (Cause.VANISHING_GRADIENTS, 1.2 if stuck else 0.0, "errors of scale multiply along the depth"),
            (Cause.EXPLODING_GRADIENTS, 0.8 if failing else 0.0, "errors of scale multiply along the depth"),
        ),
    )
