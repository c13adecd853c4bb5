"""CKD134: hidden activations that are meant for outputs, or are not Keras' own."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdoctor.model import Cause, Evidence, Finding, LayerSpec, Severity
from ckptdoctor.rules.anatomy import HAS_KERNEL, RECURRENT, hidden_activations, own_layers
from ckptdoctor.rules.parts import spec_of, votes
from ckptdoctor.rules.registry import Limits, rule
from ckptdoctor.rules.standstill import standstill
from ckptdoctor.rules.symptoms import went_nonfinite

KNOWN = frozenset(
    [
        "relu",
        "relu6",
        "leaky_relu",
        "elu",
        "selu",
        "gelu",
        "silu",
        "swish",
        "mish",
        "celu",
        "glu",
        "tanh",
        "sigmoid",
        "hard_sigmoid",
        "hard_silu",
        "hard_swish",
        "hard_tanh",
        "hard_shrink",
        "soft_shrink",
        "tanh_shrink",
        "softplus",
        "softsign",
        "exponential",
        "linear",
        "softmax",
        "log_softmax",
        "log_sigmoid",
        "sparsemax",
        "sparse_plus",
        "sparse_sigmoid",
        "squareplus",
        "threshold",
        "prelu",
        "p_re_lu",
        "squared_relu",
    ]
)


GATED = frozenset({"LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})
UNTESTED = 2.2
"""Vote for a layer of the user's own in a run that went non-finite. Hand-chosen: in the reported runs of the case book with such a
layer, outside of half precision, the fault mostly sits in it."""
DRAWS = ("sampling", "sampler", "reparam", "latent", "variational", "divergence")
"""What layers that draw the code of a variational autoencoder are called."""


@rule(
    code="CKD134",
    name="odd-hidden-activation",
    severity=Severity.INFO,
    needs={"spec"},
    since="0.1.0",
    doc="""
    ## What it finds
    Softmax on a hidden dense layer, and activations or layers whose code is not in the file.
    ## Why it matters
    A hidden softmax leaves numbers of size 1/n that sum to 1: nearly no signal and nearly no gradient. Own activations may have
    no gradient at all (a step), or a gradient that is not finite (sqrt, log, division).
    ## How to confirm
    Exchange it for relu.
    ## How to fix
    relu or gelu in hidden layers; an epsilon in own formulas.
    ## References
    Slope of softmax; the double-where trap.
    """,
)
def check(evidence: Evidence, limits: Limits) -> Iterator[Finding]:
    spec = spec_of(evidence)
    stuck, failing = standstill(evidence) is not None, went_nonfinite(evidence)
    softmax = [
        layer
        for layer, a in hidden_activations(spec)
        if a == "softmax" and layer.class_name in HAS_KERNEL | {"Activation", "Softmax"}
    ]
    own = [
        layer for layer, a in hidden_activations(spec) if a.lower() not in KNOWN and layer.class_name not in RECURRENT
    ]
    custom = own_layers(spec)
    custom += [layer for layer in spec.layers if layer.class_name == "Lambda"]  # one expression rarely is the trouble
    dense = [layer for layer in softmax if layer.class_name == "Dense"]  # in attention several are in their place
    if softmax and not failing and spec.graph_known and (len(softmax) == 1 or len(dense) == len(softmax)):
        yield Finding(
            rule="CKD134",
            severity=Severity.INFO,
            message=f"The hidden layer {softmax[0].name} ends in softmax{f', and {len(softmax) - 1} more' if len(softmax) > 1 else ''}.",
            layer=softmax[0].name,
            measured="softmax",
            votes=votes((Cause.ACTIVATION, 2.5 if stuck else 0.3, "a hidden softmax leaves nearly no signal")),
            data={"locates": stuck},
        )
    cells = [n for n in spec.layers if n.class_name in GATED and n.activation in ("sigmoid", "hard_sigmoid", "softmax")]
    if cells:
        why = f"the state of {cells[0].name} is a {cells[0].activation}, never below zero, in place of tanh"
        yield Finding(
            rule="CKD134",
            severity=Severity.INFO,
            message=f"The cells of {cells[0].name} use {cells[0].activation} in place of tanh.",
            layer=cells[0].name,
            measured=cells[0].activation,
            threshold="tanh",
            votes=votes((Cause.ACTIVATION, 1.8 if stuck else 0.0, why)),
            data={"locates": stuck},
        )
    for layer in [*own, *custom][:1]:
        why = "its code is not Keras' own"
        whole = layer in custom
        draws = whole and any(word in (layer.registered or "").lower() for word in DRAWS)
        prices = (
            whole and "loss" in (layer.registered or "").lower()
        )  # a layer that adds to the loss says so in its name
        trouble = stuck or failing
        loud = UNTESTED if whole and failing and not draws and not prices else 1.5
        yield Finding(
            rule="CKD134",
            severity=Severity.INFO,
            message=f"{layer.name} uses {layer.registered or layer.activation or layer.class_name}, which is not Keras' own.",
            layer=layer.name,
            measured=layer.registered or layer.activation,
            votes=votes(
                (Cause.ACTIVATION, (0.9 if whole else 1.6) if trouble else 0.0, why),
                (Cause.ARCHITECTURE, (loud if whole else 0.8) if trouble else 0.0, why),
                (Cause.LOSS_FUNCTION, *_priced(draws=draws and stuck, prices=prices and failing)),
            ),
            data={"own": whole and not draws} | ({"fix": _look_inside(layer)} if whole and failing else {}),
        )


def _priced(*, draws: bool, prices: bool) -> tuple[float, str]:
    """What a layer that adds to the loss says of the loss: weight and reason."""
    if prices:
        return UNTESTED, "it makes up a part of the loss"
    if draws:
        return 1.9, "a layer that draws a code adds a divergence to the loss, which may outweigh the error"
    return 0.0, ""


def _look_inside(layer: LayerSpec) -> str:
    """What to do about a layer whose code is not at hand, in a run that went non-finite."""
    own = layer.registered or layer.class_name
    return (
        f"Look in {own.rpartition('>')[2]} ({layer.name}) for a division, root, logarithm or exponential that some row can bring to "
        "0 or to infinity, and bound its input; with --custom-objects MODULE and recorded batches a replay names the operation."
    )
