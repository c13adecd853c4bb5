"""CKD201: the log holds a loss that is NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.evidence.log_signals import is_loss_name
from ckptdoctor.model import Cause, Evidence, Finding, Severity, Vote
from ckptdoctor.rules.parts import logs_of, votes
from ckptdoctor.rules.registry import Limits, rule


@rule(
    code="CKD201",
    name="nonfinite-loss",
    severity=Severity.ERROR,
    needs={"logs"},
    since="0.1.0",
    doc="""
    ## What it finds
    The first point of the log at which a loss is NaN or infinite.
    ## Why it matters
    It dates the failure. An infinite loss is an overflow, usually the end of a growth; a NaN may come from anywhere.
    ## How to confirm
    The log itself; the loss of an epoch is a mean over its batches, so one bad batch makes the epoch NaN.
    ## How to fix
    Depends on the cause.
    ## References
    `NA` in a CSV log is a missing value, not a NaN.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    for log in logs_of(evidence):
        for series in log.series:
            if series.first_nonfinite is None or not is_loss_name(series.name):
                continue
            step, value = series.first_nonfinite
            yield Finding(
                rule="CKD201",
                severity=Severity.ERROR,
                message=f"{series.name} is {_word(value)} at {series.axis} {step:g} ({series.nonfinite:,} of {series.count:,} points).",
                epoch=int(step) if series.axis == "epoch" else None,
                step=int(step) if series.axis == "step" else None,
                measured=value,
                threshold="finite",
                votes=_overflow(value),
            )
            break  # one finding a log: the others follow from it


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "infinite"


def _overflow(value: float) -> tuple[Vote, ...]:
    if math.isnan(value):
        return ()
    why = "an infinite loss is an overflow"
    return votes(
        (Cause.LEARNING_RATE, 0.8, why),
        (Cause.EXPLODING_GRADIENTS, 0.8, why),
        (Cause.DATA_SCALE, 0.5, why),
        (Cause.LABELS, -0.7, why),
    )
