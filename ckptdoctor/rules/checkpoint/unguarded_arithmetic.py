"""CKD137: an operation in the model's graph that can leave the numbers."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.evidence.arithmetic import Bound, Hazard, hazards
from ckptdoctor.model import Cause, Evidence, Finding, Severity, Vote
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import went_nonfinite

_OF_DTYPE = ("lost_constant", "overflowing_constant")
_MAX_TOLD = 5


@rule(
    code="CKD137",
    name="unguarded-arithmetic",
    severity=Severity.WARNING,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    Operations between layers that divide by, take the logarithm of, or take the root of something that can be 0, and
    constants that their dtype cannot hold: an epsilon of 1e-12 is 0 in float16, a mask of -1e9 is minus infinity.
    ## Why it matters
    One row that reaches the pole makes the loss NaN, and every weight with it. Most batches pass, so it looks random.
    ## How to confirm
    The smallest value of the operand over a batch that fails; a replay with checks on every operation.
    ## How to fix
    Add an epsilon that the dtype can hold (1e-3 to 1e-6 in float16 and float32), use softplus before a division or logarithm,
    and -1e4 or the smallest finite number as mask in float16.
    ## References
    IEEE 754: float16 ends at 65,504 and at 6e-8.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    failing = went_nonfinite(evidence)
    found = hazards(spec_of(evidence))
    # What was computed of values of either sign may be bounded by the data; on a sound run it is not worth a line.
    told = [h for h in found if failing or h.kind in _OF_DTYPE or h.bound is Bound.NONNEGATIVE]
    for hazard in told[:_MAX_TOLD]:
        yield Finding(
            rule="CKD137",
            severity=Severity.WARNING if failing else Severity.INFO,
            message=f"Layer {hazard.layer} {hazard.why}.",
            layer=hazard.layer,
            measured=hazard.constant if hazard.constant is not None else hazard.kind,
            votes=_votes(hazard, failing=failing),
            data={"locates": True} if hazard.kind in _OF_DTYPE else {},
        )


def _votes(hazard: Hazard, *, failing: bool) -> tuple[Vote, ...]:
    if not failing:
        return ()
    if hazard.kind in _OF_DTYPE:
        reason = f"a constant that {hazard.dtype} cannot hold"
        half = Cause.MIXED_PRECISION if hazard.dtype != "float32" else Cause.ARCHITECTURE
        return votes((half, 2.5, reason), (Cause.ARCHITECTURE, 0.8, reason), (Cause.ACTIVATION, 0.3, reason))
    reason = f"{hazard.layer} {hazard.why}"
    sure = hazard.bound is Bound.NONNEGATIVE
    return votes(
        (Cause.ARCHITECTURE, 1.5 if sure else 0.8, reason),
        (Cause.ACTIVATION, 1.2 if sure else 0.5, reason),
        (Cause.LOSS_FUNCTION, 0.5 if hazard.kind == "logarithm" else 0.0, reason),
    )
