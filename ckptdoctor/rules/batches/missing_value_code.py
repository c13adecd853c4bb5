"""CKD416: a number that stands for a missing value."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import ArrayStats, Cause, Evidence, FeatureStats, Finding, Severity, Vote
from ckptdoctor.rules.batches.input_scale import LOOKUPS, feeds
from ckptdoctor.rules.parts import batches_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD416",
    name="missing-value-code",
    severity=Severity.WARNING,
    needs={"batches"},
    since="0.1.0",
    doc="""
    ## What it finds
    A feature or target in which one value, far outside the range of all others, stands several times: -999, 99999, 1e20.
    ## Why it matters
    Such values stand for a missing measurement. As numbers they rule mean, variance, gradients and a squared error.
    ## How to confirm
    `np.unique(column, return_counts=True)` at both ends.
    ## How to fix
    Turn the code into NaN when reading, then drop the rows or fill them from the others; mask such targets in the loss.
    ## References
    Common in weather, ocean and census data; pandas' `na_values`.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    measured = batches_of(evidence)
    failing = went_nonfinite(evidence) or standstill(evidence) is not None
    ids = feeds(maybe_spec(evidence), LOOKUPS)
    for array in (*measured.inputs, *measured.targets):
        coded = [f for f in array.features if f.code is not None]
        if not coded or (array.kind == "input" and ids):
            continue
        yield _finding(array, coded, failing=failing)


def _finding(array: ArrayStats, coded: list[FeatureStats], *, failing: bool) -> Finding:
    first = coded[0]
    where = f"{array.name}, feature {first.index}," if len(array.features) > 1 else array.name
    more = f" ({len(coded)} features have such a value)" if len(coded) > 1 else ""
    return Finding(
        rule="CKD416",
        severity=Severity.WARNING if failing else Severity.INFO,
        message=f"In {where} {first.code:g} stands {first.code_count} times, far outside all other values{more}.",
        measured=first.code,
        unit="value",
        votes=_votes(array.kind, failing=failing),
    )


def _votes(kind: str, *, failing: bool) -> tuple[Vote, ...]:
    if not failing:
        return ()
    why = "a code for missing values is used as a number"
    if kind == "target":
        return votes((Cause.LABELS, 3.0, why), (Cause.DATA_NONFINITE, 1.0, why), (Cause.DATA_SCALE, 0.8, why))
    return votes((Cause.DATA_SCALE, 2.0, why), (Cause.DATA_NONFINITE, 1.5, why))
