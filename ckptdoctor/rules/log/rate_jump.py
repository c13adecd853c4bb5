"""CKD211: the learning rate rose just before the loss failed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

from ckptdoctor.evidence.log_signals import learning_rate_series
from ckptdoctor.model import Cause, Evidence, Finding, Series, Severity
from ckptdoctor.rules.log.series import loss
from ckptdoctor.rules.parts import logs_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule


@rule(
    code="CKD211",
    name="rate-jump",
    severity=Severity.WARNING,
    needs={"logs"},
    since="0.1.0",
    thresholds={
        "factor": Threshold(
            3.0, unit="× the rate before", source="hand-chosen: warm-ups rise by less from one epoch to the next"
        )
    },
    doc="""
    ## What it finds
    A learning rate that rose by a factor of three or more at, or just before, the first non-finite loss; or that is non-finite.
    ## Why it matters
    The run worked at the smaller rate and failed at the larger one.
    ## How to confirm
    Continue from the checkpoint before the rise with the old rate.
    ## How to fix
    Keep the smaller rate; look at the schedule or callback that raised it.
    ## References
    Hand-chosen; the coincidence in time is the evidence.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series = loss(evidence)
    rates = next((s for log in logs_of(evidence) if (s := learning_rate_series(log)) is not None), None)
    if series is None or rates is None or series.first_nonfinite is None or rates.axis != series.axis:
        return
    rise = _largest_rise(rates, series.first_nonfinite[0])
    if rise is None or rise[0] < limits["factor"]:
        return
    factor, before, after, step = rise
    yield Finding(
        rule="CKD211",
        severity=Severity.WARNING,
        message=f"The learning rate rose from {before:g} to {after:g} at {rates.axis} {step:g}, just before the loss became non-finite.",
        measured=factor,
        threshold=limits["factor"],
        unit="× the rate before",
        votes=votes(
            (Cause.LEARNING_RATE, 2.5, "the run worked at the smaller rate"),
            (Cause.DATA_NONFINITE, -0.7, "the rate changed just before"),
        ),
    )


def _largest_rise(rates: Series, until: float) -> tuple[float, float, float, float] | None:
    """(factor, before, after, step) of the largest rise within the five points up to the failure."""
    points = [(s, v) for s, v in zip(rates.steps, rates.values, strict=True) if s <= until][-6:]
    rises = [
        (math.inf if not math.isfinite(b) else b / a, a, b, step)
        for (_, a), (step, b) in pairwise(points)
        if math.isfinite(a) and a > 0
    ]
    return max(rises, key=lambda r: r[0], default=None)
