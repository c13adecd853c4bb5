"""CKD512: variables that loading skipped."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.parts import replay_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD512",
    name="not-restored",
    severity=Severity.WARNING,
    needs={"replay"},
    since="0.1.0",
    doc="""
    ## What it finds
    Variables of the rebuilt model that the checkpoint did not fill.
    ## Why it matters
    Keras only warns about them. A run resumed that way starts with fresh weights or a fresh optimizer state in those places.
    ## How to confirm
    Compare `model.get_weights()` with the file after loading.
    ## How to fix
    Set the dtype policy before building; use the same optimizer class; save with the version that loads.
    ## References
    Measured on Keras 3.15: under mixed_float16 the slots are dropped when the policy is set later.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    paths = replay_of(evidence).not_restored
    if paths:
        yield Finding(
            rule="CKD512",
            severity=Severity.WARNING,
            message=f"{len(paths)} variables were not restored on loading, first {paths[0]}.",
            variable=paths[0],
            measured=float(len(paths)),
            threshold=0.0,
            unit="variables",
        )
