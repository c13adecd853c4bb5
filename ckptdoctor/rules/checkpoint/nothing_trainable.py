"""CKD136: a model in which nothing may learn."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import HAS_KERNEL, RECURRENT
from ckptdoctor.rules.courses import training_loss
from ckptdoctor.rules.parts import maybe_spec, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD136",
    name="nothing-trainable",
    severity=Severity.WARNING,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    A configuration in which every layer with weights is frozen.
    ## Why it matters
    Training runs, the loss is computed, and no weight can change.
    ## How to confirm
    `model.trainable_weights` is empty.
    ## How to fix
    Set `trainable = True` on the layers that should learn, and compile again: a change of `trainable` takes effect on `compile`.
    ## References
    Keras' guide to transfer learning.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    weighted = [layer for layer in spec.layers if layer.class_name in HAS_KERNEL | RECURRENT | {"Embedding"}]
    if not weighted or any(_learns(layer.name, evidence) for layer in weighted):
        return
    trained = training_loss(evidence) is not None
    yield Finding(
        rule="CKD136",
        severity=Severity.ERROR if trained else Severity.WARNING,
        message=f"All {len(weighted)} layers with weights are frozen: nothing can learn.",
        layer=weighted[0].name,
        measured=0.0,
        threshold=1.0,
        unit="trainable layers",
        votes=votes(
            (Cause.ARCHITECTURE, 5.0, "no weight may change"), (Cause.ACTIVATION, -1.0, "no weight may change")
        ),
    )


def _learns(name: str, evidence: Evidence) -> bool:
    """The layer and every model around it are trainable."""
    spec = maybe_spec(evidence)
    parts = name.split("/")
    around = [spec.layer("/".join(parts[: n + 1])) for n in range(len(parts))] if spec is not None else []
    return all(layer is None or layer.trainable for layer in around)
