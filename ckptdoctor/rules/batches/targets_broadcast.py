"""CKD417: targets and outputs of different widths, which a loss of distances spreads over each other."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import head
from ckptdoctor.rules.parts import maybe_spec, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import BINARY, REGRESSION, main_loss, targets


@rule(
    code="CKD417",
    name="targets-broadcast",
    severity=Severity.WARNING,
    needs={"batches", "spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    Targets whose last axis is not as wide as the output, where one of the two is 1 and the loss compares element by element.
    ## Why it matters
    Nothing raises: the single number is compared with each of the others. One sigmoid unit against one-hot pairs of two
    classes is asked to be 0 and 1 at once, and answers 0.5 for every row.
    ## How to confirm
    `model.output_shape` against `y.shape`.
    ## How to fix
    One unit wants one number a row (`class_mode="binary"`, `argmax`); one-hot targets of C classes want C units with softmax.
    ## References
    Measured on Keras 3.15: mean_squared_error and binary_crossentropy broadcast.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    found, loss, array = head(spec_of(evidence)), main_loss(maybe_spec(evidence)), targets(evidence)
    if found is None or array is None or loss is None or loss.name not in REGRESSION | BINARY:
        return
    units, width = found[0].units, array.shape[-1] if len(array.shape) > 2 else None
    if units is None or width is None or units == width or 1 not in (units, width):
        return
    stuck = standstill(evidence) is not None
    why = f"{width} numbers a row are compared with {units} output{'s' if units != 1 else ''}"
    yield Finding(
        rule="CKD417",
        severity=Severity.WARNING,
        message=f"Targets {array.name} hold {width} number{'s' if width != 1 else ''} a row, but {found[1].name} gives {units}: {loss.name} spreads one over the others.",
        layer=found[1].name,
        measured=float(width),
        threshold=float(units),
        unit="numbers a row",
        votes=votes(
            (Cause.LABELS, 4.0 if stuck else 0.5, why),
            (Cause.LOSS_FUNCTION, 1.5 if stuck else 0.0, why),
            (Cause.ARCHITECTURE, 1.5 if stuck else 0.0, why),
        ),
    )
