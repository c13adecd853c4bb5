"""CKD408: inputs that do not predict their targets."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Association, Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import batches_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill


@rule(
    code="CKD408",
    name="unrelated-labels",
    severity=Severity.INFO,
    needs={"batches"},
    since="0.1.0",
    thresholds={
        "deviations": Threshold(
            2.5, unit="standard deviations above chance", source="one in 160 by chance for a normal distribution"
        ),
        "score": Threshold(
            0.03, unit="share of the targets explained", source="hand-chosen: less than that helps nobody"
        ),
        "rows": Threshold(96.0, unit="rows", source="measured: with fewer the permutation spread covers ordinary data"),
    },
    doc="""
    ## What it finds
    Recorded inputs from which simple models predict the targets no better than permuted ones.
    ## Why it matters
    Features that do not belong to their labels (shuffled separately, joined by the wrong key) look normal in every number; a
    model can then only learn the targets' mean.
    ## How to confirm
    Look at ten rows with their labels by eye; train a small tree or nearest-neighbour model on the raw data.
    ## How to fix
    Shuffle and split inputs and targets by the same permutation; check the join.
    ## References
    Permutation test of a cross-validated score (Ojala and Garriga 2010).
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    measured = batches_of(evidence).association
    if not isinstance(measured, Association) or measured.rows < limits["rows"]:
        return
    above = (measured.score - measured.chance) / max(measured.chance_std, 1e-9)
    related = above > limits["deviations"] and measured.score > limits["score"]
    stuck = standstill(evidence) is not None
    if related:
        yield Finding(
            rule="CKD408",
            severity=Severity.INFO,
            message=f"Inputs predict targets ({measured.method}: {measured.score:.2f} against {measured.chance:.2f} by chance).",
            measured=measured.score,
            threshold=measured.chance,
            unit="share of the targets explained",
            votes=votes((Cause.LABELS, -1.5 if measured.score > 0.15 else -0.5, "inputs do predict their targets")),
        )
    elif stuck:
        yield Finding(
            rule="CKD408",
            severity=Severity.WARNING,
            message=(
                f"On {measured.rows} recorded rows inputs predict targets no better than chance "
                f"({measured.score:.2f} against {measured.chance:.2f} ± {measured.chance_std:.2f}, {measured.method})."
            ),
            measured=measured.score,
            threshold=measured.chance + limits["deviations"] * measured.chance_std,
            unit="share of the targets explained",
            votes=votes((Cause.LABELS, 2.8, "inputs and targets seem unrelated")),
        )
