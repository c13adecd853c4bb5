"""The model and its training set-up, as the saved configuration describes them."""

from __future__ import annotations

from dataclasses import dataclass, field

from ckptdoctor.model.base import JsonObject, Missing


@dataclass(frozen=True, slots=True)
class Operand:
    """One argument of an operation's call: another layer's output, or a number.

    Attributes:
        layer: flattened name of the layer it comes from; None for a number.
        number: its value; None for a tensor.
        dtype: of the tensor, where the configuration says so.
    """

    layer: str | None = None
    number: float | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """One layer. Nested models are flattened: their layers are named `outer/inner`.

    Attributes:
        name: the user's name, with the names of the models around it.
        class_name: `Dense`, `Conv2D`, …; for wrappers (`Bidirectional`, `TimeDistributed`) the wrapper.
        registered: `package>Name` for custom classes, None for Keras' own.
        inbound: names of the layers whose output it takes (flattened), in order.
        activation: name of the activation; `linear` where the class has one and none was set; None without one.
        units: size of the output's last axis where the configuration says so (units, filters, output_dim).
        dtype_policy: `float32`, `mixed_float16`, …
        trainable: False only where the configuration freezes it.
        depth: longest distance from an input, counted in layers.
        config: the raw configuration of the layer.
        operands: what its first call was given, in order; empty where the configuration has no graph.
    """

    name: str
    class_name: str
    registered: str | None
    inbound: tuple[str, ...]
    activation: str | None
    units: int | None
    dtype_policy: str
    trainable: bool
    depth: int
    config: JsonObject = field(repr=False)
    operands: tuple[Operand, ...] = ()


@dataclass(frozen=True, slots=True)
class LossSpec:
    """One loss of `compile`.

    Attributes:
        output: the output's name for models with several, else None.
        name: canonical snake case (`mean_squared_error`, `sparse_categorical_crossentropy`, …) or the custom name.
        custom: True where it is not one of Keras' own.
        from_logits: as configured; False where the loss has no such option.
    """

    output: str | None
    name: str
    custom: bool
    from_logits: bool
    config: JsonObject = field(repr=False)


@dataclass(frozen=True, slots=True)
class OptimizerSpec:
    """The optimizer as `compile_config` has it.

    `learning_rate` is a number, or Missing where a schedule (see `schedule`) or nothing is recorded; it may be NaN.
    """

    class_name: str
    custom: bool
    learning_rate: float | Missing
    schedule: JsonObject | None
    epsilon: float | None
    momentum: float | None
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    loss_scaled: bool
    config: JsonObject = field(repr=False)

    @property
    def clips(self) -> bool:
        """Whether any gradient clipping is set."""
        return any(c is not None for c in (self.clipnorm, self.clipvalue, self.global_clipnorm))


@dataclass(frozen=True, slots=True)
class CompileSpec:
    """What `compile` was given."""

    optimizer: OptimizerSpec | Missing
    losses: tuple[LossSpec, ...]
    metrics: tuple[str, ...]
    jit_compile: bool | None


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The model's graph, flattened.

    Attributes:
        class_name: `Functional`, `Sequential` or a custom class.
        layers: in topological order where the graph is known, else in the configuration's order.
        inputs, outputs: names of the layers that take the input and give the output.
        graph_known: False for subclassed models: `inbound` and `depth` are then empty and 0.
        custom_objects: registered names (or class names) that are not Keras' own.
        global_policy: the dtype policy shared by most layers.
    """

    name: str
    class_name: str
    layers: tuple[LayerSpec, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    graph_known: bool
    custom_objects: tuple[str, ...]
    global_policy: str
    compile: CompileSpec | Missing

    def layer(self, name: str) -> LayerSpec | None:
        """The layer of that flattened name."""
        return next((layer for layer in self.layers if layer.name == name), None)
