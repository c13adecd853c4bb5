"""CKD216: an error larger than the output's activation can be wrong by on targets within its range."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import head, restores_inputs
from ckptdoctor.rules.log.series import finite, loss
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import main_loss, targets

BOUNDED = {"sigmoid": 1.0, "softmax": 1.0, "hard_sigmoid": 1.0, "tanh": 2.0, "softsign": 2.0}
"""The widest an output of the activation can be from a target within its range."""


@rule(
    code="CKD216",
    name="error-beyond-head",
    severity=Severity.WARNING,
    needs={"logs", "spec"},
    since="0.1.0",
    thresholds={
        "factor": Threshold(
            1.5,
            unit="typical error ÷ width of the head's range",
            source="1 is the limit by arithmetic; hand-chosen margin",
        ),
        "certain": Threshold(
            5.0,
            unit="typical error ÷ width of the head's range",
            source="hand-chosen: class weights, which no file records, raise a squared error by less",
        ),
    },
    doc="""
    ## What it finds
    A mean error, over the last epochs, larger than the whole range of the output's activation, where no targets were recorded.
    ## Why it matters
    A sigmoid gives 0 to 1. On targets from 0 to 1 its mean squared error cannot exceed 1, whatever the weights and whatever the
    learning rate. A larger one says that the targets lie outside, and outputs settle at the limit, where the gradient is zero.
    ## How to confirm
    Print the smallest and largest target; or record the last batches.
    ## How to fix
    A linear output for regression, or targets scaled into the range.
    ## References
    Arithmetic: the mean of squares of numbers between 0 and 1 is at most 1.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    found, series, known = head(spec), loss(evidence), main_loss(spec)
    if found is None or series is None or known is None or targets(evidence) is not None:
        return
    width = BOUNDED.get(found[2])
    values = finite(series)
    if width is None or not values or known.name not in ("mean_squared_error", "mean_absolute_error"):
        return
    if known.config.get("reduction") == "sum":
        return  # what is logged then grows with the batch
    last = median(values[-3:])
    error = last**0.5 if known.name == "mean_squared_error" and last > 0 else last
    if error < limits["factor"] * width:
        return
    plain = error >= limits["certain"] * width or standstill(evidence) is not None
    why = f"{found[2]} cannot be wrong by more than {width:g} on targets within its range"
    restores = restores_inputs(spec)
    yield Finding(
        rule="CKD216",
        severity=Severity.ERROR if plain else Severity.WARNING,
        message=(
            f"The typical error is {error:.3g}, but {found[1].name} ends in {found[2]}, whose outputs span {width:g}: "
            "the targets lie outside what it can give."
        ),
        layer=found[1].name,
        measured=error,
        threshold=limits["factor"] * width,
        unit="typical error",
        votes=votes(
            (Cause.ACTIVATION, 2.4 if restores else 3.4, why),
            (Cause.DATA_SCALE, 3.4 if restores else 2.8, why),
            (Cause.LEARNING_RATE, -2.0, "no learning rate takes the output beyond its range"),
        ),
        data={"locates": True},
    )
