"""CKD114: float16 without what it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import Batches, Cause, Census, Evidence, Finding, Role, Severity, Vote
from ckptdoctor.rules.parts import optimizer_spec_of, spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite


@rule(
    code="CKD114",
    name="half-precision-hazard",
    severity=Severity.WARNING,
    needs={"spec"},
    since="0.1.0",
    thresholds={
        "epsilon": Threshold(
            1e-5,
            unit="epsilon",
            source="squares of gradients below 2.4e-4 are 0 in float16; keras#11832 heals with 1e-4",
        ),
        "ids": Threshold(
            2048.0, unit="largest id", source="float16 has 11 bits of precision: whole numbers beyond are rounded"
        ),
        "square": Threshold(256.0, unit="largest input", source="the square root of 65,504, float16's largest number"),
    },
    doc="""
    ## What it finds
    float16 computation without loss scaling, weights kept in float16 with an epsilon that is too small for it, or, in a failed
    run, inputs whose squares float16 cannot hold.
    ## Why it matters
    float16 ends at 65,504 and loses numbers below 6e-8. Without loss scaling small gradients vanish; with float16 slots the
    second moment underflows to 0 and the update divides by little more than epsilon.
    ## How to confirm
    Train the same steps in float32.
    ## How to fix
    Set `keras.mixed_precision.set_global_policy("mixed_float16")` before building (weights stay float32 and the loss is
    scaled), or use bfloat16; with pure float16 set the epsilon to 1e-4 or larger.
    ## References
    IEEE 754 binary16; keras#11832. Loss scaling is automatic only with the global policy.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    optimizer = optimizer_spec_of(spec)
    failing = went_nonfinite(evidence)
    weights_half = _float16_weights(evidence)
    half_layers = [layer.name for layer in spec.layers if layer.dtype_policy in ("mixed_float16", "float16")]
    if not weights_half and not half_layers:
        return
    yield from _rounded_ids(evidence, half_layers, limits)
    scaled = optimizer is not None and (optimizer.loss_scaled or _has_scale(evidence))
    if weights_half:
        tiny = optimizer is not None and optimizer.epsilon is not None and optimizer.epsilon < limits["epsilon"]
        text = f"Weights are kept in float16{f' with epsilon {optimizer.epsilon:g}' if tiny and optimizer else ''}."
        yield _finding(
            text,
            half_layers,
            votes((Cause.MIXED_PRECISION, (3.5 if tiny else 2.0) if failing else 0.5, "float16 weights and slots")),
        )
    elif not scaled:
        text = f"{len(half_layers)} layers compute in float16 but the optimizer does not scale the loss."
        yield _finding(
            text, half_layers, votes((Cause.MIXED_PRECISION, 2.5 if failing else 0.8, "float16 without loss scaling"))
        )
    elif (failing or standstill(evidence) is not None) and (largest := _largest_input(evidence)) > limits["square"]:
        text = (
            f"{len(half_layers)} layers compute in float16, and inputs reach {largest:.4g}: their squares pass 65,504, "
            "its largest number."
        )
        why = "a variance or a sum of squares of such inputs overflows in float16"
        yield _finding(text, half_layers, votes((Cause.MIXED_PRECISION, 2.5, why)))
    elif failing:
        text = f"{len(half_layers)} layers compute in float16 (with loss scaling)."
        yield _finding(
            text, half_layers, votes((Cause.MIXED_PRECISION, 1.0, "float16 computation overflows at 65,504"))
        )


def _rounded_ids(evidence: Evidence, half_layers: list[str], limits: Limits) -> Iterator[Finding]:
    """Whole numbers that a layer of the user's own is given as floats: Keras casts them to float16 before the layer sees them.

    Keras' own Embedding leaves its input as it is.
    """
    spec = spec_of(evidence)
    arrays = evidence.batches.inputs if isinstance(evidence.batches, Batches) else ()
    wide = [a for a in arrays if a.integral and a.dtype.startswith("float") and (a.max or 0.0) > limits["ids"]]
    takers = [
        layer
        for layer in spec.layers
        if layer.registered is not None and layer.name in half_layers and set(layer.inbound) & set(spec.inputs)
    ]
    if not wide or not takers:
        return
    trouble = went_nonfinite(evidence) or standstill(evidence) is not None
    why = f"whole numbers up to {wide[0].max:.0f} become steps of {2 ** int(math.log2(wide[0].max or 1.0) - 10)} in float16"
    yield Finding(
        rule="CKD114",
        severity=Severity.WARNING,
        message=f"{takers[0].name} computes in float16 and is given {wide[0].name}: {why}; where they are ids, neighbours become one.",
        layer=takers[0].name,
        measured=wide[0].max,
        threshold=limits["ids"],
        unit="largest id",
        votes=votes((Cause.MIXED_PRECISION, 4.0 if trouble else 0.5, why)),
        data={"locates": True, "fix": f'Give {takers[0].name} `dtype="float32"`, or whole numbers as int32.'},
    )


def _finding(text: str, layers: list[str], cast: tuple[Vote, ...]) -> Finding:
    return Finding(
        rule="CKD114",
        severity=Severity.WARNING,
        message=text,
        layer=layers[0] if layers else None,
        measured="float16",
        votes=cast,
    )


def _float16_weights(evidence: Evidence) -> bool:
    return isinstance(evidence.census, Census) and any(
        t.info.dtype.lstrip("<>=") in ("float16", "f2") for t in evidence.census.of_role(Role.WEIGHT)
    )


def _largest_input(evidence: Evidence) -> float:
    """Largest magnitude among recorded inputs that are no ids; 0 without any."""
    arrays = evidence.batches.inputs if isinstance(evidence.batches, Batches) else ()
    return max((max(abs(a.min or 0.0), abs(a.max or 0.0)) for a in arrays if not a.integral), default=0.0)


def _has_scale(evidence: Evidence) -> bool:
    return isinstance(evidence.census, Census) and "loss_scale" in evidence.census.scalars
