"""CKD505: layers whose units are saturated."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Phase, Severity
from ckptdoctor.rules.batches.input_scale import LOOKUPS, feeds, rms
from ckptdoctor.rules.parts import maybe_spec, replay_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill


@rule(
    code="CKD505",
    name="saturated-units",
    severity=Severity.INFO,
    needs={"replay"},
    since="0.1.0",
    thresholds={
        "fraction": Threshold(
            0.7, unit="share of outputs", source="SageMaker Debugger and DeepDiagnosis take 0.5; hand-chosen"
        )
    },
    doc="""
    ## What it finds
    Hidden layers most of whose outputs stand in the flat part of tanh, sigmoid and the like.
    ## Why it matters
    There the slope is almost zero: gradients vanish, and the layer gives little more than a sign.
    ## How to confirm
    A histogram of the layer's output.
    ## How to fix
    Scale the inputs; smaller initial weights; relu.
    ## References
    Glorot and Bengio 2010; SageMaker Debugger.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    replay = replay_of(evidence)
    spec = maybe_spec(evidence)
    outputs = spec.outputs if spec is not None else ()
    flat = [
        a
        for a in replay.activity_end or replay.activity
        if (a.saturated_fraction or 0.0) >= limits["fraction"] and a.layer not in outputs and a.activation != "softmax"
    ]
    if not flat:
        return
    stuck = standstill(evidence) is not None
    first = flat[0]
    big = _inputs_are_large(evidence) and not feeds(spec, LOOKUPS)  # token ids are large and have no scale
    at_start = any(
        a.layer == first.layer and (a.saturated_fraction or 0.0) >= limits["fraction"] for a in replay.activity
    )
    yield Finding(
        rule="CKD505",
        severity=Severity.WARNING if stuck else Severity.INFO,
        message=f"{first.saturated_fraction:.0%} of the outputs of {first.layer} ({first.activation}) are saturated.",
        layer=first.layer,
        measured=first.saturated_fraction,
        threshold=limits["fraction"],
        unit="share of outputs",
        votes=votes(
            (Cause.DATA_SCALE, 2.0 if stuck and big else 0.0, "large inputs drive the first layer flat"),
            (
                Cause.INITIALIZATION,
                1.0 if stuck and at_start and not big else 0.0,
                "flat from the start, on ordinary inputs",
            ),
            (Cause.VANISHING_GRADIENTS, 0.8 if stuck else 0.0, "flat units pass no gradient"),
            (Cause.ACTIVATION, 0.7 if stuck else 0.0, "flat units pass no gradient"),
        ),
        data={"phase": Phase.FORWARD.value},
    )


def _inputs_are_large(evidence: Evidence) -> bool:
    arrays = getattr(evidence.batches, "inputs", ())
    return any((rms(a) or 0.0) > 8.0 for a in arrays)
