"""CKD140: a run that stands still with biases driven far from where they began."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Phase, Role, Severity
from ckptdoctor.rules.anatomy import RECURRENT
from ckptdoctor.rules.checkpoint.initial_scale import initial_census, spread_ratio
from ckptdoctor.rules.parts import census_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill

LARGE_START = 3.0  # times He's spread; hand-chosen


@rule(
    code="CKD140",
    name="far-driven-biases",
    severity=Severity.INFO,
    needs={"census"},
    since="0.1.0",
    thresholds={
        "hidden": Threshold(
            1.0, unit="rms", source="measured: 4 of 360 healthy runs of the case book end above it, and those learn"
        ),
        "outputs": Threshold(
            10.0, unit="rms", source="hand-chosen: an output's bias is the mean of what it has to say, and may be large"
        ),
    },
    doc="""
    ## What it finds
    Hidden layers whose biases, begun at zero, have an rms above one, in a run that does not learn.
    ## Why it matters
    Biases of that size are what is left of a few steps that were far too large: with them relu units are off, and sigmoid
    or tanh units flat, for every input, and nothing pulls them back. Inputs of large scale do the same.
    ## How to confirm
    The first steps again with a tenth of the rate; replay does that where batches were recorded.
    ## How to fix
    A smaller rate from the first step on (a warm-up), standardised inputs; begin anew, since dead units do not come back.
    ## References
    Measured on the case book.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    if standstill(evidence) is None or _began_large(evidence):
        return
    spec = maybe_spec(evidence)
    outputs = spec.outputs if spec is not None else ()
    found = []
    for t in census_of(evidence).of_role(Role.WEIGHT):
        if "bias" not in t.info.variable or t.rms is None or t.info.trainable is False:
            continue
        layer = spec.layer(t.info.layer) if spec is not None and t.info.layer else None
        if layer is not None and (layer.class_name in RECURRENT or _set(layer.config.get("bias_initializer"))):
            continue  # forget gates begin at one
        limit = limits["outputs"] if spec is None or t.info.layer in outputs else limits["hidden"]
        if t.rms > limit:
            found.append((t, limit))
    if not found:
        return
    worst, limit = max(found, key=lambda f: (f[0].rms or 0.0) / f[1])
    why = f"biases of {worst.info.layer} were driven to {worst.rms:.3g}"
    yield Finding(
        rule="CKD140",
        severity=Severity.WARNING,
        message=f"{worst.info.label} was driven far out: its rms is {worst.rms:.3g}.",
        layer=worst.info.layer,
        variable=worst.info.variable,
        measured=worst.rms,
        threshold=limit,
        unit="rms",
        votes=votes(
            (Cause.LEARNING_RATE, 1.3, why),
            (Cause.DATA_SCALE, 0.6, why),
            (Cause.INITIALIZATION, -0.3, "the weights went there in training"),
        ),
        data={"phase": Phase.UPDATE.value},
    )


def _began_large(evidence: Evidence) -> bool:
    """Kernels that began large drive biases far in ordinary steps."""
    census = initial_census(evidence)
    kernels = [t for t in (census.of_role(Role.WEIGHT) if census is not None else ()) if len(t.info.shape) > 1]
    return any(spread_ratio(t) > LARGE_START for t in kernels if "embedding" not in t.info.variable)


def _set(initialiser: object) -> bool:
    """A bias that does not begin at zero."""
    name = initialiser.get("class_name") if isinstance(initialiser, dict) else initialiser
    return name not in (None, "Zeros", "zeros")
