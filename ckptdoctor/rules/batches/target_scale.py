"""CKD404: regression targets far from unit scale."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.batches.input_scale import rms
from ckptdoctor.rules.parts import batches_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import REGRESSION, main_loss


@rule(
    code="CKD404",
    name="target-scale",
    severity=Severity.WARNING,
    needs={"batches"},
    since="0.1.0",
    thresholds={
        "rms": Threshold(50.0, unit="rms", source="hand-chosen: squared error and its gradient grow with the square"),
        "tiny": Threshold(
            0.03, unit="rms", source="hand-chosen: an ordinary start of an output is dozens of times larger"
        ),
    },
    doc="""
    ## What it finds
    Targets of a regression whose size is far from 1; tiny ones in a run that does not learn.
    ## Why it matters
    A squared error starts at the square of that size and its gradient with it: plain SGD overshoots, Adam's steps of
    about the learning rate each need thousands of steps to reach it.
    ## How to confirm
    Train again on standardised targets; replay does that.
    ## How to fix
    `(y - mean) / std`, and the inverse when predicting; or initialise the output's bias with the mean.
    ## References
    LeCun et al. 1998, Efficient BackProp.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    loss = main_loss(maybe_spec(evidence))
    settled = maybe_spec(evidence) is None and standstill(evidence) is not None  # a squared error, by where it stands
    if not settled and (loss is None or loss.name not in REGRESSION):
        return
    for array in batches_of(evidence).targets:
        size = rms(array)
        if size is not None and 0 < size < limits["tiny"] and standstill(evidence) is not None:
            yield _tiny(array.name, size, array.max or 0.0, limits)
        if size is None or size <= limits["rms"]:
            continue
        weight = min(1.0 + 0.7 * math.log10(size / limits["rms"]), 2.5)
        yield Finding(
            rule="CKD404",
            severity=Severity.WARNING,
            message=f"The targets {array.name} are not scaled: rms {size:.3g}, from {array.min:.3g} to {array.max:.3g}.",
            measured=size,
            threshold=limits["rms"],
            unit="rms",
            votes=votes(
                (Cause.DATA_SCALE, weight, f"targets are {size:.3g} in size"),
                (Cause.LEARNING_RATE, 0.4, "the right rate depends on the targets' size"),
            ),
        )


def _tiny(name: str, size: float, top: float, limits: Limits) -> Finding:
    why = f"targets are {size:.2g} in size: hardly an error is left to learn from"
    return Finding(
        rule="CKD404",
        severity=Severity.WARNING,
        message=f"The targets {name} are tiny: rms {size:.2g}, at most {top:.2g}; a squared error has hardly a slope there.",
        measured=size,
        threshold=limits["tiny"],
        unit="rms",
        votes=votes(
            (Cause.DATA_SCALE, 2.2, why), (Cause.LEARNING_RATE, 0.6, "the right rate depends on the targets' size")
        ),
    )
