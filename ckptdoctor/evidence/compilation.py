"""What `compile` was given, from `compile_config` (Keras 3) or `training_config` (Keras 2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptdoctor.evidence.names import LOSSES, OPTIMIZERS, YOUNG_LOSSES, loss_name
from ckptdoctor.evidence.serialized import MAX_DEPTH, NOTHING, bare_class, config_of, mapping, number, text
from ckptdoctor.model import CompileSpec, JsonObject, LossSpec, Missing, OptimizerSpec

_OPTIMIZER_NAMES = {name.lower(): name for name in OPTIMIZERS}
_MAX_OUTPUTS = 1000


def read_compile(compile_config: JsonObject | Missing, outputs: tuple[str, ...]) -> CompileSpec | Missing:
    """The training set-up, as far as it was saved. `outputs` names the model's output layers, for lists of losses."""
    if isinstance(compile_config, Missing):
        return compile_config
    if not compile_config:
        return Missing("the model was saved without having been compiled")
    serialized = compile_config.get("optimizer", compile_config.get("optimizer_config"))
    jit = compile_config.get("jit_compile")
    return CompileSpec(
        optimizer=read_optimizer(serialized),
        losses=tuple(_losses(compile_config.get("loss"), outputs)),
        metrics=tuple(_metrics(compile_config.get("metrics"))),
        jit_compile=jit if isinstance(jit, bool) else None,
    )


def read_optimizer(serialized: Any) -> OptimizerSpec | Missing:
    """A serialised optimizer; a `LossScaleOptimizer` is looked through."""
    if isinstance(serialized, str):
        serialized = {"class_name": _OPTIMIZER_NAMES.get(serialized.lower(), serialized), "config": {}}
    loss_scaled = False
    class_name = bare_class(serialized)
    for _ in range(4):
        inner = config_of(serialized).get("inner_optimizer")
        if class_name is None or not class_name.startswith("LossScaleOptimizer"):
            break
        loss_scaled = True
        if bare_class(inner) is None:
            break
        serialized, class_name = mapping(inner), bare_class(inner)
    if class_name is None:
        return Missing("no optimizer was saved with the model")
    config = config_of(serialized)
    rate = config.get("learning_rate", config.get("lr"))
    schedule = mapping(rate) if bare_class(rate) not in (None, "__numpy__", "__tensor__") else None
    value = number(rate) if schedule is None else None
    absent = "a schedule sets it" if schedule else "the saved optimizer does not record one"
    return OptimizerSpec(
        class_name=class_name,
        custom=class_name not in OPTIMIZERS,
        learning_rate=Missing(absent) if value is None else value,
        schedule=schedule,
        epsilon=number(config.get("epsilon")),
        momentum=number(config.get("momentum")),
        clipnorm=number(config.get("clipnorm")),
        clipvalue=number(config.get("clipvalue")),
        global_clipnorm=number(config.get("global_clipnorm")),
        use_ema=config.get("use_ema") is True,
        loss_scaled=loss_scaled,
        config=config,
    )


def _losses(loss: Any, outputs: tuple[str, ...]) -> Iterator[LossSpec]:
    found = mapping(loss)
    if found and bare_class(found) is None:
        for output, inner in list(found.items())[:_MAX_OUTPUTS]:
            yield from _loss(inner, text(output))
        return
    if isinstance(loss, list | tuple):
        several = len(loss) > 1
        for i, inner in enumerate(loss[:_MAX_OUTPUTS]):
            named = outputs[i] if len(outputs) == len(loss) else str(i)
            yield from _loss(inner, named if several else None)
        return
    yield from _loss(loss, None)


def _loss(serialized: Any, output: str | None) -> Iterator[LossSpec]:
    if isinstance(serialized, list | tuple):
        serialized = serialized[0] if serialized else None
    config: JsonObject = NOTHING
    if isinstance(serialized, str):
        name = text(serialized)
    else:
        config = config_of(serialized)
        name = _function_name(serialized)
    if name:
        canonical = loss_name(name)
        yield LossSpec(
            output=output,
            name=canonical,
            custom=canonical not in LOSSES or (isinstance(serialized, str) and name in YOUNG_LOSSES),
            from_logits=config.get("from_logits") is True
            or mapping(config.get("fn_kwargs")).get("from_logits") is True,
            config=config,
        )


def _function_name(serialized: Any) -> str | None:
    """Name of a serialised function or of an object that wraps one."""
    found = mapping(serialized)
    class_name = text(found.get("class_name"))
    if class_name == "__lambda__":
        return "<lambda>"
    config = found.get("config")
    if isinstance(config, str) and class_name == "function":
        return text(config)
    if class_name is not None and class_name.endswith("Wrapper"):
        inner = mapping(config).get("fn")
        return text(inner) or _function_name(inner) if inner is not serialized else None
    return bare_class(found)


def _metrics(metrics: Any, level: int = 0) -> Iterator[str]:
    """Names of metrics as logs show them, in order, each once per place it stands in."""
    if level > MAX_DEPTH // 4:
        return
    if isinstance(metrics, str):
        if name := text(metrics):
            yield name
        return
    if isinstance(metrics, list | tuple):
        for inner in metrics[:_MAX_OUTPUTS]:
            yield from _metrics(inner, level + 1)
        return
    found = mapping(metrics)
    if bare_class(found) is not None:
        name = text(config_of(found).get("name")) or _function_name(found)
        if name:
            yield name
        return
    for inner in list(found.values())[:_MAX_OUTPUTS]:
        yield from _metrics(inner, level + 1)
