"""CKD147: a Normalization that was adapted to columns that did not vary."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Role, Severity, TensorStats
from ckptdoctor.rules.parts import census_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD147",
    name="constant-column-norm",
    severity=Severity.INFO,
    needs={"census", "spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    In a run that fails: a Normalization layer with a variance of 0 for some columns.
    ## Why it matters
    Keras divides by no less than 1e-7. A column that was constant where `adapt` looked, and is not elsewhere, reaches the layers
    behind it ten million times too large.
    ## How to confirm
    `layer.variance.numpy().min()`, and whether those columns vary over all rows.
    ## How to fix
    Adapt to all rows, or to rows drawn at random; leave columns out that hardly vary.
    ## References
    Keras' Normalization layer: (x - mean) / max(√variance, 1e-7).
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    if not went_nonfinite(evidence) and standstill(evidence) is None:
        return
    names = {layer.name for layer in spec.layers if layer.class_name == "Normalization"}
    flat = [t for t in census_of(evidence).tensors if t.info.layer in names and _is_variance(t) and t.zeros]
    for t in flat[:1]:
        why = f"{t.zeros} of its columns did not vary where it was adapted"
        yield Finding(
            rule="CKD147",
            severity=Severity.WARNING,
            message=f"{t.info.layer} divides {t.zeros} of {t.info.size} columns by 1e-7: {why}.",
            layer=t.info.layer,
            variable=t.info.variable,
            measured=float(t.zeros),
            threshold=0.0,
            unit="columns of variance 0",
            votes=votes((Cause.DATA_SCALE, 3.0, why), (Cause.ARCHITECTURE, 1.5, why)),
            data={"locates": True},
        )


def _is_variance(t: TensorStats) -> bool:
    return "variance" in t.info.variable and t.info.role in (Role.STATISTIC, Role.WEIGHT)
