"""CKD307: how far the weights of a run that does not learn went from where they began."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from ckptdoctor.model import Cause, Displacement, Evidence, Finding, Phase, Severity, Vote
from ckptdoctor.rules.anatomy import own_layers
from ckptdoctor.rules.checkpoint.learning_rate_unusual import ADAPTIVE
from ckptdoctor.rules.parts import maybe_spec, timeline_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import learning_rate, optimizer_class

ORDINARY_RATE = 0.005  # half of Keras' default for SGD
DEEP = 8  # kernels one after another through which a gradient may be lost; hand-chosen
BY_THE_RATE = 0.01  # distance of a bias that ordinary steps made; hand-chosen
NOTHING = 1e-3  # of that distance: kernels that were given no gradient; hand-chosen
FIRST_SIZE = 1e-6
"""Weights that began smaller than this began at zero: no distance is large or small against that (hand-chosen)."""

DEPTH = "distance of the last kernel ÷ of the first"


@rule(
    code="CKD307",
    name="displacement",
    severity=Severity.INFO,
    needs={"timeline"},
    since="0.1.0",
    thresholds={
        "hardly": Threshold(
            0.02,
            unit="distance ÷ first size",
            source="measured: of 259 healthy runs of the case book three end below it, and those learn",
        ),
        "not_at_all": Threshold(
            0.002, unit="distance ÷ first size", source="hand-chosen; one of these runs ends below it"
        ),
        "far": Threshold(
            5.0,
            unit="median distance ÷ first size",
            source="measured: 7 of these runs end above it, and those learn; runs thrown far end between 7 and 2,000",
        ),
        "profile": Threshold(
            30.0,
            unit="distance of the last kernel ÷ of the first",
            source="measured: at most 7.5 in these runs, frozen first layers left out",
        ),
    },
    doc="""
    ## What it finds
    In a run that does not learn: the distance of each kernel between the first and the last healthy checkpoint, against its size
    at the first.
    ## Why it matters
    Kernels that hardly left their place were given steps that are too small. Kernels many times their size away were thrown
    there by steps that are too large, or by inputs of large scale. Where the last layers moved and the first did not, the
    gradient vanished on its way back.
    ## How to confirm
    The first hundred steps again with ten times, or a tenth, of the rate; replay does that where batches were recorded.
    ## How to fix
    Another rate; inputs of unit size; relu, normalisation or skip connections where the gradient vanishes.
    ## References
    Measured on the case book. Glorot & Bengio 2010 on gradients along depth.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    kernels = [d for d in timeline_of(evidence).displacement if d.size > FIRST_SIZE and "bias" not in d.variable]
    moved = [d.distance / d.size for d in kernels]
    if not kernels or not any(moved) or standstill(evidence) is None:
        return
    judged = _nothing_arrives(evidence, kernels) or _judge(kernels, moved, limits, _ordinary_descent(evidence))
    if judged is None:
        return
    text, measured, threshold, unit, cast = judged
    yield Finding(
        rule="CKD307",
        severity=Severity.WARNING,
        message=text,
        measured=measured,
        threshold=threshold,
        unit=unit,
        votes=cast,
        data={"phase": (Phase.BACKWARD if unit == DEPTH else Phase.UPDATE).value},
    )


def _nothing_arrives(
    evidence: Evidence, kernels: list[Displacement]
) -> tuple[str, float, float, str, tuple[Vote, ...]] | None:
    """Only the bias of the head moved, by ordinary steps: what the head multiplies is zero.

    The steps of adaptive optimizers do not depend on the size of a gradient, so that small inputs do not explain it.
    """
    went = timeline_of(evidence).displacement
    last = kernels[-1].layer
    bias = max((d.distance for d in went if "bias" in d.variable and d.layer == last), default=0.0)
    farthest = max(d.distance for d in kernels)
    if optimizer_class(evidence) not in ADAPTIVE or bias < BY_THE_RATE or farthest > bias * NOTHING:
        return None
    why = f"the bias of {last} went {bias:.2g}, no kernel further than {farthest:.1g}: what reaches {last} is zero for every row"
    own = bool(own_layers(maybe_spec(evidence)))
    cast = votes(
        (Cause.ACTIVATION, 0.8 if own else 2.0, why),
        (Cause.INITIALIZATION, 1.6 if own else 0.8, why),
        (Cause.ARCHITECTURE, 1.4 if own else 0.4, why),
        (Cause.LEARNING_RATE, -1.5, "the same rate moved the bias"),
        (Cause.DATA_SCALE, -0.5, why),
    )
    return (
        f"{why[0].upper()}{why[1:]}.",
        farthest / bias,
        NOTHING,
        "distance of the farthest kernel ÷ of the bias",
        cast,
    )


def _ordinary_descent(evidence: Evidence) -> bool:
    rate = learning_rate(evidence)
    return optimizer_class(evidence) == "SGD" and rate is not None and rate >= ORDINARY_RATE


def _judge(
    kernels: list[Displacement], moved: list[float], limits: Limits, descent: bool
) -> tuple[str, float, float, str, tuple[Vote, ...]] | None:
    unit = "distance ÷ first size"
    profile = moved[-1] / max(moved[0], 1e-12)
    if len(moved) >= 4 and profile > limits["profile"] and moved[0] == min(moved):
        first, last = kernels[0], kernels[-1]
        text = f"{last.layer}/{last.variable} went {moved[-1]:.2g} times its size, {first.layer}/{first.variable} only {moved[0]:.2g}."
        why = "the first layers hardly move, the last ones do"
        return text, profile, limits["profile"], DEPTH, votes((Cause.VANISHING_GRADIENTS, 1.8, why))
    most, middle = max(moved), median(moved)
    if most < limits["hardly"]:
        still = most < limits["not_at_all"]
        why = f"no kernel went further than {most:.1g} of its size"
        text = f"In the whole run {why}."
        # Plain descent moves by rate times gradient: at an ordinary rate it is the gradient that is small.
        deep = descent and len(moved) >= DEEP
        cast = votes(
            (Cause.LEARNING_RATE, (1.0 if descent else 2.2) if still else 1.4, why),
            (Cause.VANISHING_GRADIENTS, 2.6 if deep else 0.8 if descent else 0.0, f"{why}, at an ordinary rate"),
            (Cause.OPTIMIZER, 1.2 if still else 0.8, why),
            (Cause.ACTIVATION, -0.5, "small steps explain it"),
            (Cause.LOSS_FUNCTION, -0.5, "small steps explain it"),
        )
        return text, most, limits["not_at_all" if still else "hardly"], unit, cast
    if middle > limits["far"]:
        why = f"kernels went {middle:.2g} times their size, the farthest {most:.2g} times"
        cast = votes(
            (Cause.LEARNING_RATE, 1.5, why),
            (Cause.DATA_SCALE, 0.9, why),
            (Cause.OPTIMIZER, 0.5, why),
            (Cause.LABELS, -0.5, "unrelated labels do not throw weights far"),
        )
        return f"In the whole run {why}.", middle, limits["far"], f"median {unit}", cast
    return None
