"""CKD122: an output activation and a loss that do not belong together."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, LayerSpec, LossSpec, ModelSpec, Severity
from ckptdoctor.rules.anatomy import UNKNOWN, head, output_layers
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
    if loss is not None and loss.name in CATEGORICAL and (early := _shares_before_flattening(spec)) is not None:
        yield _too_early(early, loss)
        return
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


def _shares_before_flattening(spec: ModelSpec) -> LayerSpec | None:
    """The softmax over one axis of a map that is made flat behind it, so that what the loss compares sums to more than 1."""
    outputs = output_layers(spec)
    if len(outputs) != 1 or outputs[0].class_name != "Flatten" or len(outputs[0].inbound) != 1:
        return None
    shares = spec.layer(outputs[0].inbound[0])
    if shares is None or shares.activation != "softmax":
        return None
    before = spec.layer(shares.inbound[0]) if len(shares.inbound) == 1 else None
    of_map = any("Conv" in one.class_name or one.class_name == "Reshape" for one in (shares, before) if one is not None)
    return shares if of_map else None


def _too_early(layer: LayerSpec, loss: LossSpec) -> Finding:
    why = "shares sum to 1 along each row of the map, and the rows are never weighed against each other"
    return Finding(
        rule="CKD122",
        severity=Severity.ERROR,
        message=f"{layer.name} takes its softmax before the map is made flat for {loss.name}: {why}.",
        layer=layer.name,
        measured="softmax before Flatten",
        threshold="Flatten before softmax",
        votes=votes((Cause.ARCHITECTURE, 5.0, why), (Cause.ACTIVATION, 4.0, why)),
        data={
            "locates": True,
            "fix": "Make the map flat first, then take the softmax over all of its places.",
            "code": 'keras.layers.Activation("softmax")(keras.layers.Flatten()(x))',
        },
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
