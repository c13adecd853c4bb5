"""CKD504: layers whose units are dead."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, LayerActivity, Phase, Severity
from ckptdoctor.rules.parts import maybe_spec, replay_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill


@rule(
    code="CKD504",
    name="dead-units",
    severity=Severity.INFO,
    needs={"replay"},
    since="0.1.0",
    thresholds={
        "fraction": Threshold(
            0.9, unit="share of units", source="AUTOTRAINER and DeepDiagnosis take 0.7, which healthy relu nets reach"
        )
    },
    doc="""
    ## What it finds
    Layers almost all of whose units give exactly 0 for every recorded row.
    ## Why it matters
    A dead relu unit has no gradient and stays dead. If a whole layer dies, nothing before it learns and the output is constant.
    ## How to confirm
    The share of zeros in the layer's output over a batch.
    ## How to fix
    Smaller learning rate, scaled inputs, He initialisation, or an activation with a slope on both sides (leaky relu, gelu).
    ## References
    Lu et al. 2019, Dying ReLU and Initialization; AUTOTRAINER.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    replay = replay_of(evidence)
    dead = [a for a in replay.activity_end or replay.activity if (a.dead_fraction or 0.0) >= limits["fraction"]]
    if not dead:
        return
    stuck = standstill(evidence) is not None
    first = dead[0]
    at_start = _dead_before(replay.activity, first, limits["fraction"])
    spec = maybe_spec(evidence)
    output = spec is not None and first.layer in spec.outputs
    yield Finding(
        rule="CKD504",
        severity=Severity.WARNING if stuck else Severity.INFO,
        message=f"{first.dead_fraction:.0%} of the units of {first.layer} give 0 for every recorded row{' already before training' if at_start else ''}.",
        layer=first.layer,
        measured=first.dead_fraction,
        threshold=limits["fraction"],
        unit="share of units",
        votes=votes(
            (
                Cause.ACTIVATION,
                (2.5 if output else 0.8 if at_start else 1.4) if stuck else 0.0,
                "dead units pass no gradient",
            ),
            (Cause.INITIALIZATION, 1.2 if stuck and at_start else 0.0, "they were dead from the start"),
            (Cause.LEARNING_RATE, 0.8 if stuck and not at_start else 0.0, "they died during training"),
            (Cause.DATA_SCALE, 0.3 if stuck else 0.0, "large inputs kill units"),
        ),
        data={"locates": stuck, "phase": Phase.FORWARD.value},
    )


def _dead_before(start: tuple[LayerActivity, ...], layer: LayerActivity, limit: float) -> bool:
    return any(a.layer == layer.layer and (a.dead_fraction or 0.0) >= limit for a in start)
