"""CKD128: a loss whose code is not in the file."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import own_layers
from ckptdoctor.rules.parts import losses_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import went_nonfinite

BESIDE_LAYERS = 1.3
"""Vote for an own loss where layers of the user's own may be at fault as well: hand-chosen."""


@rule(
    code="CKD128",
    name="custom-loss",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    A run that went non-finite under a loss of the user's own.
    ## Why it matters
    Built-in losses guard their logarithms and divisions; own ones often do not. Its code is not kept in a checkpoint, so
    it can be replayed only with `--custom-objects`.
    ## How to confirm
    `ckptdoctor inspect RUN --custom-objects MODULE`; or train some steps with the nearest built-in loss.
    ## How to fix
    Add an epsilon inside sqrt, log and division; guard denominators that count something.
    ## References
    keras#1172 (sqrt at 0), tensorflow/addons#2447 (0/0).
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    custom = [loss for loss in losses_of(spec_of(evidence)) if loss.custom]
    if not custom or not went_nonfinite(evidence):
        return
    own = own_layers(spec_of(evidence))
    yield Finding(
        rule="CKD128",
        severity=Severity.INFO,
        message=f"The loss {custom[0].name} is not one of Keras' own; its code is not in the checkpoint.",
        measured=custom[0].name,
        votes=votes(
            (
                Cause.LOSS_FUNCTION,
                BESIDE_LAYERS if own else 1.8,
                "an own loss is more often unguarded than a built-in one",
            )
        ),
    )
