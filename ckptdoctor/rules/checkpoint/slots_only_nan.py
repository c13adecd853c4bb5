"""CKD107: the optimizer's slots are bad before any weight is."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Role, Severity
from ckptdoctor.rules.parts import census_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD107",
    name="slots-only-nan",
    severity=Severity.ERROR,
    needs={"census"},
    since="0.1.0",
    doc="""
    ## What it finds
    Optimizer slots (momentum, second moments) that are non-finite while all weights are still finite.
    ## Why it matters
    A squared gradient that overflows makes the second moment infinite; the update it divides becomes zero, so those
    weights never move again, or NaN one step later. The model looks healthy, the run is not.
    ## How to confirm
    Compare gradient norms of the last steps; values above 1.8e19 square to infinity in float32, above 256 in float16.
    ## How to fix
    Clip gradients, then continue from weights of this checkpoint with a fresh optimizer state.
    ## References
    Largest finite float32 3.4e38, float16 65,504.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    census = census_of(evidence)
    bad = [t for t in census.of_role(Role.SLOT) if t.nonfinite]
    if not bad or any(t.nonfinite for t in census.of_role(Role.WEIGHT)):
        return
    infinite = all(t.nan == 0 for t in bad)
    yield Finding(
        rule="CKD107",
        severity=Severity.ERROR,
        message=(
            f"{len(bad)} optimizer slot{'s' if len(bad) > 1 else ''} ({bad[0].info.label}) "
            f"{'hold infinities' if infinite else 'are non-finite'} while all weights are finite"
            f"{': squared gradients overflowed' if infinite else ''}."
        ),
        layer=bad[0].info.layer,
        variable=bad[0].info.variable,
        measured=float(sum(t.nonfinite for t in bad)),
        threshold=0.0,
        unit="non-finite slot entries",
        votes=votes(
            (Cause.EXPLODING_GRADIENTS, 2.0, "squared gradients overflowed before any weight did"),
            (Cause.OPTIMIZER, 1.0, "the optimizer's state failed first"),
            (
                Cause.MIXED_PRECISION,
                1.5 if any("float16" in t.info.dtype for t in bad) else 0.0,
                "slots are kept in half precision",
            ),
        ),
    )
