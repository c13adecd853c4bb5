"""CKD423: a few values that are so far out that all others lie on one point."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import batches_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD423",
    name="outliers-set-the-scale",
    severity=Severity.INFO,
    needs={"batches"},
    since="0.1.0",
    thresholds={
        "distance": Threshold(
            1e3,
            unit="robust z-score (median and MAD)",
            source="hand-chosen: heavy tails of prices and incomes stay below 100",
        ),
    },
    doc="""
    ## What it finds
    Features with values a thousand times further from their median than the others are.
    ## Why it matters
    Scaled by minimum and maximum, or by a standard deviation that they blow up, all other rows come to lie on one point, and the
    model sees no difference between them. Not scaled, they are steps a thousand times too large.
    ## How to confirm
    `np.percentile(x, [1, 50, 99, 100], axis=0)`.
    ## How to fix
    Repair or drop those rows, or clip at the 1st and 99th percentile before scaling; RobustScaler uses quartiles.
    ## References
    Robust z-scores: Iglewicz and Hoaglin 1993.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    stuck, failing = standstill(evidence) is not None, went_nonfinite(evidence)
    for array in batches_of(evidence).inputs:
        far = [f for f in array.features if (f.outlier_z or 0.0) >= limits["distance"]]
        if not far or array.integral:
            continue
        worst = max(far, key=lambda f: f.outlier_z or 0.0)
        why = f"a few values of {array.name} are {worst.outlier_z:.2g} times the usual distance away"
        yield Finding(
            rule="CKD423",
            severity=Severity.WARNING if stuck or failing else Severity.INFO,
            message=f"Feature {worst.index} of {array.name} reaches {worst.outlier_z:.2g} times the usual distance from its median"
            f"{f', and {len(far) - 1} more do as much' if len(far) > 1 else ''}: the other rows lie on one point beside it.",
            measured=worst.outlier_z,
            threshold=limits["distance"],
            unit="robust z-score (median and MAD)",
            data={
                "fix": "Clip each feature to its middle 98 % before it is scaled, or repair those rows.",
                "code": "low, high = np.percentile(x_train, [1, 99], axis=0)\nx_train = np.clip(x_train, low, high)",
            },
            votes=votes((Cause.DATA_SCALE, 3.0 if stuck else 1.2 if failing else 0.0, why)),
        )
