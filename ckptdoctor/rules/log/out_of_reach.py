"""CKD210: targets that the steps taken could not have reached."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import FLAT, head
from ckptdoctor.rules.checkpoint.learning_rate_unusual import ADAPTIVE
from ckptdoctor.rules.log.series import finite, loss
from ckptdoctor.rules.parts import maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import iterations, learning_rate, main_loss, optimizer_class

USUAL_RATE = 0.002  # twice Keras' default for adaptive optimizers: from there on it is not the rate that is small
BEYOND_HEAD = 2.0  # an output between -1 and 1 is no further than that from targets within its range


@rule(
    code="CKD210",
    name="targets-out-of-reach",
    severity=Severity.WARNING,
    needs={"logs", "spec"},
    since="0.1.0",
    thresholds={
        "factor": Threshold(
            20.0, unit="error ÷ (rate × steps)", source="an adaptive step moves a weight by about the rate; measured"
        )
    },
    doc="""
    ## What it finds
    A squared error whose root is many times what an adaptive optimizer can have moved a bias: learning rate times steps.
    ## Why it matters
    Adam and RMSprop move each weight by about the learning rate a step, however large the error. Targets in the hundreds are
    then thousands of steps away: the loss falls steadily, and by next to nothing.
    ## How to confirm
    A rate a hundred times larger, or standardised targets.
    ## How to fix
    Standardise the targets, or raise the rate; or initialise the output's bias with their mean.
    ## References
    Kingma and Ba 2015, section 2.1: the effective step is bounded by the rate.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series, known = loss(evidence), main_loss(maybe_spec(evidence))
    rate, steps = learning_rate(evidence), iterations(evidence)
    if series is None or known is None or known.name not in ("mean_squared_error", "mean_absolute_error"):
        return
    if rate is None or not rate > 0 or not steps or optimizer_class(evidence) not in ADAPTIVE:
        return
    values = finite(series)
    if not values or values[-1] <= 0 or series.nonfinite:
        return
    error = values[-1] ** 0.5 if known.name == "mean_squared_error" else values[-1]
    factor = error / (rate * steps)
    fallen = 1 - values[-1] / values[0] if values[0] else 1.0
    if factor < limits["factor"] or fallen > 0.5:
        return
    if error > BEYOND_HEAD and (found := head(maybe_spec(evidence))) is not None and found[2] in FLAT | {"softmax"}:
        return  # no rate takes the output of such a head to these targets: CKD216, CKD407
    stuck = standstill(evidence) is not None
    yield Finding(
        rule="CKD210",
        severity=Severity.ERROR if len(values) >= 5 and fallen < 0.2 else Severity.WARNING,
        message=(
            f"After {steps:,} steps the typical error is {error:.3g}, but at a rate of {rate:g} a weight has moved by at most "
            f"about {rate * steps:.2g}; the loss fell by {fallen:.0%}."
        ),
        measured=factor,
        threshold=limits["factor"],
        unit="error ÷ (rate × steps)",
        votes=votes(
            (
                Cause.LEARNING_RATE,
                (2.4 if stuck else 2.0) if rate < USUAL_RATE else 2.0,
                "the rate is too small for targets of that size",
            ),
            (Cause.DATA_SCALE, 2.0 if rate < USUAL_RATE else 2.5, "targets are too large for the usual rate"),
            (Cause.VANISHING_GRADIENTS, -1.0, "the loss falls steadily"),
            (Cause.ACTIVATION, -0.7, "the loss falls steadily"),
        ),
    )
