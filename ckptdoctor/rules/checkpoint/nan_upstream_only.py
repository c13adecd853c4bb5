"""CKD105: only the layers before some point are bad: a backward-only trap."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import fingerprint_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD105",
    name="nan-upstream-only",
    severity=Severity.WARNING,
    needs={"census", "fingerprint"},
    since="0.1.0",
    doc="""
    ## What it finds
    The layers before some point of the model are non-finite, those after it are finite.
    ## Why it matters
    A gradient travels from the output to the input. If it became NaN on the way, only the layers it still had to
    pass are poisoned. The fault is an operation at that point whose gradient is not finite although its value is: sqrt
    or a norm at zero, a power, `where` around a log or a division.
    ## How to confirm
    Replay with checks on; look at the named point for sqrt, pow, log, division, norm.
    ## How to fix
    Add an epsilon inside sqrt and norms; guard the argument, not the result, of `where`.
    ## References
    The double-where trap; measured on TensorFlow 2.21.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for pattern in fingerprint_of(evidence).patterns:
        if pattern.kind != "upstream_only":
            continue
        yield Finding(
            rule="CKD105",
            severity=Severity.WARNING,
            message=pattern.message,
            layer=pattern.layer,
            votes=votes(
                (Cause.LOSS_FUNCTION, 0.8, "a gradient that fails on its way back points to a formula"),
                (Cause.ACTIVATION, 1.0, "a gradient that fails on its way back points to an operation in the model"),
                (Cause.ARCHITECTURE, 1.0, "a gradient that fails on its way back points to an operation in the model"),
                (Cause.DATA_NONFINITE, -1.5, "bad data would have reached the layers after it too"),
                (Cause.LABELS, -1.5, "a NaN loss would have reached the layers after it too"),
            ),
        )
