"""CKD508: one way of computing hides what the other shows."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Evidence, Finding, Severity
from ckptdoctor.rules.parts import replay_of
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD508",
    name="hidden-by-device",
    severity=Severity.WARNING,
    needs={"replay"},
    since="0.1.0",
    doc="""
    ## What it finds
    A failure that shows in one mode (eager, plain kernels) and not in another (fused kernels, graph).
    ## Why it matters
    The same program then seems healthy on one machine and fails on another; a finite loss proves nothing.
    ## How to confirm
    Train some steps with `TF_ENABLE_ONEDNN_OPTS=0`.
    ## How to fix
    Nothing by itself; it explains why nobody saw the NaN.
    ## References
    Measured on TensorFlow 2.21: a fused dense-relu kernel turns NaN into 0.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    text = replay_of(evidence).disagreement
    if text:
        yield Finding(rule="CKD508", severity=Severity.WARNING, message=text[:1].upper() + text[1:])
