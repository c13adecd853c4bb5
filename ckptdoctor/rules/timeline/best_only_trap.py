"""CKD303: the kept "best" checkpoint is NaN."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity, Status
from ckptdoctor.rules.parts import timeline_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD303",
    name="best-only-trap",
    severity=Severity.ERROR,
    needs={"timeline"},
    since="0.1.0",
    doc="""
    ## What it finds
    A checkpoint kept by `ModelCheckpoint(save_best_only=True)` that holds NaN.
    ## Why it matters
    If the monitored value of the first epoch is NaN, Keras stores that epoch as the best, and as no number is smaller than
    NaN it is never replaced: the run may recover, the kept file does not.
    ## How to confirm
    The callback's log says "improved from None to nan".
    ## How to fix
    Keep a second, unconditional checkpoint; stop at the first NaN.
    ## References
    Measured on Keras 3.15.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    timeline = timeline_of(evidence)
    if not timeline.best_only_trap:
        return
    sick = next((p for p in timeline.points if p.status is Status.SICK), None)
    name = os.path.basename(sick.path) if sick is not None else "the best checkpoint"
    yield Finding(
        rule="CKD303",
        severity=Severity.ERROR,
        message=f"{name} was kept as the best although it holds NaN, and would never have been replaced.",
    )
