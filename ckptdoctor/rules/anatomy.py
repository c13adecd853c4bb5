"""What a model is made of: kinds of layers, its head, the activations before it."""

from __future__ import annotations

from dataclasses import replace

from ckptdoctor.model import LayerSpec, ModelSpec

RECURRENT = frozenset({"SimpleRNN", "LSTM", "GRU", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})
NORMALISING = frozenset(
    {"BatchNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization"}
)
FLAT = frozenset({"tanh", "sigmoid", "hard_sigmoid", "hard_tanh", "softsign"})  # saturate on both sides
DYING = frozenset({"relu", "relu6", "hard_sigmoid", "hard_tanh", "hard_silu", "hard_swish", "threshold", "hard_shrink"})
# exactly flat over half a line
HAS_KERNEL = frozenset(
    {
        "Dense",
        "EinsumDense",
        "Conv1D",
        "Conv2D",
        "Conv3D",
        "Conv1DTranspose",
        "Conv2DTranspose",
        "Conv3DTranspose",
        "SeparableConv1D",
        "SeparableConv2D",
        "DepthwiseConv1D",
        "DepthwiseConv2D",
    }
)
HAS_UNITS = (
    HAS_KERNEL | RECURRENT | {"TimeDistributed", "Bidirectional", "SpectralNormalization"}
)  # a wrapper has those of the layer inside
PASS_THROUGH = frozenset(
    {"Dropout", "Flatten", "Reshape", "GaussianNoise", "SpatialDropout1D", "SpatialDropout2D", "Permute", "Identity"}
)
RESHAPING = frozenset({"Flatten", "Reshape", "Permute"})
KEEPS_RANGE = PASS_THROUGH | {
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "UpSampling1D",
    "UpSampling2D",
    "UpSampling3D",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
}
"""Layers whose output lies in the range of their input, so that behind a head its activation still tells the range."""
BEHIND_A_HEAD = (
    KEEPS_RANGE
    | NORMALISING
    | {
        "Activation",
        "ActivityRegularization",
        "AlphaDropout",
        "ELU",
        "GaussianDropout",
        "LeakyReLU",
        "Normalization",
        "PReLU",
        "ReLU",
        "Rescaling",
        "Softmax",
        "ThresholdedReLU",
    }
)
"""Layers that leave the number of units as it is; of any other, what comes out may have another shape."""
UNKNOWN = "unknown"
"""In place of an activation's name: what gives the output is not a function known here."""


def output_layers(spec: ModelSpec | None) -> tuple[LayerSpec, ...]:
    """The layers that give the outputs, `Activation` layers included."""
    if spec is None:
        return ()
    return tuple(layer for name in spec.outputs if (layer := spec.layer(name)) is not None)


def head(spec: ModelSpec | None) -> tuple[LayerSpec, LayerSpec, str] | None:
    """For a single output: (last layer with units, layer whose activation shapes the output, that activation).

    A head split into `Dense` and `Activation` is one head. The activation is `UNKNOWN` where a layer after it computes
    something else of its output, a Rescaling say. None behind a layer of the user's own, a Lambda or the like: how many units
    come out of it, nothing here tells. Its units are None where what it gives is laid out anew before the activation: a
    softmax over a flattened map of one channel is one over its places.
    """
    outputs = output_layers(spec)
    if spec is None or len(outputs) != 1:
        return None
    bearer = layer = outputs[0]
    activation: str | None = None
    changed = reshaped = False
    for _ in range(8):  # a head is never longer than a few layers
        shapes = activation in (None, "linear") and layer.class_name not in HAS_UNITS | KEEPS_RANGE
        reshaped = reshaped or (activation not in (None, "linear") and layer.class_name in RESHAPING)
        changed = changed or (shapes and layer.activation is None)
        if activation in (None, "linear") and layer.activation is not None:
            activation, bearer = layer.activation, layer
        if layer.units is not None and layer.class_name in HAS_UNITS:
            layer = replace(layer, units=None) if reshaped else layer
            return layer, bearer, UNKNOWN if changed else activation or "linear"
        if layer.registered is not None or layer.class_name not in BEHIND_A_HEAD:
            break
        if len(layer.inbound) != 1 or (parent := spec.layer(layer.inbound[0])) is None:
            break
        layer = parent
    return None


def own_layers(spec: ModelSpec | None) -> list[LayerSpec]:
    """The layers of the user's own classes; a Lambda is none, since its one expression rarely is the trouble."""
    layers = spec.layers if spec is not None else ()
    return [layer for layer in layers if layer.registered is not None and layer.class_name != "Lambda"]


def restores_inputs(spec: ModelSpec | None) -> bool:
    """Whether a model has the shape of an autoencoder: one input, and an output of the same width.

    What lies outside the range of its output are then the inputs themselves.
    """
    from ckptdoctor.evidence.config import input_shape

    found = head(spec)
    shapes = [shape for layer in spec.layers if (shape := input_shape(layer)) is not None] if spec is not None else []
    units = found[0].units if found is not None else None
    return len(shapes) == 1 and units is not None and units > 1 and shapes[0][-1:] == (units,)


def hidden_activations(spec: ModelSpec) -> list[tuple[LayerSpec, str]]:
    """(layer, activation) of every layer before the head whose activation is known and not linear."""
    found = head(spec)
    skip = {layer.name for layer in found[:2]} if found else set(spec.outputs)
    return [
        (layer, layer.activation)
        for layer in spec.layers
        if layer.activation not in (None, "linear") and layer.name not in skip and layer.activation is not None
    ]


def units_can_die(spec: ModelSpec | None) -> bool:
    """Whether a unit can get a slope of exactly zero from its activation; True where the model is not known."""
    if spec is None:
        return True
    known = [layer for layer in spec.layers if layer.registered is None]
    one_softmax = any(layer.activation == "softmax" and layer.units == 1 for layer in known)
    return one_softmax or len(known) < len(spec.layers) or any(layer.activation in DYING for layer in known)


def computes_in_half(spec: ModelSpec | None) -> bool:
    """Whether a layer computes in float16, whose largest number is 65504 and smallest 6e-8."""
    layers = spec.layers if spec is not None else ()
    return any("float16" in layer.dtype_policy and "bfloat16" not in layer.dtype_policy for layer in layers)
