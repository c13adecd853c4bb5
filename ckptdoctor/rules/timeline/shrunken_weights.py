"""CKD306: kernels that went to zero in a run that does not learn."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Census, Evidence, Finding, Role, Severity
from ckptdoctor.rules.checkpoint.extreme_regularisation import heaviest_penalty
from ckptdoctor.rules.parts import maybe_spec, timeline_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import optimizer_class

SPARSE_MAKERS = frozenset({"Ftrl"})
"""Optimizers that recompute a weight from its gradients alone, so that the initial values are forgotten at once."""


@rule(
    code="CKD306",
    name="shrunken-weights",
    severity=Severity.INFO,
    needs={"timeline"},
    since="0.1.0",
    thresholds={
        "ratio": Threshold(
            0.1, unit="last ÷ first rms", source="hand-chosen: training seldom halves the size of a kernel"
        ),
        "share": Threshold(0.5, unit="share of the kernels", source="hand-chosen"),
    },
    doc="""
    ## What it finds
    A run that does not learn, most of whose kernels are a tenth or less of their size before training.
    ## Why it matters
    Something pulls weights to zero faster than the loss can hold them: weight decay, an L1 or L2 penalty, or an optimizer made
    for sparse linear models. Signal and gradient shrink with every layer, and nothing is left to learn with.
    ## How to confirm
    The size of the kernels over the checkpoints, in the report.
    ## How to fix
    Adam or SGD instead of Ftrl; a penalty ten or a hundred times smaller.
    ## References
    McMahan et al. 2013, for what FTRL is made for. Measured on the case book.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    sizes = [p.census for p in timeline_of(evidence).points if isinstance(p.census, Census)]
    if len(sizes) < 2 or standstill(evidence) is None:
        return
    first, last = _kernels(sizes[0]), _kernels(sizes[-1])
    shrunken = {p: last[p] / first[p] for p in first if p in last and last[p] < limits["ratio"] * first[p]}
    if not shrunken or len(shrunken) < limits["share"] * len(first):
        return
    optimizer = optimizer_class(evidence)
    forgets = optimizer in SPARSE_MAKERS
    why = f"{optimizer} sets weights near zero" if forgets else "kernels are pulled to zero"
    name, penalty = heaviest_penalty(maybe_spec(evidence)) if not forgets else ("", 0.0)
    smallest = min(shrunken.values())
    yield Finding(
        rule="CKD306",
        severity=Severity.WARNING,
        message=f"{len(shrunken)} of {len(first)} kernels shrank to a tenth or less of their first size, the most to {smallest:.2g} of it{f', under {optimizer}' if forgets else ''}.",
        measured=smallest,
        threshold=limits["ratio"],
        unit="last ÷ first rms",
        votes=votes(
            (Cause.OPTIMIZER, 3.0 if forgets else 1.8, why),
            (
                Cause.ARCHITECTURE,
                2.4 if penalty else 0.0,
                f"{name} is penalised by {penalty:g}, which pulls it to zero",
            ),
            (Cause.LOSS_FUNCTION, 2.0 if penalty else 0.0, "the penalty outweighs the error in the loss"),
            (Cause.VANISHING_GRADIENTS, 0.5, "small kernels shrink signal and gradient"),
            (Cause.ACTIVATION, -0.5, "the weights explain it"),
        ),
    )


def _kernels(census: Census) -> dict[str, float]:
    """Rms by path of every trainable kernel that is not zero."""
    return {
        t.info.path: t.rms
        for t in census.of_role(Role.WEIGHT)
        if t.rms and len(t.info.shape) > 1 and t.info.trainable is not False
    }
