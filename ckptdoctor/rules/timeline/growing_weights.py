"""CKD302: weights that grow exponentially."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Growth, Severity
from ckptdoctor.rules.parts import timeline_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD302",
    name="growing-weights",
    severity=Severity.WARNING,
    needs={"timeline"},
    since="0.1.0",
    thresholds={
        "factor": Threshold(
            10.0, unit="last ÷ first rms", source="hand-chosen: trained kernels usually stay within a factor of three"
        ),
        "r2": Threshold(0.9, unit="R² of the exponential fit", source="hand-chosen"),
        "size": Threshold(3.0, unit="rms", source="hand-chosen: growth from tiny values is learning"),
    },
    doc="""
    ## What it finds
    Weights whose size is well described by an exponential over the healthy checkpoints, by a factor of ten or more.
    ## Why it matters
    Exponential growth ends in an overflow; the fit says about when.
    ## How to confirm
    Plot the norms over the checkpoints: the report does.
    ## How to fix
    Lower the rate, clip, or decay weights; continue from before the growth.
    ## References
    Least squares on the logarithm of the rms.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    growing = [g for g in timeline_of(evidence).growth if _grows(g, limits)]
    if not growing:
        return
    g = growing[0]
    end = f"; float32 overflows at about {g.axis} {g.overflow_at:.0f}" if g.overflow_at is not None else ""
    yield Finding(
        rule="CKD302",
        severity=Severity.WARNING,
        message=f"{g.layer}/{g.variable} doubles every {g.doubling:.2g} {g.axis}s{end}.",
        layer=g.layer,
        variable=g.variable,
        measured=g.last / g.first if g.first else float("inf"),
        threshold=limits["factor"],
        unit="last ÷ first rms",
        votes=votes(
            (Cause.LEARNING_RATE, 1.0, "weights grow exponentially"),
            (Cause.EXPLODING_GRADIENTS, 1.2 if went_nonfinite(evidence) else 0.6, "weights grow exponentially"),
            (Cause.DATA_NONFINITE, -1.0, "bad data poisons without growth"),
        ),
    )


def _grows(g: Growth, limits: Limits) -> bool:
    return (
        g.doubling > 0
        and g.r2 >= limits["r2"]
        and g.last > limits["factor"] * max(g.first, 1e-30)
        and g.last > limits["size"]
    )
