"""CKD412: BatchNormalization over batches of one."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, LayerSpec, ModelSpec, Severity, Timeline
from ckptdoctor.rules.anatomy import NORMALISING, PASS_THROUGH
from ckptdoctor.rules.parts import batches_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule

FLATTENING = frozenset({"Flatten"})
KEEPS_RANK = PASS_THROUGH | NORMALISING | {"Dense", "Activation", "ReLU", "LeakyReLU", "ELU", "PReLU"}


@rule(
    code="CKD412",
    name="batchnorm-batch-of-one",
    severity=Severity.WARNING,
    needs={"batches", "spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    Recorded batches with a single row in a model with BatchNormalization.
    ## Why it matters
    Over one row the variance is zero and the normalised value is always the shift: the layers before it get no signal
    through, and the moving variance may become 0/0.
    ## How to confirm
    `x.shape` of the failing batch; replay it.
    ## How to fix
    `drop_remainder=True`, larger batches, or LayerNormalization.
    ## References
    Ioffe and Szegedy 2015.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    single = [a for a in batches_of(evidence).inputs if len(a.shape) > 2 and a.shape[1] == 1]
    flat = all(len(a.shape) == 3 for a in single)
    unmoved = isinstance(evidence.timeline, Timeline) and bool(
        evidence.timeline.unmoved
    )  # nothing passes a norm of one
    norms = [
        n
        for n in spec.layers
        if n.class_name == "BatchNormalization" and (unmoved or _takes_vectors(spec, n, flat=flat))
    ]
    if not norms or not single:
        return
    yield Finding(
        rule="CKD412",
        severity=Severity.WARNING,
        message=f"Batches hold one row each, and {norms[0].name} normalises over the batch.",
        layer=norms[0].name,
        measured=1.0,
        threshold=2.0,
        unit="rows a batch",
        votes=votes(
            (Cause.ARCHITECTURE, 3.0, "normalisation over one element"),
            (Cause.LEARNING_RATE, -0.5, "the structure explains it"),
        ),
    )


def _takes_vectors(spec: ModelSpec, norm: LayerSpec, *, flat: bool) -> bool:
    """Whether a layer's input has no axis but rows and features, so that a batch of one row gives one element a feature.

    Args:
        flat: the model's inputs are vectors.
    """
    layer: LayerSpec | None = norm
    for _ in range(len(spec.layers)):
        layer = spec.layer(layer.inbound[0]) if layer is not None and len(layer.inbound) == 1 else None
        if layer is None:
            return False
        if layer.class_name in FLATTENING or layer.class_name.startswith("Global"):
            return True
        if layer.class_name == "InputLayer":
            return flat
        if layer.class_name not in KEEPS_RANK:
            return False
    return False
