"""CKD603: class ids, a compiled step, and NaN from the first one."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Missing, Severity
from ckptdoctor.rules.checkpoint.learning_rate_unusual import ADAPTIVE
from ckptdoctor.rules.log.series import loss
from ckptdoctor.rules.parts import compile_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.symptoms import learning_rate, main_loss, optimizer_class, went_nonfinite


@rule(
    code="CKD603",
    name="class-ids-unchecked",
    severity=Severity.INFO,
    needs={"spec", "census"},
    since="0.1.0",
    doc="""
    ## What it finds
    A classifier on class ids that was non-finite from its first epoch on at an ordinary learning rate, while no targets were recorded.
    ## Why it matters
    Compiled by XLA, or on a GPU, an id that the head does not have gives NaN instead of an error. It is the most common way for
    such a model to fail at once.
    ## How to confirm
    `y.min(), y.max()` against the units of the head; record the batches.
    ## How to fix
    Shift the ids to begin at 0, or give the head the missing units.
    ## References
    tensorflow#8484.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    known, compiled, rate, series = main_loss(spec), compile_of(spec), learning_rate(evidence), loss(evidence)
    if not isinstance(evidence.batches, Missing) or known is None or known.name != "sparse_categorical_crossentropy":
        return
    at_once = series is None or (
        series.first_nonfinite is not None and series.steps[:1] == (series.first_nonfinite[0],)
    )
    ordinary = rate is not None and rate <= (0.01 if optimizer_class(evidence) in ADAPTIVE else 0.1)
    if not went_nonfinite(evidence) or not at_once or not ordinary:
        return
    xla = compiled is not None and compiled.jit_compile is True
    yield Finding(
        rule="CKD603",
        severity=Severity.INFO,
        message=f"A classifier on class ids failed at once{' under XLA, which does not check them' if xla else ''}; its targets were not recorded.",
        measured=known.name,
        votes=votes(
            (Cause.LABELS, 1.8 if xla else 0.7, "ids that the head does not have give NaN on a GPU and under XLA")
        ),
    )
