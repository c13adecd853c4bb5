"""CKD514: a normalisation over a single element."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Phase, Severity
from ckptdoctor.rules.parts import replay_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD514",
    name="one-element-norm",
    severity=Severity.WARNING,
    needs={"replay"},
    since="0.1.0",
    doc="""
    ## What it finds
    A normalisation that, in a recorded batch, takes its mean over one element: BatchNormalization over a batch of one row,
    LayerNormalization over an axis of one feature, GroupNormalization with as many groups as there are values.
    ## Why it matters
    Over one element the normalised value is always the shift, whatever the input: nothing passes through in training, and a
    moving variance may become 0/0.
    ## How to confirm
    The shape of the layer's input: what it averages over must be more than one number.
    ## How to fix
    Larger batches (`drop_remainder=True`), less down-sampling before it, another axis; or leave it out.
    ## References
    Ioffe and Szegedy 2015.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    layers = replay_of(evidence).one_element_norms
    if not layers:
        return
    matters = standstill(evidence) is not None or went_nonfinite(evidence)
    yield Finding(
        rule="CKD514",
        severity=Severity.WARNING,
        message=f"{layers[0]} normalises over a single element.",
        layer=layers[0],
        measured=1.0,
        threshold=2.0,
        unit="elements",
        votes=votes(
            (Cause.ARCHITECTURE, 3.5 if matters else 0.5, "a normalisation over one element passes nothing on"),
            (
                Cause.VANISHING_GRADIENTS,
                -2.0 if matters else 0.0,
                "nor does it let a gradient through: that explains it",
            ),
        ),
        data={"locates": matters, "phase": Phase.FORWARD.value},
    )
