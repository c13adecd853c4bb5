"""CKD422: an absolute error over targets most of which are one value."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import main_loss, targets


@rule(
    code="CKD422",
    name="median-is-common-value",
    severity=Severity.INFO,
    needs={"batches", "spec"},
    since="0.1.0",
    thresholds={"share": Threshold(0.5, unit="share of the targets", source="from half on, the median is that value")},
    doc="""
    ## What it finds
    mean_absolute_error over targets of which half or more are the same value, as rain or sales of single days are zero.
    ## Why it matters
    The best constant of an absolute error is the median, which is that value. Saying it for every row is a deep valley that a
    model seldom leaves: a row has to be more likely than not to be another before it pays to say so.
    ## How to confirm
    The median of the targets, and of the predictions.
    ## How to fix
    A squared error, whose best constant is the mean; or a model of two parts: whether there is any, and how much.
    ## References
    The median minimises the mean absolute deviation.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    loss, array = main_loss(maybe_spec(evidence)), targets(evidence)
    if loss is None or array is None or loss.name != "mean_absolute_error" or standstill(evidence) is None:
        return
    found = next((f for f in array.features if f.common_share >= limits["share"] and f.std), None)
    if found is None or found.common is None:
        return
    why = f"the median of the targets is {found.common:.3g}"
    yield Finding(
        rule="CKD422",
        severity=Severity.WARNING,
        message=f"{found.common_share:.0%} of the targets {array.name} are {found.common:.3g}: under {loss.name} that is the best answer "
        "to every row.",
        measured=found.common_share,
        threshold=limits["share"],
        unit="share of the targets",
        votes=votes((Cause.LOSS_FUNCTION, 2.5, why), (Cause.LABELS, -0.5, why)),
        data={
            "fix": "Take mean_squared_error, whose best constant is the mean; or predict first whether there is any, then how much.",
            "code": 'model.compile(..., loss="mean_squared_error")',
        },
    )
