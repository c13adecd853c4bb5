"""CKD203: the loss grew before it failed, or simply grew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ckptdoctor.model import Cause, Evidence, Finding, Series, Severity
from ckptdoctor.rules.log.series import before_first_nonfinite, growth_before_failure, loss
from ckptdoctor.rules.parts import votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import trivial_loss

MIN_AFTER = 4  # points after a jump before it is said to last; hand-chosen


@rule(
    code="CKD203",
    name="loss-blew-up",
    severity=Severity.WARNING,
    needs={"logs"},
    since="0.1.0",
    thresholds={
        "growth": Threshold(
            5.0,
            unit="× its minimum",
            source="runmedic takes 3 times the early median, TheDeepChecker 2 times the minimum; measured",
        ),
        "diverged": Threshold(
            1e3, unit="× its minimum", source="hand-chosen: no healthy run ends a thousand times above its best"
        ),
        "jump": Threshold(
            10.0, unit="× the minimum before", source="hand-chosen: a spike that healthy runs come back from is smaller"
        ),
        "back": Threshold(
            1.3, unit="× the minimum before", source="hand-chosen: within that a run has come back from a spike"
        ),
    },
    doc="""
    ## What it finds
    A loss that rose to several times its minimum, before it became non-finite or until the end of the log; or that jumped
    and never came back to where it had been.
    ## Why it matters
    Growth before the failure means that steps were too large for the curvature: a matter of rate, gradients and scale. Bad
    data strikes without warning.
    ## How to confirm
    The loss curve; per-batch losses where they were logged.
    ## How to fix
    Lower the rate or clip; continue from before the growth.
    ## References
    runmedic, TheDeepChecker.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series = loss(evidence)
    if series is None:
        return
    growth, values = growth_before_failure(series), before_first_nonfinite(series)
    constant = trivial_loss(evidence)
    if series.first_nonfinite is None:
        spike = _lasting_jump(values, constant[0] if constant is not None else values[0] if values else 0.0, limits)
        if spike is not None:
            yield _never_came_back(series, *spike, limits)
            return
    if growth is None or growth < limits["growth"] or values[-1] <= 0:
        return
    failing = series.first_nonfinite is not None
    if not failing and (growth < limits["diverged"] or (constant is not None and values[-1] <= constant[0])):
        return
    yield Finding(
        rule="CKD203",
        severity=Severity.WARNING if failing else Severity.ERROR,
        message=f"{series.name} rose to {values[-1]:.4g}, {growth:.3g} times its minimum{', before it became non-finite' if failing else ''}.",
        measured=growth,
        threshold=limits["growth"],
        unit="× its minimum",
        votes=votes(
            (Cause.LEARNING_RATE, 1.6, "the loss grew before it failed"),
            (Cause.EXPLODING_GRADIENTS, 1.4, "the loss grew before it failed"),
            (Cause.DATA_SCALE, 0.5, "the loss grew before it failed"),
            (Cause.DATA_NONFINITE, -2.0, "bad data strikes without warning"),
            (Cause.LABELS, -1.0, "the loss grew before it failed"),
        ),
    )


def _lasting_jump(values: Sequence[float], poor: float, limits: Limits) -> tuple[int, float, float] | None:
    """Index of the jump, minimum before and after it; None where there is none, or the loss came back.

    Args:
        poor: a loss that a model which predicts nothing would have. Jumps below it are the noise of a converged run.
    """
    best = math.inf
    for n, value in enumerate(values):
        if n >= 2 and best > 0 and value > max(limits["jump"] * best, poor):
            later = values[n + 1 :]
            if len(later) >= MIN_AFTER and min(later) > max(limits["back"] * best, 0.5 * poor):
                return n, best, min(later)
            return None
        best = min(best, value)
    return None


def _never_came_back(series: Series, index: int, before: float, after: float, limits: Limits) -> Finding:
    at = series.steps[index] if index < len(series.steps) else index
    why = "one jump, and what was learned is lost"
    return Finding(
        rule="CKD203",
        severity=Severity.ERROR,
        message=f"{series.name} jumped from {before:.4g} to {series.values[index]:.4g} at {series.axis} {at:g} and never came back below {after:.4g}.",
        epoch=int(at) if series.axis == "epoch" else None,
        measured=series.values[index] / before,
        threshold=limits["jump"],
        unit="× the minimum before",
        votes=votes(
            (Cause.LEARNING_RATE, 1.6, why),
            (Cause.EXPLODING_GRADIENTS, 1.0, why),
            (Cause.OPTIMIZER, 0.4, why),
            (Cause.LABELS, -1.0, why),
            (Cause.DATA_NONFINITE, -2.0, "nothing is non-finite"),
        ),
    )
