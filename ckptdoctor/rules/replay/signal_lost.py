"""CKD513: a layer after which all rows look the same."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ckptdoctor.model import Batches, Cause, Evidence, Finding, Phase, Severity
from ckptdoctor.rules.parts import replay_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill

PLAIN = {
    "MaxPooling1D",
    "MaxPooling2D",
    "AveragePooling1D",
    "AveragePooling2D",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
}
PLAIN |= {
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "BatchNormalization",
    "LayerNormalization",
    "Flatten",
    "Reshape",
    "Cropping2D",
}
RECURRENT = {"SimpleRNN", "LSTM", "GRU"}


@rule(
    code="CKD513",
    name="signal-lost",
    severity=Severity.INFO,
    needs={"replay"},
    since="0.1.0",
    thresholds={
        "drop": Threshold(
            1e-3,
            unit="spread over rows ÷ that before it",
            source="hand-chosen: ordinary layers change it by less than a factor of ten",
        )
    },
    doc="""
    ## What it finds
    The first layer, before or after training, whose output no longer depends on the row, although its input does.
    ## Why it matters
    Nothing after it can tell rows apart. It is dead, saturated, or throws the signal away by its construction.
    ## How to confirm
    The spread over rows of the layer's output on a batch.
    ## How to fix
    Look at that layer: its pool size, its units, its activation, its normalisation.
    ## References
    Measured on re-created public failures.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    replay = replay_of(evidence)
    if standstill(evidence) is None:
        return
    for when, activities in (("before training", replay.activity), ("after training", replay.activity_end)):
        before: float | None = None
        for a in activities:
            if a.row_std is None or a.class_name == "InputLayer":
                continue
            if before is None and a.class_name in PLAIN:  # that the units of a first layer are dead is said elsewhere
                before = _spread_of_inputs(evidence)
            if before is not None and before > 0 and a.row_std < limits["drop"] * before:
                plain = a.class_name in PLAIN
                # Activations of a recurrence are bounded by design: what is lost is lost over time.
                carries = a.class_name in RECURRENT
                yield Finding(
                    rule="CKD513",
                    severity=Severity.WARNING,
                    message=f"After {a.layer} all rows look the same {when}: spread {a.row_std:.1e} against {before:.1e} before it.",
                    layer=a.layer,
                    measured=a.row_std / before,
                    threshold=limits["drop"],
                    unit="spread over rows ÷ that before it",
                    votes=votes(
                        (
                            Cause.ARCHITECTURE,
                            2.5 if plain else 1.0 if carries else 0.5,
                            f"{a.layer} throws the signal away",
                        ),
                        (Cause.ACTIVATION, 0.0 if plain or carries else 0.8, f"{a.layer} throws the signal away"),
                        (Cause.VANISHING_GRADIENTS, 1.0 if carries else 0.4, f"{a.layer} passes no gradient"),
                    ),
                    data={"locates": plain, "phase": Phase.FORWARD.value},
                )
                return
            before = a.row_std


def _spread_of_inputs(evidence: Evidence) -> float | None:
    """Spread of the one recorded input over rows (of pictures, over places too); None with several inputs, or with ids of tokens."""
    arrays = evidence.batches.inputs if isinstance(evidence.batches, Batches) else ()
    if len(arrays) != 1 or arrays[0].integral:
        return None
    spreads = [f.std for f in arrays[0].features if f.std is not None]  # features may differ far more than rows do
    return median(spreads) if spreads else arrays[0].std
