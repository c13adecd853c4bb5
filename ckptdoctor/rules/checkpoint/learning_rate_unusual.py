"""CKD111: a learning rate far from the optimizer's usual range."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.parts import maybe_spec, optimizer_spec_of, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import learning_rate, optimizer_class, own_losses, went_nonfinite

ADAPTIVE = {"Adam", "AdamW", "Nadam", "Adamax", "RMSprop", "Lamb", "Lion", "Adafactor", "Muon"}

BOUNDED_STEP = 0.5
"""Weight of a high rate where an own loss went non-finite under an adaptive optimizer: hand-chosen.

Such a step moves a weight by about the rate, however large the gradient, so it does not run away by itself; Keras' own
losses bear saturated outputs, an own one may not."""


@rule(
    code="CKD111",
    name="learning-rate-unusual",
    severity=Severity.WARNING,
    needs={"optimizer"},
    since="0.1.0",
    thresholds={
        "adaptive_high": Threshold(
            0.02, unit="learning rate", source="UMLAUT warns above 0.01 for Adam; hand-chosen factor 2"
        ),
        "adaptive_low": Threshold(3e-6, unit="learning rate", source="UMLAUT warns below 1e-7 for Adam; hand-chosen"),
        "sgd_high": Threshold(
            0.5,
            unit="learning rate",
            source="hand-chosen: SGD up to 0.1 is common, 1 can be right on standardised data",
        ),
        "momentum_high": Threshold(
            2.0,
            unit="learning rate ÷ (1 - momentum)",
            source="hand-chosen: momentum adds up 1 / (1 - momentum) steps; 0.1 with a momentum of 0.9 gives 1",
        ),
        "sgd_low": Threshold(1e-5, unit="learning rate", source="hand-chosen"),
    },
    doc="""
    ## What it finds
    A learning rate above or below what is usual for the optimizer.
    ## Why it matters
    The rate is the setting that most often breaks a run: too large and the loss climbs until it overflows; too small and
    nothing is learned. An unusual rate may still be right, so alone this is only a hint.
    ## How to confirm
    Train the first hundred steps with a tenth (or ten times) of it; replay does that where batches were recorded.
    ## How to fix
    Begin with the optimizer's default and change by factors of three.
    ## References
    UMLAUT's limits for Adam; Keras' defaults (0.001 for Adam and RMSprop, 0.01 for SGD).
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    rate, optimizer = learning_rate(evidence), optimizer_class(evidence)
    if rate is None or not math.isfinite(rate) or rate <= 0:
        return
    family = "adaptive" if optimizer in ADAPTIVE else "sgd"
    high, low = limits[f"{family}_high"], limits[f"{family}_low"]
    momentum = _momentum(evidence) if family == "sgd" else 0.0
    if momentum > 0:
        high = min(high, limits["momentum_high"] * (1 - momentum))
    if low <= rate <= high:
        return
    too_high = rate > high
    limit = high if too_high else low
    decades = min(abs(math.log10(rate / limit)), 300.0)  # 10**decades stays a number even of the smallest rate
    weight = min(1.0 + 1.2 * decades, 4.0)
    nonfinite = went_nonfinite(evidence)
    fits = too_high or not nonfinite  # a tiny rate does not make NaN
    hidden = too_high and nonfinite and family == "adaptive" and own_losses(maybe_spec(evidence))
    if hidden:
        weight *= BOUNDED_STEP
    yield Finding(
        rule="CKD111",
        severity=Severity.WARNING,
        message=(
            f"The learning rate {rate:g} is {'above' if too_high else 'below'} the usual range for "
            f"{optimizer or 'this optimizer'}{f' with a momentum of {momentum:g}' if momentum else ''} ({low:g} to {high:.3g})."
        ),
        variable="learning_rate",
        measured=rate,
        threshold=limit,
        unit="learning rate",
        votes=votes((Cause.LEARNING_RATE, weight if fits else -1.0, _reason(decades, hidden=hidden))),
    )


def _reason(decades: float, *, hidden: bool) -> str:
    rest = "; yet steps of that size lead to NaN only where a loss breaks at the values they reach" if hidden else ""
    return f"the rate is {10**decades:.3g}× outside the usual range{rest}"


def _momentum(evidence: Evidence) -> float:
    spec = optimizer_spec_of(maybe_spec(evidence))
    momentum = spec.momentum if spec is not None else None
    return momentum if momentum is not None and 0 < momentum < 1 else 0.0
