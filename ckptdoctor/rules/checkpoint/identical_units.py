"""CKD118: all units of a layer are copies of one another."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Census, Evidence, Finding, Role, Severity, TensorStats, Timeline
from ckptdoctor.rules.parts import census_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule


@rule(
    code="CKD118",
    name="identical-units",
    severity=Severity.ERROR,
    needs={"census"},
    since="0.1.0",
    thresholds={
        "steps": Threshold(
            1.0, unit="optimizer steps", source="a zero-initialised head is legitimate before the first step"
        ),
    },
    doc="""
    ## What it finds
    A trained kernel in which every unit has the same incoming weights.
    ## Why it matters
    Equal units get equal gradients and stay equal for ever: the layer is worth one unit. It comes from initialising a
    kernel with a constant.
    ## How to confirm
    `np.ptp(kernel, axis=-1).max() == 0`.
    ## How to fix
    Initialise at random (`glorot_uniform`, before relu `he_normal`) and train again from the start: a symmetric
    checkpoint cannot be repaired by training on.
    ## References
    Symmetry breaking; TheDeepChecker's constant-initialisation check; keras#16539.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    census = census_of(evidence)
    copies = [t for t in census.of_role(Role.WEIGHT) if _all_copies(t) and _may_learn(evidence, t)]
    trained = census.iterations is not None and census.iterations >= limits["steps"]
    if not copies or not trained:
        return
    first = (_copies_at_the_start(evidence) or copies)[0]
    yield Finding(
        rule="CKD118",
        severity=Severity.ERROR,
        message=(
            f"All {first.info.shape[-1]} units of {first.info.label} have the same weights"
            f"{f', likewise in {len(copies) - 1} more kernels' if len(copies) > 1 else ''}: symmetry was never broken."
        ),
        layer=first.info.layer,
        variable=first.info.variable,
        measured=1.0,
        threshold=float(first.info.shape[-1]),
        unit="distinct units",
        votes=votes(
            (Cause.INITIALIZATION, 5.0, "identical units can only come from a constant initialisation"),
            (Cause.ARCHITECTURE, 0.5, "a layer of identical units is worth one unit"),
        ),
    )


def _copies_at_the_start(evidence: Evidence) -> list[TensorStats]:
    """Those of the first checkpoint: rounding may tell units apart in the layers before, where the fault began."""
    timeline = evidence.timeline
    before = timeline.points[0].census if isinstance(timeline, Timeline) and timeline.points else None
    if not isinstance(before, Census):
        return []
    return [t for t in before.of_role(Role.WEIGHT) if _all_copies(t) and _may_learn(evidence, t)]


def _all_copies(t: TensorStats) -> bool:
    units = t.units
    return (
        units is not None
        and units.units > 1
        and t.info.size > units.units
        and units.distinct_units == 1
        and units.zero_units == 0
        and not t.nonfinite
    )


def _may_learn(evidence: Evidence, t: TensorStats) -> bool:
    spec = maybe_spec(evidence)
    layer = spec.layer(t.info.layer) if spec is not None and t.info.layer else None
    return t.info.trainable is not False and (layer is None or layer.trainable)
