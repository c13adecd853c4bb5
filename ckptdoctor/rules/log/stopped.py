"""CKD214: the log says that training was stopped for a NaN."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.parts import logs_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD214",
    name="terminated-on-nan",
    severity=Severity.ERROR,
    needs={"logs"},
    since="0.1.0",
    doc="""
    ## What it finds
    The line that Keras' TerminateOnNaN prints when it stops a run.
    ## Why it matters
    It names the batch. It stops at infinite losses too.
    ## How to confirm
    The console capture.
    ## How to fix
    Depends on the cause.
    ## References
    Keras' TerminateOnNaN: batches are counted from 0.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for log in logs_of(evidence):
        if log.terminated is None:
            continue
        epoch, batch = log.terminated
        when = f"epoch {epoch}, " if epoch is not None else ""
        yield Finding(
            rule="CKD214",
            severity=Severity.ERROR,
            message=f"Training was stopped for a non-finite loss at {when}batch {batch}.",
            epoch=epoch,
            measured=float(batch),
            unit="batch",
        )
