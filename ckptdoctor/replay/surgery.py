"""Changes that need a graph of their own: loss, activations, optimizer, precision, structure."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from ckptdoctor.model import Cause
from ckptdoctor.replay.batches import Batch
from ckptdoctor.replay.code import OptimizerCode
from ckptdoctor.replay.dialect import Dialect
from ckptdoctor.replay.lab import Lab, Setup, Trial, model_start
from ckptdoctor.replay.losses import LossPlan
from ckptdoctor.replay.skill import judge_for
from ckptdoctor.replay.state import Snapshot
from ckptdoctor.replay.step import TrainingStep

Edit = Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def attributes(changes: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Set attributes of objects and put them back."""
    kept = [(thing, name, getattr(thing, name)) for thing, name, _ in changes]
    for thing, name, value in changes:
        setattr(thing, name, value)
    try:
        yield
    finally:
        for thing, name, value in kept:
            setattr(thing, name, value)


def in_place_trial(
    key: str,
    change: str,
    cause: Cause,
    code: str,
    changes: Sequence[tuple[Any, str, Any]],
    *,
    layer: str | None = None,
    plan: LossPlan | None = None,
    alter: Callable[[Batch], Batch] | None = None,
    redraw: int | None = None,
) -> Trial:
    """Exchange attributes of layers or of the optimizer, and with `plan` the loss.

    Args:
        changes: (object, attribute, new value). alter: applied to every batch.
        redraw: seed to draw the weights anew with, where the change needs other initial weights.
    """

    @contextlib.contextmanager
    def setup(lab: Lab) -> Iterator[Setup]:
        model, base = lab.step.model, lab.step
        with attributes(changes):
            if plan is not None:
                recompile(model, model.optimizer, plan)
            try:
                step = TrainingStep(base.dialect, model, plan or base.plan)
                start = _redrawn(base, lab, redraw) if redraw is not None else lab.start
                train = [alter(b) for b in lab.train] if alter else list(lab.train)
                held = [alter(b) for b in lab.held_out] if alter else list(lab.held_out)
                yield Setup(step, start, train, held, judge_for(step, train))
            finally:
                if plan is not None:
                    recompile(model, model.optimizer, base.plan)

    return Trial(key, change, cause, code, setup, compiles=True, layer=layer)


def _redrawn(base: TrainingStep, lab: Lab, seed: int) -> Snapshot:
    from ckptdoctor.replay.changes import redrawn

    return redrawn(base, lab.start, seed)


def recompile(model: Any, optimizer: Any, plan: LossPlan) -> None:
    """Compile with an existing optimizer, whose slots stay."""
    single = len(plan.losses) == 1
    arguments: dict[str, Any] = {
        "optimizer": optimizer,
        "loss": plan.losses[0] if single else list(plan.losses),
        "jit_compile": False,
    }
    if plan.weights is not None:
        arguments["loss_weights"] = plan.weights[0] if single else list(plan.weights)
    model.compile(**arguments)


def optimizer_trial(key: str, change: str, cause: Cause, code: str, make: Callable[[], Any]) -> Trial:
    """Train with another optimizer, its slots fresh."""

    @contextlib.contextmanager
    def setup(lab: Lab) -> Iterator[Setup]:
        model, base = lab.step.model, lab.step
        kept = model.optimizer
        recompile(model, make(), base.plan)
        base.dialect.build_optimizer(model.optimizer, model.trainable_variables)
        try:
            step = TrainingStep(base.dialect, model, base.plan)
            yield Setup(step, model_start(step, base, lab.start), lab.train, lab.held_out, lab.judge)
        finally:
            recompile(model, kept, base.plan)

    return Trial(key, change, cause, code, setup, compiles=True)


def rebuilt_trial(
    key: str,
    change: str,
    cause: Cause,
    code: str,
    edit: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    policy: str = "float32",
    layer: str | None = None,
    alter: Callable[[Batch], Batch] | None = None,
    plan: Callable[[Any], LossPlan] | None = None,
    fresh: bool = False,
) -> Trial:
    """Edit the configuration, rebuild the model from it, and carry over the weights that still fit.

    Args:
        edit: takes a deep copy of the model's own configuration and returns the one to build.
        policy: global dtype policy of the new model. alter: applied to every batch.
        plan: makes the loss for the new model; the run's own otherwise. fresh: start from new weights.
    """

    @contextlib.contextmanager
    def setup(lab: Lab) -> Iterator[Setup]:
        base = lab.step
        dialect, keras = base.dialect, base.dialect.keras
        before = _policy(dialect)
        dialect.set_policy(policy)
        try:
            config = edit(copy.deepcopy(own_config(base.model)))
            dialect.set_seed(0)
            with keras.utils.custom_object_scope(dict(lab.known)):
                model = type(base.model).from_config(config["config"])
            if not model.built:
                model(lab.train[0].inputs[0][:1])
            made = plan(model) if plan is not None else base.plan
            kept = getattr(base.model.optimizer, "inner_optimizer", base.model.optimizer)
            optimizer = type(kept).from_config(optimizer_config(kept))
            recompile(model, optimizer, made)
            dialect.build_optimizer(model.optimizer, model.trainable_variables)
            if not fresh:
                carry_over(base, lab.start, model)
            step = TrainingStep(dialect, model, made)
            step.set_rate_factor(1.0, base.learning_rate)
            start = Snapshot(tuple(v.numpy() for v in step.variables))
            train = [alter(b) for b in lab.train] if alter else list(lab.train)
            held = [alter(b) for b in lab.held_out] if alter else list(lab.held_out)
            yield Setup(step, start, train, held, judge_for(step, train))
        finally:
            dialect.set_policy(before)

    return Trial(key, change, cause, code, setup, compiles=True, layer=layer)


def optimizer_config(optimizer: Any) -> dict[str, Any]:
    config = dict(optimizer.get_config())
    rate = config.get("learning_rate")
    if not isinstance(rate, (int, float)):
        # a schedule that was wrapped to be scaled; its value at this step is close enough for an experiment
        config["learning_rate"] = float(np.asarray(optimizer.learning_rate))
    return config


def _policy(dialect: Dialect) -> str:
    keras = dialect.keras
    policy = keras.mixed_precision.global_policy() if dialect.legacy else keras.config.dtype_policy()
    return str(policy.name)


def own_config(model: Any) -> dict[str, Any]:
    """The model as Keras serialises it now, without its compile configuration."""
    return {"class_name": type(model).__name__, "config": model.get_config()}


def carry_over(base: TrainingStep, start: Snapshot, model: Any) -> None:
    """Copy weights by layer name and place where the shapes agree; others keep their fresh values."""
    from ckptdoctor.replay.dialect import raw
    from ckptdoctor.replay.naming import named_layers

    values = {id(v): value for v, value in zip(base.variables, start.values, strict=True)}
    ours = {named.name: named.layer for named in base.owners.layers}
    for named in named_layers(model):
        old = ours.get(named.name)
        if old is None:
            continue
        for new_variable, old_variable in zip(named.layer.weights, old.weights, strict=False):
            value = values.get(id(raw(old_variable)))
            if value is not None and tuple(new_variable.shape) == value.shape:
                raw(new_variable).assign(value.astype(raw(new_variable).dtype.as_numpy_dtype))


# --- edits of a configuration -----------------------------------------------------------------


def all_float32(config: Any) -> Any:
    """Every dtype of floats in the configuration replaced by float32."""
    if isinstance(config, dict):
        return {k: "float32" if k == "dtype" and _is_float_dtype(v) else all_float32(v) for k, v in config.items()}
    if isinstance(config, list):
        return [all_float32(v) for v in config]
    return config


def _is_float_dtype(value: Any) -> bool:
    name = value.get("config", {}).get("name") if isinstance(value, dict) else value
    return isinstance(name, str) and "float" in name


def inputs_as_float32(batch: Batch) -> Batch:
    """Half precision inputs widened."""
    from dataclasses import replace

    return replace(
        batch,
        inputs=tuple(
            a.astype(np.float32) if a.dtype.kind in "fV" and a.dtype.itemsize < 4 else a for a in batch.inputs
        ),
    )


def with_normalisation(config: dict[str, Any], after: Sequence[str]) -> dict[str, Any]:
    """A Sequential configuration with a BatchNormalization behind each of the named layers.

    Raises:
        ValueError: the model is not a plain stack.
    """
    if config.get("class_name") != "Sequential":
        raise ValueError("only a plain stack of layers is rebuilt with normalisation")
    layers: list[Any] = []
    for layer in config["config"]["layers"]:
        layers.append(layer)
        name = layer.get("config", {}).get("name")
        if name in after:
            layers.append(
                {
                    "module": "keras.layers",
                    "class_name": "BatchNormalization",
                    "config": {"name": f"{name}_norm"},
                    "registered_name": None,
                }
            )
    config["config"]["layers"] = layers
    config["config"].pop("build_input_shape", None)
    config.pop("build_config", None)
    return config


def with_layer_norms(config: Any, names: Collection[str]) -> Any:
    """The configuration with the named normalisations, nested models included, changed or left out.

    A BatchNormalization becomes a LayerNormalization, which needs no second row; another one is left out.
    """
    if isinstance(config, list):
        return [with_layer_norms(v, names) for v in config]
    if not isinstance(config, dict):
        return config
    known = {
        "BatchNormalization": "LayerNormalization",
        "LayerNormalization": "Identity",
        "GroupNormalization": "Identity",
    }
    inner = config.get("config")
    kind = config.get("class_name")
    if isinstance(kind, str) and kind in known and isinstance(inner, dict) and inner.get("name") in names:
        kept = {k: v for k, v in inner.items() if k in ("name", "trainable", "dtype")}
        changed = {k: v for k, v in config.items() if k != "build_config"}
        changed["inbound_nodes"] = _without_masks(config.get("inbound_nodes", []))
        return changed | {"module": "keras.layers", "class_name": known[kind], "config": kept}
    return {k: with_layer_norms(v, names) for k, v in config.items()}


def _without_masks(nodes: Any) -> Any:
    """Calls of a layer without the argument `mask`, which only some layers take."""
    if not isinstance(nodes, list):
        return nodes
    return [
        node | {"kwargs": {k: v for k, v in node["kwargs"].items() if k != "mask"}}
        if isinstance(node, dict) and isinstance(node.get("kwargs"), dict)
        else node
        for node in nodes
    ]


def with_head(config: dict[str, Any], name: str, units: int, activation: str) -> dict[str, Any]:
    """The configuration with another number of units and activation in the named Dense head.

    Raises:
        ValueError: there is no such layer.
    """
    for layer in config["config"]["layers"]:
        if layer.get("config", {}).get("name") == name and "units" in layer["config"]:
            layer["config"].update(units=units, activation=activation)
            layer.pop("build_config", None)
            return config
    raise ValueError(f"there is no Dense layer {name} to change")


def adam(dialect: Dialect, rate: float) -> Callable[[], Any]:
    """A maker of Adam optimizers."""
    return lambda: dialect.keras.optimizers.Adam(learning_rate=rate)


def describe_adam(code: OptimizerCode, rate: float) -> str:
    """The line for Adam in place of the run's optimizer."""
    return OptimizerCode("Adam", rate, scheduled=False, options={}).with_rate(rate) + f"  # instead of {code.name}"
