"""CKD127: a recurrent model trained without clipping."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import RECURRENT
from ckptdoctor.rules.parts import optimizer_spec_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD127",
    name="recurrent-unclipped",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    A recurrent layer in a run that went non-finite, trained without gradient clipping.
    ## Why it matters
    Back-propagation through time multiplies the gradient by the recurrent kernel at every step; without a bound one long
    sequence can throw the weights away.
    ## How to confirm
    Replay with `global_clipnorm=1.0`.
    ## How to fix
    `optimizer = Adam(..., global_clipnorm=1.0)`.
    ## References
    Pascanu, Mikolov and Bengio 2013.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    layers = [layer for layer in spec.layers if layer.class_name in RECURRENT]
    optimizer = optimizer_spec_of(spec)
    if not layers or optimizer is None or optimizer.clips or not went_nonfinite(evidence):
        return
    plain = any(layer.class_name == "SimpleRNN" for layer in layers)
    yield Finding(
        rule="CKD127",
        severity=Severity.INFO,
        message=f"The recurrent layer {layers[0].name} ({layers[0].class_name}) was trained without gradient clipping.",
        layer=layers[0].name,
        measured="no clipping",
        threshold="global_clipnorm",
        votes=votes(
            (Cause.EXPLODING_GRADIENTS, 1.5 if plain else 0.8, "back-propagation through time without a bound")
        ),
    )
