"""CKD419: inputs whose differences are lost in rounding."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import ArrayStats, Cause, Evidence, Finding, ModelSpec, Severity
from ckptdoctor.rules.batches.input_scale import LOOKUPS, feeds
from ckptdoctor.rules.parts import batches_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite

STEP = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
"""Distance of neighbouring numbers ÷ their size."""


@rule(
    code="CKD419",
    name="lost-in-rounding",
    severity=Severity.INFO,
    needs={"batches", "spec"},
    since="0.1.0",
    thresholds={
        "steps": Threshold(
            8.0,
            unit="std ÷ distance of neighbouring numbers",
            source="hand-chosen: eight steps are three bits of a feature",
        )
    },
    doc="""
    ## What it finds
    An input whose values lie so far from zero, and so close together, that the precision in which the first layers compute
    leaves fewer than eight different numbers within one standard deviation.
    ## Why it matters
    The cast comes first: what a normalisation inside the model is given is already rounded. float16 has steps of 16 at 30,000,
    float32 steps of 128 at 1.6e9 (a time in seconds).
    ## How to confirm
    `np.unique(x.astype("float16")).size` against `np.unique(x).size`.
    ## How to fix
    Subtract the mean before the data enters the model, or let the first layer compute in float32 (`dtype="float32"`).
    ## References
    IEEE 754: 11, 8 and 24 bits of significand.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    first, precision = _first(spec)
    if precision is None or feeds(spec, LOOKUPS):
        return
    failing = went_nonfinite(evidence) or standstill(evidence) is not None
    for array in batches_of(evidence).inputs:
        steps = _steps(array, STEP[precision])
        if steps is None or steps >= limits["steps"]:
            continue
        half = precision != "float32"
        why = f"in {precision} the values of {array.name} lie {steps:.2g} steps apart"
        yield Finding(
            rule="CKD419",
            severity=Severity.WARNING if failing else Severity.INFO,
            message=f"{array.name} lies around {array.mean:.4g} with a deviation of {array.std:.3g}: that is {steps:.2g} steps of {precision}.",
            layer=first,
            measured=steps,
            threshold=limits["steps"],
            unit="std ÷ distance of neighbouring numbers",
            votes=votes(
                (Cause.MIXED_PRECISION, (2.8 if steps > 1 else 4.5) if half and failing else 0.0, why),
                (Cause.DATA_SCALE, (1.5 if half else 2.5) if failing else 0.0, why),
                (Cause.ACTIVATION, -0.5 if failing else 0.0, "the inputs explain it"),
            ),
            data={"locates": half and failing},
        )
        return


def _first(spec: ModelSpec) -> tuple[str | None, str | None]:
    """The layer that takes the input, and in what it computes; None where that is not known."""
    first = [layer for layer in spec.layers if set(layer.inbound) & set(spec.inputs)]
    first = first or [layer for layer in spec.layers if layer.class_name != "InputLayer"][:1]
    policy = first[0].dtype_policy.removeprefix("mixed_") if first else ""
    return (first[0].name if first else None), policy if policy in STEP else None


def _steps(array: ArrayStats, step: float) -> float | None:
    """Standard deviation in steps between neighbouring numbers, of the feature that fares worst; None for constants."""
    pairs = [(f.mean, f.std) for f in array.features] or [(array.mean, array.std)]
    known = [std / (step * abs(mean)) for mean, std in pairs if mean and std]
    return min(known, default=None)
