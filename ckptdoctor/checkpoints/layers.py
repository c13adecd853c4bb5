"""The layers that a model's configuration describes, and the order of each Keras class's variables.

`.keras` files number variables (`vars/0`, `vars/1`, …) in the order a layer created them: trainable ones first. The
tables below name them per class, for Keras 2.12 to 3.15. What no table covers keeps its number: `vars/<i>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptdoctor.model import JsonObject, Missing


@dataclass(frozen=True, slots=True)
class ConfigLayer:
    """One layer of the configuration.

    Attributes:
        name: the user's name with the names of the models around it, `outer/inner`.
        own: the last part of it, without the models around.
        class_name: Keras' class, for custom layers the user's.
        config: its own configuration.
        frozen: True where it, or a model around it, is set to `trainable: false`.
        layers: of a nested model, in order; empty otherwise.
        input_shape: from `build_config`, None where unknown.
    """

    name: str
    own: str
    class_name: str
    config: JsonObject
    frozen: bool
    layers: tuple[ConfigLayer, ...]
    input_shape: tuple[int | None, ...] | None = None

    @property
    def is_model(self) -> bool:
        """Whether it holds layers of its own."""
        return bool(self.layers)

    def leaves(self) -> Iterator[ConfigLayer]:
        """All layers below, nested models replaced by their content, in order."""
        stack = list(reversed(self.layers))
        while stack:
            layer = stack.pop()
            if layer.layers:
                stack.extend(reversed(layer.layers))
            else:
                yield layer


def config_tree(model_config: JsonObject | Missing | None) -> ConfigLayer | None:
    """The model of a configuration as a tree; None where there is none, or it is not the kind that lists layers."""
    if model_config is None or isinstance(model_config, Missing):
        return None
    return _config_layer(model_config, "", frozen=False, depth=0)


def _config_layer(raw: Any, prefix: str, *, frozen: bool, depth: int) -> ConfigLayer | None:
    if not isinstance(raw, Mapping) or depth > 64:
        return None
    config = raw.get("config")
    if isinstance(config, list):  # Keras 1 and early 2: a Sequential's configuration is its list of layers
        config = {"layers": config}
    if not isinstance(config, Mapping):
        config = {}
    class_name = raw.get("class_name")
    name = config.get("name") or raw.get("name")
    frozen = frozen or config.get("trainable") is False
    own = str(name) if isinstance(name, str) else ""
    path = own if not prefix else f"{prefix}/{own}"
    inner = config.get("layers")
    layers: list[ConfigLayer] = []
    if isinstance(inner, list):
        for item in inner:
            child = _config_layer(item, path if depth else "", frozen=frozen, depth=depth + 1)
            if child is not None:
                layers.append(child)
    build = raw.get("build_config")
    shape = build.get("input_shape") if isinstance(build, Mapping) else None
    spelled = class_name if isinstance(class_name, str) else ""
    return ConfigLayer(path, own, spelled, config, frozen, tuple(layers), _shape(shape))


def _shape(raw: Any) -> tuple[int | None, ...] | None:
    if not isinstance(raw, list) or len(raw) > 32:
        return None
    if all(e is None or (isinstance(e, int) and not isinstance(e, bool)) for e in raw):
        return tuple(raw)
    return None


def snake_case(class_name: str) -> str:
    """How Keras spells a class in paths: `Conv2DTranspose` as `conv2d_transpose`."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


# --- names of variables ----------------------------------------------------------------------------

_KERNEL = ("kernel", "bias")
_SCALE = ("gamma", "beta")
_RECURRENT = ("kernel", "recurrent_kernel", "bias")
_PLAIN: dict[str, tuple[str, ...]] = {
    "Dense": _KERNEL,
    "EinsumDense": _KERNEL,
    "Conv1D": _KERNEL,
    "Conv2D": _KERNEL,
    "Conv3D": _KERNEL,
    "Conv1DTranspose": _KERNEL,
    "Conv2DTranspose": _KERNEL,
    "Conv3DTranspose": _KERNEL,
    "Convolution1D": _KERNEL,
    "Convolution2D": _KERNEL,
    "Convolution3D": _KERNEL,
    "DepthwiseConv1D": _KERNEL,
    "DepthwiseConv2D": _KERNEL,
    "LocallyConnected1D": _KERNEL,
    "LocallyConnected2D": _KERNEL,
    "SeparableConv1D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "SeparableConvolution1D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "SeparableConvolution2D": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "Embedding": ("embeddings",),
    "ReversibleEmbedding": ("embeddings", "reverse_embeddings"),
    "LayerNormalization": _SCALE,
    "GroupNormalization": _SCALE,
    "RMSNormalization": ("scale",),
    "BatchNormalization": (*_SCALE, "moving_mean", "moving_variance"),
    "SyncBatchNormalization": (*_SCALE, "moving_mean", "moving_variance"),
    "Normalization": ("mean", "variance", "count"),
    "SpectralNormalization": ("wrapped_kernel", "vector_u"),
    "PReLU": ("alpha",),
    "Attention": ("scale", "concat_score_weight"),
    "AdditiveAttention": ("scale",),
    "STFTSpectrogram": ("real_kernel", "imag_kernel"),
    "Mean": ("total", "count"),
    "MeanMetricWrapper": ("total", "count"),
    "Sum": ("total",),
    **dict.fromkeys(
        (
            "LSTM",
            "GRU",
            "SimpleRNN",
            "ConvLSTM1D",
            "ConvLSTM2D",
            "ConvLSTM3D",
            "LSTMCell",
            "GRUCell",
            "SimpleRNNCell",
            "LSTMV1",
            "GRUV1",
            "CuDNNLSTM",
            "CuDNNGRU",
        ),
        _RECURRENT,
    ),
}
_COMPOSITE = (
    "MultiHeadAttention",
    "GroupedQueryAttention",
    "Bidirectional",
    "TimeDistributed",
    "RNN",
    "StackedRNNCells",
    "Wrapper",
)
KERAS_CLASSES = frozenset((*_PLAIN, *_COMPOSITE))
_BY_SNAKE = {snake_case(name): name for name in (*_PLAIN, *_COMPOSITE)}
_BY_SNAKE["group_query_attention"] = "GroupedQueryAttention"
_NUMBERED = re.compile(r"_\d+$")

STATISTICS = frozenset(
    {"moving_mean", "moving_variance", "mean", "variance", "moving_stddev", "renorm_mean", "renorm_stddev"}
)
STATES = frozenset(
    {
        "count",
        "vector_u",
        "wrapped_kernel",  # the same variable as the wrapped layer's kernel, stored a second time
        "seed_generator_state",
        "seed",
        "kernel_scale",
        "kernel_zero",
        "zero_point",
        "g_idx",
        "awq_scales",
        "embeddings_scale",
        "embeddings_zero",
        "reverse_embeddings_scale",
        "reverse_embeddings_zero",
        "inputs_scale",
        "inputs_amax_history",
        "kernel_amax_history",
        "outputs_grad_scale",
        "outputs_grad_amax_history",
        "real_kernel",
        "imag_kernel",
    }
)


def class_of(component: str) -> str | None:
    """The Keras class that a path component or an automatic layer name stands for: `dense_12` is a `Dense`."""
    found = _BY_SNAKE.get(component)
    return found if found is not None else _BY_SNAKE.get(_NUMBERED.sub("", component))


def quantization_mode(config: JsonObject | None) -> str | None:
    """`int8`, `int4`, `float8`, `gptq`, `awq` from a layer's dtype policy; None for an ordinary layer."""
    policy = config.get("dtype") if config else None
    while isinstance(policy, Mapping):
        inner = policy.get("config")
        if not isinstance(inner, Mapping):
            return None
        mode = inner.get("mode")
        if isinstance(mode, str):
            return mode.split("/", 1)[0]
        policy = inner.get("name")
    if not isinstance(policy, str):
        return None
    found = re.match(r"(int8|int4|float8|gptq|awq)(?:[_/].*)?_from_|^(int8|int4|float8|gptq|awq)/", policy)
    return None if found is None else found.group(1) or found.group(2)


_FLOAT8_STATE = (
    "inputs_scale",
    "inputs_amax_history",
    "kernel_scale",
    "kernel_amax_history",
    "outputs_grad_scale",
    "outputs_grad_amax_history",
)


def variable_names(
    class_name: str | None,
    config: JsonObject | None,
    shapes: Sequence[tuple[int, ...]],
    dtypes: Sequence[str],
    *,
    numbers: Sequence[int] | None = None,
) -> list[str]:
    """Names of a layer's numbered variables, in order.

    Args:
        class_name: Keras class, None where unknown.
        config: the layer's configuration, None where the file has none.
        shapes, dtypes: of the stored variables, in order.
        numbers: their numbers, where a damaged file may lack some of them.

    Returns:
        As many names as shapes; `vars/<i>` where the class does not settle them.
    """
    count = len(shapes)
    numbered = [f"vars/{i}" for i in (numbers if numbers is not None else range(count))]
    if class_name is None or class_name not in _PLAIN:
        return numbered
    if class_name == "SpectralNormalization" and config is not None:
        config = None  # its own variables do not depend on it
    partial: list[str] | None = None
    for names in _candidates(class_name, config, dtypes):
        if len(names) == count and (numbers is None or list(numbers) == list(range(count))):
            return list(names)
        if partial is None and numbers is not None and all(i < len(names) for i in numbers):
            partial = [names[i] for i in numbers]
    return partial if partial is not None else numbered


def _candidates(class_name: str, config: JsonObject | None, dtypes: Sequence[str]) -> Iterator[Sequence[str]]:
    """Lists of names that the class may have written, likeliest first; the count decides."""
    plain = _PLAIN[class_name]
    mode = quantization_mode(config)
    if plain is _KERNEL:
        yield from _kernel_candidates(config, mode, dtypes)
        return
    if class_name in ("Embedding", "ReversibleEmbedding"):
        yield from _embedding_candidates(class_name, mode, dtypes)
        return
    if class_name.endswith("BatchNormalization"):
        moving = plain[2:]
        scale = [n for n, on in (("gamma", "scale"), ("beta", "center")) if config is None or config.get(on, True)]
        if config is not None and config.get("renorm"):
            yield [*scale, *moving, "moving_stddev", "renorm_mean", "renorm_stddev"]
        yield [*scale, *moving]
        if config is None:
            yield ["vars/0", *moving]  # gamma or beta: nothing tells which
            yield moving
        return
    if plain is _SCALE:
        if config is not None:
            yield [n for n, on in (("gamma", "scale"), ("beta", "center")) if config.get(on, True)]
        yield plain
        return
    if class_name == "Attention" and config is not None:
        yield [
            n
            for n, on in (
                ("scale", config.get("use_scale")),
                ("concat_score_weight", config.get("score_mode") == "concat"),
            )
            if on
        ]
    for length in range(len(plain), 0, -1):
        yield plain[:length]


def _kernel_candidates(config: JsonObject | None, mode: str | None, dtypes: Sequence[str]) -> Iterator[Sequence[str]]:
    biased = None if config is None else config.get("use_bias", config.get("bias_axes", True)) not in (False, None)
    for bias in (("bias",), ()) if biased is None else ((("bias",) if biased else ()),):
        base = ("kernel", *bias)
        if mode == "float8" or (mode is None and len(dtypes) >= 7):
            yield (*base, *_FLOAT8_STATE)
        if mode in ("gptq", "awq"):
            scales = ("awq_scales",) if mode == "awq" else ()
            yield (*bias, "quantized_kernel", "kernel_scale", "kernel_zero", *scales, "g_idx")
        if mode in ("int8", "int4") or (mode is None and dtypes and dtypes[0] in ("int8", "int4", "uint8")):
            yield (*base, "kernel_scale")
            yield (*base, "kernel_scale", "kernel_zero", "g_idx")
            yield (*base, "kernel_scale", "kernel_zero")
        yield base


def _embedding_candidates(class_name: str, mode: str | None, dtypes: Sequence[str]) -> Iterator[Sequence[str]]:
    base = ("embeddings",)
    if mode in ("int8", "int4") or (mode is None and dtypes and dtypes[0] in ("int8", "int4", "uint8")):
        yield (*base, "embeddings_scale")
        yield (*base, "embeddings_scale", "embeddings_zero", "g_idx")
        yield (*base, "embeddings_scale", "embeddings_zero")
        if class_name == "ReversibleEmbedding":
            yield (*base, "embeddings_scale", "reverse_embeddings", "reverse_embeddings_scale")
    yield base
    if class_name == "ReversibleEmbedding":
        yield (*base, "reverse_embeddings")
