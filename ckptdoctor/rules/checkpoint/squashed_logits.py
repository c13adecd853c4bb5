"""CKD141: scores that pass an activation of their own before they become probabilities."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import DYING, FLAT, head
from ckptdoctor.rules.parts import maybe_spec, spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import BINARY, CATEGORICAL, main_loss, went_nonfinite

CUT = DYING | FLAT | {"softmax"}


@rule(
    code="CKD141",
    name="squashed-logits",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    A layer that gives the scores of the classes, with a relu, tanh, sigmoid or softmax of its own before the softmax or
    sigmoid that makes probabilities of them, or before a loss that takes logits.
    ## Why it matters
    Scores must be free to go both ways. Behind a relu a class whose scores are all negative gets no gradient and dies; behind a
    tanh or sigmoid the scores of two classes differ by at most two or one, so that no probability comes near one.
    ## How to confirm
    The range of the layer's output on one batch.
    ## How to fix
    A linear layer before the softmax.
    ## References
    Bridle 1990 on softmax; dying relu.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    found, loss = head(spec_of(evidence)), main_loss(maybe_spec(evidence))
    if found is None:
        return
    layer, last, outermost = found
    logits = loss is not None and loss.from_logits and loss.name in CATEGORICAL | BINARY
    behind = layer.name != last.name and outermost in ("softmax", "sigmoid") and layer.activation in CUT
    if not behind and not (logits and layer.name == last.name and layer.activation in DYING):
        return
    failing = went_nonfinite(evidence) or standstill(evidence) is not None
    dies = layer.activation in DYING or layer.activation == "softmax"  # shares of shares: hardly a gradient is left
    why = f"the scores of {layer.name} pass {layer.activation} first"
    yield Finding(
        rule="CKD141",
        severity=Severity.WARNING if failing else Severity.INFO,
        message=f"The scores of {layer.name} pass {layer.activation} before {'the loss takes them for logits' if logits and not behind else outermost}.",
        layer=layer.name,
        measured=layer.activation,
        threshold="linear",
        votes=votes((Cause.ACTIVATION, (2.4 if dies else 1.4) if failing else 0.2, why)),
        data={"locates": failing},
    )
