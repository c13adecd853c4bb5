"""CKD122: an output activation and a loss that do not belong together."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, Severity
from ckptdoctor.rules.anatomy import UNKNOWN, head
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import BINARY, CATEGORICAL, main_loss

CERTAIN = 2.5  # weight of a pair that contradicts the definition of the loss; hand-chosen
STUCK = 1.7  # by which it counts more where the run stands still; hand-chosen


@rule(
    code="CKD122",
    name="loss-head-mismatch",
    severity=Severity.WARNING,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    A loss that expects another output: cross-entropy of probabilities on a head that gives none, `from_logits=True`
    after softmax or sigmoid, a cross-entropy over classes with a single unit, a loss for distances on a softmax.
    ## Why it matters
    A cross-entropy takes logarithms of what it is given. Values that are not probabilities are clipped or normalised, gradients
    vanish or explode, and the loss says little. With `from_logits=True` after a softmax the gradient is squeezed.
    ## How to confirm
    Print `model.predict(x).sum(axis=-1)` and its range.
    ## How to fix
    One unit: sigmoid + binary_crossentropy. C classes: softmax + (sparse_)categorical_crossentropy. Or a linear head with
    `from_logits=True`, which is the numerically stable form.
    ## References
    Keras' loss documentation; AUTOTRAINER's table of pairs.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    found, loss = head(spec), main_loss(spec)
    if found is None or loss is None or loss.custom:
        return
    layer, _, activation = found
    judged = judge_pair(loss.name, loss.from_logits, activation, layer.units or 0)
    if judged is None:
        return
    text, weight, cause = judged
    plain = weight >= CERTAIN and standstill(evidence) is not None
    if plain:
        weight *= STUCK  # a pair that cannot work, in a run that does not: steps of another size only hide it
    other = Cause.ACTIVATION if cause is Cause.LOSS_FUNCTION else Cause.LOSS_FUNCTION
    yield Finding(
        rule="CKD122",
        severity=Severity.WARNING,
        message=f"The head {layer.name} ({layer.units} units, {activation}) does not fit {loss.name}: {text}.",
        layer=layer.name,
        measured=activation,
        threshold=loss.name,
        votes=votes((cause, weight, text), (other, weight * 0.75, text), (Cause.LABELS, weight * 0.2, text)),
        data={"locates": True} if plain else {},
    )


def judge_pair(loss: str, from_logits: bool, activation: str, units: int) -> tuple[str, float, Cause] | None:
    squashed = activation in ("softmax", "sigmoid")
    if loss in CATEGORICAL | BINARY and from_logits and squashed:
        return "probabilities are treated as logits", 1.5, Cause.LOSS_FUNCTION
    if loss in CATEGORICAL and units == 1:
        return "a cross-entropy over classes needs one unit a class", 3.0, Cause.LOSS_FUNCTION
    if activation == UNKNOWN:
        return None
    if loss in CATEGORICAL and not from_logits and activation == "sigmoid":
        return "sigmoid units do not form a distribution over classes", 1.5, Cause.ACTIVATION
    if (
        loss in CATEGORICAL | BINARY
        and not from_logits
        and not squashed
        and activation not in ("hard_sigmoid", "log_softmax", "sparsemax")
    ):
        return "its output is no probability", 2.5, Cause.ACTIVATION
    if loss in BINARY and activation == "softmax" and units > 1:
        return "softmax with a loss per unit", 0.5, Cause.LOSS_FUNCTION
    if loss == "poisson" and activation not in ("exponential", "softplus", "sigmoid", "relu", "softmax"):
        return "the loss takes the logarithm of a rate, which must be positive", 3.0, Cause.LOSS_FUNCTION
    if loss == "kl_divergence" and not squashed:
        return "the loss compares distributions", 3.0, Cause.LOSS_FUNCTION
    if loss in ("mean_squared_error", "mean_absolute_error") and activation == "softmax" and units > 1:
        return "a distance between distributions learns slowly", 1.0, Cause.LOSS_FUNCTION
    return None
