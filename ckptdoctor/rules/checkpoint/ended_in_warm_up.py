"""CKD142: a run that ended before its learning rate had warmed up."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, JsonObject, Severity
from ckptdoctor.rules.courses import epochs, training_loss
from ckptdoctor.rules.parts import maybe_spec, optimizer_spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import iterations, trivial_loss, went_nonfinite


@rule(
    code="CKD142",
    name="ended-in-warm-up",
    severity=Severity.WARNING,
    needs={"optimizer"},
    since="0.1.0",
    thresholds={
        "share": Threshold(0.5, unit="steps taken ÷ steps of warm-up", source="hand-chosen"),
        "loss": Threshold(0.97, unit="loss ÷ loss of the best constant", source="as for a run that does not learn"),
    },
    doc="""
    ## What it finds
    A schedule that raises the learning rate over more steps than the run has taken, with little learned at its end.
    ## Why it matters
    The rate is a small share of what was meant all the time. Schedules copied with their 4,000 steps of warm-up were made for
    runs of 100,000 steps.
    ## How to confirm
    The rate at the last step: `model.optimizer.learning_rate`.
    ## How to fix
    A warm-up of a tenth of the steps of the run, or none.
    ## References
    Vaswani et al. 2017, whose schedule has 4,000 steps of warm-up in a run of 100,000.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    optimizer, taken = optimizer_spec_of(maybe_spec(evidence)), iterations(evidence)
    wanted = _warm_up(optimizer.schedule) if optimizer is not None and optimizer.schedule is not None else None
    if wanted is None or not taken or taken >= limits["share"] * wanted or went_nonfinite(evidence):
        return
    series, constant = training_loss(evidence), trivial_loss(evidence)
    poor = (
        series is not None
        and constant is not None
        and epochs(evidence) > 0
        and series.values[-1] >= limits["loss"] * constant[0]
    )
    stuck = poor or standstill(evidence) is not None
    why = f"{taken:,} steps of {wanted:,.0f} of warm-up"
    yield Finding(
        rule="CKD142",
        severity=Severity.ERROR if stuck else Severity.WARNING,
        message=f"The run took {taken:,} steps, and its learning rate rises over the first {wanted:,.0f}"
        f"{': it has learned nothing yet' if stuck else ''}.",
        variable="learning_rate",
        measured=taken / wanted,
        threshold=limits["share"],
        unit="steps taken ÷ steps of warm-up",
        votes=votes((Cause.LEARNING_RATE, 4.0 if stuck else 1.0, why)),
        data={
            "fix": f"Warm up over a tenth of the steps that the run will take ({taken:,} were taken), or train longer."
        },
    )


def _warm_up(schedule: JsonObject, depth: int = 0) -> float | None:
    """The largest number under a key that speaks of warm-up, in the schedule or in one inside it."""
    found: list[float] = []
    for key, value in schedule.items():
        if isinstance(value, dict) and depth < 4:
            inner = _warm_up(value, depth + 1)
            found += [inner] if inner is not None else []
        elif (
            isinstance(value, int | float) and not isinstance(value, bool) and "warm" in str(key).lower() and value > 1
        ):
            found.append(float(value))
    return max(found, default=None)
