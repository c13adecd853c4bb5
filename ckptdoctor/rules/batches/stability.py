"""CKD411: is the learning rate stable for inputs of this size?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdoctor.model import ArrayStats, Cause, Evidence, Finding, Severity
from ckptdoctor.rules.batches.input_scale import LOOKUPS, RESCALING, feeds, first_layers
from ckptdoctor.rules.checkpoint.learning_rate_unusual import ADAPTIVE
from ckptdoctor.rules.parts import batches_of, maybe_spec, votes
from ckptdoctor.rules.registry import Limits, Threshold, rule
from ckptdoctor.rules.symptoms import REGRESSION, learning_rate, main_loss, optimizer_class, went_nonfinite


@rule(
    code="CKD411",
    name="rate-against-scale",
    severity=Severity.WARNING,
    needs={"batches"},
    since="0.1.0",
    thresholds={
        "product": Threshold(
            2.0, unit="rate × curvature", source="gradient descent diverges above 2 (Nesterov 2004, section 1.2.3)"
        ),
        "usual_rate": Threshold(0.05, unit="learning rate", source="five times Keras' default for SGD"),
        "usual_scale": Threshold(3.0, unit="feature rms", source="standardised features have 1"),
    },
    doc="""
    ## What it finds
    For SGD and a squared error: the learning rate times the curvature that the inputs alone give a linear unit (twice
    the mean squared norm of a row). Above 2 gradient descent cannot converge.
    ## Why it matters
    It tells, without training, that rate and data do not fit; and which of the two is the unusual one.
    ## How to confirm
    Replay with a smaller rate, and with standardised inputs: both heal, since only the product counts.
    ## How to fix
    Bring the unusual one back to the usual: standardise inputs of large size; lower a large rate.
    ## References
    For a linear model and squared error the largest eigenvalue of the Hessian is at most 2·E‖x‖².
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    rate, batches = learning_rate(evidence), batches_of(evidence)
    spec = maybe_spec(evidence)
    loss = main_loss(spec)
    if rate is None or not rate > 0 or len(batches.inputs) != 1 or not went_nonfinite(evidence):
        return
    if optimizer_class(evidence) in ADAPTIVE or (loss is not None and loss.name not in REGRESSION):
        return
    if feeds(spec, RESCALING) or feeds(spec, LOOKUPS) or any(one.registered is not None for one in first_layers(spec)):
        return  # of what size the first unit's inputs are, these inputs do not tell
    norm = _squared_row_norm(batches.inputs[0])
    if norm is None or not math.isfinite(norm) or rate * 2 * norm <= limits["product"]:
        return
    product = rate * 2 * norm
    scale = (norm / _width(batches.inputs[0])) ** 0.5
    odd_rate, odd_scale = rate > limits["usual_rate"], scale > limits["usual_scale"]
    yield Finding(
        rule="CKD411",
        severity=Severity.WARNING,
        message=(
            f"Learning rate {rate:g} times the curvature of inputs of this size is {product:.3g}, above 2: SGD cannot "
            f"converge. {_which(odd_rate, odd_scale, scale)}"
        ),
        measured=product,
        threshold=limits["product"],
        unit="rate × curvature",
        votes=votes(
            (
                Cause.DATA_SCALE,
                2.0 if odd_scale and not odd_rate else 1.0 if odd_scale else -0.3,
                f"features of size {scale:.3g}",
            ),
            (
                Cause.LEARNING_RATE,
                2.0 if odd_rate and not odd_scale else 1.2,
                f"a rate of {rate:g} for inputs of that size",
            ),
            (Cause.EXPLODING_GRADIENTS, 0.6, "steps overshoot and grow"),
            (Cause.LOSS_FUNCTION, -1.0, "rate and data explain a divergence"),
        ),
    )


def _which(odd_rate: bool, odd_scale: bool, scale: float) -> str:
    if odd_scale and not odd_rate:
        return f"The rate is usual, the features (size {scale:.3g}) are not."
    if odd_rate and not odd_scale:
        return "The features are of usual size, the rate is not."
    return "Either would have to shrink."


def _width(array: ArrayStats) -> int:
    return max(math.prod(array.shape[2:]), 1) if len(array.shape) > 2 else 1


def _squared_row_norm(array: ArrayStats) -> float | None:
    if array.mean is None or array.std is None:
        return None
    return (array.mean**2 + array.std**2) * _width(array)
