"""From files to a compiled model: configuration, policy, weights, slots."""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ckptdoctor.model import LeftOut, ReplayStatus
from ckptdoctor.replay.allowlist import REMOVABLE, config_problems
from ckptdoctor.replay.batches import Recording, arrange, check_shapes
from ckptdoctor.replay.deserialise import deserialise, version_numbers
from ckptdoctor.replay.dialect import Dialect, keras_2, keras_3
from ckptdoctor.replay.failure import CannotReplay, brief
from ckptdoctor.replay.labelrange import LabelRange, as_on_a_gpu, find_label_range
from ckptdoctor.replay.losses import LossPlan, masked_targets, plan_losses, rebuild_optimizer, snake, substitute
from ckptdoctor.replay.request import ReplayRequest

OLDEST_KERAS = (3, 15, 1)  # earlier ones can be made to read outside files while loading


@dataclass(slots=True)
class Rebuilt:
    """A compiled model with fresh weights.

    Attributes:
        fresh: values of all variables as they were initialised, for healing and fresh starts.
        recording: with inputs and targets in the model's order.
        left_out: custom constraints and the like that were dropped.
        labels: class indices outside the head, which the loss then treats as a GPU does.
    """

    dialect: Dialect
    model: Any
    plan: LossPlan
    config: dict[str, Any] | None
    known: dict[str, Any]
    recording: Recording
    left_out: tuple[LeftOut, ...] = ()
    labels: LabelRange | None = None
    notes: list[str] = field(default_factory=list)


def import_dotted(module: str, what: str) -> Any:
    """Import a module of the user's, looked for in the working directory too.

    Raises:
        CannotReplay: it cannot be imported.
    """
    if "" not in sys.path:
        sys.path.append("")  # after the installed packages, so that no file there can shadow one of them
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise CannotReplay(
            f"{what} names the module '{module}', which cannot be imported ({brief(error, 160)})"
        ) from error


def custom_objects(request: ReplayRequest) -> dict[str, Any]:
    """Public classes and functions of the module that `--custom-objects` names."""
    if request.custom_objects is None:
        return {}
    module = import_dotted(request.custom_objects, "--custom-objects")
    return {n: o for n, o in vars(module).items() if not n.startswith("_") and callable(o)}


def choose_dialect(request: ReplayRequest) -> Dialect:
    """The Keras that can read the run's configuration.

    Raises:
        CannotReplay: the installed one is too old, or the file needs `tf_keras`.
    """
    three = keras_3()
    installed = version_numbers(three.version)
    if installed < OLDEST_KERAS:
        raise CannotReplay(
            f"the installed Keras {three.version} can be made to read outside files while loading; "
            "replay needs Keras 3.15.1 or newer: pip install -U keras"
        )
    wrote = version_numbers(request.keras_version or "")
    if wrote and wrote[0] < 3 and request.build is None:
        two = keras_2()
        if two is None:
            raise CannotReplay(
                f"the file was written by Keras {request.keras_version}; replay needs tf_keras: pip install tf_keras"
            )
        return two
    return three


def rebuild(request: ReplayRequest, dialect: Dialect, recording: Recording) -> Rebuilt:
    """The compiled model with its optimizer built, weights fresh.

    Raises:
        CannotReplay: it cannot be rebuilt; the reason says what is missing.
    """
    known = custom_objects(request)
    dialect.set_seed(request.seed)
    if request.build is not None:
        return _from_build_function(request, dialect, known, recording)
    assert request.model_config is not None
    config = copy.deepcopy(dict(request.model_config))
    config.pop("compile_config", None)
    left_out = _strip_custom(config, known)
    dialect.set_policy(_global_policy(request, config))
    model = deserialise(request, dialect, config, known)
    if not model.built:
        _build_on(model, recording)
    recording = fitted(model, recording)
    plan = loss_plan(dialect, model, request.compile_config, known, recording)
    if plan.substituted and not request.failed and _targets_with_gaps(recording):
        # Targets that are NaN did no harm under the run's own loss: it leaves them out, and so must its substitute.
        plan = replace(plan, losses=tuple(masked_targets(dialect, one) for one in plan.losses))
    plan, labels = _with_gpu_labels(dialect, model, plan, recording)
    optimizer = rebuild_optimizer(dialect, request.compile_config, known)
    compile_model(dialect, model, optimizer, plan)
    rebuilt = Rebuilt(dialect, model, plan, config, known, recording, left_out, labels)
    if left_out:
        words = dict.fromkeys(f"{one.kind} '{one.name}'" for one in left_out)
        rebuilt.notes.append(f"left out, their code is not at hand: {', '.join(words)}")
    return rebuilt


def fitted(model: Any, recording: Recording) -> Recording:
    """The recording in the model's order.

    Raises:
        CannotReplay: it does not fit the model's inputs.
    """
    recording = arrange(recording, input_names(model), output_names(model))
    if getattr(model, "inputs", None):
        check_shapes(recording, [tuple(i.shape) for i in model.inputs], input_names(model))
    return recording


def _with_gpu_labels(
    dialect: Dialect, model: Any, plan: LossPlan, recording: Recording
) -> tuple[LossPlan, LabelRange | None]:
    """Where class indices leave the head, the plan with a loss that gives NaN for them as a GPU does."""
    outputs = getattr(model, "outputs", None) or []
    ignored = [getattr(one, "ignore_class", None) for one in plan.losses]
    found = find_label_range(plan.names, [int(o.shape[-1] or 0) for o in outputs], recording.batches, ignored)
    if found is None:
        return plan, None
    losses = list(plan.losses)
    losses[found.output] = as_on_a_gpu(dialect, losses[found.output], found.classes)
    return replace(plan, losses=tuple(losses)), found


def _from_build_function(
    request: ReplayRequest, dialect: Dialect, known: dict[str, Any], recording: Recording
) -> Rebuilt:
    assert request.build is not None
    module_name, _, function = request.build.partition(":")
    module = import_dotted(module_name, "--build")
    maker = getattr(module, function, None)
    if not callable(maker):
        raise CannotReplay(f"--build names {function}, which {module_name} does not define")
    try:
        model = maker()
    except Exception as error:
        raise CannotReplay(f"{request.build} raised {brief(error)}") from error
    if not isinstance(model, dialect.keras.Model):
        raise CannotReplay(f"{request.build} returned {type(model).__name__}, not a Keras model")
    if not model.built:
        raise CannotReplay(f"{request.build} returned a model that is not built; give it an Input, or call it once")
    losses = getattr(model, "loss", None) if getattr(model, "compiled", model.optimizer is not None) else None
    if losses is None:
        raise CannotReplay(f"{request.build} returned a model that is not compiled; compile it as the training did")
    names = list(model.output_names) if getattr(model, "output_names", None) else ["output"]
    made = plan_losses(dialect, {"loss": losses}, names, {}) if isinstance(losses, (str, dict)) else losses
    listed = tuple(made) if isinstance(made, (list, tuple)) else (made,)
    plan = LossPlan(listed, None, tuple(snake(_name_of(one)) for one in listed), "build function")
    dialect.build_optimizer(model.optimizer, model.trainable_variables)
    recording = fitted(model, recording)
    gpu_plan, labels = _with_gpu_labels(dialect, model, plan, recording)
    if labels is not None:
        compile_model(dialect, model, model.optimizer, gpu_plan)
    return Rebuilt(dialect, model, gpu_plan, None, known, recording, labels=labels)


def _name_of(loss: Any) -> str:
    return loss if isinstance(loss, str) else str(getattr(loss, "name", None) or getattr(loss, "__name__", "loss"))


def _strip_custom(config: Any, known: Mapping[str, Any]) -> tuple[LeftOut, ...]:
    """Remove custom constraints, regularizers and initializers in place: they do not change a forward pass."""
    names: list[LeftOut] = []
    if isinstance(config, dict):
        for key, value in config.items():
            if key.endswith(REMOVABLE) and isinstance(value, dict):
                problems = [p for p in config_problems(value) if p.custom and p.subject not in known]
                if problems:
                    function = value.get("config") if value.get("class_name") == "function" else None
                    subject = function if isinstance(function, str) else value.get("class_name")
                    names.append(LeftOut(key.rpartition("_")[2], str(subject), str(config.get("name", ""))))
                    config[key] = None
                    if key.endswith("_initializer"):
                        config[key] = "glorot_uniform" if key.startswith("kernel") else "zeros"
                    continue
            names.extend(_strip_custom(value, known))
    elif isinstance(config, list):
        for value in config:
            names.extend(_strip_custom(value, known))
    return tuple(dict.fromkeys(names))


def _global_policy(request: ReplayRequest, config: Mapping[str, Any]) -> str:
    """The policy training ran under: that of most layers, but `mixed_float16` only where the loss was scaled.

    Keras scales the loss only under the *global* policy; with policies on single layers it does not, and the
    checkpoints hold no loss scale.
    """
    policies: dict[str, int] = {}
    _count_policies(config, policies)
    most = max(policies, key=lambda name: policies[name], default="float32")
    if most == "mixed_float16" and not request.loss_scaled:
        return "float32"
    return (
        most if most in ("float32", "float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16") else "float32"
    )


def _count_policies(node: Any, counts: dict[str, int]) -> None:
    if isinstance(node, Mapping):
        if isinstance(node.get("class_name"), str) and isinstance(node.get("config"), Mapping):
            name = _policy_of(node["config"].get("dtype"))
            if name and node["class_name"] not in ("InputLayer", "DTypePolicy", "Policy", "__keras_tensor__"):
                counts[name] = counts.get(name, 0) + 1
        for value in node.values():
            _count_policies(value, counts)
    elif isinstance(node, list):
        for value in node:
            _count_policies(value, counts)


def _policy_of(dtype: Any) -> str | None:
    if isinstance(dtype, str):
        return dtype
    if isinstance(dtype, Mapping) and isinstance(dtype.get("config"), Mapping):
        name = dtype["config"].get("name")
        return name if isinstance(name, str) else None
    return None


def _build_on(model: Any, recording: Recording) -> None:
    first = recording.batches[0].inputs
    try:
        model(first[0][:1] if len(first) == 1 else [a[:1] for a in first], training=False)
    except Exception as error:
        raise CannotReplay(f"the model cannot be built on the recorded batches ({brief(error)})") from error


def loss_plan(
    dialect: Dialect, model: Any, config: Mapping[str, Any] | None, known: Mapping[str, Any], recording: Recording
) -> LossPlan:
    """The run's loss, or a substitute where its code is missing."""
    names = output_names(model)
    made = plan_losses(dialect, config, names, known)
    weights = _loss_weights(config, names)
    if not isinstance(made, str):
        labels = tuple(snake(str(getattr(one, "name", "loss"))) for one in made)
        source = "custom objects" if any(_is_known(one, known) for one in made) else "rebuilt"
        return LossPlan(made, weights, labels, source)
    substitutes = []
    for n, output in enumerate(model.outputs if getattr(model, "outputs", None) else [None]):
        shape = tuple(int(e or 1) for e in output.shape[1:]) if output is not None else ()
        targets = recording.stacked_targets(n) if n < len(recording.batches[0].targets) else None
        substitutes.append(substitute(dialect, head_activation(model, n), shape, targets))
    return LossPlan(
        tuple(substitutes), None, tuple(snake(str(one.name)) for one in substitutes), "substituted", custom=made
    )


def _targets_with_gaps(recording: Recording) -> bool:
    return not all(bool(np.isfinite(t).all()) for b in recording.batches for t in b.targets if t.dtype.kind == "f")


def _is_known(loss: Any, known: Mapping[str, Any]) -> bool:
    return getattr(loss, "name", None) in known or type(loss).__name__ in known


def _loss_weights(config: Mapping[str, Any] | None, outputs: list[str]) -> tuple[float, ...] | None:
    entry = (config or {}).get("loss_weights")
    if isinstance(entry, Mapping):
        entry = [entry.get(name, 1.0) for name in outputs]
    if not isinstance(entry, (list, tuple)) or not all(isinstance(w, (int, float)) for w in entry):
        return None
    return tuple(float(w) for w in entry)


def output_names(model: Any) -> list[str]:
    """Names of the model's outputs, as `compile` takes them: where it returns a mapping, its keys."""
    return mapping_keys(model, "_outputs_struct") or list(getattr(model, "output_names", None) or ["output"])


def input_names(model: Any) -> list[str]:
    """Names of the model's inputs, where it takes a mapping its keys; empty for subclassed models."""
    named = mapping_keys(model, "_inputs_struct") or list(getattr(model, "input_names", None) or [])
    return named or [str(t.name) for t in getattr(model, "inputs", None) or []]


def mapping_keys(model: Any, attribute: str) -> list[str]:
    """Keys of a flat mapping that a functional model takes or returns, in the order Keras flattens it: sorted."""
    struct = getattr(model, attribute, None)
    flat = isinstance(struct, Mapping) and not any(isinstance(v, (Mapping, list, tuple)) for v in struct.values())
    return sorted(str(k) for k in struct) if flat and struct is not None else []


def head_layer(model: Any, n: int = 0) -> Any | None:
    """The layer that gives output `n`, looked for inside nested models; None for subclassed models."""
    outputs = getattr(model, "outputs", None)
    if not outputs:
        return None
    history = getattr(outputs[n], "_keras_history", None)
    layer = getattr(history, "operation", None) or getattr(history, "layer", None)
    if layer is not None and getattr(layer, "outputs", None) and hasattr(layer, "layers"):
        return head_layer(layer, 0) or layer
    return layer


def head_activation(model: Any, n: int = 0) -> str | None:
    """Name of the activation that output `n` passes through last."""
    layer = head_layer(model, n)
    if layer is None:
        return None
    name = getattr(getattr(layer, "activation", None), "__name__", None)
    return name or {"Softmax": "softmax", "ReLU": "relu"}.get(type(layer).__name__)


def compile_model(dialect: Dialect, model: Any, optimizer: Any, plan: LossPlan) -> None:
    """Compile without XLA and build the slots.

    Raises:
        CannotReplay: Keras refuses.
    """
    single = len(plan.losses) == 1
    arguments: dict[str, Any] = {
        "optimizer": optimizer,
        "loss": plan.losses[0] if single else list(plan.losses),
        "jit_compile": False,
    }
    if plan.weights is not None:
        arguments["loss_weights"] = plan.weights[0] if single else list(plan.weights)
    try:
        model.compile(**arguments)
        if model.trainable_variables:
            dialect.build_optimizer(model.optimizer, model.trainable_variables)
    except Exception as error:
        raise CannotReplay(f"the model cannot be compiled again ({brief(error)})", ReplayStatus.FAILED) from error
