"""CKD138: dropout or normalisation behind the output's activation."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, LayerSpec, ModelSpec, Severity
from ckptdoctor.rules.anatomy import HAS_KERNEL, NORMALISING, output_layers
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite

NOISE = frozenset(
    {"Dropout", "AlphaDropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"}
)


@rule(
    code="CKD138",
    name="layers-behind-head",
    severity=Severity.WARNING,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    Dropout, noise or normalisation as the model's last layer, behind the layer that gives the answer.
    ## Why it matters
    Dropout behind a softmax sets shares to 0 while training: a row whose shares are all dropped has no sum to divide by, and
    its loss is NaN; the others are no shares any more. Normalisation there forces every batch to the same mean.
    ## How to confirm
    Train without that layer.
    ## How to fix
    Put dropout and normalisation before the last layer with weights.
    ## References
    Measured on Keras 3.15: categorical_crossentropy divides probabilities by their sum.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    for layer in output_layers(spec):
        answers = _answers(spec, layer)
        if layer.class_name not in NOISE | NORMALISING or answers is None:
            continue
        if layer.class_name in NORMALISING and answers.activation in (None, "linear"):
            continue  # a linear embedding that is normalised last is common
        failing = went_nonfinite(evidence) or standstill(evidence) is not None
        why = f"{layer.name} changes the answer that {answers.name} gives"
        yield Finding(
            rule="CKD138",
            severity=Severity.WARNING if failing else Severity.INFO,
            message=f"The model ends in {layer.class_name} ({layer.name}), behind {answers.name} ({answers.activation}).",
            layer=layer.name,
            measured=layer.class_name,
            votes=votes(
                (Cause.ARCHITECTURE, 5.0 if failing else 0.3, why), (Cause.LOSS_FUNCTION, -1.5 if failing else 0.0, why)
            ),
            data={"locates": failing},
        )


def _answers(spec: ModelSpec, layer: LayerSpec) -> LayerSpec | None:
    """The layer straight before, where it has weights or is an activation."""
    before = spec.layer(layer.inbound[0]) if len(layer.inbound) == 1 else None
    known = before is not None and (before.class_name in HAS_KERNEL or before.activation is not None)
    return before if known else None
