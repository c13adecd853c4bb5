"""CKD217: a run that had learned, and lost it again."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import RECURRENT
from ckptdoctor.rules.log.series import finite, loss
from ckptdoctor.rules.parts import maybe_spec, optimizer_spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill


@rule(
    code="CKD217",
    name="lost-again",
    severity=Severity.INFO,
    needs={"logs"},
    since="0.1.0",
    thresholds={
        "regained": Threshold(
            0.6, unit="smallest loss ÷ last", source="hand-chosen: what was learned is far below where the run ends"
        )
    },
    doc="""
    ## What it finds
    In a run that ends no better than a constant: a loss that had come down far below its end, epochs before.
    ## Why it matters
    Labels, loss and architecture let it learn once, so they are not what stands in its way. One step threw it out: a gradient far
    larger than the others, or a rate at the edge of what is stable. In recurrent nets the former is the usual reason.
    ## How to confirm
    The gradient's norm step by step around the jump; the same run with gradients clipped.
    ## How to fix
    Clip gradients to a norm of 1, or take a third of the rate; continue from the checkpoint of the smallest loss.
    ## References
    Pascanu, Mikolov and Bengio 2013 on the cliffs of recurrent nets.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    series = loss(evidence)
    if series is None or series.nonfinite or series.axis != "epoch" or standstill(evidence) is None:
        return
    values = finite(series)
    if len(values) < 6:
        return
    last, best = median(values[-2:]), min(values[:-2])
    epoch = values.index(best)
    if best <= 0 or best > limits["regained"] * last or epoch < 2 or values[0] < best / limits["regained"]:
        return
    spec = maybe_spec(evidence)
    optimizer = optimizer_spec_of(spec)
    loops = spec is not None and any(layer.class_name in RECURRENT for layer in spec.layers)
    free = optimizer is None or not optimizer.clips
    why = f"the loss had come down to {best:.3g} and ends at {last:.3g}"
    yield Finding(
        rule="CKD217",
        severity=Severity.WARNING,
        message=f"{series.name} had come down to {best:.4g} by epoch {epoch} and ends at {last:.4g}: it learned, and was thrown out again.",
        epoch=epoch,
        measured=best / last,
        threshold=limits["regained"],
        unit="smallest loss ÷ last",
        votes=votes(
            (Cause.EXPLODING_GRADIENTS, (2.4 if loops else 1.0) if free else 0.0, why),
            (Cause.LEARNING_RATE, 1.8, why),
            (Cause.VANISHING_GRADIENTS, -1.5, "it had learned"),
            (Cause.LABELS, -1.5, "it had learned"),
            (Cause.ARCHITECTURE, -1.0, "it had learned"),
            (Cause.INITIALIZATION, -1.5, "it had learned"),
        ),
    )
